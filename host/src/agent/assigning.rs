//! What an assignment does to the agent: verified, stored, and only then in force.

use std::sync::Arc;

use bytes::Bytes;
use haar_protocol::assignment::{Assignment, MicroserviceName, Port};
use haar_protocol::ids::Digest;
use haar_protocol::signed;

use super::connection::fresh_epoch;
use super::housekeeping::{self, Kept};
use super::node::Effect;
use super::run::Agent;
use crate::accept::{self, Verdict};
use crate::bus::logs;
use crate::enrol::random_seed;
use crate::identity::LinkSecret;
use crate::local_api::state::now_ms;
use crate::runtime::surroundings::Facts;
use crate::store::Health;
use crate::store::log::WantedLog;
use crate::store::owners::Lives;

/// Outlets without logs have so many numbers kept for them ahead.
const NUMBERS_BLOCK: u64 = 1 << 21;

/// Microservices whose data are to be deleted, and of which an instance still runs: it has its last
/// calls first, and nothing takes its place before.
#[derive(Debug, Default)]
pub(super) struct Held(Vec<MicroserviceName>);

impl Held {
    /// The assignment as if these had been deleted.
    fn without(&self, mut assignment: Assignment) -> Assignment {
        let node = assignment.node.clone();
        let is_free = |name: &MicroserviceName| !self.0.contains(name);
        let leads = |port: &Port| port.node != node || is_free(&port.microservice);
        assignment.microservices.retain(|one| is_free(&one.name));
        assignment
            .routes
            .retain(|route| leads(&route.from) && leads(&route.to));
        assignment
            .topics
            .retain(|route| is_free(&route.microservice));
        assignment
    }
}

impl Agent {
    /// Puts the last assignment in force, from its file or from the database: whatever is damaged, the
    /// newer one of those that the site has signed. It is verified like one from the relay.
    pub(super) async fn resume(&mut self) {
        let kept = self.store.assignments().await;
        let allegiance = &self.node.allegiance;
        let number = |envelope: &Vec<u8>| {
            let signed = signed::open::<Assignment>(envelope, &allegiance.site_key);
            signed.ok().map(|assignment| assignment.number)
        };
        let Some(envelope) = kept.iter().max_by_key(|envelope| number(envelope)).cloned() else {
            return;
        };
        if kept.iter().any(|other| *other != envelope) || kept.len() < 2 {
            self.keep_twice(&envelope).await;
        }
        match accept::accept(&envelope, &self.node.allegiance, None) {
            Ok(Verdict::Accept(assignment)) => {
                let (assignment, held) = match self.begin_lives(&assignment).await {
                    Ok(held) => (held.without(*assignment), held),
                    Err(error) => {
                        tracing::error!("whose data there are can't be looked up: {error:#}");
                        (*assignment, Held::default())
                    }
                };
                // A disk that is full must not keep the node from running what needs none.
                if let Err(error) = self.open_logs(&assignment).await {
                    tracing::error!(
                        "durable routes wait: their logs can't be opened: {error:#}; tried again with every status"
                    );
                    self.lacks_logs = true;
                }
                self.assigned(assignment, &envelope, held).await;
            }
            Ok(Verdict::Same) => {}
            Err(refusal) => self
                .node
                .assignment_refused(None, format!("the stored assignment: {refusal}")),
        }
    }

    /// Keeps the assignment in both places, where one has another or none. Only what the site has signed.
    async fn keep_twice(&self, envelope: &[u8]) {
        let site_key = &self.node.allegiance.site_key;
        let Ok(assignment) = signed::open::<Assignment>(envelope, site_key) else {
            return;
        };
        let kept = self
            .store
            .set_assignment(assignment.number, envelope.to_vec())
            .await;
        if let Err(error) = kept
            && !self.store.is_known_to_fail()
        {
            tracing::warn!("the assignment is kept in one place only: {error:#}");
        }
    }

