//! One transaction that changes something, and what must go out once it is committed. Made by the
//! database thread; functions that change tables take it, functions that only read take the
//! connection below it.

use std::cell::RefCell;
use std::sync::Arc;

use haar_protocol::rest::Event;
use rusqlite::Transaction;

use super::events::Origin;
use super::{Feeds, events, logs, nodes};
use crate::failure::Failure;

/// A transaction and its effects.
pub(crate) struct Write<'c> {
    /// The transaction.
    pub(crate) sql: Transaction<'c>,
    /// When it began.
    pub(crate) now_ms: u64,
    effects: RefCell<Effects>,
}

#[derive(Default)]
struct Effects {
    events: Vec<Arc<Event>>,
    logs: Vec<Arc<logs::StoredLine>>,
    nodes_changed: bool,
    assignments_changed: bool,
    relays_changed: bool,
    plans: u64,
}

impl<'c> Write<'c> {
    pub(super) fn new(sql: Transaction<'c>, now_ms: u64) -> Self {
        Self {
            sql,
            now_ms,
            effects: RefCell::default(),
        }
    }

    /// Records what a person did.
    pub(crate) fn event(&self, kind: &str, subject: &str, message: &str) -> Result<(), Failure> {
        self.insert(Origin::Person, kind, subject, message)
    }

    /// Records what a node reported, or what followed from it. Such events are kept apart from those
    /// of people: however many there are, they evict only each other.
    pub(crate) fn node_event(
        &self,
        kind: &str,
        subject: &str,
        message: &str,
    ) -> Result<(), Failure> {
        self.insert(Origin::Node, kind, subject, message)
    }

    fn insert(
        &self,
        origin: Origin,
        kind: &str,
        subject: &str,
        message: &str,
    ) -> Result<(), Failure> {
        let event = events::insert(&self.sql, self.now_ms, origin, kind, subject, message)?;
        self.effects.borrow_mut().events.push(Arc::new(event));
        Ok(())
    }

    /// Runs `work` so that its failure, the inner result, undoes only what `work` did.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) fn apart<T>(
        &self,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<Result<T, Failure>, Failure> {
        let (events, logs) = {
            let effects = self.effects.borrow();
            (effects.events.len(), effects.logs.len())
        };
        self.sql.execute_batch("SAVEPOINT apart")?;
        let result = work();
        if result.is_err() {
            self.sql.execute_batch("ROLLBACK TO apart")?;
            let mut effects = self.effects.borrow_mut();
            effects.events.truncate(events);
            effects.logs.truncate(logs);
        }
        self.sql.execute_batch("RELEASE apart")?;
        Ok(result)
    }

    /// A plan was made.
    pub(crate) fn planned(&self) {
        self.effects.borrow_mut().plans += 1;
    }

    /// A log line was stored.
    pub(super) fn logged(&self, line: logs::StoredLine) {
        self.effects.borrow_mut().logs.push(Arc::new(line));
    }

    /// A node came, went or changed its key.
    pub(super) fn nodes_changed(&self) {
        self.effects.borrow_mut().nodes_changed = true;
    }

    /// There are newer assignments.
    pub(super) fn assignments_changed(&self) {
        self.effects.borrow_mut().assignments_changed = true;
    }

    /// There are other relays than before.
    pub(super) fn relays_changed(&self) {
        self.effects.borrow_mut().relays_changed = true;
    }

    /// Commits, then tells everybody.
    pub(super) fn commit(self, feeds: &Feeds) -> Result<(), Failure> {
        let effects = self.effects.into_inner();
        if !effects.events.is_empty() {
            events::trim(&self.sql)?;
        }
        let keys = effects
            .nodes_changed
            .then(|| nodes::keys(&self.sql))
            .transpose()?;
        self.sql.commit()?;
        if let Some(keys) = keys {
            feeds.nodes.send_replace(Arc::new(keys));
        }
        if effects.assignments_changed {
            feeds.assignments.send_modify(|generation| *generation += 1);
        }
        if effects.relays_changed {
            feeds.relays.send_modify(|generation| *generation += 1);
        }
        if effects.plans > 0 {
            feeds.plans.send_modify(|plans| *plans += effects.plans);
        }
        for event in effects.events {
            let _ = feeds.events.send(event); // nobody follows: that is fine
        }
        for line in effects.logs {
            let _ = feeds.logs.send(line);
        }
        Ok(())
    }
}
