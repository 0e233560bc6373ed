//! The task behind a session for devices: it starts connections one after another, keeps the broker's
//! subscriptions as they are wanted, hands publishes over as the window allows, and has the session
//! forgotten in the end. Only [`super::DeviceSession`] starts it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use haar_protocol::mqtt::TopicFilter;
use rumqttc::v5::{AsyncClient, MqttOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::former::Phase;
use super::open::{Open, Step, at, forbidden, last_will};
use super::poller::{Note, Poller};
use super::{
    DeviceEvent, DeviceOptions, DeviceSubscription, DeviceWants, Outcome, Receipt, Submitted,
};
use crate::backoff::Backoff;
use crate::connection::{IN_FLIGHT_MAX, mqtt_options};
use crate::driver::{ended, random};
use crate::endpoint::Endpoint;
use crate::reason::DisconnectReason;
use crate::session::{Identity, SessionOptions};
use crate::window::{HANDED_MAX, Window};

/// Subscriptions that were refused are asked for again after this time.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
/// How long a broker keeps the session of which an agent has asked whether there is one.
const LOOKING_EXPIRY_S: u32 = 300;
const NOTES_MAX: usize = 64;
/// Acknowledgements that are handed to rumqttc before it reports that it took one.
const ACKNOWLEDGING_MAX: usize = 16;

/// The owner of the session's state.
pub(super) struct Driver {
    pub(super) options: DeviceOptions,
    pub(super) phase: Phase,
    /// Whether the broker keeps a session of agents before.
    pub(super) has_former: bool,
    pub(super) events: mpsc::Sender<DeviceEvent>,
    pub(super) submitted: mpsc::Receiver<Submitted>,
    pub(super) given: mpsc::Receiver<Receipt>,
    pub(super) wanted: watch::Receiver<DeviceWants>,
    /// What the broker's session may hold of former connections.
    pub(super) known: Vec<TopicFilter>,
    pub(super) connection: u64,
    pub(super) budget: Budget,
    /// Whether the broker takes a will that it is to retain.
    pub(super) retains_will: bool,
    /// Whether the broker is asked to number subscriptions.
    pub(super) numbers_subscriptions: bool,
    pub(super) closing: CancellationToken,
    pub(super) forgetting: CancellationToken,
    pub(super) stop: CancellationToken,
}

/// The options of a connection.
pub(super) fn device_mqtt(
    endpoint: &Endpoint,
    identity: &Identity,
) -> Result<MqttOptions, DisconnectReason> {
    mqtt_options(&SessionOptions {
        endpoint: endpoint.clone(),
        identity: identity.clone(),
        will: None,
        subscriptions: Vec::new(),
        queue_messages: 1,
    })
}

/// How a connection ended.
enum Ending {
    /// It was there to ask for a session, and its owner has not heard of it.
    Looked,
    /// The session needs another one at once.
    Again,
    Failed(DisconnectReason),
}

impl Driver {
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        while !self.closing.is_cancelled() {
            let started = Instant::now();
            let ending = self.connect_once().await;
            if self.closing.is_cancelled() {
                break;
            }
            let (reason, delay) = match ending {
                Ending::Looked => continue,
                Ending::Again => (None, Duration::ZERO),
                Ending::Failed(reason) => {
                    let delay = backoff.after(&reason, started.elapsed(), random());
                    (Some(reason), delay)
                }
            };
            let event = DeviceEvent::Disconnected { reason };
            tokio::select! {
                biased;
                () = self.closing.cancelled() => break,
                sent = self.events.send(event) => drop(sent),
            }
            tokio::select! {
                () = sleep(delay) => {}
                () = self.closing.cancelled() => {}
            }
        }
        self.submitted.close();
        if self.forgetting.is_cancelled() {
            self.forget().await;
        }
    }

    /// As whom to connect: as agents before, or as itself.
    pub(super) fn identity(&self, is_former: bool) -> &Identity {
        let former = self.options.former.as_ref().filter(|_| is_former);
        former.unwrap_or(&self.options.identity)
    }

    async fn connect_once(&mut self) -> Ending {
        let phase = self.phase;
        let mut mqtt = match device_mqtt(&self.options.endpoint, self.identity(phase != Phase::Own))
        {
            Ok(mqtt) => mqtt,
            Err(reason) => return Ending::Failed(reason),
        };
        let wants = self.wanted.borrow_and_update().clone();
        mqtt.set_clean_start(false).set_manual_acks(true);
        let mut expiry_s = wants.expiry_s;
        match phase {
            // Where there is none, looking for a session begins one.
            Phase::Looking => expiry_s = expiry_s.min(LOOKING_EXPIRY_S),
            Phase::Draining => {
                let wanted = wants.subscriptions.iter();
                self.known = wanted.map(|one| one.filter.clone()).collect();
            }
            Phase::Own | Phase::Before => {
                let will = wants.will.as_ref();
                will.map(|will| mqtt.set_last_will(last_will(will, self.retains_will)));
            }
        }
        mqtt.set_session_expiry_interval(Some(expiry_s));
        // Room for the window, acknowledgements, one step and the DISCONNECT: so a `try_` call never
        // finds it full.
        let capacity = usize::from(IN_FLIGHT_MAX) + ACKNOWLEDGING_MAX + HANDED_MAX + 2;
        let (client, event_loop) = AsyncClient::new(mqtt, capacity);
        let (notes_in, notes) = mpsc::channel(NOTES_MAX);
        self.connection += 1;
        let unacknowledged = Arc::new(AtomicUsize::new(0));
        let poller = Poller {
            event_loop,
            connection: self.connection,
            expiry_s: wants.expiry_s,
            phase: self.phase,
            numbers_subscriptions: self.numbers_subscriptions,
            unacknowledged: Arc::clone(&unacknowledged),
            has_exceeded: false,
            budget: self.budget.clone(),
            notes: notes_in,
            events: self.events.clone(),
            closing: self.closing.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(poller.run());
        let mut open = Open::new(client, notes, unacknowledged);
        let reason = self.serve(&mut open, &mut tasks, &wants).await;
        tasks.shutdown().await;
        while let Ok(note) = open.notes.try_recv() {
            self.apply(&mut open, note).await; // PUBACKs that were still read
        }
        for subscription in open.subscribed {
            if !self.known.contains(&subscription.filter) {
                self.known.push(subscription.filter);
            }
        }
        self.retains_will &= reason != DisconnectReason::WillRefused;
        if open.terms.is_none() && self.options.former.is_some() {
            self.enter(phase.failed(&reason));
        }
        if open.is_done {
            self.drain().await;
        }
        match open.disconnecting {
            _ if phase == Phase::Looking && open.terms.is_some() => Ending::Looked,
            true => Ending::Again,
            false => Ending::Failed(reason),
        }
    }

    /// The present session has its subscriptions; or the former one is empty.
    async fn drain(&mut self) {
        if self.phase != Phase::Draining {
            self.phase = Phase::Draining;
            return;
        }
        self.forget_one(true).await;
        self.known.clear();
        self.enter((Phase::Own, Some(false)));
    }

    fn enter(&mut self, (phase, has_former): (Phase, Option<bool>)) {
        self.phase = phase;
        self.has_former = has_former.unwrap_or(self.has_former);
    }

    async fn serve(
        &mut self,
        open: &mut Open,
        tasks: &mut JoinSet<DisconnectReason>,
        wants: &DeviceWants,
    ) -> DisconnectReason {
        loop {
            if !open.disconnecting {
                self.advance(open).await;
            }
            let settled = open.terms.is_some() && open.asked.is_none() && self.step(open).is_none();
            let is_closing = open.deadline.is_some();
            let room = settled && !is_closing && open.window.has_room();
            let has_former = self.has_former && self.phase != Phase::Before;
            let is_done = has_former && open.silent_at.is_none();
            if settled && is_done && !is_closing {
                open.is_done = true;
                open.close();
                continue;
            }
            tokio::select! {
                note = open.notes.recv() => match note {
                    Some(note) => self.apply(open, note).await,
                    None => return ended(tasks.join_next().await),
                },
                Some(receipt) = self.given.recv(), if open.acknowledging < ACKNOWLEDGING_MAX => {
                    self.acknowledge(open, &receipt);
                }
                Some(submitted) = self.submitted.recv(), if room => {
                    self.hand_over(open, submitted).await;
                }
                Ok(()) = self.wanted.changed(), if !is_closing => {
                    if !self.wanted.borrow().has_terms_of(wants) {
                        open.close();
                    }
                }
                () = self.closing.cancelled(), if !is_closing => {
                    if open.terms.is_none() {
                        return DisconnectReason::Closed("stopped".into());
                    }
                    open.close();
                }
                () = at(open.again_at), if !is_closing => {
                    open.again_at = None;
                    open.refused.clear();
                }
                () = at(open.silent_at), if !is_closing => open.silent(self.phase),
                () = at(open.deadline), if is_closing => {
                    if open.disconnecting {
                        return DisconnectReason::Closed("the broker did not close".into());
                    }
                    open.disconnect();
                }
            }
        }
    }

    /// Asks the next thing of the broker, or says goodbye. Packet ids of subscriptions come from
    /// rumqttc's ring, so that nothing may be on its way then.
    async fn advance(&mut self, open: &mut Open) {
        if !open.window.is_empty() || open.terms.is_none() {
            return;
        }
        if open.deadline.is_some() {
            if self.given.is_empty() && open.acknowledging == 0 {
                open.disconnect();
            }
            return;
        }
        while open.asked.is_none() {
            let Some(step) = self.step(open) else {
                return;
            };
            open.asked = Some(step.clone());
            let asked = match &step {
                Step::Subscribe(one) => {
                    let why = open.terms.and_then(|terms| forbidden(&terms, &one.filter));
                    if let Some(why) = why {
                        self.subscribed(open, Err(why.to_owned())).await;
                        continue;
                    }
                    let numbers = open.terms.is_some_and(|terms| terms.numbers_subscriptions);
                    open.subscribe(one, numbers && self.numbers_subscriptions)
                }
                Step::Unsubscribe(filter) => open.client.try_unsubscribe(filter.as_str()).is_ok(),
            };
            if !asked {
                tracing::debug!("the connection ended before a subscription");
            }
        }
    }

    /// What the broker's subscriptions lack to be as they are wanted.
    fn step(&self, open: &Open) -> Option<Step> {
        let wants = self.wanted.borrow();
        let wanted: &[DeviceSubscription] = match self.phase {
            Phase::Looking | Phase::Draining => &[],
            Phase::Own | Phase::Before => &wants.subscriptions,
        };
        let is_wanted = |filter: &TopicFilter| wanted.iter().any(|one| &one.filter == filter);
        let held = open.subscribed.iter().map(|one| &one.filter);
        let mut held = held.chain(&self.known);
        if let Some(filter) = held.find(|filter| !is_wanted(filter)) {
            return Some(Step::Unsubscribe(filter.clone()));
        }
        if open.silent_at.is_some() {
            return None;
        }
        let is_missing = |one: &&DeviceSubscription| {
            !open.subscribed.contains(one) && !open.refused.contains(one)
        };
        wanted.iter().find(is_missing).cloned().map(Step::Subscribe)
    }

    async fn apply(&mut self, open: &mut Open, note: Note) {
        match note {
            Note::Accepted(terms) => {
                open.window = Window::new(terms.packet_ids);
                open.terms = Some(terms);
                match terms.session_present {
                    true => open.heard(self.phase),
                    false => self.known.clear(),
                }
                self.enter(self.phase.accepted(terms.session_present));
            }
            Note::Subscribed(granted) => self.subscribed(open, granted).await,
            Note::Unsubscribed => {
                if let Some(Step::Unsubscribe(filter)) = open.asked.take() {
                    self.known.retain(|known| known != &filter);
                    open.subscribed.retain(|one| one.filter != filter);
                }
            }
            Note::Sent(packet_id) => open.window.sent(packet_id),
            Note::Acknowledged => {
                open.acknowledging = open.acknowledging.saturating_sub(1);
                if open.silent_at.is_some() {
                    open.heard(self.phase);
                }
            }
            Note::Answered(packet_id, outcome) => {
                if let Some(token) = open.window.acknowledged(packet_id) {
                    self.tell(token, outcome).await;
                }
            }
            Note::Merged => self.numbers_subscriptions = false,
        }
    }

    async fn subscribed(&mut self, open: &mut Open, granted: Result<bool, String>) {
        let Some(Step::Subscribe(subscription)) = open.asked.take() else {
            return;
        };
        let filter = subscription.filter.clone();
        open.subscribed.retain(|one| one.filter != filter);
        let problem = match granted {
            Ok(at_least_once) => {
                let is_less = subscription.at_least_once && !at_least_once;
                open.subscribed.push(subscription);
                is_less
                    .then(|| "it sends with QoS 0 only: what it can't deliver is lost".to_owned())
            }
            Err(why) => {
                open.refused.push(subscription);
                open.again_at = Some(Instant::now() + REFUSED_PAUSE);
                Some(format!("it refuses the subscription: {why}"))
            }
        };
        let event = DeviceEvent::Subscribed { filter, problem };
        drop(self.events.send(event).await);
    }

    async fn hand_over(&self, open: &mut Open, submitted: Submitted) {
        if submitted.connection != self.connection {
            return; // its caller has heard of the end of that connection
        }
        if let Err(outcome) = open.hand_over(submitted.message, submitted.token) {
            self.tell(submitted.token, outcome).await;
        }
    }

    fn acknowledge(&self, open: &mut Open, receipt: &Receipt) {
        if receipt.connection != self.connection {
            return; // the broker sends the message again
        }
        match open.client.try_ack(&receipt.publish()) {
            Ok(()) => open.acknowledging += 1,
            Err(_) => tracing::debug!("the connection ended before an acknowledgement"),
        }
    }

    async fn tell(&self, token: u64, outcome: Outcome) {
        let event = DeviceEvent::Published { token, outcome };
        drop(self.events.send(event).await); // or the owner has ended
    }
}