    pub(super) async fn assignment(&mut self, envelope: &[u8]) {
        self.unstored = None;
        let verdict = accept::accept(envelope, &self.node.allegiance, self.node.in_force());
        match verdict {
            Ok(Verdict::Same) => {}
            Ok(Verdict::Accept(assignment)) => {
                // Stored before acted on: a power cut now must not bring the old one back.
                match self.store_assignment(&assignment, envelope).await {
                    Ok((now, held)) => self.assigned(now, envelope, held).await,
                    Err(error) => {
                        // A full disk may have room again: tried with the next status.
                        self.unstored = Some(Bytes::copy_from_slice(envelope));
                        self.node.assignment_refused(
                            Some(assignment.number),
                            format!("it can't be stored: {error:#}"),
                        );
                    }
                }
            }
            Err(refusal) => {
                let number = signed::open::<Assignment>(envelope, &self.node.allegiance.site_key)
                    .ok()
                    .map(|assignment| assignment.number);
                self.node.assignment_refused(number, refusal.to_string());
            }
        }
    }

    async fn store_assignment(
        &mut self,
        assignment: &Assignment,
        envelope: &[u8],
    ) -> anyhow::Result<(Assignment, Held)> {
        let envelope = envelope.to_vec();
        self.store
            .set_assignment(assignment.number, envelope)
            .await?;
        // Without a database, what needs none runs.
        let health = self.store.health();
        let is_absent = || matches!(*health.borrow(), Health::Absent(_));
        let held = match self.begin_lives(assignment).await {
            Err(_) if is_absent() => Held::default(),
            held => held?,
        };
        let now = held.without(assignment.clone());
        if let Err(error) = self.open_logs(&now).await {
            if !is_absent() {
                return Err(error);
            }
            self.lacks_logs = true;
        }
        Ok((now, held))
    }

    /// Ends what is stored of other lives than those that the assignment says, before anything of the
    /// new ones is there. Returns those whose instances have to end first.
    async fn begin_lives(&mut self, assignment: &Assignment) -> anyhow::Result<Held> {
        let lives = Lives::of(assignment);
        let over = self.store.follow_lives(lives.clone(), Vec::new()).await?;
        let (busy, free): (Vec<_>, Vec<_>) = over
            .into_iter()
            .partition(|name| self.node.has_instance(name));
        if free.is_empty() {
            return Ok(Held(busy));
        }
        let (surroundings, names) = (Arc::clone(&self.surroundings), free.clone());
        tokio::task::spawn_blocking(move || housekeeping::set_aside(&surroundings, &names))
            .await??;
        for name in &free {
            tracing::info!(microservice = %name, "its data are deleted: they are of an earlier life");
        }
        self.store.follow_lives(lives, free).await?;
        Ok(Held(busy))
    }

    /// Goes on with an assignment of which a part has waited for instances to end, when they have.
    pub(super) async fn end_lives(&mut self) {
        let is_free =
            |(_, held): &mut (Bytes, Held)| !held.0.iter().any(|name| self.node.has_instance(name));
        let Some((envelope, _)) = self.ending.take_if(is_free) else {
            return;
        };
        let site_key = &self.node.allegiance.site_key;
        let Ok(assignment) = signed::open::<Assignment>(&envelope, site_key) else {
            return; // it was opened before
        };
        match self.store_assignment(&assignment, &envelope).await {
            Ok((now, held)) => self.assigned(now, &envelope, held).await,
            Err(error) => {
                tracing::error!("data of an earlier life can't be deleted: {error:#}");
                self.ending = Some((envelope, Held::default())); // tried again with the next status
            }
        }
    }

