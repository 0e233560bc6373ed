//! The listener of the API: TLS only, and bounded in every direction. Handshakes run beside the
//! accept loop, so a silent client locks nobody out. Ends by draining its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::site::ServerCertificate;

const CONNECTIONS_MAX: usize = 1_024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the headers of a request, and between two requests of one connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 32 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// A pause after an error of `accept`, such as no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener that does not answer yet.
pub(crate) struct Server {
    socket: TcpListener,
    tls: TlsAcceptor,
    address: SocketAddr,
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
            tls: TlsAcceptor::from(Arc::new(config)),
            address,
        })
    }

    /// Where it listens, with the real port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers with `router` until `stop` is cancelled, then drains its connections.
    pub(crate) async fn run(self, router: Router, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = accept(&self.socket, &slots) => match accepted {
                    Ok((stream, slot)) => {
                        connections.spawn(serve(stream, slot, self.tls.clone(), router.clone(), stop.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the API can't accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
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
}

/// Waits for a free slot, then for a client: more of them wait in the system's queue.
async fn accept(
    socket: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, _) = socket.accept().await?;
    Ok((stream, slot))
}

async fn serve(
    stream: TcpStream,
    _slot: OwnedSemaphorePermit,
    tls: TlsAcceptor,
    router: Router,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true); // slower without it, nothing else
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream));
    let stream = tokio::select! {
        () = stop.cancelled() => return,
        result = handshake => match result {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!("a TLS handshake took too long"),
        },
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
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
