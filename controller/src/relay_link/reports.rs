//! Brings what nodes report into the database, many reports in one transaction. What to believe is
//! decided in `intake`.

use std::sync::Arc;

use bytes::Bytes;
use haar_protocol::ids::{Name, NodeId};
use haar_protocol::topics::Topic;

use super::presence::Presence;
use super::requests::Requests;
use crate::db::nodes::NodeRow;
use crate::db::{self, Database, Write};
use crate::failure::Failure;
use crate::site::Site;
use crate::{change, intake};

/// A message of a node, as the relay delivered it.
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) retained: bool,
}

/// See the module.
pub(super) struct Reports {
    relay: Name,
    site: Arc<Site>,
    database: Database,
    requests: Requests,
    presence: Presence,
}

impl Reports {
    pub(super) fn new(
        relay: &Name,
        site: &Arc<Site>,
        database: &Database,
        requests: &Requests,
        presence: &Presence,
    ) -> Self {
        Self {
            relay: relay.clone(),
            presence: presence.clone(),
            site: Arc::clone(site),
            database: database.clone(),
            requests: requests.clone(),
        }
    }

    /// Takes what arrived together. On the first connection since the start, the relay may have
    /// kept what is no longer true.
    pub(super) async fn take(&self, mut messages: Vec<Message>, is_first_connection: bool) {
        messages.retain(
            |message| match Topic::parse(&self.site.id, &message.topic) {
                Some(Topic::Response(node)) => {
                    self.requests.answer(&self.site, &node, &message.payload);
                    false
                }
                _ => true,
            },
        );
        if messages.is_empty() {
            return;
        }
        let (site, relay) = (Arc::clone(&self.site), self.relay.clone());
        let presence = self.presence.clone();
        let work = move |write: &Write<'_>| {
            let taking = Taking {
                write,
                site: &site,
                relay: &relay,
                presence: &presence,
                is_first_connection,
            };
            messages.iter().try_for_each(|one| taking.take_apart(one))
        };
        if let Err(failure) = self.database.write(work).await {
            tracing::error!(%failure, "reports of nodes were lost");
        }
    }
}

/// Tells that nodes are offline, which were at a relay that nobody reaches any more.
pub(super) async fn offline(database: &Database, nodes: Vec<NodeId>, relay: &Name) {
    let message = format!("it was at relay `{relay}`, to which the controller has no connection");
    let work = move |write: &Write<'_>| {
        for id in &nodes {
            let row = db::nodes::by_id(&write.sql, id)?;
            if let Some(row) = row.filter(|row| row.online) {
                db::nodes::set_online(&write.sql, id, false, None)?;
                write.event("node_offline", row.name.as_str(), &message)?;
            }
        }
        Ok(())
    };
    if let Err(failure) = database.write(work).await {
        tracing::error!(%failure, "nodes could not be told to be offline");
    }
}

/// One transaction with what arrived of one relay.
struct Taking<'t, 'w> {
    write: &'t Write<'w>,
    site: &'t Site,
    relay: &'t Name,
    presence: &'t Presence,
    is_first_connection: bool,
}

impl Taking<'_, '_> {
    /// Takes one message; one that fails changes nothing and does not take the others with it.
    fn take_apart(&self, message: &Message) -> Result<(), Failure> {
        let sql = &self.write.sql;
        sql.execute_batch("SAVEPOINT report")?;
        if let Err(failure) = self.take_one(message) {
            tracing::error!(%failure, topic = %message.topic, "a report of a node was lost");
            sql.execute_batch("ROLLBACK TO report")?;
        }
        sql.execute_batch("RELEASE report")?;
        Ok(())
    }

