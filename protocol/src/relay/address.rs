//! Addresses: of relays, and of whatever else listens.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::InvalidId;

const TLS_PORT: u16 = 8883;
const PLAINTEXT_PORT: u16 = 1883;

/// A host and a port, such as `192.0.2.7:7422`, `gateway.example:7422` or `[2001:db8::7]:7422`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(with = "String")
)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    /// A DNS name or an IP address, an IPv6 one without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl HostPort {
    fn read(text: &str, default_port: Option<u16>) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                match after {
                    "" => (host, None),
                    after => (host, Some(after.strip_prefix(':')?)),
                }
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
            None => default_port?,
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
        let valid = !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed);
        valid.then(|| Self {
            host: host.to_owned(),
            port,
        })
    }

    /// True when the host stands for no machine: for every interface of one that listens (`0.0.0.0`, `::`),
    /// or for many machines at once.
    pub fn is_nowhere(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => {
                address.is_unspecified() || address.is_multicast() || address.is_broadcast()
            }
            Ok(IpAddr::V6(address)) => address.is_unspecified() || address.is_multicast(),
            Err(_) => self.host.bytes().all(|byte| b"0.".contains(&byte)), // as resolvers read `0`
        }
    }

    /// True when the host is this machine whatever the network says.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::read(text, None).ok_or_else(|| {
            InvalidId(format!(
                "`{text}` is not an address: write `HOST:PORT`, such as `192.168.1.10:7422`"
            ))
        })
    }
}

impl TryFrom<String> for HostPort {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(address: HostPort) -> String {
        address.to_string()
    }
}

/// The address of a relay: `mqtts://host[:port]`, or `mqtt://` without encryption.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(with = "String")
)]
#[serde(try_from = "String", into = "String")]
pub struct RelayUrl {
    /// Whether TLS is spoken.
    pub encrypted: bool,
    /// Where it listens.
    pub address: HostPort,
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.encrypted { "mqtts" } else { "mqtt" };
        write!(formatter, "{scheme}://{}", self.address)
    }
}

impl FromStr for RelayUrl {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let parsed = || {
            let (encrypted, authority) = match text.split_once("://")? {
                ("mqtts", rest) => (true, rest),
                ("mqtt", rest) => (false, rest),
                _ => return None,
            };
            let authority = authority.strip_suffix('/').unwrap_or(authority);
            let default_port = if encrypted { TLS_PORT } else { PLAINTEXT_PORT };
            let address = HostPort::read(authority, Some(default_port))?;
            Some(Self { encrypted, address })
        };
        parsed().ok_or_else(|| {
            InvalidId(format!(
                "`{text}` is not the address of a relay: write `mqtts://host:port`, or `mqtt://127.0.0.1:port` on this machine"
            ))
        })
    }
}

impl TryFrom<String> for RelayUrl {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<RelayUrl> for String {
    fn from(url: RelayUrl) -> String {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_a_host_and_a_port() {
        let url: RelayUrl = "mqtts://broker.example".parse().unwrap();
        assert_eq!(url.to_string(), "mqtts://broker.example:8883");
        let url: RelayUrl = "mqtt://[::1]:1".parse().unwrap();
        assert_eq!((url.encrypted, url.address.port), (false, 1));
        assert!(url.address.is_loopback());
        let wrong = [
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
        for url in wrong {
            assert!(url.parse::<RelayUrl>().is_err(), "{url}");
        }
        assert!("192.168.1.10".parse::<HostPort>().is_err());
        let shown = "[2001:db8::7]:7422";
        assert_eq!(shown.parse::<HostPort>().unwrap().to_string(), shown);
    }
}
