//! Accepts connections and runs mqtt5's handler for each in a task of its own. The TLS handshake is
//! part of that task and has a deadline, so a client that says nothing keeps nobody else waiting.

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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::SHUTDOWN_TIMEOUT;
use super::provider::Gatekeeper;
use super::strangers::Place;

/// For the TLS handshake; mqtt5 then waits 10 s for the CONNECT by itself.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After an error of the listening socket, such as no file descriptors left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

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
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) parts: Parts,
    pub(super) stop: CancellationToken,
}

impl Listener {
    /// Runs until `stop`, then until every connection is closed or its time is over.
    pub(super) async fn run(self) {
        let (goodbye, _) = broadcast::channel(1);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some(ended) = connections.join_next() => report(ended),
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer)) => self.take(stream, peer, &goodbye, &mut connections).await,
                    Err(error) => {
                        tracing::warn!(%error, "the relay can't accept connections now");
                        tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                    }
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

    async fn take(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        goodbye: &broadcast::Sender<()>,
        connections: &mut JoinSet<()>,
    ) {
        if !self.parts.monitor.can_accept_connection(peer.ip()).await {
            return;
        }
        let Some(place) = self.parts.gatekeeper.strangers.enter(peer) else {
            tracing::debug!(%peer, "closed: too many connections without a proven identity");
            return;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "no TCP_NODELAY");
        }
        let connection = Connection {
            tls: self.tls.clone(),
            parts: self.parts.clone(),
            goodbye: goodbye.subscribe(),
            stop: self.stop.clone(),
            place,
        };
        connections.spawn(connection.run(stream, peer));
    }
}

struct Connection {
    tls: Option<TlsAcceptor>,
    parts: Parts,
    goodbye: broadcast::Receiver<()>,
    stop: CancellationToken,
    place: Place,
}

impl Connection {
    async fn run(self, stream: TcpStream, peer: SocketAddr) {
        let transport = match self.tls {
            None => BrokerTransport::tcp(stream),
            Some(acceptor) => {
                let handshake = tokio::select! {
                    () = self.stop.cancelled() => return,
                    done = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => done,
                };
                match handshake {
                    Ok(Ok(stream)) => BrokerTransport::tls(TlsStreamWrapper::new(stream)),
                    Ok(Err(error)) => {
                        tracing::debug!(%peer, %error, "no TLS handshake");
                        return;
                    }
                    Err(_) => {
                        tracing::debug!(%peer, "no TLS handshake in time");
                        return;
                    }
                }
            }
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
            // mqtt5 says goodbye to clients; while it still waits for a CONNECT it does not look.
            () = stopped_as_stranger(&self.stop, &self.place) => {}
        }
    }
}

async fn stopped_as_stranger(stop: &CancellationToken, place: &Place) {
    stop.cancelled().await;
    if !place.is_taken() {
        std::future::pending::<()>().await;
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        // A panic inside mqtt5, on bytes from a client: it costs that connection, not the relay.
        tracing::error!(%error, "the handler of a connection failed");
    }
}
