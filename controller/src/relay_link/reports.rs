//! Brings what nodes report into the database, many reports in one transaction. Here what is let in;
//! `taking` says what becomes of it, and `intake` decides what to believe.
//!
//! ```text
//! relay ─► of a node of this relay? ─► within the node's rates? ─┬─► Taking, one transaction
//!                                                                └─► answers: to those who wait
//! ```

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use haar_protocol::ids::{Name, NodeId};
use haar_protocol::topics::Topic;
use haar_relay::NodeDirectory;
use tokio::time::Instant;

use super::adoption::Newsworthy;
use super::attached::Attached;
use super::meters::{Door, Meters};
use super::presence::Presence;
use super::requests::Requests;
use super::taking::{Report, ReportOf, Taking};
use crate::db::{self, Database, Write};
use crate::intake::ALIVE_BYTES_MAX;
use crate::site::Site;

/// A message of a node, as the relay delivered it.
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) retained: bool,
}

/// What the intakes of all relays share. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Shared {
    pub(super) requests: Requests,
    pub(super) presence: Presence,
    pub(super) meters: Meters,
    pub(super) newsworthy: Newsworthy,
}

/// The intake of one relay.
pub(super) struct Reports {
    relay: Name,
    site: Arc<Site>,
    database: Database,
    shared: Shared,
    attached: Attached,
}

impl Reports {
    pub(super) fn new(
        relay: &Name,
        site: &Arc<Site>,
        database: &Database,
        shared: &Shared,
    ) -> Self {
        Self {
            relay: relay.clone(),
            site: Arc::clone(site),
            database: database.clone(),
            shared: shared.clone(),
            attached: Attached::new(relay),
        }
    }

    /// Takes what arrived together. On the first connection since the start, the relay may have
    /// kept what is no longer true.
    pub(super) async fn take(&mut self, messages: Vec<Message>, is_first_connection: bool) {
        let directory = Arc::clone(&self.database.feeds.nodes.borrow());
        let is_there = |node: &NodeId| directory.contains_key(node);
        self.shared.meters.tidy(directory.len(), is_there);
        let messages: Vec<Incoming> = messages
            .into_iter()
            .filter_map(|message| self.incoming(message, &directory))
            .collect();
        self.follow_plan(&messages).await;
        let mut arrived = Arrived::default();
        let now = Instant::now();
        for message in messages {
            self.let_in(message, now, &mut arrived);
        }
        if arrived.is_empty() {
            return;
        }
        let (site, relay, shared) = (
            Arc::clone(&self.site),
            self.relay.clone(),
            self.shared.clone(),
        );
        let work = move |write: &Write<'_>| {
            let taking = Taking {
                write,
                site: &site,
                relay: &relay,
                shared: &shared,
                is_first_connection,
                now,
            };
            arrived
                .strangers
                .iter()
                .try_for_each(|node| taking.stranger(node))?;
            arrived
                .floods
                .iter()
                .try_for_each(|node| taking.flood(node))?;
            arrived
                .reports
                .iter()
                .try_for_each(|report| taking.take(report))
        };
        if let Err(failure) = self.database.write(work).await {
            tracing::error!(%failure, "reports of nodes were lost");
        }
    }

    /// Who no longer attaches to the relay is not there any more.
    async fn follow_plan(&mut self, messages: &[Incoming]) {
        let reporting = messages.iter().map(|message| &message.node);
        let (site, database) = (&self.site, &self.database);
        match self.attached.follow(site, database, reporting).await {
            Ok(true) => {
                let attached = &self.attached;
                let presence = &self.shared.presence;
                let gone = presence.forget(&self.relay, |node| !attached.has(node));
                let message = format!("it does not attach to relay `{}` any more", self.relay);
                offline(&self.database, gone, message).await;
            }
            Ok(false) => {}
            Err(failure) => {
                tracing::error!(%failure, relay = %self.relay, "the nodes of a relay could not be read");
            }
        }
    }

    /// Reads the topic of a message. None when it is no report of a node of the site.
    fn incoming(&self, message: Message, directory: &NodeDirectory) -> Option<Incoming> {
        let (node, of) = match Topic::parse(&self.site.id, &message.topic)? {
            Topic::Status(node) => (node, Some(ReportOf::Status)),
            Topic::Alive(node) => (node, Some(ReportOf::Presence)),
            Topic::Log(node) => (node, Some(ReportOf::Logs)),
            Topic::Response(node) => (node, None),
            Topic::Assignment(_) | Topic::Request(_) | Topic::Link { .. } => return None,
        };
        // An empty one says that a retained message was cleared.
        let is_report = !message.payload.is_empty() && directory.contains_key(&node);
        is_report.then_some(Incoming { node, of, message })
    }

    fn let_in(&mut self, incoming: Incoming, now: Instant, arrived: &mut Arrived) {
        let Incoming { node, of, message } = incoming;
        if !self.attached.has(&node) {
            // What a broker has kept since the node was there is no offence.
            if !message.retained && self.attached.refuse() {
                arrived.strangers.push(node);
            }
            return;
        }
        if of == Some(ReportOf::Presence) {
            // The last word counts, so that none is dropped: they are small, and their events are few.
            if message.payload.len() > ALIVE_BYTES_MAX {
                return;
            }
        } else {
            match self.shared.meters.admit(&node, message.payload.len(), now) {
                Door::Open => {}
                Door::Closes => return arrived.floods.push(node),
                Door::Closed => return,
            }
        }
        match of {
            Some(of) => arrived.reports.push(Report {
                of,
                node,
                payload: message.payload,
                retained: message.retained,
            }),
            None => {
                let requests = &self.shared.requests;
                requests.answer(&self.site, &node, &message.payload);
            }
        }
    }
}

/// A message of a node of the site.
struct Incoming {
    node: NodeId,
    /// None for an answer to a request.
    of: Option<ReportOf>,
    message: Message,
}

/// What goes into one transaction.
#[derive(Default)]
struct Arrived {
    reports: Vec<Report>,
    /// Nodes whose reports exceed their rates since now.
    floods: Vec<NodeId>,
    /// The first node of which the relay reports without being one of its relays.
    strangers: Vec<NodeId>,
}

impl Arrived {
    fn is_empty(&self) -> bool {
        self.reports.is_empty() && self.floods.is_empty() && self.strangers.is_empty()
    }
}

/// Records that nodes are offline, for the reason in `message`.
pub(super) async fn offline(database: &Database, nodes: Vec<NodeId>, message: String) {
    if nodes.is_empty() {
        return;
    }
    let work = move |write: &Write<'_>| {
        for id in &nodes {
            let row = db::nodes::by_id(&write.sql, id)?;
            if let Some(row) = row.filter(|row| row.online) {
                db::nodes::set_online(&write.sql, id, false, None)?;
                write.node_event("node_offline", row.name.as_str(), &message)?;
            }
        }
        Ok(())
    };
    if let Err(failure) = database.write(work).await {
        tracing::error!(%failure, "nodes could not be recorded as offline");
    }
}
