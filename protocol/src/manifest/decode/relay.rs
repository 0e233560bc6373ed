//! Relays.

use std::net::SocketAddr;

use crate::relay::RelayRole;

use super::super::ApiVersion;
use super::super::errors::{KeyPath, Problem};
use super::super::relay::{ClientCertificate, Credentials, Relay, RelayKind, everywhere};
use super::super::tree::{Node, Value};
use super::super::values::{Decoded, Decoder};

impl Decoder {
    pub(super) fn relay(&mut self, node: &Node) -> Decoded<Relay> {
        let top = KeyPath::default();
        let known = [
            "api_version",
            "kind",
            "name",
            "nodes",
            "preference",
            "url",
            "ca",
            "credentials",
            "client_certificate",
            "carries",
            "session_expiry",
            "node",
            "address",
            "listen",
        ];
        let fields = self.fields(node, &top, &known)?;
        let api_version = self.required(&fields, "api_version", |this, node, at| {
            this.one_of(node, at, &[("haar/v1", ApiVersion::V1)])
        });
        let name = self.required(&fields, "name", Self::formed);
        let nodes = self.optional(&fields, "nodes", Self::place);
        let preference = self.optional(&fields, "preference", Self::number);
        let url = self.optional(&fields, "url", Self::formed);
        let ca = self.optional(&fields, "ca", Self::text);
        let credentials = self.optional(&fields, "credentials", Self::credentials);
        let client_certificate =
            self.optional(&fields, "client_certificate", Self::client_certificate);
        let carries = self.optional(&fields, "carries", |this, node, at| {
            let choices = [
                ("everything", RelayRole::Everything),
                ("links", RelayRole::Links),
                ("topics", RelayRole::Topics),
            ];
            this.one_of(node, at, &choices)
        });
        let session_expiry = self.optional(&fields, "session_expiry", Self::formed);
        let host = self.optional(&fields, "node", Self::formed);
        let address = self.optional(&fields, "address", Self::formed);
        let listen = self.optional(&fields, "listen", Self::socket_address);
        Some(Relay {
            api_version: api_version?,
            kind: RelayKind::Relay,
            name: name?,
            nodes: nodes?.unwrap_or_else(everywhere),
            preference: preference?,
            url: url?,
            ca: ca?,
            credentials: credentials?,
            client_certificate: client_certificate?,
            carries: carries?,
            session_expiry: session_expiry?,
            node: host?,
            address: address?,
            listen: listen?,
        })
    }

    /// A word, or a name and a password.
    fn credentials(&mut self, node: &Node, at: &KeyPath) -> Decoded<Credentials> {
        if !matches!(node.value, Value::Map(_)) {
            let words = [("generated", false), ("anonymous", true)];
            return Some(match self.one_of(node, at, &words)? {
                true => Credentials::Anonymous,
                false => Credentials::Generated,
            });
        }
        let fields = self.fields(node, at, &["user", "password"])?;
        let user = self.required(&fields, "user", Self::text);
        let password = self.required(&fields, "password", Self::text);
        Some(Credentials::Given {
            user: user?,
            password: password?,
        })
    }

    fn client_certificate(&mut self, node: &Node, at: &KeyPath) -> Decoded<ClientCertificate> {
        let fields = self.fields(node, at, &["certificate", "key"])?;
        let certificate = self.required(&fields, "certificate", Self::text);
        let key = self.required(&fields, "key", Self::text);
        Some(ClientCertificate {
            certificate: certificate?,
            key: key?,
        })
    }

    fn socket_address(&mut self, node: &Node, at: &KeyPath) -> Decoded<SocketAddr> {
        let text = self.text(node, at)?;
        text.parse().ok().or_else(|| {
            let problem = Problem::with_hint(
                at,
                "is not an address to listen on",
                "write an IP address and a port, such as `0.0.0.0:7422`",
            );
            self.problems.push((problem, node.mark));
            None
        })
    }
}
