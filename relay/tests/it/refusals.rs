//! Brokers that a session does not get on with, and what it says to do about each; and those that it
//! gets on with though others do not.

use std::net::SocketAddr;
use std::sync::Arc;

use haar_relay::{
    ClientCertificate, Credentials, DisconnectReason, Endpoint, Identity, SessionOptions,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::support::Client;

/// CONNACK of MQTT 5 without properties: success.
const WELCOME: &[u8] = &[0x20, 3, 0, 0, 0];
/// That of MQTT 3.1.1: unacceptable protocol version.
const ONLY_3_1_1: &[u8] = &[0x20, 2, 0, 1];
/// That of MQTT 5: unsupported protocol version.
const NOT_5: &[u8] = &[0x20, 3, 0, 0x84, 0];

/// A certificate and its key in PEM.
struct Pair {
    certificate: String,
    key: String,
}

/// An authority, or what looks like one.
fn authority(name: &str) -> (CertifiedIssuer<'static, KeyPair>, Pair) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let key_pem = key.serialize_pem();
    let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
    let pair = Pair {
        certificate: issuer.pem(),
        key: key_pem,
    };
    (issuer, pair)
}

fn signed(issuer: &CertifiedIssuer<'static, KeyPair>, name: &str) -> Pair {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    Pair {
        certificate: params.signed_by(&key, issuer).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

/// A broker that reads what comes first and answers it, again and again.
struct Answering {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Answering {
    async fn plain(answer: &'static [u8]) -> Self {
        Self::start(None, answer).await
    }

    /// With TLS; asks for a certificate of an authority, if one is given.
    async fn with_tls(shown: &Pair, clients: Option<&str>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                let authority = CertificateDer::from_pem_slice(authority.as_bytes()).unwrap();
                roots.add(authority).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = vec![CertificateDer::from_pem_slice(shown.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
        let config = config.with_single_cert(chain, key).unwrap();
        Self::start(Some(TlsAcceptor::from(Arc::new(config))), WELCOME).await
    }

    async fn start(tls: Option<TlsAcceptor>, answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                match &tls {
                    None => converse(stream, answer).await,
                    Some(tls) => {
                        // Who does not trust it goes away.
                        if let Ok(stream) = tls.accept(stream).await {
                            converse(stream, answer).await;
                        }
                    }
                }
            }
        });
        Self {
            address,
            _tasks: tasks,
        }
    }

    fn endpoint(&self, ca: &str) -> Endpoint {
        Endpoint::parse(&format!("mqtts://{}", self.address), Some(ca)).unwrap()
    }
}

/// Answers the first packet. One that welcomes waits for the end of the connection, others end it.
async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) {
    let mut read = [0; 1024];
    if stream.read(&mut read).await.is_ok_and(|bytes| bytes > 0) {
        let _ = stream.write_all(answer).await;
        if answer == WELCOME {
            while stream.read(&mut read).await.is_ok_and(|bytes| bytes > 0) {}
        }
    }
    let _ = stream.shutdown().await;
}

fn options(endpoint: Endpoint) -> SessionOptions {
    SessionOptions {
        endpoint,
        identity: Identity {
            client_id: "one".to_owned(),
            credentials: Credentials::Anonymous,
        },
        will: None,
        subscriptions: Vec::new(),
        queue_messages: 1,
    }
}

async fn reason(endpoint: Endpoint) -> String {
    Client::start(options(endpoint))
        .disconnected()
        .await
        .to_string()
}

#[tokio::test]
async fn a_broker_that_signed_its_own_certificate_is_trusted_where_it_is_pinned_and_nowhere_else() {
    let (_, own) = authority("broker.local");
    let (_, other) = authority("broker.local");
    let broker = Answering::with_tls(&own, None).await;
    Client::connected(options(broker.endpoint(&own.certificate))).await;
    let both = format!("{}{}", other.certificate, own.certificate);
    Client::connected(options(broker.endpoint(&both))).await;
    let words = reason(broker.endpoint(&other.certificate)).await;
    assert!(
        words.contains("put this very certificate under `ca`"),
        "{words}"
    );
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_name_says_what_to_do() {
    let (issuer, ca) = authority("authority");
    let (_, other) = authority("authority");
    let broker = Answering::with_tls(&signed(&issuer, "127.0.0.1"), None).await;
    Client::connected(options(broker.endpoint(&ca.certificate))).await;
    let words = reason(broker.endpoint(&other.certificate)).await;
    assert!(
        words.contains("under `ca` in the relay's manifest"),
        "{words}"
    );
    let broker = Answering::with_tls(&signed(&issuer, "broker.local"), None).await;
    let words = reason(broker.endpoint(&ca.certificate)).await;
    assert!(
        words.contains("subject alternative name") && words.contains("broker.local"),
        "{words}"
    );
}

#[tokio::test]
async fn a_broker_that_wants_a_client_certificate_gets_one_or_says_so() {
    let (issuer, ca) = authority("authority");
    let (strangers, _) = authority("strangers");
    let broker = Answering::with_tls(&signed(&issuer, "127.0.0.1"), Some(&ca.certificate)).await;
    let endpoint = broker.endpoint(&ca.certificate);
    let words = reason(endpoint.clone()).await;
    assert!(words.contains("give it as `client_certificate`"), "{words}");
    let showing = |pair: Pair| {
        let client = ClientCertificate {
            certificate_pem: pair.certificate,
            key_pem: pair.key,
        };
        endpoint.clone().showing(Some(client))
    };
    let words = reason(showing(signed(&strangers, "nodes")).unwrap()).await;
    assert!(
        words.contains("does not accept the `client_certificate`"),
        "{words}"
    );
    let mixed = Pair {
        key: signed(&issuer, "nodes").key,
        ..signed(&issuer, "nodes")
    };
    let error = showing(mixed).unwrap_err();
    assert!(
        error.0.contains("the client certificate or its key"),
        "{error}"
    );
    Client::connected(options(showing(signed(&issuer, "nodes")).unwrap())).await;
}

#[tokio::test]
async fn a_broker_without_mqtt_5_is_told_from_one_that_is_away() {
    for answer in [ONLY_3_1_1, NOT_5] {
        let broker = Answering::plain(answer).await;
        let endpoint = Endpoint::parse(&format!("mqtt://{}", broker.address), None).unwrap();
        let words = reason(endpoint).await;
        assert!(words.contains("MQTT 5"), "{words}");
    }
}

#[tokio::test]
async fn a_port_without_tls_is_told_from_a_bad_certificate() {
    let (_, own) = authority("broker.local");
    let broker = Answering::plain(ONLY_3_1_1).await;
    let endpoint = broker.endpoint(&own.certificate);
    let reason = Client::start(options(endpoint)).disconnected().await;
    let words = reason.to_string();
    assert!(matches!(reason, DisconnectReason::Tls(_)), "{words}");
    assert!(words.contains("no TLS is spoken there"), "{words}");
}
