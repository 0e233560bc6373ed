//! Messages of devices on their way into this node. In the order in which they came: stored with all
//! others that wait, then acknowledged. One that finds its log full waits, and what came behind it,
//! until there is room; the broker sends no more than sixteen beyond it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use haar_relay::{DeviceMessage, Receipt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::device_link::STORE_PAUSE;
use crate::bus::message::{Headers, Message, count};
use crate::bus::table::DurableRoute;
use crate::bus::topics::{self, BrokerPlan, IncomingTopic, Intake as Into};
use crate::bus::{self, Bus};
use crate::local_api::state::now_ms;
use crate::store::Store;

/// Messages that wait at most: more than a broker may send before it is answered.
const WAITING_MAX: usize = 32;

/// A message that is not acknowledged.
struct Waiting {
    topic: String,
    content_type: Option<String>,
    subscription: Option<u32>,
    headers: Headers,
    body: Vec<u8>,
    receipt: Receipt,
}

/// Messages of one route that are stored together.
type Share = (DurableRoute, Vec<(Headers, Vec<u8>)>);

pub(super) struct Intake {
    bus: Arc<Bus>,
    store: Store,
    waiting: VecDeque<Waiting>,
    /// The first of those that wait, in their order, while they are stored. Still in `waiting`.
    storing: JoinSet<bool>,
    storing_messages: usize,
    /// The store could not be written: tried again then.
    paused_until: Option<Instant>,
}

impl Intake {
    pub(super) fn new(bus: Arc<Bus>, store: Store) -> Self {
        Self {
            bus,
            store,
            waiting: VecDeque::new(),
            storing: JoinSet::new(),
            storing_messages: 0,
            paused_until: None,
        }
    }

    pub(super) fn wake(&self) -> Option<Instant> {
        self.paused_until.filter(|until| *until > Instant::now())
    }

    /// True when nothing is on its way to the disk.
    pub(super) fn is_idle(&self) -> bool {
        self.storing.is_empty()
    }

    /// What was not acknowledged on a connection comes again on the next one.
    pub(super) fn disconnected(&mut self) {
        self.waiting.clear();
        self.storing_messages = 0;
    }

    /// Takes a message: live routes have it at once, for the others it waits to be stored.
    pub(super) fn arrived(&mut self, plan: &BrokerPlan, message: DeviceMessage) {
        let DeviceMessage {
            topic,
            payload,
            retained,
            content_type,
            user_properties,
            subscription,
            receipt,
        } = message;
        let (headers, left_out) = topics::headers(&topic, retained, user_properties);
        for _ in 0..left_out {
            self.bus.refuse();
        }
        let routes = plan.routes(&topic, subscription);
        if routes.is_empty() {
            self.bus.refuse(); // a route that is withdrawn by now
        }
        for route in routes {
            pass_live(route, content_type.as_deref(), &headers, &payload);
        }
        if self.waiting.len() >= WAITING_MAX {
            self.bus.refuse(); // a broker without manners: it sends it again
            return;
        }
        if let Some(receipt) = receipt {
            self.waiting.push_back(Waiting {
                topic,
                content_type,
                subscription,
                headers,
                body: payload.to_vec(),
                receipt,
            });
        }
    }

    /// Begins to store what waits, as far as there is room for it.
    pub(super) async fn store_waiting(&mut self, plan: &BrokerPlan) {
        if self
            .paused_until
            .is_some_and(|until| until > Instant::now())
        {
            return;
        }
        self.paused_until = None;
        if !self.storing.is_empty() || self.waiting.is_empty() {
            return;
        }
        let mut shares: Vec<Share> = Vec::new();
        let mut messages = 0;
        for waiting in &self.waiting {
            match self.share(plan, waiting, &mut shares).await {
                Ok(true) => messages += 1,
                Ok(false) => break,
                Err(error) => {
                    self.pause(&error);
                    break;
                }
            }
        }
        if messages == 0 {
            return;
        }
        self.storing_messages = messages;
        let store = self.store.clone();
        self.storing.spawn(keep_all(store, shares));
    }

