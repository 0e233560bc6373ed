//! Why a session has no connection, told from what rumqttc reports. People read the text; callers
//! branch on the kind.

use std::io;

use rumqttc::v5::mqttbytes::Error as MqttError;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode};
use rumqttc::v5::{ConnectionError, StateError, TlsError};

/// Why a connection ended, or did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DisconnectReason {
    /// The relay does not accept who this claims to be, or what it wants to do.
    #[error(
        "the relay refused this identity ({0}): if it is one of the site, check that this node is enrolled there and that the clocks agree; if not, that it has the users that `haar relay credentials` writes for it"
    )]
    Refused(String),
    /// The relay does not answer at its address.
    #[error("the relay can't be reached: {0}")]
    Unreachable(String),
    /// Something answers, but not with a certificate to trust; or plaintext would leave the machine.
    #[error("no trusted TLS connection to the relay: {0}")]
    Tls(String),
    /// Another process connected with the same identity, as the relay says.
    #[error("another process connected to the relay with this identity: only one may run")]
    TakenOver,
    /// The relay closed a connection that worked, and still listens: most likely [`TakenOver`]. rumqttc
    /// 0.25.1 overlooks a DISCONNECT without properties, which is what the embedded relay and
    /// Mosquitto send.
    ///
    /// [`TakenOver`]: DisconnectReason::TakenOver
    #[error(
        "the relay closed the connection and serves others: another process may have connected with this identity, of which only one may run"
    )]
    Displaced,
    /// The relay closed the connection in order, and did not say why.
    #[error("the relay closed the connection")]
    ClosedInOrder,
    /// The relay closed the connection before it answered CONNECT.
    #[error(
        "the relay closed the connection instead of answering: it must speak MQTT 5 (some brokers, and some listeners, only 3.1.1), TLS exactly where its URL says mqtts, and let this user in"
    )]
    Unanswered,
    /// The relay answered CONNECT, and does not serve this client here or now: it is busy, say.
    #[error("the relay declined the connection: {0}")]
    Declined(String),
    /// The relay accepted the identity, but not these subscriptions: it has other rules.
    #[error("the relay refused to subscribe to {0}")]
    SubscriptionRefused(String),
    /// The relay does not retain messages, and refuses a will that asks for it.
    #[error("the relay does not retain messages: it is connected to without a retained will")]
    WillRefused,
    /// The connection broke, or the relay closed it.
    #[error("the connection to the relay ended: {0}")]
    Closed(String),
}

impl DisconnectReason {
    /// True when another process seems to use the identity.
    pub fn is_takeover(&self) -> bool {
        matches!(self, Self::TakenOver | Self::Displaced)
    }

    /// What it means on a connection on which no CONNACK was read.
    pub(crate) fn without_answer(self) -> Self {
        match self {
            Self::ClosedInOrder | Self::Closed(_) => Self::Unanswered,
            other => other,
        }
    }
}

impl From<ConnectionError> for DisconnectReason {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ConnectionRefused(code) => refused_by_code(code),
            ConnectionError::Tls(error) => failed_in_tls(&error),
            ConnectionError::Io(error) => match tls_words(&error) {
                Some(words) => DisconnectReason::Tls(words),
                None => DisconnectReason::Unreachable(error.to_string()),
            },
            ConnectionError::Timeout(_) => {
                DisconnectReason::Unreachable("no answer in time".into())
            }
            ConnectionError::MqttState(error) => broken_by_state(error),
            other => DisconnectReason::Closed(other.to_string()),
        }
    }
}

