//! The numbers of messages: none is given twice by an outlet of this node, and none goes back, however the
//! agent ends and whatever becomes of its database
//! ([decision 023](../../../docs/decisions/023-what-is-deleted-is-gone.md)). The control loop asks before it
//! opens logs, with every status, and at its end.
//!
//! ```text
//! outlet with a log      the log's head + 1; a new log begins above all that the outlet may have given
//! outlet without a log   1 … given … reserved: after a crash the next start goes on above these; above all
//!                        logs, too, since an outlet whose log goes gives further numbers at once
//! bound                  above all numbers of the node, in the database and in a file: a database whose
//!                        bound is below that of the file is an older copy, and its logs know too little
//! ahead                  the same of starts that could not write the database, in a file of its own: logs
//!                        have got nothing meanwhile, and the next start has everything else go on above it
//! ```

mod file;

use std::time::Duration;

use anyhow::Context as _;
use haar_protocol::assignment::Assignment;
use haar_protocol::status::Overflow;
use tokio::time::Instant;

use self::file::NumbersFiles;
use super::connection::fresh_epoch;
use crate::bus::logs;
use crate::bus::registry::Registry;
use crate::store::log::WantedLog;
use crate::store::{KeptNumber, Store};

/// How many numbers are kept ahead of those that were given.
const AHEAD: u64 = 1 << 21;

/// How often is looked whether more must be kept: no outlet gives half of those in this time.
const LOOK_PAUSE: Duration = Duration::from_secs(5);

/// What the control loop knows of them.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// Outlets without logs may give numbers up to here; none before that is known.
    reserved: Option<u64>,
    /// No message of the node has a number above this, as the database has it; 0 before this start has stored
    /// one.
    bound: u64,
    /// What the registry knows of the numbers whose logs are gone.
    retired: u64,
    /// Outlets that go on without their logs begin above this; none while logs can be opened.
    lost: Option<u64>,
    files: NumbersFiles,
    /// The node has outlets, or routes from topics.
    gives: bool,
    /// When it is looked next whether more must be kept.
    look: Option<Instant>,
    /// It was logged that the database keeps no numbers.
    has_complained: bool,
}

impl Numbers {
    /// Opens the logs of the durable routes of an assignment, and takes them into use. Outlets go on above the
    /// numbers that they have given. Returns what was discarded on this node, with what is now.
    ///
    /// # Errors
    /// When the database can't be read or written. Then outlets without logs go on above all numbers of the
    /// node, as far as these are known.
    pub(super) async fn open_logs(
        &mut self,
        store: &Store,
        registry: &mut Registry,
        assignment: &Assignment,
    ) -> anyhow::Result<Overflow> {
        let opened = self.open_wanted(store, registry, assignment).await;
        match &opened {
            Ok(_) => self.lost = None,
            Err(_) => self.lose(store, registry).await,
        }
        let mut microservices = assignment.microservices.iter();
        let has_outlets = microservices.any(|one| !one.outlets.is_empty());
        self.gives = has_outlets || !assignment.topics.is_empty();
        self.reserve(store, registry).await;
        opened
    }

    async fn open_wanted(
        &mut self,
        store: &Store,
        registry: &mut Registry,
        assignment: &Assignment,
    ) -> anyhow::Result<Overflow> {
        let wanted = logs::wanted(assignment);
        self.begin(store, registry, &wanted).await?;
        // What is handled is not counted among what goes with a route.
        registry.logs.bases().store(store).await?;
        let owners = assignment.microservices.iter();
        let owners = owners.map(|one| one.name.clone()).collect();
        let opened = store
            .open_logs(owners, wanted.clone(), fresh_epoch())
            .await?;
        registry.logs.follow(wanted, opened, assignment);
        let past = store.past(0, None).await?;
        self.follow_retired(registry, past.retired);
        Ok(past.discarded)
    }

    /// Has outlets that get a log only now go on above the numbers that they have given.
    async fn begin(
        &mut self,
        store: &Store,
        registry: &mut Registry,
        wanted: &[WantedLog],
    ) -> anyhow::Result<()> {
        let ahead = match self.reserved {
            None => store.kept_number(KeptNumber::Ahead),
            Some(_) => 0,
        };
        let past = store.past(ahead, None).await?;
        if self.reserved.is_none() {
            // What the last starts have given is not known exactly.
            registry.begin_above(past.reserved.max(past.retired));
            (self.reserved, self.retired) = (Some(past.reserved), past.retired);
        }
        self.follow_retired(registry, past.retired);
        if let Some(given) = registry.highest_before(wanted, AHEAD)
            && given > past.retired
        {
            self.retired = store.past(given, None).await?.retired;
        }
        Ok(())
    }

