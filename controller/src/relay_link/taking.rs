//! What becomes of the reports of nodes that were let in: statuses, presence, log lines. One
//! transaction for what arrived together; a report that fails does not take the others with it.

use bytes::Bytes;
use haar_protocol::ids::{Name, NodeId};
use tokio::time::Instant;

use super::meters::Flaw;
use super::reports::Shared;
use crate::db::nodes::NodeRow;
use crate::db::observations::{IDENTITY_IN_USE, RELAY_REFUSED, STATUS_REFUSED};
use crate::db::{self, Write};
use crate::failure::Failure;
use crate::intake::gaps;
use crate::site::Site;
use crate::{change, intake};

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReportOf {
    Status,
    Presence,
    Logs,
}

/// A report of a node.
pub(super) struct Report {
    pub(super) of: ReportOf,
    pub(super) node: NodeId,
    pub(super) payload: Bytes,
    pub(super) retained: bool,
}

/// One transaction with what arrived of one relay.
pub(super) struct Taking<'t, 'w> {
    pub(super) write: &'t Write<'w>,
    pub(super) site: &'t Site,
    pub(super) relay: &'t Name,
    pub(super) shared: &'t Shared,
    pub(super) is_first_connection: bool,
    pub(super) now: Instant,
}

impl Taking<'_, '_> {
    /// Takes one report.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) fn take(&self, report: &Report) -> Result<(), Failure> {
        if let Err(failure) = self.write.apart(|| self.take_one(report))? {
            let (node, of) = (&report.node, report.of);
            tracing::error!(%failure, %node, ?of, "a report of a node was lost");
        }
        Ok(())
    }

    /// The relay delivers reports of a node that does not attach to it.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) fn stranger(&self, node: &NodeId) -> Result<(), Failure> {
        let Some(row) = db::nodes::by_id(&self.write.sql, node)? else {
            return Ok(());
        };
        let (relay, node) = (self.relay, &row.name);
        tracing::warn!(%relay, %node, "the relay delivers reports of a node that does not attach to it: they are not taken");
        let message = format!(
            "it delivers reports of node `{node}`, which does not attach to it: such reports are not taken"
        );
        self.write
            .node_event("foreign_reports_refused", relay.as_str(), &message)
    }

    /// A node exceeds its rates.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) fn flood(&self, node: &NodeId) -> Result<(), Failure> {
        let Some(row) = db::nodes::by_id(&self.write.sql, node)? else {
            return Ok(());
        };
        let node = &row.name;
        tracing::warn!(%node, "a node reports more than any node may: the rest is dropped until it is slower");
        let message = format!("node `{node}` reports more than any node may: the rest is dropped");
        self.event(&row, "reports_dropped", node.as_str(), &message)
    }

    fn take_one(&self, report: &Report) -> Result<(), Failure> {
        let Some(row) = db::nodes::by_id(&self.write.sql, &report.node)? else {
            return Ok(());
        };
        match report.of {
            ReportOf::Status => self.take_status(&row, report),
            ReportOf::Presence => {
                let (payload, retained) = (&report.payload, report.retained);
                match intake::open_alive(payload, retained, self.is_first_connection) {
                    Some(online) => self.set_online(&row, online, retained),
                    None => Ok(()),
                }
            }
            ReportOf::Logs => self.take_logs(&row, report),
        }
    }

    /// Records an event of a node, unless there were too many of it lately.
    fn event(
        &self,
        row: &NodeRow,
        kind: &str,
        subject: &str,
        message: &str,
    ) -> Result<(), Failure> {
        match self.shared.meters.event(&row.id, self.now) {
            Some(left_out) => self.record(row, kind, subject, message, left_out),
            None => Ok(()),
        }
    }

    fn record(
        &self,
        row: &NodeRow,
        kind: &str,
        subject: &str,
        message: &str,
        left_out: u64,
    ) -> Result<(), Failure> {
        if left_out == 0 {
            return self.write.node_event(kind, subject, message);
        }
        let node = &row.name;
        let message = format!(
            "{message} (before it, {left_out} events of node `{node}` were left out: too many)"
        );
        self.write.node_event(kind, subject, &message)
    }

    /// Notes whether a report has a flaw: it is an event when the last one did not have it.
    fn note(&self, row: &NodeRow, flaw: Flaw, why: Option<&str>) -> Result<(), Failure> {
        let meters = &self.shared.meters;
        let is_new = meters.is_new(&row.id, flaw, why.is_some(), self.now);
        let Some(why) = why.filter(|_| is_new) else {
            return Ok(());
        };
        let (node, relay) = (&row.name, self.relay);
        let (kind, what) = match flaw {
            Flaw::Status => ("status_refused", "a status"),
            Flaw::Logs | Flaw::ForeignLines => ("log_refused", "log lines"),
        };
        tracing::warn!(%node, %relay, %why, "{what} of a node were not taken; no more is logged until they are right again");
        let message =
            format!("{what} of node `{node}`, from relay `{relay}`, were not taken: {why}");
        self.event(row, kind, node.as_str(), &message)
    }

    /// Whether a node is at this relay; it is offline when it is at none.
    fn set_online(&self, row: &NodeRow, is_here: bool, retained: bool) -> Result<(), Failure> {
        let write = self.write;
        let online = self.shared.presence.note(&row.id, self.relay, is_here);
        // That a node is gone is the relay's word, not the node's.
        let seen = (is_here && !retained).then_some(write.now_ms);
        if is_here && !retained {
            db::observations::forget(&write.sql, &row.id, RELAY_REFUSED)?;
        }
        db::nodes::set_online(&write.sql, &row.id, online, seen)?;
        let has_changed = row.online != online;
        let meters = &self.shared.meters;
        let Some(left_out) = meters.presence_event(&row.id, has_changed, self.now) else {
            return Ok(());
        };
        let (kind, message) = match online {
            true => ("node_online", "connected to the relay"),
            false => ("node_offline", "the relay has no connection to it"),
        };
        self.record(row, kind, row.name.as_str(), message, left_out)
    }

    fn take_logs(&self, row: &NodeRow, report: &Report) -> Result<(), Failure> {
        let write = self.write;
        let mut lines = match intake::open_logs(&report.payload) {
            Ok(lines) => lines,
            Err(why) => return self.note(row, Flaw::Logs, Some(&why)),
        };
        self.note(row, Flaw::Logs, None)?;
        self.set_online(row, true, report.retained)?;
        let placed = db::applications::placed_lately(&write.sql, &row.id)?;
        let foreign = lines.iter().find(|line| !placed.contains(&line.name));
        let foreign = foreign.map(|line| {
            let name = &line.name;
            format!("`{name}` was not assigned to the node within the last day")
        });
        self.note(row, Flaw::ForeignLines, foreign.as_deref())?;
        let last = db::logs::last(&write.sql, &row.id)?;
        let followed = gaps::follow(last, &lines);
        lines.retain(|line| placed.contains(&line.name));
        if let Some((last, gap)) = followed {
            db::logs::set_last(&write.sql, &row.id, last)?;
            let told = gap.map_or_else(Vec::new, |gap| gaps::tell(gap, &lines));
            lines.splice(0..0, told);
        }
        db::logs::insert(write, &row.id, &row.name, lines)
    }

    fn take_status(&self, row: &NodeRow, report: &Report) -> Result<(), Failure> {
        let (write, id) = (self.write, &row.id);
        let status = match intake::open_status(&report.payload, &self.site.id, id, &row.key) {
            Ok(status) => status,
            Err(why) => {
                db::observations::note(write, id, STATUS_REFUSED, "", &why)?;
                return self.note(row, Flaw::Status, Some(&why));
            }
        };
        self.note(row, Flaw::Status, None)?;
        db::observations::forget(&write.sql, id, STATUS_REFUSED)?;
        let (name, retained) = (&row.name, report.retained);
        let presence = &self.shared.presence;
        if let Some(clash) = presence.note_start(&status, name, retained, write.now_ms) {
            let event = &clash.told;
            db::observations::note(write, id, IDENTITY_IN_USE, "", &event.message)?;
            if clash.is_due {
                self.event(row, event.kind, &event.subject, &event.message)?;
            }
        }
        let last = db::statuses::get(&write.sql, id)?;
        let accepted = intake::accept(last.as_ref(), status, name, retained, write.now_ms);
        let Some(accepted) = accepted else {
            return Ok(());
        };
        if !retained {
            self.set_online(row, true, false)?;
        }
        for event in accepted.events {
            self.event(row, event.kind, &event.subject, &event.message)?;
        }
        let status = &accepted.row.status;
        let version = change::clipped(&status.agent_version);
        let target = change::clipped(&status.target);
        if (&version, &target) != (&row.agent_version, &row.target) {
            db::nodes::set_agent(&write.sql, id, &version, &target)?;
        }
        db::statuses::put(&write.sql, id, &accepted.row)?;
        let number = db::assignments::made(&write.sql, id)?.map_or(0, |made| made.number);
        if intake::news(row, status, number).is_some() {
            self.shared.newsworthy.note(id, row.link_key_generation);
        }
        Ok(())
    }
}
