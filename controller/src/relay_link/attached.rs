//! Which nodes the plan attaches to a relay: only their reports count when they come from it. The
//! administrator of a broker can say what they like of the nodes that use it, and nothing of others.
//!
//! The embedded relay is there for every node: each knows it since it enrolled and falls back to it,
//! and it admits a node by the node's key.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use haar_protocol::ids::{Name, NodeId};
use haar_protocol::relay::EMBEDDED;
use haar_relay::NodeDirectory;
use tokio::time::Instant;

use crate::db::{self, Database};
use crate::failure::Failure;
use crate::site::Site;
use crate::{change, plan};

/// How long nodes may have other labels before it is noticed.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// The nodes of one relay.
pub(super) struct Attached {
    relay: Name,
    nodes: HashSet<NodeId>,
    /// The commits that `nodes` was made from, and when; none before the first time.
    made_from: Option<(u64, Arc<NodeDirectory>, Instant)>,
    /// Reports of other nodes that came from the relay.
    refused: u64,
}

impl Attached {
    pub(super) fn new(relay: &Name) -> Self {
        Self {
            relay: relay.clone(),
            nodes: HashSet::new(),
            made_from: None,
            refused: 0,
        }
    }

    /// Follows the database, before reports of `reporting` are judged. True when there may be other
    /// nodes than before. Nodes that come or change are looked up when one is missed, or now and
    /// then: while a fleet enrols, not after each of them.
    ///
    /// # Errors
    /// When the database fails; the nodes are those of the last time then.
    pub(super) async fn follow(
        &mut self,
        site: &Arc<Site>,
        database: &Database,
        reporting: impl Iterator<Item = &NodeId>,
    ) -> Result<bool, Failure> {
        if self.is_embedded() {
            return Ok(false);
        }
        let relays = *database.feeds.relays.borrow();
        let directory = Arc::clone(&database.feeds.nodes.borrow());
        let now = Instant::now();
        if let Some((of_relays, of_nodes, at)) = &self.made_from {
            let mut reporting = reporting;
            let is_missed = reporting.any(|node| !self.nodes.contains(node));
            let may_wait = !is_missed && *at + LOOK_INTERVAL > now;
            if *of_relays == relays && (may_wait || Arc::ptr_eq(of_nodes, &directory)) {
                return Ok(false);
            }
        }
        let (site, relay) = (Arc::clone(site), self.relay.clone());
        self.nodes = database
            .read(move |sql| {
                let relays = change::load_relays(sql, &site)?;
                let nodes = db::nodes::list(sql)?.into_iter();
                let attached = nodes.filter(|node| {
                    plan::attached_relays(&relays, &node.name, &node.labels)
                        .iter()
                        .any(|one| one.name == relay)
                });
                Ok(attached.map(|node| node.id).collect())
            })
            .await?;
        self.made_from = Some((relays, directory, now));
        Ok(true)
    }

    /// Whether reports of `node` count.
    pub(super) fn has(&self, node: &NodeId) -> bool {
        self.is_embedded() || self.nodes.contains(node)
    }

    /// Counts a report that was refused. True for the first one.
    pub(super) fn refuse(&mut self) -> bool {
        self.refused += 1;
        self.refused == 1
    }

    fn is_embedded(&self) -> bool {
        self.relay.as_str() == EMBEDDED
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.refused > 0 {
            let (relay, refused) = (&self.relay, self.refused);
            tracing::info!(%relay, refused, "reports of nodes that do not attach to the relay were refused");
        }
    }
}
