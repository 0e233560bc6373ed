//! What an assignment does to the agent: verified, stored, and only then in force.

use std::sync::Arc;

use bytes::Bytes;
use haar_protocol::assignment::Assignment;
use haar_protocol::ids::Digest;
use haar_protocol::signed;

use super::connection::fresh_epoch;
use super::housekeeping::Kept;
use super::run::Agent;
use crate::accept::{self, Verdict};
use crate::bus::logs;
use crate::enrol::random_seed;
use crate::identity::LinkSecret;
use crate::local_api::state::now_ms;
use crate::runtime::surroundings::Facts;
use crate::store::Health;

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
                // A disk that is full must not keep the node from running what needs none.
                if let Err(error) = self.open_logs(&assignment).await {
                    tracing::error!(
                        "durable routes wait: their logs can't be opened: {error:#}; tried again with every status"
                    );
                    self.lacks_logs = true;
                }
                self.assigned(*assignment, &envelope).await;
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
                    Ok(()) => self.assigned(*assignment, envelope).await,
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
    ) -> anyhow::Result<()> {
        let envelope = envelope.to_vec();
        self.store
            .set_assignment(assignment.number, envelope)
            .await?;
        if let Err(error) = self.open_logs(assignment).await {
            // Without a database, what needs none runs.
            if !matches!(*self.store.health().borrow(), Health::Absent(_)) {
                return Err(error);
            }
            self.lacks_logs = true;
        }
        Ok(())
    }

    /// Opens the logs of its durable routes, and takes them into use.
    pub(super) async fn open_logs(&mut self, assignment: &Assignment) -> anyhow::Result<()> {
        let wanted = logs::wanted(assignment);
        let owners = assignment.microservices.iter();
        let owners = owners.map(|one| one.name.clone()).collect();
        let opened = self
            .store
            .open_logs(owners, wanted.clone(), fresh_epoch())
            .await?;
        let registry = &mut self.node.registry;
        registry.logs.follow(wanted, opened, assignment);
        self.lacks_logs = false;
        Ok(())
    }

    async fn assigned(&mut self, assignment: Assignment, envelope: &[u8]) {
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
        let effects = self
            .node
            .assigned(assignment, Digest::of(envelope), now_ms());
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
