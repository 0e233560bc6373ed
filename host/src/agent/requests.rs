//! Requests of the site, answered beside the control loop: one at a time, out of the store. What
//! concerns inboxes goes through the loop, which owns them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use haar_protocol::assignment::MicroserviceName;
use haar_protocol::dead_letters::{
    DeadLetterPage, DeadLetterSelection, Dropped, LETTERS_NAMED_MAX, NOT_THERE,
    REFUSED_REPLAYS_MAX, RefusedReplay, Replayed,
};
use haar_protocol::ids::{NodeId, SiteId};
use haar_protocol::keys::{PublicKey, SecretKey};
use haar_protocol::request::{
    Operation, Outcome, REQUEST_AGE_MS_MAX, Refusal, Request, RequestId, Response, Unfit,
};
use haar_protocol::signed;
use haar_protocol::topics::Topic;
use haar_relay::Outgoing;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::relays::Uplink;
use super::{Event, letters};
use crate::local_api::state::now_ms;
use crate::store::Store;
use crate::store::dead_letters::StoredDeadLetter;

/// Requests that may wait; the site asks again when more are lost.
pub(super) const QUEUE_REQUESTS: usize = 16;
/// Requests that are remembered, so that none is answered twice.
const REMEMBERED_MAX: usize = 1_024;
/// How long a replay may go on: less than the site waits for the answer.
const REPLAY_TIME_MAX: Duration = Duration::from_secs(7);

/// Requests that were seen, as long as they are good: a relay may repeat them.
#[derive(Debug, Default)]
struct Seen(BTreeMap<RequestId, u64>);

impl Seen {
    /// True when the request was not seen before and can be remembered.
    fn is_new(&mut self, request: &Request, now_ms: u64) -> bool {
        self.0
            .retain(|_, issued_ms| issued_ms.saturating_add(REQUEST_AGE_MS_MAX) >= now_ms);
        self.0.len() < REMEMBERED_MAX && self.0.insert(request.id, request.issued_ms).is_none()
    }
}

/// What answers requests.
pub(super) struct Desk {
    pub(super) site: SiteId,
    pub(super) site_key: PublicKey,
    pub(super) node: NodeId,
    pub(super) key: SecretKey,
    pub(super) store: Store,
    pub(super) uplink: Uplink,
    pub(super) events: mpsc::Sender<Event>,
}

impl Desk {
    /// Answers what comes, until nothing can come any more.
    pub(super) async fn serve(self, mut envelopes: mpsc::Receiver<Bytes>) {
        let mut seen = Seen::default();
        while let Some(envelope) = envelopes.recv().await {
            let Some((id, outcome)) = self.answer(&envelope, &mut seen).await else {
                continue;
            };
            if let Err(error) = self.send(id, outcome).await {
                tracing::warn!("a request of the site is not answered: {error:#}");
            }
        }
    }

