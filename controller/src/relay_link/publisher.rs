//! Keeps the retained assignments on the relay up to date. Sends whole snapshots with a number, so
//! sending one twice is harmless: everything again after each connection, since the relay may have
//! restarted empty, and after that what has a new number.

use std::collections::BTreeMap;
use std::sync::Arc;

use haar_protocol::ids::NodeId;
use haar_protocol::topics::Topic;
use haar_relay::{Outgoing, PublishError, Session};
use tokio::sync::watch;

use crate::db::{self, Database};
use crate::failure::Failure;
use crate::site::Site;

/// The task that publishes assignments.
pub(super) struct Publisher {
    site: Arc<Site>,
    database: Database,
    session: Session,
    /// Counts the connections to the relay.
    connections: watch::Receiver<u64>,
    /// Counts the commits that changed assignments.
    commits: watch::Receiver<u64>,
    /// Numbers that went out on this connection.
    published: BTreeMap<NodeId, u64>,
}

impl Publisher {
    pub(super) fn new(
        site: &Arc<Site>,
        database: &Database,
        session: &Session,
        connections: watch::Receiver<u64>,
    ) -> Self {
        Self {
            site: Arc::clone(site),
            database: database.clone(),
            session: session.clone(),
            connections,
            commits: database.feeds.assignments.subscribe(),
            published: BTreeMap::new(),
        }
    }

    /// Publishes for ever.
    pub(super) async fn run(mut self) {
        loop {
            let is_open = tokio::select! {
                connected = self.connections.changed() => {
                    self.published.clear();
                    connected.is_ok()
                }
                committed = self.commits.changed() => committed.is_ok(),
            };
            if !is_open {
                return;
            }
            if *self.connections.borrow() > 0
                && let Err(failure) = self.publish().await
            {
                tracing::error!(%failure, "assignments could not be read to publish them");
            }
        }
    }

    async fn publish(&mut self) -> Result<(), Failure> {
        let numbers = self
            .database
            .read(|sql| db::assignments::numbers(sql))
            .await?;
        for (node, number) in numbers {
            if self.published.get(&node) == Some(&number) {
                continue;
            }
            let wanted = node.clone();
            let Some(sealed) = self
                .database
                .read(move |sql| db::assignments::sealed(sql, &wanted))
                .await?
            else {
                continue;
            };
            let message = Outgoing {
                topic: Topic::Assignment(sealed.node).text(&self.site.id),
                payload: sealed.envelope.unwrap_or_default().into(), // nothing: clears what the relay keeps
                at_least_once: true,
                retain: true,
            };
            match self.session.publish(message).await {
                Ok(()) => drop(self.published.insert(node, sealed.number)),
                Err(PublishError::Stopped) => return Ok(()),
                Err(error) => tracing::error!(%node, %error, "an assignment can't be published"),
            }
        }
        Ok(())
    }
}
