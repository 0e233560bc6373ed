//! Where a relay is, and which certificate authority its certificate must come from. Parsed once
//! from what a person or an enrolment wrote; sessions read it for every connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use haar_protocol::ids::InvalidId;
use haar_protocol::relay::{HostPort, RelayUrl};

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::tls;

/// How long a relay may take to accept a TCP connection.
const LISTENS_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an address or a certificate of a relay can't be used. The text is meant for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RelayError(pub String);

/// A relay's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A DNS name or an IP address, an IPv6 one without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// Whom to trust. None means plaintext, which sessions refuse for all but loopback addresses.
    pub tls: Option<TlsTrust>,
}

/// The one certificate authority that a relay's certificate must come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsTrust {
    /// Its certificate, in PEM. No other authority is trusted, not even the system's.
    pub ca_pem: String,
    /// The DNS name or IP address that the relay's certificate must carry.
    pub server_name: String,
    /// What is shown to a relay that wants a certificate of its clients.
    pub client: Option<ClientCertificate>,
}

/// A certificate of a client, and its key. Both in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, and those between it and its authority.
    pub certificate_pem: String,
    /// Its private key.
    pub key_pem: String,
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClientCertificate(..)")
    }
}

impl Endpoint {
    /// Reads `mqtts://host[:port]`, or `mqtt://` and a loopback host. The certificate must then
    /// carry the host's name; change `server_name` where it carries another.
    ///
    /// # Errors
    /// When the URL has another shape, `mqtts` comes without a usable `ca_pem`, or `mqtt` would
    /// leave this machine.
    pub fn parse(url: &str, ca_pem: Option<&str>) -> Result<Endpoint, RelayError> {
        let url: RelayUrl = url
            .parse()
            .map_err(|error: InvalidId| RelayError(error.0))?;
        Self::new(&url, ca_pem)
    }

    /// The same of a URL that was read already.
    ///
    /// # Errors
    /// When `mqtts` comes without a usable `ca_pem`, or `mqtt` would leave this machine.
    pub fn new(url: &RelayUrl, ca_pem: Option<&str>) -> Result<Endpoint, RelayError> {
        let HostPort { host, port } = url.address.clone();
        let tls = match (url.encrypted, ca_pem) {
            (true, Some(ca_pem)) => Some(TlsTrust {
                ca_pem: ca_pem.to_owned(),
                server_name: host.clone(),
                client: None,
            }),
            (true, None) => {
                return Err(RelayError(format!(
                    "`{url}` needs the site's CA certificate, and none was given"
                )));
            }
            (false, _) => None,
        };
        let endpoint = Endpoint { host, port, tls };
        endpoint.check()?;
        Ok(endpoint)
    }

    /// The same with a certificate to show, if there is one.
    ///
    /// # Errors
    /// When certificate and key can't be read, or don't belong together.
    pub fn showing(mut self, client: Option<ClientCertificate>) -> Result<Endpoint, RelayError> {
        if let Some(trust) = &mut self.tls {
            trust.client = client;
        }
        self.check()?;
        Ok(self)
    }

    /// True when something takes TCP connections there.
    pub(crate) async fn listens(&self) -> bool {
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        matches!(timeout(LISTENS_TIMEOUT, connecting).await, Ok(Ok(_)))
    }

    /// The address that this machine uses on the way there, as far as it knows: behind address
    /// translation the relay sees another one. Nothing is sent.
    pub async fn local_address(&self) -> Option<IpAddr> {
        let any: IpAddr = match tokio::net::lookup_host((self.host.as_str(), self.port)).await {
            Ok(mut found) => match found.next()? {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            },
            Err(_) => return None,
        };
        let socket = UdpSocket::bind((any, 0)).await.ok()?;
        socket.connect((self.host.as_str(), self.port)).await.ok()?;
        Some(socket.local_addr().ok()?.ip())
    }

    fn address(&self) -> HostPort {
        HostPort {
            host: self.host.clone(),
            port: self.port,
        }
    }

    /// Refuses plaintext that would leave this machine, and trust that can't be used.
    pub(crate) fn check(&self) -> Result<(), RelayError> {
        match &self.tls {
            Some(trust) => tls::client_config(trust, &self.host).map(drop),
            None if self.address().is_loopback() => Ok(()),
            None => Err(RelayError(format!(
                "`{self}` would send in clear over the network: use mqtts, or a loopback address"
            ))),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = RelayUrl {
            encrypted: self.tls.is_some(),
            address: self.address(),
        };
        fmt::Display::fmt(&url, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_is_for_this_machine_only() {
        for url in [
            "mqtt://127.0.0.1:1883",
            "mqtt://[::1]:1883",
            "mqtt://localhost",
        ] {
            assert_eq!(Endpoint::parse(url, None).unwrap().port, 1883, "{url}");
        }
        for url in [
            "mqtt://10.0.0.1:1883",
            "mqtt://relay.example",
            "mqtt://[fe80::1]",
        ] {
            let error = Endpoint::parse(url, None).unwrap_err();
            assert!(error.0.contains("in clear"), "{url}: {error}");
        }
    }

    #[test]
    fn tls_needs_a_certificate_authority() {
        let missing = Endpoint::parse("mqtts://relay.example", None).unwrap_err();
        assert!(missing.0.contains("CA certificate"), "{missing}");
        let unusable = Endpoint::parse("mqtts://relay.example", Some("no PEM")).unwrap_err();
        assert!(unusable.0.contains("certificate"), "{unusable}");
    }
}
