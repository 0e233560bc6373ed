//! The listener against clients that take its places, read nothing, or are slow.

use std::net::SocketAddr;

use axum::Extension;
use axum::body::Body;
use axum::http::StatusCode;
use axum::routing::{get, put};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::*;

/// The deadline of every wait; a pass never takes it.
const DEADLINE: Duration = Duration::from_secs(60);
const LIMITS: DoorLimits = DoorLimits {
    admitted_max: 8,
    admitted_per_address_max: 4,
    strangers_max: 8,
    strangers_per_address_max: 4,
};
/// More than both kernels buffer.
const LARGE_BYTES: usize = 64 << 20;

struct Fixture {
    address: SocketAddr,
    client: TlsConnector,
    door: Arc<Door>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// `/small` answers, `/large` answers much, `/enter` is for those with a token.
async fn start(stall_timeout: Duration) -> Fixture {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let certificate = ServerCertificate {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    };
    let listen = "127.0.0.1:0".parse().unwrap();
    let mut server = Server::bind(listen, &certificate, LIMITS).await.unwrap();
    Arc::get_mut(&mut server.shared).unwrap().stall_timeout = stall_timeout;
    let (address, door, stop) = (
        server.address,
        Arc::clone(&server.door),
        CancellationToken::new(),
    );
    let router = Router::new()
        .route("/small", get(|| async { "small" }))
        .route(
            "/large",
            get(|| async { Body::from(vec![b'x'; LARGE_BYTES]) }),
        )
        .route("/refuse", put(|| async { (StatusCode::BAD_REQUEST, "no") }))
        .route(
            "/enter",
            get(
                |Extension(visitor): Extension<Visitor>| async move { visitor.admit().to_string() },
            ),
        );
    let mut tasks = JoinSet::new();
    tasks.spawn(server.run(router, stop.clone()));
    Fixture {
        address,
        client: TlsConnector::from(Arc::new(config)),
        door,
        stop,
        tasks,
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

impl Fixture {
    /// A connection from 127.0.0.`host` with a small window.
    async fn tcp(&self, host: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(2_048).unwrap();
        socket
            .bind(SocketAddr::from(([127, 0, 0, host], 0)))
            .unwrap();
        socket.connect(self.address).await.unwrap()
    }

    async fn tls(&self, host: u8) -> ClientStream<TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        let stream = self.client.connect(name, self.tcp(host).await);
        soon("the TLS handshake", stream).await.unwrap()
    }

    /// The body of a small answer, over a connection of its own.
    async fn get(&self, host: u8, path: &str) -> String {
        let mut stream = self.tls(host).await;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("an answer", stream.read_to_string(&mut answer))
            .await
            .unwrap();
        answer.rsplit("\r\n\r\n").next().unwrap().to_owned()
    }

    async fn end(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn ask(stream: &mut ClientStream<TcpStream>, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn silent_connections_from_many_addresses_lock_nobody_out() {
    let server = start(STALL_TIMEOUT).await;
    let mut crowd = Vec::new();
    for number in 0..32 {
        crowd.push(server.tcp(2 + number / 4).await);
    }
    assert_eq!(server.get(1, "/small").await, "small");
    assert!(server.door.counts().1 <= 8);
    server.end().await;
}

#[tokio::test]
async fn clients_without_a_token_that_read_nothing_lock_nobody_out() {
    let server = start(STALL_TIMEOUT).await;
    let mut crowd = Vec::new();
    for number in 0..16 {
        let mut stream = server.tls(2 + number / 4).await;
        // Pipelined, and never read.
        for _ in 0..4 {
            ask(&mut stream, "/large").await;
        }
        crowd.push(stream);
    }
    assert_eq!(server.get(1, "/small").await, "small");
    // The same from the address of the crowd.
    assert_eq!(server.get(2, "/small").await, "small");
    server.end().await;
}

#[tokio::test]
async fn a_connection_that_has_shown_a_token_keeps_its_place() {
    let server = start(STALL_TIMEOUT).await;
    let mut admitted = server.tls(1).await;
    ask(&mut admitted, "/enter").await;
    let mut answer = [0; 16];
    soon("an answer", admitted.read(&mut answer)).await.unwrap();
    let mut crowd = Vec::new();
    for number in 0..32 {
        crowd.push(server.tcp(1 + number / 4).await);
    }
    assert_eq!(server.get(20, "/small").await, "small");
    assert_eq!(server.door.counts().0, 1);
    ask(&mut admitted, "/small").await;
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"small") {
            assert_ne!(admitted.read_buf(&mut answer).await.unwrap(), 0, "cut");
        }
    };
    soon("an answer on the admitted connection", read).await;
    server.end().await;
}

#[tokio::test]
async fn admitted_connections_of_one_address_leave_room_for_others() {
    let server = start(STALL_TIMEOUT).await;
    let mut admitted = Vec::new();
    for _ in 0..4 {
        let mut stream = server.tls(1).await;
        ask(&mut stream, "/enter").await;
        soon("an answer", stream.read(&mut [0; 16])).await.unwrap();
        admitted.push(stream);
    }
    let mut refused = server.tcp(1).await;
    let read = soon("it is closed", refused.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert_eq!(server.get(2, "/enter").await, "true");
    server.end().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_and_one_that_reads_slowly_is_not() {
    let server = start(Duration::from_millis(500)).await;
    let mut slow = server.tls(1).await;
    ask(&mut slow, "/large").await;
    let mut stuck = server.tls(2).await;
    ask(&mut stuck, "/large").await;
    let mut chunk = vec![0; 64 * 1024];
    let mut total = 0;
    // The slow one reads a little each hundredth of a second until the stuck one has been cut, and
    // then the rest.
    while server.door.counts().1 > 1 {
        total += soon("some bytes", slow.read(&mut chunk)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while total < LARGE_BYTES {
        let count = soon("more bytes", slow.read(&mut chunk)).await.unwrap();
        assert!(count > 0, "the slow reader was cut after {total} bytes");
        total += count;
    }
    let mut rest = 0;
    loop {
        match soon("the end", stuck.read(&mut chunk)).await {
            Ok(0) | Err(_) => break,
            Ok(count) => rest += count,
        }
    }
    assert!(rest < LARGE_BYTES, "it got everything");
    server.end().await;
}

#[tokio::test]
async fn who_is_refused_before_all_was_read_reads_why_and_may_go_on() {
    let server = start(STALL_TIMEOUT).await;
    let mut stream = server.tls(1).await;
    let head = "PUT /refuse HTTP/1.1\r\nhost: localhost\r\ncontent-length: 200000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    // In many pieces: the server has long known what it answers when the last one comes.
    for _ in 0..200 {
        stream.write_all(&[b'x'; 1_000]).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    ask(&mut stream, "/small").await;
    let mut answers = Vec::new();
    let read = async {
        while !answers.ends_with(b"small") {
            assert_ne!(stream.read_buf(&mut answers).await.unwrap(), 0, "cut");
        }
    };
    soon("both answers", read).await;
    assert!(String::from_utf8_lossy(&answers).starts_with("HTTP/1.1 400"));
    server.end().await;
}