    /// Adds a message to what its routes store. False when one of them has no room for it.
    async fn share(
        &self,
        plan: &BrokerPlan,
        waiting: &Waiting,
        shares: &mut Vec<Share>,
    ) -> anyhow::Result<bool> {
        let mut reserved: Vec<&DurableRoute> = Vec::new();
        let (headers, body) = (&waiting.headers, &waiting.body);
        let (mut has_room, mut failure) = (true, None);
        for route in plan.routes(&waiting.topic, waiting.subscription) {
            let durable = match &route.intake {
                Into::Log(durable) => durable,
                Into::Inbox { .. } => continue,
                Into::Nowhere => {
                    has_room = false;
                    break;
                }
            };
            if !is_fit(route, waiting.content_type.as_deref(), headers, body) {
                continue;
            }
            match topics::reserve(&self.store, durable, headers, body.len()).await {
                Ok(true) => reserved.push(durable),
                Ok(false) => has_room = false,
                Err(error) => failure = Some(error),
            }
            if !has_room || failure.is_some() {
                break;
            }
        }
        for durable in reserved {
            if !has_room || failure.is_some() {
                topics::give_back(durable, headers, body.len());
                continue;
            }
            let log = durable.reader.log.id;
            let message = (headers.clone(), body.clone());
            let its = shares.iter_mut().find(|(one, _)| one.reader.log.id == log);
            match its {
                Some((_, messages)) => messages.push(message),
                None => shares.push((durable.clone(), vec![message])),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(has_room),
        }
    }

    fn pause(&mut self, error: &anyhow::Error) {
        if !self.store.is_known_to_fail() {
            tracing::error!("messages of devices can't be stored: {error:#}; tried again");
        }
        self.paused_until = Some(Instant::now() + STORE_PAUSE);
    }

    /// Waits until something is stored. Returns what acknowledges it.
    pub(super) async fn stored(&mut self) -> Vec<Receipt> {
        let Some(stored) = self.storing.join_next().await else {
            return std::future::pending().await;
        };
        let messages = std::mem::take(&mut self.storing_messages);
        if !matches!(stored, Ok(true)) {
            self.pause(&anyhow::anyhow!("see above"));
            return Vec::new();
        }
        let stored = self.waiting.drain(..messages);
        stored.map(|waiting| waiting.receipt).collect()
    }
}

/// Stores the messages of all routes. False when some could not be: then all of them are stored again,
/// and routes that had stored theirs have them twice.
async fn keep_all(store: Store, shares: Vec<Share>) -> bool {
    let mut keeping = JoinSet::new();
    for (route, messages) in shares {
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

/// Whether the inlet takes such a message; counted and told when it does not.
fn is_fit(
    route: &IncomingTopic,
    content_type: Option<&str>,
    headers: &Headers,
    body: &[u8],
) -> bool {
    let (entry, filter) = (&route.entry, &route.filter);
    if !route.takes(content_type) {
        let told = content_type.unwrap_or_default();
        tracing::warn!(%filter, "a message says `{}`, and the inlet takes {}: dropped", told.escape_debug(), entry.content_type);
        count(&entry.counters.dropped);
        return false;
    }
    if let Err(error) = route.check_size(headers, body) {
        tracing::warn!(%filter, "a message is too large: {error}: dropped");
        count(&entry.counters.dropped);
        return false;
    }
    true
}

fn pass_live(route: &IncomingTopic, content_type: Option<&str>, headers: &Headers, body: &[u8]) {
    let Into::Inbox {
        source,
        sequence,
        inbox,
    } = &route.intake
    else {
        return;
    };
    if !is_fit(route, content_type, headers, body) {
        return;
    }
    count(&route.entry.counters.sent);
    let message = Arc::new(Message {
        source: Arc::clone(source),
        sequence: sequence.fetch_add(1, Ordering::Relaxed) + 1,
        published_ms: now_ms(),
        headers: headers.clone(),
        body: body.to_vec(),
    });
    bus::deliver(&message, inbox, &route.entry);
}
