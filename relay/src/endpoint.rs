//! Where a relay is, and which certificate authority its certificate must come from. Parsed once
//! from what a person or an enrolment wrote; sessions read it for every connection.

use std::fmt;
use std::net::IpAddr;

use crate::tls;

const TLS_PORT: u16 = 8883;
const PLAINTEXT_PORT: u16 = 1883;

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
}

impl Endpoint {
    /// Reads `mqtts://host[:port]`, or `mqtt://` and a loopback host. The certificate must then
    /// carry the host's name; change `server_name` where it carries another.
    ///
    /// # Errors
    /// When the URL has another shape, `mqtts` comes without a usable `ca_pem`, or `mqtt` would
    /// leave this machine.
    pub fn parse(url: &str, ca_pem: Option<&str>) -> Result<Endpoint, RelayError> {
        let shape = || {
            RelayError(format!(
                "`{url}` is not the address of a relay: write `mqtts://host:port`, or `mqtt://127.0.0.1:port` on this machine"
            ))
        };
        let (encrypted, authority) = match url.split_once("://") {
            Some(("mqtts", rest)) => (true, rest),
            Some(("mqtt", rest)) => (false, rest),
            _ => return Err(shape()),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let default_port = if encrypted { TLS_PORT } else { PLAINTEXT_PORT };
        let (host, port) = split_authority(authority, default_port).ok_or_else(shape)?;
        let tls = match (encrypted, ca_pem) {
            (true, Some(ca_pem)) => Some(TlsTrust {
                ca_pem: ca_pem.to_owned(),
                server_name: host.clone(),
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

    /// Refuses plaintext that would leave this machine, and trust that can't be used.
    pub(crate) fn check(&self) -> Result<(), RelayError> {
        match &self.tls {
            Some(trust) => tls::client_config(trust, &self.host).map(drop),
            None if is_loopback(&self.host) => Ok(()),
            None => Err(RelayError(format!(
                "`{self}` would send in clear over the network: use mqtts, or a loopback address"
            ))),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(formatter, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

fn split_authority(authority: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            match after {
                "" => (host, None),
                after => (host, Some(after.strip_prefix(':')?)),
            }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None => default_port,
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    let valid = !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed);
    valid.then(|| (host.to_owned(), port))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
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

    #[test]
    fn other_shapes_are_refused() {
        let urls = [
            "",
            "relay",
            "mqtt:127.0.0.1",
            "http://127.0.0.1",
            "mqtt://",
            "mqtt://127.0.0.1:0",
            "mqtt://127.0.0.1:99999",
            "mqtt://user@127.0.0.1",
            "mqtt://127.0.0.1/path",
            "mqtt://[::1",
            "mqtt://[::1]x",
            "mqtt://[x]:1",
            "mqtt://127.0.0.1:1:2",
        ];
        for url in urls {
            assert!(Endpoint::parse(url, None).is_err(), "{url}");
        }
    }
}
