//! What a person or the controller decides about an embedded relay, and why one did not start.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use haar_protocol::ids::{Name, NodeId, SiteId};
use haar_protocol::keys::PublicKey;
use tokio::sync::watch;

/// Which nodes the site knows, and their keys. A complete snapshot.
pub type NodeDirectory = HashMap<NodeId, PublicKey>;

/// What an embedded relay needs.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The certificate to show. None is for loopback addresses only.
    pub tls: Option<ServerTls>,
    /// A folder of its own, for retained messages. Made if missing; only its owner may read it.
    pub data_dir: PathBuf,
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
    /// Connections that have not proved who they are. 512: more than that are closed at once.
    pub strangers_max: usize,
    /// The same from one address. 128: so many nodes behind one NAT may come back in one instant.
    pub strangers_per_address_max: usize,
    /// Messages on their way to one client, of each quality; the newest are dropped. 512.
    pub client_messages_max: usize,
    /// Messages kept for one client that is away, for the life of its session. 256.
    pub queue_messages_max: usize,
    /// The same in bytes. 4 MiB.
    pub queue_bytes_max: usize,
    /// Retained messages: three of each node. 100,000.
    pub retained_messages_max: usize,
    /// How long a client may have its session kept while it is away, in seconds. 60: sessions of
    /// ours start clean, and use two seconds of it to delay their will.
    pub session_life_s: u32,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_address_max: 10_000,
            strangers_max: 512,
            strangers_per_address_max: 128,
            client_messages_max: 512,
            queue_messages_max: 256,
            queue_bytes_max: 4 * 1024 * 1024,
            retained_messages_max: 100_000,
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
    /// The data folder is unusable, or in use by another relay.
    #[error("the relay can't use its folder {path}: {error}")]
    Storage {
        /// The folder.
        path: PathBuf,
        /// What failed.
        error: String,
    },
    /// Revoking is for nodes that are no longer in the directory: else they just come back.
    #[error("node {0} is still in the directory: remove it there before revoking it")]
    StillListed(NodeId),
}