fn refused_by_code(code: ConnectReturnCode) -> DisconnectReason {
    let refused = |why: &str| DisconnectReason::Refused(why.to_owned());
    let declined = |why: &str| DisconnectReason::Declined(why.to_owned());
    match code {
        ConnectReturnCode::BadUserNamePassword => refused("bad user name or password"),
        ConnectReturnCode::NotAuthorized => refused("not authorised"),
        ConnectReturnCode::Banned => refused("banned"),
        ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => {
            refused("client id not valid")
        }
        ConnectReturnCode::BadAuthenticationMethod => refused("bad authentication method"),
        ConnectReturnCode::RetainNotSupported => DisconnectReason::WillRefused,
        ConnectReturnCode::UnsupportedProtocolVersion
        | ConnectReturnCode::RefusedProtocolVersion => declined(
            "it does not speak MQTT 5, which Haar needs: use a newer broker, or another of its listeners",
        ),
        ConnectReturnCode::ServerBusy => declined("it is busy"),
        ConnectReturnCode::ServerUnavailable | ConnectReturnCode::ServiceUnavailable => {
            declined("it is not available at the moment")
        }
        ConnectReturnCode::QuotaExceeded => {
            declined("a quota is exceeded, such as the number of its clients")
        }
        ConnectReturnCode::ConnectionRateExceeded => {
            declined("it accepts fewer connections per second")
        }
        ConnectReturnCode::UseAnotherServer => {
            declined("use another server for now: see the `url` in the relay's manifest")
        }
        ConnectReturnCode::ServerMoved => {
            declined("the server has moved: change the `url` in the relay's manifest")
        }
        other => DisconnectReason::Declined(format!("it answered {other:?}")),
    }
}

fn failed_in_tls(error: &TlsError) -> DisconnectReason {
    match error {
        // A refused certificate is an I/O error with a rustls error inside; the rest is network.
        TlsError::Io(error) => match tls_words(error) {
            Some(words) => DisconnectReason::Tls(words),
            None => {
                DisconnectReason::Unreachable(format!("cut off during the TLS handshake: {error}"))
            }
        },
        other => DisconnectReason::Tls(other.to_string()),
    }
}

/// What rustls says in `error`, if it is from there, and what to do.
fn tls_words(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let cure = cure(error);
    let what = match error {
        rustls::Error::InvalidCertificate(error) => error.to_string(),
        error => error.to_string(),
    };
    Some(match cure {
        "" => what,
        cure => format!("{what}: {cure}"),
    })
}

/// What to do about a failure of TLS; empty when nobody knows.
pub(crate) fn cure(error: &rustls::Error) -> &'static str {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
    match error {
        error if is_of_other_name(error) => {
            "give the broker a certificate with this name or address as subject alternative name, or put its own certificate under `ca` in the relay's manifest"
        }
        error if is_of_authority(error) => {
            "put this very certificate under `ca` in the relay's manifest, or give the broker one that is not an authority's"
        }
        error if is_of_old_version(error) => {
            "make the broker's certificate as X.509 version 3: `openssl req -x509` and `openssl x509 -req` do so with `-addext` or `-extfile` and a subject alternative name"
        }
        Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "put the certificate of the broker's authority, or the broker's own, under `ca` in the relay's manifest"
        }
        Error::InvalidCertificate(
            Bad::Expired
            | Bad::ExpiredContext { .. }
            | Bad::NotValidYet
            | Bad::NotValidYetContext { .. },
        ) => "renew the broker's certificate, or set the clock of this machine",
        Error::AlertReceived(Alert::CertificateRequired | Alert::HandshakeFailure) => {
            "the broker wants a certificate of its clients: give it as `client_certificate` in the relay's manifest"
        }
        Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::DecryptError
            | Alert::UnknownCA,
        ) => {
            "the broker does not accept the `client_certificate` of the relay's manifest: it must come from an authority that the broker trusts, and be valid"
        }
        Error::InvalidMessage(_) => {
            "no TLS is spoken there: is it the port for connections without TLS?"
        }
        _ => "",
    }
}

/// True when a certificate carries other names than the one that was looked for.
pub(crate) fn is_of_other_name(error: &rustls::Error) -> bool {
    use rustls::CertificateError as Bad;
    matches!(
        error,
        rustls::Error::InvalidCertificate(
            Bad::NotValidForName | Bad::NotValidForNameContext { .. }
        )
    )
}

/// True when a server shows the certificate of an authority as its own.
pub(crate) fn is_of_authority(error: &rustls::Error) -> bool {
    is_webpki(error, "CaUsedAsEndEntity")
}

fn is_of_old_version(error: &rustls::Error) -> bool {
    is_webpki(error, "UnsupportedCertVersion")
}

