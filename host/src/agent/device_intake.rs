//! Messages of devices on their way into this node. In the order in which they came: stored with all
//! others that wait, then acknowledged.
//!
//! A message of QoS 1 that finds its log full waits, and those of QoS 1 behind it: the broker keeps
//! them. Nobody keeps a message of QoS 0 meanwhile: its route has room for it, or drops and counts it.
//! While the disk is slow both wait. The session then stops reading ([`haar_relay::Held`]), so that
//! what waits is bounded in bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use haar_protocol::ids::Name;
use haar_protocol::mqtt::TopicFilter;
use haar_relay::{DeviceMessage, Held, Receipt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::device_commit::Commit;
use super::device_discards::{Discards, check};
use super::device_link::STORE_PAUSE;
use super::device_states::States;
use crate::bus::message::{Headers, Message, count};
use crate::bus::topics::{self, BrokerPlan, IncomingTopic, Intake as Into};
use crate::bus::{self, Bus};
use crate::local_api::state::now_ms;
use crate::store::Store;

/// Places for messages that are kept while none waits.
const PLACES: usize = 32;

/// A message that is not stored, or not acknowledged.
pub(super) struct Waiting {
    pub(super) topic: String,
    pub(super) content_type: Option<String>,
    pub(super) subscription: Option<u32>,
    pub(super) headers: Headers,
    pub(super) body: Vec<u8>,
    /// Acknowledges it: the broker keeps it until then. None at QoS 0.
    pub(super) receipt: Option<Receipt>,
    pub(super) is_retained: bool,
    /// The routes to which the retained message is no news.
    pub(super) left_out: Vec<u64>,
    /// The routes that do not take it have counted it.
    pub(super) is_counted: bool,
    is_storing: bool,
    /// Bounds how many of these there are.
    _held: Held,
}

pub(super) struct Intake {
    bus: Arc<Bus>,
    store: Store,
    discards: Discards,
    states: States,
    waiting: VecDeque<Waiting>,
    /// Those that are marked so in `waiting` are being stored.
    storing: JoinSet<bool>,
    /// The store could not be written: tried again then.
    paused_until: Option<Instant>,
    is_ending: bool,
}

impl Intake {
    pub(super) fn new(relay: Name, bus: Arc<Bus>, store: Store) -> Self {
        Self {
            bus,
            store,
            discards: Discards::new(relay),
            states: States::default(),
            waiting: VecDeque::new(),
            storing: JoinSet::new(),
            paused_until: None,
            is_ending: false,
        }
    }

    pub(super) fn wake(&self) -> Option<Instant> {
        self.paused_until.filter(|until| *until > Instant::now())
    }

    /// True when nothing is on its way to the disk.
    pub(super) fn is_idle(&self) -> bool {
        self.storing.is_empty()
    }

    /// A session begins.
    pub(super) fn begin(&mut self, plan: &BrokerPlan) {
        self.is_ending = false;
        self.disconnected();
        self.states.follow(&BrokerPlan::default());
        self.states.follow(plan);
    }

    /// Serves these routes from now on.
    pub(super) fn follow(&mut self, plan: &BrokerPlan) {
        self.states.follow(plan);
    }

    /// There is a connection.
    pub(super) fn connected(&mut self, is_new_session: bool) {
        if is_new_session {
            self.states.began();
        }
    }

    /// The broker has taken a subscription.
    pub(super) fn subscribed(&mut self, plan: &BrokerPlan, filter: &TopicFilter) {
        let waits = self.waiting.iter().any(|one| one.receipt.is_some());
        self.states.subscribed(plan, filter, waits);
    }

    /// Takes no more messages: what is not acknowledged comes again in the next session.
    pub(super) fn end(&mut self) {
        self.is_ending = true;
    }

    /// What was not acknowledged on a connection comes again on the next one.
    pub(super) fn disconnected(&mut self) {
        let states = &mut self.states;
        states.disconnected();
        self.waiting.retain(|waiting| {
            if waiting.receipt.is_some() {
                states.forget_of_all(&waiting.topic);
            }
            waiting.receipt.is_none()
        });
    }

    /// Takes a message: live routes have it at once, for the others it waits to be stored.
    pub(super) fn arrived(&mut self, plan: &BrokerPlan, message: DeviceMessage) {
        if self.is_ending {
            return;
        }
        let content_type = message.properties.content_type.clone();
        let (headers, left_out) = topics::headers(
            &message.topic,
            message.retained,
            message.duplicate,
            message.properties,
        );
        self.discards.without_properties(&message.topic, left_out);
        let dropped = &self.bus.device_properties_dropped;
        dropped.fetch_add(left_out as u64, Ordering::Relaxed);
        let is_retained = message.retained;
        let routes = plan.routes(&message.topic, message.subscription, is_retained);
        if routes.is_empty() {
            self.discards.without_route(&self.bus, &message.topic);
        }
        let (mut is_stored, mut left_out) = (false, Vec::new());
        for route in routes {
            let (topic, payload) = (&message.topic, &message.payload);
            if !self.states.is_news(route, topic, is_retained, payload) {
                left_out.push(route.number());
                continue;
            }
            match &route.intake {
                Into::Inbox { .. } => {
                    self.pass_live(route, content_type.as_deref(), &headers, &message.payload);
                }
                Into::Log(_) | Into::Nowhere => is_stored = true,
            }
        }
        // Acknowledgements go out in the order of receipt, also of what is not stored.
        if !is_stored && message.receipt.is_none() {
            return;
        }
        self.waiting.push_back(Waiting {
            topic: message.topic,
            content_type,
            subscription: message.subscription,
            headers,
            body: message.payload.to_vec(),
            receipt: message.receipt,
            is_retained,
            left_out,
            is_counted: false,
            is_storing: false,
            _held: message.held,
        });
    }

    fn pass_live(
        &mut self,
        route: &IncomingTopic,
        content_type: Option<&str>,
        headers: &Headers,
        body: &[u8],
    ) {
        let Into::Inbox {
            source,
            sequence,
            inbox,
        } = &route.intake
        else {
            return;
        };
        if let Err(why) = check(route, content_type, headers, body) {
            return self.discards.discard(route, &why);
        }
        count(&route.entry.counters.sent);
        let message = Arc::new(Message {
            source: Arc::clone(source),
            sequence: sequence.fetch_add(1, Ordering::Relaxed) + 1,
            published_ms: now_ms(),
            headers: headers.clone(),
            body: body.to_vec(),
        });
        let taken_ms = Some(self.store.ages().now_ms());
        bus::deliver(&message, inbox, &route.entry, taken_ms);
    }

    /// Begins to store what waits, as far as there is room for it.
    pub(super) async fn store_waiting(&mut self, plan: &BrokerPlan) {
        let now = Instant::now();
        if self.paused_until.is_some_and(|until| until > now) {
            return;
        }
        self.paused_until = None;
        if !self.storing.is_empty() {
            return;
        }
        let mut commit = Commit::default();
        let (mut messages, mut is_blocked, mut failure) = (0, false, None);
        for waiting in &mut self.waiting {
            if is_blocked && waiting.receipt.is_some() {
                continue; // acknowledged in order
            }
            let (discards, states) = (&mut self.discards, &mut self.states);
            match commit
                .add(&self.store, plan, waiting, discards, states)
                .await
            {
                Ok(true) => {
                    waiting.is_storing = true;
                    messages += 1;
                }
                Ok(false) => is_blocked = true,
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        if let Some(error) = failure {
            self.pause(&error);
        }
        if messages > 0 {
            self.storing.spawn(commit.store(self.store.clone()));
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
        if !matches!(stored, Ok(true)) {
            for waiting in &mut self.waiting {
                waiting.is_storing = false;
            }
            // The commit has logged why.
            self.paused_until = Some(Instant::now() + STORE_PAUSE);
            return Vec::new();
        }
        let mut receipts = Vec::new();
        self.waiting.retain_mut(|waiting| {
            if waiting.is_storing {
                receipts.extend(waiting.receipt.take());
            }
            !waiting.is_storing
        });
        if self.waiting.is_empty() {
            self.waiting.shrink_to(PLACES);
        }
        receipts
    }
}