    /// Logs were opened, and others forgotten: what outlets give without a log is above these.
    fn follow_retired(&mut self, registry: &mut Registry, retired: u64) {
        if retired > self.retired {
            self.retired = retired;
            registry.floor = registry.floor.max(retired);
        }
    }

    /// Logs could not be opened: outlets that go on without one begin above all numbers of the node.
    async fn lose(&mut self, store: &Store, registry: &mut Registry) {
        let known = self.bound.max(store.highest_kept_number());
        let in_use = registry.logs.highest_head();
        let above = self.lost.unwrap_or(known).max(in_use);
        self.lost = Some(above);
        if self.reserved.is_none() {
            // What they have given since the start may be anything.
            registry.begin_above(above);
        } else if self.keep(store, above).await {
            registry.floor = registry.floor.max(above);
        } else {
            // The next start goes on above what is reserved: so do these, or more would be given again.
            registry.floor = registry.floor.max(in_use);
        }
    }

    /// When to [`reserve`](Self::reserve) again.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.look
    }

    /// Keeps numbers ahead of those that were given. What can't be kept is tried again with a later look.
    pub(super) async fn reserve(&mut self, store: &Store, registry: &Registry) {
        self.look = self.gives.then(|| Instant::now() + LOOK_PAUSE);
        if self.gives {
            // An outlet whose log goes with the next assignment goes on without one, above it.
            self.keep(store, registry.highest_of_all()).await;
        }
    }

    /// Has the next start go on above the highest number of all. False when nothing keeps it.
    async fn keep(&mut self, store: &Store, highest: u64) -> bool {
        match self.keep_in_database(store, highest).await {
            Ok(()) => {
                self.has_complained = false;
                self.files.is_ahead = false;
                self.files.write(store, KeptNumber::Noted, self.bound).await;
                true
            }
            Err(error) => {
                self.complain(store, &error);
                let kept = store.highest_kept_number();
                if !self.files.is_ahead || highest + AHEAD / 2 > kept {
                    let bound = highest.max(kept) + AHEAD;
                    let is_raised = self.files.write(store, KeptNumber::Ahead, bound).await;
                    self.files.is_ahead |= is_raised;
                }
                self.files.is_ahead && highest <= store.highest_kept_number()
            }
        }
    }

    async fn keep_in_database(&mut self, store: &Store, highest: u64) -> anyhow::Result<()> {
        // It must not become less.
        let reserved = self.reserved;
        let reserved = reserved.context("what the last start has reserved is not known")?;
        if highest + AHEAD / 2 > reserved {
            store.past(0, Some(highest + AHEAD)).await?;
            self.reserved = Some(highest + AHEAD);
        }
        if self.files.is_ahead || highest + AHEAD / 2 > self.bound {
            self.raise_bound(store, highest).await?;
        }
        Ok(())
    }

    /// Also at each start and each end of the agent, so that an older copy of the database is recognised.
    async fn raise_bound(&mut self, store: &Store, highest: u64) -> anyhow::Result<()> {
        let bound = (highest + AHEAD).max(store.highest_kept_number());
        self.bound = store.bound_numbers(bound).await?;
        Ok(())
    }

    /// Nobody publishes any more: the next start goes on from here. What can't be kept is skipped.
    pub(super) async fn end(&mut self, store: &Store, registry: &Registry) {
        if self.bound > 0 {
            let _ = store.past(0, Some(registry.highest_number())).await;
            match self.raise_bound(store, registry.highest_of_all()).await {
                Ok(()) => {
                    self.files.write(store, KeptNumber::Noted, self.bound).await;
                }
                Err(error) => self.complain(store, &error),
            }
        }
    }

    fn complain(&mut self, store: &Store, error: &anyhow::Error) {
        if !self.has_complained && !store.is_known_to_fail() {
            tracing::error!("numbers of messages can't be reserved: {error:#}; logged once");
            self.has_complained = true;
        }
    }
}

#[cfg(test)]
mod tests;
