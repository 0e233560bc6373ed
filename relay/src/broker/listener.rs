//! Accepts connections and runs mqtt5's handler for each in a task of its own. The TLS handshake and
//! the look at the first packet are part of that task and have deadlines, so a client that says
//! nothing keeps nobody else waiting. Who stays when there are too many is the [`Door`]'s to say.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mqtt5::broker::BrokerConfig;
use mqtt5::broker::client_handler::ClientHandler;
use mqtt5::broker::resource_monitor::ResourceMonitor;
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::storage::DynamicStorage;
use mqtt5::broker::sys_topics::BrokerStats;
use mqtt5::broker::tls_acceptor::TlsStreamWrapper;
use mqtt5::broker::transport::BrokerTransport;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;
use tokio_util::sync::CancellationToken;

use super::SHUTDOWN_TIMEOUT;
use super::first_packet::{self, FirstPacket};
use super::provider::Gatekeeper;
use crate::door::{Full, Place, Progress};

/// For the whole TLS greeting, or the first bytes of a plain connection: an honest client sends them
/// with the end of its TCP handshake.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// From the TCP connection until the proof is checked.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(10);
/// After an error of the listening socket, such as no file descriptors left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// Such an error is logged this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// What mqtt5's handler of a connection needs.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) config: Arc<BrokerConfig>,
    pub(super) router: Arc<MessageRouter>,
    pub(super) storage: Arc<DynamicStorage>,
    pub(super) gatekeeper: Arc<Gatekeeper>,
    pub(super) stats: Arc<BrokerStats>,
    pub(super) monitor: Arc<ResourceMonitor>,
}

/// The listening socket and every connection that came through it.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    /// What the next connection is shown.
    pub(super) tls: watch::Receiver<Option<Arc<ServerConfig>>>,
    pub(super) parts: Parts,
    pub(super) stop: CancellationToken,
}

impl Listener {
    /// Runs until `stop`, then until every connection is closed or its time is over.
    pub(super) async fn run(self) {
        let (goodbye, _) = broadcast::channel(1);
        let mut connections = JoinSet::new();
        let mut complained = None;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some(ended) = connections.join_next() => report(ended),
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer)) => self.take(stream, peer, &goodbye, &mut connections),
                    Err(error) => self.recover(&error, &mut complained).await,
                },
            }
        }
        drop(self.socket);
        // An error means that there is no connection to tell.
        goodbye.send(()).ok();
        let closed = tokio::time::timeout(SHUTDOWN_TIMEOUT, async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        });
        if closed.await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "cut connections that did not close"
            );
            connections.shutdown().await;
        }
    }

    fn take(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        goodbye: &broadcast::Sender<()>,
        connections: &mut JoinSet<()>,
    ) {
        let place = match self.parts.gatekeeper.door.enter(peer) {
            Ok(place) => place,
            Err(full @ (Full::Admitted(_) | Full::Address(_))) => {
                tracing::warn!(%peer, "a connection was closed: {full}");
                return;
            }
            Err(full @ Full::Known(_)) => {
                tracing::debug!(%peer, "a connection was closed: {full}");
                return;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "no TCP_NODELAY");
        }
        let connection = Connection {
            tls: self.tls.borrow().clone(),
            parts: self.parts.clone(),
            goodbye: goodbye.subscribe(),
            stop: self.stop.clone(),
            place,
        };
        connections.spawn(connection.run(stream, peer));
    }

    /// The listening socket failed, as it does when no file descriptors are left: a stranger gives
    /// its own back, and the others get a moment to do the same.
    async fn recover(&self, error: &io::Error, complained: &mut Option<Instant>) {
        let now = Instant::now();
        if complained.is_none_or(|before| before + COMPLAINT_INTERVAL <= now) {
            *complained = Some(now);
            tracing::warn!(%error, "the relay can't accept connections now");
        }
        self.parts.gatekeeper.door.drop_one_stranger();
        self.stop
            .run_until_cancelled(tokio::time::sleep(ACCEPT_RETRY_DELAY))
            .await;
    }
}

