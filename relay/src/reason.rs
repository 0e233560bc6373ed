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
        "the relay refused this identity ({0}): check that it is enrolled in this site, and that the clocks agree"
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
}

impl From<ConnectionError> for DisconnectReason {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ConnectionRefused(code) => refused_by_code(code),
            ConnectionError::Tls(error) => failed_in_tls(&error),
            ConnectionError::Io(error) => DisconnectReason::Unreachable(error.to_string()),
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
    match code {
        ConnectReturnCode::BadUserNamePassword => refused("bad user name or password"),
        ConnectReturnCode::NotAuthorized => refused("not authorised"),
        ConnectReturnCode::Banned => refused("banned"),
        ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => {
            refused("client id not valid")
        }
        ConnectReturnCode::BadAuthenticationMethod => refused("bad authentication method"),
        ConnectReturnCode::RetainNotSupported => DisconnectReason::WillRefused,
        other => DisconnectReason::Closed(format!("it answered {other:?}")),
    }
}

fn failed_in_tls(error: &TlsError) -> DisconnectReason {
    match error {
        // A refused certificate is an I/O error with a rustls error inside; the rest is network.
        TlsError::Io(error)
            if !error
                .get_ref()
                .is_some_and(|inner| inner.is::<rustls::Error>()) =>
        {
            DisconnectReason::Unreachable(format!("cut off during the TLS handshake: {error}"))
        }
        TlsError::Io(error) => DisconnectReason::Tls(error.to_string()),
        other => DisconnectReason::Tls(other.to_string()),
    }
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
        StateError::Deserialization(MqttError::Io(error)) => match error.kind() {
            // TLS without a goodbye, which is how the embedded relay closes too.
            io::ErrorKind::UnexpectedEof => DisconnectReason::ClosedInOrder,
            _ => DisconnectReason::Closed(error.to_string()),
        },
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
        let busy = ConnectionError::ConnectionRefused(ConnectReturnCode::ServerBusy);
        assert!(matches!(
            DisconnectReason::from(busy),
            DisconnectReason::Closed(_)
        ));
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
