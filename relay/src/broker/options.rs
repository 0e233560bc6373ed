//! What a person or the controller decides about an embedded relay, and why one did not start.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use haar_protocol::ids::{Name, NodeId, SiteId};
use haar_protocol::keys::PublicKey;
use tokio::sync::{mpsc, watch};

use super::admission::Refusal;
use crate::pace::Rate;

/// Which nodes the site knows, and their keys. A complete snapshot.
pub type NodeDirectory = HashMap<NodeId, PublicKey>;

/// What an embedded relay needs.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The certificate to show. None is for loopback addresses only.
    pub tls: Option<ServerTls>,
    /// The site that it serves.
    pub site: SiteId,
    /// Its name, when a node runs it: proofs must be for it.
    pub name: Option<Name>,
    /// The site's key, which admits the controller.
    pub site_key: PublicKey,
    /// The nodes that it admits, as they change. A node that leaves is disconnected at once.
    pub nodes: watch::Receiver<Arc<NodeDirectory>>,
    /// How much of everything.
    pub limits: BrokerLimits,
    /// Who hears of clients that said they are nodes and were refused. When it is full, some are
    /// left out: they come back.
    pub refusals: Option<mpsc::Sender<RefusedNode>>,
}

/// A client that said it is a node of the site was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedNode {
    /// The node that it said it is.
    pub node: NodeId,
    /// Where it connected from.
    pub peer: SocketAddr,
    /// Why.
    pub refusal: Refusal,
}

/// A certificate chain and its key.
#[derive(Clone)]
pub struct ServerTls {
    /// The relay's certificate, then those between it and the site's CA, in PEM.
    pub cert_pem: String,
    /// The certificate's private key, in PEM.
    pub key_pem: String,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ServerTls(..)")
    }
}

/// The limits of an embedded relay. There is no lock-out after refused proofs: a proof can't be
/// guessed, and a lock-out by address would hit every node behind the same NAT.
#[derive(Debug, Clone)]
pub struct BrokerLimits {
    /// Connections of admitted clients. 10,000: each costs about 33 KB of memory.
    pub connections_max: usize,
    /// Connections of admitted clients from one address. 10,000: a whole site may sit behind one NAT.
    pub connections_per_address_max: usize,
    /// Connections that have not proved who they are. 1,024: when they are more, the one that got
    /// least far is closed for the newest.
    pub strangers_max: usize,
    /// The same from one address, or IPv6 network of 64 bits. 128: as many nodes behind one NAT may
    /// come back in one instant.
    pub strangers_per_address_max: usize,
    /// Messages on their way to one client, of each quality. 512.
    pub client_messages_max: usize,
    /// Bytes of one node that wait to be read: frames of other nodes to it, reports of it to the
    /// site, and what the site sends it, each. 8 MiB: a node gets at most 1 MiB ahead on each stream.
    pub client_bytes_max: usize,
    /// Bytes of frames that wait to be read by all nodes together. 256 MiB.
    pub links_bytes_max: usize,
    /// Bytes of reports that wait to be read by the site. 64 MiB.
    pub reports_bytes_max: usize,
    /// What one node may report. 2 MiB and 100 messages a second, four seconds ahead.
    pub report_rate: Rate,
    /// What one node may send to others. 256 MiB and 100,000 frames a second, one second ahead: more
    /// than any node sends, and less than a loop that sends nothing useful.
    pub link_rate: Rate,
    /// Messages kept for one client that is away, for the life of its session. 256.
    pub queue_messages_max: usize,
    /// The same in bytes. 2 MiB.
    pub queue_bytes_max: usize,
    /// Retained messages: three of each node. 100,000.
    pub retained_messages_max: usize,
    /// Bytes of what nodes have retained, which mqtt5 keeps twice; what goes beyond is passed on and
    /// not kept. 128 MiB. What the site has retained is not bounded here: it is the assignments.
    pub retained_bytes_max: usize,
    /// How long a client may have its session kept while it is away, in seconds. 60: sessions of
    /// ours start clean, and use two seconds of it to delay their will.
    pub session_life_s: u32,
}

/// File descriptors that a connection may take: its own, and one that is being closed for it.
const DESCRIPTORS_PER_STRANGER: usize = 2;

impl BrokerLimits {
    /// These limits for a relay that may use `descriptors` file descriptors.
    pub fn within(self, descriptors: usize) -> Self {
        let strangers_max = self
            .strangers_max
            .min(descriptors / (4 * DESCRIPTORS_PER_STRANGER))
            .max(1);
        let left = descriptors.saturating_sub(strangers_max * DESCRIPTORS_PER_STRANGER);
        Self {
            connections_max: self.connections_max.min(left).max(1),
            strangers_max,
            strangers_per_address_max: self.strangers_per_address_max.min(strangers_max),
            ..self
        }
    }
}

impl Default for BrokerLimits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            connections_max: 10_000,
            connections_per_address_max: 10_000,
            strangers_max: 1_024,
            strangers_per_address_max: 128,
            client_messages_max: 512,
            client_bytes_max: 8 * MIB,
            links_bytes_max: 256 * MIB,
            reports_bytes_max: 64 * MIB,
            report_rate: Rate {
                bytes_per_second: 2 << 20,
                messages_per_second: 100,
                burst: Duration::from_secs(4),
            },
            link_rate: Rate {
                bytes_per_second: 256 << 20,
                messages_per_second: 100_000,
                burst: Duration::from_secs(1),
            },
            queue_messages_max: 256,
            queue_bytes_max: 2 * MIB,
            retained_messages_max: 100_000,
            retained_bytes_max: 128 * MIB,
            session_life_s: 60,
        }
    }
}

/// Why a relay did not start, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Plaintext would be offered to the network.
    #[error(
        "the relay won't listen on {0} without a certificate: everybody on the network could read and write; use TLS, or a loopback address"
    )]
    Plaintext(SocketAddr),
    /// The address is not to be had.
    #[error("the relay can't listen on {address}: {error}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The certificate or its key is unusable.
    #[error("{0}")]
    Tls(crate::RelayError),
    /// mqtt5 could not read or forget what it keeps.
    #[error("the relay's memory of clients failed: {0}")]
    Storage(String),
    /// Revoking is for nodes that are no longer in the directory: else they just come back.
    #[error("node {0} is still in the directory: remove it there before revoking it")]
    StillListed(NodeId),
}