/// rustls hands on most errors of webpki, a crate that it does not name in its API, as they are.
fn is_webpki(error: &rustls::Error, variant: &str) -> bool {
    use rustls::CertificateError as Bad;
    let rustls::Error::InvalidCertificate(Bad::Other(error)) = error else {
        return false;
    };
    format!("{:?}", error.0) == variant
}

fn broken_by_state(error: StateError) -> DisconnectReason {
    match error {
        StateError::ServerDisconnect {
            reason_code,
            reason_string,
        } => match reason_code {
            DisconnectReasonCode::SessionTakenOver => DisconnectReason::TakenOver,
            DisconnectReasonCode::NotAuthorized => {
                DisconnectReason::Refused("no longer authorised".into())
            }
            DisconnectReasonCode::ServerShuttingDown => {
                DisconnectReason::Closed("the relay is shutting down".into())
            }
            code => DisconnectReason::Closed(match reason_string {
                Some(text) => format!("{code:?}: {}", text.escape_debug()),
                None => format!("{code:?}"),
            }),
        },
        StateError::AwaitPingResp => DisconnectReason::Closed("the relay stopped answering".into()),
        StateError::ConnectionAborted => DisconnectReason::ClosedInOrder,
        StateError::Deserialization(MqttError::Io(error)) | StateError::Io(error) => {
            match (error.kind(), tls_words(&error)) {
                // TLS without a goodbye, which is how the embedded relay closes too.
                (io::ErrorKind::UnexpectedEof, _) => DisconnectReason::ClosedInOrder,
                // In TLS 1.3 a client hears only now that the relay does not take its certificate.
                (_, Some(words)) => DisconnectReason::Tls(words),
                (_, None) => DisconnectReason::Closed(error.to_string()),
            }
        }
        other => DisconnectReason::Closed(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_identity_is_told_from_a_busy_relay() {
        for code in [
            ConnectReturnCode::BadUserNamePassword,
            ConnectReturnCode::NotAuthorized,
        ] {
            let reason = DisconnectReason::from(ConnectionError::ConnectionRefused(code));
            assert!(matches!(reason, DisconnectReason::Refused(_)), "{reason}");
        }
        for (code, words) in [
            (ConnectReturnCode::ServerBusy, "busy"),
            (ConnectReturnCode::UseAnotherServer, "another server"),
            (ConnectReturnCode::ServerMoved, "has moved"),
            (ConnectReturnCode::UnsupportedProtocolVersion, "MQTT 5"),
        ] {
            let reason = DisconnectReason::from(ConnectionError::ConnectionRefused(code));
            let reason = reason.without_answer();
            assert!(matches!(reason, DisconnectReason::Declined(_)), "{reason}");
            assert!(reason.to_string().contains(words), "{reason}");
        }
    }

    #[test]
    fn a_connection_that_is_closed_before_its_answer_is_unanswered() {
        for reason in [
            DisconnectReason::ClosedInOrder,
            DisconnectReason::Closed("reset".to_owned()),
        ] {
            assert_eq!(reason.without_answer(), DisconnectReason::Unanswered);
        }
    }

    #[test]
    fn a_takeover_is_told_from_a_shutdown() {
        let told = |reason_code| {
            let reason_string = Some("why".to_owned());
            let error = StateError::ServerDisconnect {
                reason_code,
                reason_string,
            };
            DisconnectReason::from(ConnectionError::MqttState(error))
        };
        assert_eq!(
            told(DisconnectReasonCode::SessionTakenOver),
            DisconnectReason::TakenOver
        );
        let shutdown = told(DisconnectReasonCode::ServerShuttingDown);
        assert!(
            matches!(shutdown, DisconnectReason::Closed(_)),
            "{shutdown}"
        );
    }

    #[test]
    fn a_cut_in_the_handshake_does_not_blame_the_certificate() {
        let cut = ConnectionError::Tls(TlsError::Io(io::ErrorKind::UnexpectedEof.into()));
        assert!(matches!(
            DisconnectReason::from(cut),
            DisconnectReason::Unreachable(_)
        ));
        let inner = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let refused = io::Error::new(io::ErrorKind::InvalidData, inner);
        let refused = ConnectionError::Tls(TlsError::Io(refused));
        assert!(matches!(
            DisconnectReason::from(refused),
            DisconnectReason::Tls(_)
        ));
    }
}
