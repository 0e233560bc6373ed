//! The listener of the API: TLS only, and bounded in every direction. Handshakes run beside the
//! accept loop, so a silent client locks nobody out; nor do many of them, because a connection that
//! has not proved who it is gives way to a newcomer. Ends by draining its connections.

mod unread;
mod visitor;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use haar_relay::{Door, DoorLimits, Place, Progress, Source};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::EXPECT;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::site::ServerCertificate;
use visitor::Attempts;
pub(crate) use visitor::{TooManyAttempts, Visitor};

/// For the first bytes of the TLS handshake, and for all of it.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may read nothing while it is sent something; the kernel cuts it then. One that
/// reads slowly has all the time it needs.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// For the headers of a request, and between two requests of one connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 32 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// A pause after an error of `accept`, such as no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Such an error is logged this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// A bound listener that does not answer yet.
pub(crate) struct Server {
    socket: TcpListener,
    address: SocketAddr,
    door: Arc<Door>,
    shared: Arc<Shared>,
}

/// What every connection needs.
struct Shared {
    tls: Arc<rustls::ServerConfig>,
    attempts: Arc<Attempts>,
    stall_timeout: Duration,
}

/// What rustls needs to show `certificate`.
///
/// # Errors
/// When its PEM can't be read, or the key is not the certificate's.
pub(crate) fn tls_config(certificate: &ServerCertificate) -> anyhow::Result<rustls::ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(certificate.certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("reading the server certificate")?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes())
        .context("reading the server key")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

impl Server {
    /// Binds the listener.
    ///
    /// # Errors
    /// When the address is not to be had, or the certificate is unusable.
    pub(crate) async fn bind(
        listen: SocketAddr,
        certificate: &ServerCertificate,
        limits: DoorLimits,
    ) -> anyhow::Result<Self> {
        let config = tls_config(certificate)?;
        let socket = TcpListener::bind(listen).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
                "the API can't listen on {listen}: another program does (another controller?); stop it, or choose another port with --listen"
            ),
            _ => anyhow::Error::new(error).context(format!("the API can't listen on {listen}: choose another address with --listen")),
        })?;
        let address = socket.local_addr()?;
        Ok(Self {
            socket,
            address,
            door: Door::new(limits),
            shared: Arc::new(Shared {
                tls: Arc::new(config),
                attempts: Arc::default(),
                stall_timeout: STALL_TIMEOUT,
            }),
        })
    }

    /// Where it listens, with the real port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers with `router` until `stop` is cancelled, then drains its connections.
    pub(crate) async fn run(self, router: Router, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        let mut complained = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer)) => match self.door.enter(peer) {
                        Ok(place) => {
                            let shared = Arc::clone(&self.shared);
                            connections.spawn(serve(stream, peer, place, shared, router.clone(), stop.clone()));
                        }
                        Err(full) => tracing::debug!(%peer, "a connection to the API was closed: {full}"),
                    },
                    Err(error) => self.recover(&error, &mut complained).await,
                }
            }
        }
        drop(self.socket);
        let drained = tokio::time::timeout(DRAIN_TIMEOUT, async {
            while connections.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "cutting connections that did not end in time"
            );
            connections.shutdown().await;
        }
    }

    /// The socket failed, as it does when no file descriptors are left: a stranger gives its own
    /// back, and the others get a moment to do the same.
    async fn recover(&self, error: &std::io::Error, complained: &mut Option<Instant>) {
        let now = Instant::now();
        if complained.is_none_or(|before| before + COMPLAINT_INTERVAL <= now) {
            *complained = Some(now);
            tracing::warn!(%error, "the API can't accept a connection");
        }
        self.door.drop_one_stranger();
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Serves one connection until it ends, loses its place to a newcomer, or the controller stops.
async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    shared: Arc<Shared>,
    router: Router,
    stop: CancellationToken,
) {
    let place = Arc::new(place);
    let visitor = Visitor::new(&place, Source::from(peer.ip()), &shared.attempts);
    tokio::select! {
        () = place.lost() => tracing::debug!(%peer, "closed for a newcomer"),
        () = converse(stream, &place, visitor, &shared, router, stop) => {}
    }
}

async fn converse(
    stream: TcpStream,
    place: &Place,
    visitor: Visitor,
    shared: &Shared,
    router: Router,
    stop: CancellationToken,
) {
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, greet(stream, place, shared));
    let stream = tokio::select! {
        () = stop.cancelled() => return,
        result = handshake => match result {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!("a TLS handshake took too long"),
        },
    };
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(visitor.clone());
        // Who waits for `100 Continue` has not begun to write.
        let waits = request.headers().contains_key(EXPECT);
        let (parts, body) = request.into_parts();
        let (body, rest) = unread::lend(body);
        let answer = router.call(Request::from_parts(parts, body));
        async move {
            let answer = answer.await;
            if !waits {
                rest.read().await;
            }
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection to the API ended early");
    }
}

/// The TLS handshake.
async fn greet(
    stream: TcpStream,
    place: &Place,
    shared: &Shared,
) -> std::io::Result<TlsStream<TcpStream>> {
    let _ = stream.set_nodelay(true); // slower without it, nothing else
    #[cfg(target_os = "linux")]
    SockRef::from(&stream).set_tcp_user_timeout(Some(shared.stall_timeout))?;
    let greeting = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
    let greeting = tokio::time::timeout(GREETING_TIMEOUT, greeting)
        .await
        .map_err(|_| std::io::Error::new(std::io::ErrorKind::TimedOut, "it sent no greeting"))??;
    place.advance(Progress::Greeting);
    let stream = greeting.into_stream(Arc::clone(&shared.tls)).await?;
    place.advance(Progress::Encrypted);
    Ok(stream)
}

#[cfg(test)]
mod tests;