struct Connection {
    tls: Option<Arc<ServerConfig>>,
    parts: Parts,
    goodbye: broadcast::Receiver<()>,
    stop: CancellationToken,
    place: Place,
}

impl Connection {
    async fn run(self, stream: TcpStream, peer: SocketAddr) {
        let accepted = Instant::now();
        let greeted = tokio::select! {
            () = self.stop.cancelled() => return,
            () = self.place.lost() => return tracing::debug!(%peer, "closed for a newcomer"),
            greeted = tokio::time::timeout_at(
                accepted + STRANGER_TIMEOUT,
                greet(stream, self.tls.clone(), &self.place),
            ) => greeted,
        };
        let transport = match greeted {
            Ok(Ok(transport)) => transport,
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "closed before a CONNECT"),
            Err(_) => return tracing::debug!(%peer, "closed: no CONNECT in time"),
        };
        let parts = self.parts;
        let handler = ClientHandler::new(
            transport,
            peer,
            parts.config,
            parts.router,
            parts.gatekeeper,
            Some(parts.storage),
            parts.stats,
            parts.monitor,
            self.goodbye,
        );
        tokio::select! {
            ended = handler.run() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "a connection ended");
                }
            }
            () = self.place.lost() => tracing::debug!(%peer, "closed for a newcomer"),
            () = too_late(&self.place, accepted) => tracing::debug!(%peer, "closed: no proof in time"),
            // mqtt5 says goodbye to clients; while it still waits for a CONNECT it does not look.
            () = stopped_as_stranger(&self.stop, &self.place) => {}
        }
    }
}

/// Brings a connection to the point where mqtt5 may read its CONNECT.
async fn greet(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    place: &Place,
) -> io::Result<BrokerTransport> {
    let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "it sent nothing of use");
    let Some(config) = tls else {
        let first = tokio::time::timeout(GREETING_TIMEOUT, stream.readable());
        first.await.map_err(silent)??;
        place.advance(Progress::Greeting);
        check(first_packet::of_plain(&stream).await?)?;
        return Ok(BrokerTransport::tcp(stream));
    };
    let greeting = LazyConfigAcceptor::new(Acceptor::default(), stream);
    let greeting = tokio::time::timeout(GREETING_TIMEOUT, greeting);
    let greeting = greeting.await.map_err(silent)??;
    place.advance(Progress::Greeting);
    let mut stream = greeting.into_stream(config).await?;
    place.advance(Progress::Encrypted);
    check(first_packet::of_encrypted(&mut stream).await?)?;
    Ok(BrokerTransport::tls(TlsStreamWrapper::new(stream)))
}

fn check(first: FirstPacket) -> io::Result<()> {
    let refused = |text| Err(io::Error::new(io::ErrorKind::InvalidData, text));
    match first {
        FirstPacket::Connect => Ok(()),
        FirstPacket::TooLarge(bytes) => refused(format!("a CONNECT of {bytes} bytes")),
        FirstPacket::NotConnect | FirstPacket::Incomplete => {
            refused("its first packet is not a CONNECT".to_owned())
        }
    }
}

/// Ends when a connection has had its time to prove who it is, and did not.
async fn too_late(place: &Place, accepted: Instant) {
    tokio::time::sleep_until(accepted + STRANGER_TIMEOUT).await;
    if place.is_admitted() {
        std::future::pending::<()>().await;
    }
}

async fn stopped_as_stranger(stop: &CancellationToken, place: &Place) {
    stop.cancelled().await;
    if place.is_admitted() {
        std::future::pending::<()>().await;
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        // A panic inside mqtt5, on bytes from a client: it costs that connection, not the relay.
        tracing::error!(%error, "the handler of a connection failed");
    }
}