    /// None when it is not for us to answer.
    async fn answer(&self, envelope: &[u8], seen: &mut Seen) -> Option<(RequestId, Outcome)> {
        let request: Request = match signed::open(envelope, &self.site_key) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!("a request was not looked at: {error}");
                return None;
            }
        };
        let now_ms = now_ms();
        match request.check(&self.site, &self.node, now_ms) {
            Ok(()) if !seen.is_new(&request, now_ms) => return None, // the relay repeats itself
            Ok(()) => {}
            Err(unfit @ Unfit::NotOurs) => {
                tracing::warn!("a request was not looked at: {unfit}");
                return None;
            }
            Err(unfit @ Unfit::NotFresh(_)) => {
                return Some((request.id, refused(Refusal::NotFresh, unfit.to_string())));
            }
        }
        let outcome = self.perform(request.operation).await;
        Some((
            request.id,
            outcome.unwrap_or_else(|error| refused(Refusal::Failed, format!("{error:#}"))),
        ))
    }

    async fn send(&self, id: RequestId, outcome: Outcome) -> anyhow::Result<()> {
        let response = |outcome| Response {
            site: self.site.clone(),
            node: self.node.clone(),
            id,
            outcome,
        };
        let envelope = match signed::seal(&response(outcome), &self.key) {
            Ok(envelope) => envelope,
            Err(error) => {
                let outcome = refused(Refusal::TooLarge, error.to_string());
                signed::seal(&response(outcome), &self.key)?
            }
        };
        let outgoing = Outgoing {
            topic: Topic::Response(self.node.clone()).text(&self.site),
            payload: envelope.into(),
            at_least_once: true,
            retain: false,
        };
        Ok(self.uplink.publish(outgoing).await?)
    }

    async fn perform(&self, operation: Operation) -> anyhow::Result<Outcome> {
        match operation {
            Operation::ListDeadLetters {
                application,
                microservice,
                after,
                limit,
            } => {
                let (owner, application) = match (application, microservice) {
                    (Some(application), Some(microservice)) => {
                        let owner = MicroserviceName {
                            application,
                            microservice,
                        };
                        (Some(owner), None)
                    }
                    (application, _) => (None, application.map(|name| name.to_string())),
                };
                let limit = letters::page_limit(limit);
                let store = &self.store;
                let stored = store
                    .dead_letters(owner, application, after, limit + 1)
                    .await?;
                let page: DeadLetterPage = letters::page(stored, limit);
                Ok(Outcome::DeadLetters(page))
            }
            Operation::ShowDeadLetter { id } => Ok(match self.store.dead_letter(id).await? {
                Some(stored) => Outcome::DeadLetter(letters::whole(stored)),
                None => refused(
                    Refusal::UnknownDeadLetter,
                    format!("the node keeps no dead letter {id}"),
                ),
            }),
            Operation::ReplayDeadLetters(selection) => {
                let replayed = self.replay(self.ids(selection).await?).await?;
                Ok(Outcome::Replayed(replayed))
            }
            Operation::DropDeadLetters(selection) => {
                let dropped = self.discard(selection).await?;
                Ok(Outcome::Dropped(Dropped { dropped }))
            }
        }
    }

    /// The ids of the letters that are there now: what dies again meanwhile is not replayed twice.
    async fn ids(&self, selection: DeadLetterSelection) -> anyhow::Result<Vec<u64>> {
        let of = match selection {
            DeadLetterSelection::Named(named) => {
                let mut ids = named.ids;
                ids.truncate(LETTERS_NAMED_MAX);
                return Ok(ids);
            }
            DeadLetterSelection::All(of) => MicroserviceName {
                application: of.application,
                microservice: of.microservice,
            },
        };
        let mut ids = Vec::new();
        loop {
            let after = ids.last().copied().unwrap_or(0);
            let some = self
                .store
                .dead_letters(Some(of.clone()), None, after, letters::page_limit(u32::MAX))
                .await?;
            if some.is_empty() {
                return Ok(ids);
            }
            ids.extend(some.iter().map(|stored| stored.id));
        }
    }

    async fn replay(&self, ids: Vec<u64>) -> anyhow::Result<Replayed> {
        let deadline = Instant::now() + REPLAY_TIME_MAX;
        let mut outcome = Replayed::default();
        for (done, id) in ids.iter().copied().enumerate() {
            if Instant::now() >= deadline || outcome.refused.len() >= REFUSED_REPLAYS_MAX {
                outcome.left = (ids.len() - done) as u64;
                break;
            }
            let reason = match self.store.dead_letter(id).await? {
                Some(stored) => self.replay_one(stored).await?.err(),
                None => Some(NOT_THERE.to_owned()),
            };
            match reason {
                None => outcome.replayed += 1,
                Some(reason) => outcome.refused.push(RefusedReplay { id, reason }),
            }
        }
        self.tell_change().await;
        Ok(outcome)
    }

    /// First into the inbox, then out of the store: a power cut in between repeats the message, and
    /// loses none.
    async fn replay_one(&self, stored: StoredDeadLetter) -> anyhow::Result<Result<(), String>> {
        let (answer, answered) = oneshot::channel();
        let event = Event::Replay(Box::new(stored.letter), answer);
        let is_ending = || anyhow::anyhow!("the agent is stopping");
        self.events.send(event).await.map_err(|_| is_ending())?;
        let delivered = answered.await.map_err(|_| is_ending())?;
        if delivered.is_ok() {
            self.store.drop_dead_letter(stored.id).await?;
        }
        Ok(delivered)
    }

    async fn discard(&self, selection: DeadLetterSelection) -> anyhow::Result<u64> {
        let dropped = match selection {
            DeadLetterSelection::All(of) => {
                let owner = MicroserviceName {
                    application: of.application,
                    microservice: of.microservice,
                };
                self.store.drop_dead_letters(owner).await?
            }
            DeadLetterSelection::Named(named) => {
                let mut dropped = 0;
                for id in named.ids.into_iter().take(LETTERS_NAMED_MAX) {
                    dropped += u64::from(self.store.drop_dead_letter(id).await?);
                }
                dropped
            }
        };
        self.tell_change().await;
        Ok(dropped)
    }

    /// The next status tells how many letters there are now.
    async fn tell_change(&self) {
        let _ = self.events.send(Event::Changed).await; // or the control loop has ended
    }
}

fn refused(why: Refusal, message: String) -> Outcome {
    Outcome::Refused { why, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u16, issued_ms: u64) -> Request {
        let key = SecretKey::from_seed([1; 32]).public();
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        Request {
            site: SiteId::of(&key),
            node: NodeId::of(&key),
            id: RequestId(bytes),
            issued_ms,
            operation: Operation::ShowDeadLetter { id: 1 },
        }
    }

    #[test]
    fn a_request_is_new_once_as_long_as_it_is_good() {
        let mut seen = Seen::default();
        let first = request(1, 1_000);
        assert!(seen.is_new(&first, 1_000));
        assert!(!seen.is_new(&first, 1_000));
        assert!(!seen.is_new(&first, 1_000 + REQUEST_AGE_MS_MAX));
        assert!(seen.is_new(&request(2, 1_000), 1_000));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten_in_time() {
        let mut seen = Seen::default();
        for id in 0..1_024 {
            assert!(seen.is_new(&request(id, 1_000), 1_000));
        }
        let one_more = request(2_000, 2_000);
        assert!(!seen.is_new(&one_more, 2_000), "rather none than twice");
        assert!(seen.is_new(&one_more, 1_001 + REQUEST_AGE_MS_MAX));
        assert_eq!(seen.0.len(), 1);
    }
}
