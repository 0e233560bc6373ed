//! What an assignment does to the agent: verified, stored, and only then in force.

use std::sync::Arc;

use bytes::Bytes;
use haar_protocol::assignment::{Assignment, MicroserviceName, Port};
use haar_protocol::ids::Digest;
use haar_protocol::signed;
use haar_protocol::status::RefusedAssignment;

use super::housekeeping::{self, Kept};
use super::node::Effect;
use super::run::Agent;
use crate::accept::{self, Verdict};
use crate::enrol::random_seed;
use crate::identity::LinkSecret;
use crate::local_api::state::now_ms;
use crate::runtime::surroundings::Facts;
use crate::store::Health;
use crate::store::owners::Lives;

/// Microservices that do not run yet because data of another life are there: an instance that still
/// uses them ends first, or their deletion has failed and is tried again.
#[derive(Debug, Default)]
pub(super) struct Held(Vec<MicroserviceName>);

/// An assignment, as far as it can come into force.
struct Begun {
    now: Assignment,
    held: Held,
    /// Why what is held waits, if not for an instance.
    problem: Option<anyhow::Error>,
}

impl Begun {
    fn of(assignment: &Assignment, held: Held, problem: Option<anyhow::Error>) -> Self {
        Self {
            now: without(assignment.clone(), &held.0),
            held,
            problem,
        }
    }
}

/// The assignment as if these had been deleted.
pub(super) fn without(mut assignment: Assignment, names: &[MicroserviceName]) -> Assignment {
    let node = assignment.node.clone();
    let is_free = |name: &MicroserviceName| !names.contains(name);
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
                let begun = match self.begin(&assignment).await {
                    Ok(begun) => begun,
                    // Whose data are there is not known: all that have lives wait.
                    Err(error) => {
                        let lives = Lives::of(&assignment).assigned.into_iter();
                        let held = Held(lives.map(|(name, _)| name).collect());
                        Begun::of(&assignment, held, Some(error))
                    }
                };
                // A disk that is full must not keep the node from running what needs none.
                if let Err(error) = self.open_logs(&begun.now).await {
                    tracing::error!(
                        "durable routes wait: their logs can't be opened: {error:#}; tried again with every status"
                    );
                    self.lacks_logs = true;
                }
                self.enter(begun, &envelope).await;
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
                    Ok(begun) => self.enter(begun, envelope).await,
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
    ) -> anyhow::Result<Begun> {
        let envelope = envelope.to_vec();
        self.store
            .set_assignment(assignment.number, envelope)
            .await?;
        let begun = self.begin(assignment).await?;
        if let Err(error) = self.open_logs(&begun.now).await {
            if !self.is_without_store() {
                return Err(error);
            }
            self.lacks_logs = true;
        }
        Ok(begun)
    }

    /// Begins the lives of an assignment. Those that can't begin wait: what they find is not theirs. The rest
    /// of it runs.
    ///
    /// # Errors
    /// When it can't be found out which these are.
    async fn begin(&mut self, assignment: &Assignment) -> anyhow::Result<Begun> {
        let (held, problem) = match self.begin_lives(assignment).await {
            Ok(held) => (held, None),
            Err(_) if self.is_without_store() => (Held::default(), None),
            Err(error) => {
                let strangers = self.store.strangers(Lives::of(assignment)).await?;
                (Held(strangers), Some(error))
            }
        };
        Ok(Begun::of(assignment, held, problem))
    }

    /// Puts it in force, as far as it is not. What could not begin is tried again with every status.
    async fn enter(&mut self, begun: Begun, envelope: &[u8]) {
        let number = begun.now.number;
        let is_new = self.node.assignment() != Some(&begun.now);
        if is_new || begun.problem.is_none() {
            self.assigned(begun.now, envelope, begun.held).await;
        }
        if let Some(error) = begun.problem {
            self.lives_not_begun(number, &error);
            self.ending
                .get_or_insert_with(|| (Bytes::copy_from_slice(envelope), Held::default()));
        }
    }

    /// True for an agent whose database can't be used at all: what needs none runs.
    fn is_without_store(&self) -> bool {
        matches!(*self.store.health().borrow(), Health::Absent(_))
    }

    /// Reports an assignment in force of which a part may have to wait because data can't be deleted.
    fn lives_not_begun(&mut self, number: u64, error: &anyhow::Error) {
        let reason = format!(
            "what is stored of earlier lives of microservices can't be deleted: {error:#}; the new ones wait, and it is tried again with every status"
        );
        let is_known = |refused: &RefusedAssignment| refused.reason == reason;
        if !self.node.refused().is_some_and(is_known) {
            self.node.assignment_refused(Some(number), reason);
        }
    }

    /// Ends what is stored of other lives than those of the assignment, before anything of the new ones is
    /// stored. Returns those whose instances have to end first.
    async fn begin_lives(&mut self, assignment: &Assignment) -> anyhow::Result<Held> {
        let lives = Lives::of(assignment);
        let over = self.store.follow_lives(lives.clone(), Vec::new()).await?;
        let (busy, free): (Vec<_>, Vec<_>) = over
            .into_iter()
            .partition(|name| self.node.has_instance(name));
        if free.is_empty() {
            return Ok(Held(busy));
        }
        self.node.forget_lives(&free);
        // What they have handled is not among what is lost.
        self.node.registry.logs.bases().store(&self.store).await?;
        let (surroundings, names) = (Arc::clone(&self.surroundings), free.clone());
        tokio::task::spawn_blocking(move || housekeeping::set_aside(&surroundings, &names))
            .await??;
        for name in &free {
            tracing::info!(microservice = %name, "its data are deleted: they are of an earlier life");
        }
        self.store.follow_lives(lives, free).await?;
        Ok(Held(busy))
    }

    /// Puts the rest of an assignment in force when the instances that a part of it has waited for have
    /// ended.
    pub(super) async fn end_lives(&mut self) {
        let is_free =
            |(_, held): &mut (Bytes, Held)| !held.0.iter().any(|name| self.node.has_instance(name));
        let Some((envelope, _)) = self.ending.take_if(is_free) else {
            return;
        };
        let site_key = &self.node.allegiance.site_key;
        let Ok(assignment) = signed::open::<Assignment>(&envelope, site_key) else {
            return; // it has been opened before, with the same key
        };
        match self.store_assignment(&assignment, &envelope).await {
            Ok(begun) => self.enter(begun, &envelope).await,
            Err(error) => {
                self.lives_not_begun(assignment.number, &error);
                self.ending = Some((envelope, Held::default())); // tried again with the next status
            }
        }
    }

    /// Opens the logs of its durable routes, and takes them into use.
    pub(super) async fn open_logs(&mut self, assignment: &Assignment) -> anyhow::Result<()> {
        let (numbers, registry) = (&mut self.numbers, &mut self.node.registry);
        self.node.discarded = numbers.open_logs(&self.store, registry, assignment).await?;
        self.lacks_logs = false;
        Ok(())
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