    /// Opens the logs of its durable routes, and takes them into use.
    pub(super) async fn open_logs(&mut self, assignment: &Assignment) -> anyhow::Result<()> {
        let wanted = logs::wanted(assignment);
        self.number_above(&wanted).await?;
        let mut microservices = assignment.microservices.iter();
        let has_outlets = microservices.any(|one| !one.outlets.is_empty());
        self.reserve_numbers(has_outlets || !assignment.topics.is_empty())
            .await;
        let owners = assignment.microservices.iter();
        let owners = owners.map(|one| one.name.clone()).collect();
        let opened = self
            .store
            .open_logs(owners, wanted.clone(), fresh_epoch())
            .await?;
        let registry = &mut self.node.registry;
        registry.logs.follow(wanted, opened, assignment);
        self.lacks_logs = false;
        // A count for people: what can't be read keeps no route from its log.
        match self.store.past(0, None).await {
            Ok(past) => self.node.discarded = past.discarded,
            Err(_) if self.store.is_known_to_fail() => {}
            Err(error) => {
                tracing::error!("how many messages were discarded can't be read: {error:#}");
            }
        }
        Ok(())
    }

    /// Has outlets that get a log only now go on above the numbers that they have given.
    async fn number_above(&mut self, wanted: &[WantedLog]) -> anyhow::Result<()> {
        let past = self.store.past(0, None).await?;
        if self.reserved == 0 {
            // The first time since the start: what the last one has given is not known exactly.
            let floor = past.reserved.max(past.retired);
            self.node.registry.floor = self.node.registry.floor.max(floor);
            self.reserved = past.reserved.max(1);
        }
        let given = self.node.registry.highest_before(wanted);
        if given > past.retired {
            // They go on publishing until the new table is in force.
            self.store.past(given + NUMBERS_BLOCK, None).await?;
        }
        Ok(())
    }

    /// Keeps what numbers outlets without logs may give ahead of those that they have given, so that no
    /// start gives one again. What can't be kept is tried again with every status.
    pub(super) async fn reserve_numbers(&mut self, are_given: bool) {
        let highest = self.node.registry.highest_number();
        if !are_given || highest + NUMBERS_BLOCK / 2 <= self.reserved {
            return;
        }
        let upto = highest + NUMBERS_BLOCK;
        match self.store.past(0, Some(upto)).await {
            Ok(_) => self.reserved = upto,
            Err(_) if self.store.is_known_to_fail() => {}
            Err(error) => tracing::error!("numbers of messages can't be reserved: {error:#}"),
        }
    }

    async fn assigned(&mut self, assignment: Assignment, envelope: &[u8], held: Held) {
        self.surroundings.facts.store(Arc::new(Facts {
            id: assignment.node.to_string(),
            name: assignment.node_name.to_string(),
            site: assignment.site.to_string(),
            labels: assignment.labels.clone(),
            location: self.options.location,
        }));
        self.link_key_generation = assignment.link_key_generation;
        self.renew_link_key().await;
        let kept = Kept::of(&assignment);
        self.serving.follow(&assignment);
        self.relays.follow(&assignment);
        let mut effects = self
            .node
            .assigned(assignment, Digest::of(envelope), now_ms());
        self.ending = None;
        if !held.0.is_empty() {
            // The files of their modules are needed soon.
            effects.retain(|effect| !matches!(effect, Effect::Sweep(_)));
            self.ending = Some((Bytes::copy_from_slice(envelope), held));
        }
        self.perform(effects);
        self.kept.send_replace(Some(kept));
    }

    /// Makes another key for links where the site wants one, and goes on with it: kept before it is
    /// used or told, so that the node is never known by a key that it has lost. What can't be kept is
    /// tried again with every status.
    pub(super) async fn renew_link_key(&mut self) {
        let generation = self.link_key_generation;
        if generation <= self.options.link_secret.generation() {
            return;
        }
        let directory = self.data.clone();
        let made = tokio::task::spawn_blocking(move || {
            LinkSecret::make(&directory, generation, random_seed)
        });
        match made
            .await
            .map_err(anyhow::Error::from)
            .and_then(|made| made)
        {
            Ok(secret) => {
                tracing::info!(generation, "another key for links");
                self.options.link_secret = secret.clone();
                self.links.renew(secret);
                self.node.changed = true;
            }
            Err(error) => {
                tracing::error!("another key for links is due and can't be kept: {error:#}");
            }
        }
    }
}
