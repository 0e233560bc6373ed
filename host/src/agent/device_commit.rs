//! What one commit stores of the messages of devices: for each log, those that have room there.

use tokio::task::JoinSet;

use super::device_discards::{Discards, Unfit, check};
use super::device_intake::Waiting;
use super::device_states::States;
use crate::bus::message::Headers;
use crate::bus::table::DurableRoute;
use crate::bus::topics::{self, BrokerPlan, IncomingTopic, Intake as Into};
use crate::local_api::state::now_ms;
use crate::store::Store;
use crate::store::log::LogId;

/// Messages with their room set aside.
#[derive(Default)]
pub(super) struct Commit {
    shares: Vec<Share>,
    /// Logs in which an earlier message waits for room.
    full: Vec<LogId>,
}

/// Messages of one route.
type Share = (DurableRoute, Vec<(Headers, Vec<u8>)>);

/// What a route does with a message.
enum Answer<'a> {
    /// It has room for it in its log.
    Room(&'a DurableRoute),
    /// It has taken the message already: it is live.
    Live,
    /// It does not take it.
    Unfit(Unfit),
}

impl Commit {
    /// Adds a message to what its routes store. False when it waits for room: the broker keeps it
    /// meanwhile, or the oldest messages make room after this commit. Otherwise the routes without
    /// room discard it.
    ///
    /// # Errors
    /// When the store can't be written.
    pub(super) async fn add(
        &mut self,
        store: &Store,
        plan: &BrokerPlan,
        waiting: &mut Waiting,
        discards: &mut Discards,
        states: &mut States,
    ) -> anyhow::Result<bool> {
        let (mut reserved, mut unfit) = (Vec::new(), Vec::new());
        let routes = plan.routes(&waiting.topic, waiting.subscription, waiting.is_retained);
        for route in routes {
            if waiting.left_out.contains(&route.number()) {
                continue;
            }
            let answer = match self.ask(store, route, waiting).await {
                Ok(answer) => answer,
                Err(error) => {
                    give_back(&reserved, waiting);
                    return Err(error);
                }
            };
            match answer {
                Answer::Room(durable) => reserved.push(durable),
                Answer::Live => {}
                Answer::Unfit(Unfit::Full | Unfit::NoLog) if can_wait(route, waiting) => {
                    give_back(&reserved, waiting);
                    if let Into::Log(durable) = &route.intake {
                        self.full.push(durable.reader.log.id);
                    }
                    return Ok(false);
                }
                Answer::Unfit(why) => unfit.push((route, why)),
            }
        }
        if !std::mem::replace(&mut waiting.is_counted, true) {
            for (route, why) in unfit {
                states.forget(route, &waiting.topic);
                discards.discard(route, &why);
            }
        }
        for durable in reserved {
            self.put(durable, (waiting.headers.clone(), waiting.body.clone()));
        }
        Ok(true)
    }

    async fn ask<'a>(
        &self,
        store: &Store,
        route: &'a IncomingTopic,
        waiting: &Waiting,
    ) -> anyhow::Result<Answer<'a>> {
        let durable = match &route.intake {
            Into::Log(durable) => durable,
            Into::Inbox { .. } => return Ok(Answer::Live),
            Into::Nowhere => return Ok(Answer::Unfit(Unfit::NoLog)),
        };
        let (headers, body) = (&waiting.headers, &waiting.body);
        if let Err(why) = check(route, waiting.content_type.as_deref(), headers, body) {
            return Ok(Answer::Unfit(why));
        }
        // Smaller messages do not overtake one that waits.
        let is_full = self.full.contains(&durable.reader.log.id);
        let has_room = !is_full && topics::reserve(store, durable, headers, body.len()).await?;
        Ok(match has_room {
            true => Answer::Room(durable),
            false => Answer::Unfit(Unfit::Full),
        })
    }

    fn put(&mut self, durable: &DurableRoute, message: (Headers, Vec<u8>)) {
        let log = durable.reader.log.id;
        let mut shares = self.shares.iter_mut();
        match shares.find(|(one, _)| one.reader.log.id == log) {
            Some((_, messages)) => messages.push(message),
            None => self.shares.push((durable.clone(), vec![message])),
        }
    }

    /// Stores the messages of all routes. False when some could not be: then all of them are stored
    /// again, and routes that had stored theirs have them twice.
    pub(super) async fn store(self, store: Store) -> bool {
        let mut keeping = JoinSet::new();
        for (route, messages) in self.shares {
            let store = store.clone();
            keeping.spawn(async move { topics::keep(&store, route, messages, now_ms()).await });
        }
        let mut all_kept = true;
        while let Some(kept) = keeping.join_next().await {
            match kept {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    if !store.is_known_to_fail() {
                        tracing::error!("messages of devices were not stored: {error:#}");
                    }
                    all_kept = false;
                }
                Err(_) => all_kept = false,
            }
        }
        all_kept
    }
}

/// What makes room by dropping its oldest messages can do so when they are stored.
fn can_wait(route: &IncomingTopic, waiting: &Waiting) -> bool {
    let drops_oldest = match &route.intake {
        Into::Log(durable) => durable.reader.log.drops_oldest(),
        Into::Inbox { .. } | Into::Nowhere => false,
    };
    waiting.receipt.is_some() || drops_oldest
}

fn give_back(reserved: &[&DurableRoute], waiting: &Waiting) {
    for durable in reserved {
        topics::give_back(durable, &waiting.headers, waiting.body.len());
    }
}