    fn take_one(&self, message: &Message) -> Result<(), Failure> {
        let (write, site) = (self.write, self.site);
        let Some(topic) = Topic::parse(&site.id, &message.topic) else {
            return Ok(());
        };
        let (Topic::Status(node) | Topic::Alive(node) | Topic::Log(node)) = &topic else {
            return Ok(());
        };
        if message.payload.is_empty() {
            return Ok(()); // a retained message was cleared
        }
        let Some(row) = db::nodes::by_id(&write.sql, node)? else {
            return Ok(());
        };
        match topic {
            Topic::Status(node) => self.take_status(&node, &row, message),
            Topic::Alive(node) => {
                match intake::open_alive(
                    &message.payload,
                    message.retained,
                    self.is_first_connection,
                ) {
                    Some(online) => self.set_online(&node, &row, online, message.retained),
                    None => Ok(()),
                }
            }
            Topic::Log(node) => match intake::open_logs(&message.payload) {
                Ok(lines) => {
                    self.set_online(&node, &row, true, message.retained)?;
                    db::logs::insert(write, &node, &row.name, lines)
                }
                Err(why) => {
                    tracing::warn!(node = %row.name, %why, "log lines of a node were not taken");
                    Ok(())
                }
            },
            Topic::Assignment(_) | Topic::Request(_) | Topic::Response(_) | Topic::Link { .. } => {
                Ok(())
            }
        }
    }

    /// Whether a node is at this relay; it is offline when it is at none.
    fn set_online(
        &self,
        id: &NodeId,
        row: &NodeRow,
        online: bool,
        retained: bool,
    ) -> Result<(), Failure> {
        let write = self.write;
        let online = self.presence.note(id, self.relay, online);
        db::nodes::set_online(&write.sql, id, online, (!retained).then_some(write.now_ms))?;
        match (row.online, online) {
            (false, true) => {
                write.event("node_online", row.name.as_str(), "connected to the relay")
            }
            (true, false) => write.event(
                "node_offline",
                row.name.as_str(),
                "the relay has no connection to it",
            ),
            _ => Ok(()),
        }
    }

    fn take_status(&self, id: &NodeId, row: &NodeRow, message: &Message) -> Result<(), Failure> {
        let (write, site) = (self.write, self.site);
        let status = match intake::open_status(&message.payload, &site.id, id, &row.key) {
            Ok(status) => status,
            Err(why) => {
                tracing::warn!(node = %row.name, %why, "a status was not taken");
                return Ok(());
            }
        };
        let presence = self.presence;
        let in_use = presence.note_start(&status, &row.name, message.retained, write.now_ms);
        if let Some(event) = in_use {
            write.event(event.kind, &event.subject, &event.message)?;
        }
        let last = db::statuses::get(&write.sql, id)?;
        let number = db::assignments::made(&write.sql, id)?.map_or(0, |made| made.number);
        let Some(accepted) = intake::accept(
            last.as_ref(),
            status,
            &row.name,
            message.retained,
            number,
            write.now_ms,
        ) else {
            return Ok(());
        };
        if !message.retained {
            self.set_online(id, row, true, false)?;
        }
        for event in accepted.events {
            write.event(event.kind, &event.subject, &event.message)?;
        }
        let status = &accepted.row.status;
        let version = change::clipped(&status.agent_version);
        let target = change::clipped(&status.target);
        if (&version, &target, &status.budget) != (&row.agent_version, &row.target, &row.budget) {
            db::nodes::set_agent(&write.sql, id, &status.budget, &version, &target)?;
        }
        let new_key = status.link_key.filter(|key| row.link_key != Some(*key));
        if let Some(key) = &new_key {
            db::nodes::set_link_key(&write.sql, id, key)?;
            if row.link_key.is_some() {
                let what = format!("{id} uses another key for its links: {key}");
                write.event("link_key_changed", row.name.as_str(), &what)?;
            }
        }
        // Ours may be an older copy of the database.
        if status.link_key_generation > row.link_key_generation {
            db::nodes::set_link_key_generation(&write.sql, id, status.link_key_generation)?;
        }
        if status.budget != row.budget || new_key.is_some() {
            change::plan_anew(write, site)?;
        }
        db::statuses::put(&write.sql, id, &accepted.row)?;
        match accepted.reissue_above {
            Some(above) => change::reissue(write, site, id, above),
            None => Ok(()),
        }
    }
}
