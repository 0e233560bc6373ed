//! The task behind a session for devices: it starts connections one after another, keeps the broker's
//! subscriptions as they are wanted, hands publishes over as the window allows, and has the session
//! forgotten in the end. Only [`super::DeviceSession`] starts it.

use haar_protocol::mqtt::TopicFilter;
use rumqttc::v5::mqttbytes::v5::{
    Filter, PublishProperties, RetainForwardRule, SubscribeProperties,
};
use rumqttc::v5::{AsyncClient, MqttOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::poller::{Note, Poller, Terms};
use super::{
    DeviceEvent, DeviceOptions, DevicePublish, DeviceSubscription, Outcome, Receipt,
    SESSION_EXPIRY_S, Submitted, packet_bytes,
};
use crate::backoff::Backoff;
use crate::connection::{IN_FLIGHT_MAX, mqtt_options, quality};
use crate::driver::{ended, random};
use crate::reason::DisconnectReason;
use crate::session::SessionOptions;
use crate::window::{HANDED_MAX, Window};

/// How long a session that ends waits for what was published, and then for the broker to close.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Subscriptions that were refused are asked for again after this time.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
const NOTES_MAX: usize = 64;
/// Acknowledgements that are handed to rumqttc before it reports that it took one.
const ACKNOWLEDGING_MAX: usize = 16;

/// The owner of the session's state.
pub(super) struct Driver {
    pub(super) options: DeviceOptions,
    pub(super) events: mpsc::Sender<DeviceEvent>,
    pub(super) submitted: mpsc::Receiver<Submitted>,
    pub(super) given: mpsc::Receiver<Receipt>,
    pub(super) wanted: watch::Receiver<Vec<DeviceSubscription>>,
    /// What the broker's session may hold of former connections.
    pub(super) known: Vec<TopicFilter>,
    pub(super) connection: u64,
    pub(super) budget: Budget,
    /// Whether the broker is asked to number subscriptions.
    pub(super) numbers_subscriptions: bool,
    pub(super) closing: CancellationToken,
    pub(super) forgetting: CancellationToken,
    pub(super) stop: CancellationToken,
}

/// The connection that is open now.
struct Open {
    client: AsyncClient,
    notes: mpsc::Receiver<Note>,
    window: Window<u64>,
    /// Acknowledgements in rumqttc's request queue.
    acknowledging: usize,
    terms: Option<Terms>,
    /// What the broker holds because of this connection.
    subscribed: Vec<DeviceSubscription>,
    /// The one step that it has not answered yet.
    asked: Option<Step>,
    /// What it refused, and when that is asked for again.
    refused: Vec<DeviceSubscription>,
    again_at: Option<Instant>,
    /// When a closing connection is given up.
    deadline: Option<Instant>,
    disconnecting: bool,
}

/// What is asked of the broker, one thing at a time.
#[derive(Debug, Clone)]
enum Step {
    Subscribe(DeviceSubscription),
    Unsubscribe(TopicFilter),
}

impl Driver {
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        while !self.closing.is_cancelled() {
            let started = Instant::now();
            let reason = self.connect_once().await;
            if self.closing.is_cancelled() {
                break;
            }
            let delay = backoff.after(&reason, started.elapsed(), random());
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

    pub(super) fn mqtt(&self) -> Result<MqttOptions, DisconnectReason> {
        let options = SessionOptions {
            endpoint: self.options.endpoint.clone(),
            identity: self.options.identity.clone(),
            will: None,
            subscriptions: Vec::new(),
            queue_messages: 1,
        };
        mqtt_options(&options)
    }

    async fn connect_once(&mut self) -> DisconnectReason {
        let mut mqtt = match self.mqtt() {
            Ok(mqtt) => mqtt,
            Err(reason) => return reason,
        };
        mqtt.set_clean_start(false).set_manual_acks(true);
        mqtt.set_session_expiry_interval(Some(SESSION_EXPIRY_S));
        // Room for the window, acknowledgements, one step and the DISCONNECT: so a `try_` call never
        // finds it full.
        let capacity = usize::from(IN_FLIGHT_MAX) + ACKNOWLEDGING_MAX + HANDED_MAX + 2;
        let (client, event_loop) = AsyncClient::new(mqtt, capacity);
        let (notes_in, notes) = mpsc::channel(NOTES_MAX);
        self.connection += 1;
        let poller = Poller {
            event_loop,
            connection: self.connection,
            numbers_subscriptions: self.numbers_subscriptions,
            unacknowledged: 0,
            has_exceeded: false,
            budget: self.budget.clone(),
            notes: notes_in,
            events: self.events.clone(),
            closing: self.closing.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(poller.run());
        let mut open = Open {
            client,
            notes,
            window: Window::new(IN_FLIGHT_MAX),
            acknowledging: 0,
            terms: None,
            subscribed: Vec::new(),
            asked: None,
            refused: Vec::new(),
            again_at: None,
            deadline: None,
            disconnecting: false,
        };
        let reason = self.serve(&mut open, &mut tasks).await;
        tasks.shutdown().await;
        while let Ok(note) = open.notes.try_recv() {
            self.apply(&mut open, note).await; // PUBACKs that were still read
        }
        for subscription in open.subscribed {
            if !self.known.contains(&subscription.filter) {
                self.known.push(subscription.filter);
            }
        }
        reason
    }

    async fn serve(
        &mut self,
        open: &mut Open,
        tasks: &mut JoinSet<DisconnectReason>,
    ) -> DisconnectReason {
        loop {
            if !open.disconnecting {
                self.advance(open);
            }
            let settled = open.terms.is_some() && open.asked.is_none() && self.step(open).is_none();
            let room = settled && open.deadline.is_none() && open.window.has_room();
            let is_closing = open.deadline.is_some();
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
                Ok(()) = self.wanted.changed(), if !is_closing => {}
                () = self.closing.cancelled(), if !is_closing => {
                    if open.terms.is_none() {
                        return DisconnectReason::Closed("stopped".into());
                    }
                    open.deadline = Some(Instant::now() + FLUSH_TIMEOUT);
                }
                () = at(open.again_at), if !is_closing => {
                    open.again_at = None;
                    open.refused.clear();
                }
                () = at(open.deadline), if is_closing => {
                    if open.disconnecting {
                        return DisconnectReason::Closed("the broker did not close".into());
                    }
                    disconnect(open);
                }
            }
        }
    }

    /// Asks the next thing of the broker, or says goodbye. Packet ids of subscriptions come from
    /// rumqttc's ring, so that nothing may be on its way then.
    fn advance(&mut self, open: &mut Open) {
        if !open.window.is_empty() || open.terms.is_none() {
            return;
        }
        if open.deadline.is_some() {
            if self.given.is_empty() && open.acknowledging == 0 {
                disconnect(open);
            }
            return;
        }
        if open.asked.is_some() {
            return;
        }
        let Some(step) = self.step(open) else {
            return;
        };
        let asked = match &step {
            Step::Subscribe(subscription) => self.subscribe(open, subscription),
            Step::Unsubscribe(filter) => open.client.try_unsubscribe(filter.as_str()).is_ok(),
        };
        if !asked {
            tracing::debug!("the connection ended before a subscription");
        }
        open.asked = Some(step);
    }
    /// What the broker's subscriptions lack to be as they are wanted.
    fn step(&self, open: &Open) -> Option<Step> {
        let wanted = self.wanted.borrow();
        let is_wanted = |filter: &TopicFilter| wanted.iter().any(|one| &one.filter == filter);
        let held = open.subscribed.iter().map(|one| &one.filter);
        let mut held = held.chain(&self.known);
        if let Some(filter) = held.find(|filter| !is_wanted(filter)) {
            return Some(Step::Unsubscribe(filter.clone()));
        }
        let is_missing = |one: &&DeviceSubscription| {
            !open.subscribed.contains(one) && !open.refused.contains(one)
        };
        wanted.iter().find(is_missing).cloned().map(Step::Subscribe)
    }

    fn subscribe(&self, open: &Open, subscription: &DeviceSubscription) -> bool {
        let quality = quality(subscription.at_least_once);
        let filter = Filter {
            // A connection must not bring again what the broker retains: only a subscription does.
            retain_forward_rule: RetainForwardRule::OnNewSubscribe,
            ..Filter::new(subscription.filter.as_str(), quality)
        };
        let numbers = open.terms.is_some_and(|terms| terms.numbers_subscriptions);
        let number = subscription.filter.subscription_id() as usize;
        let properties = SubscribeProperties {
            id: (numbers && self.numbers_subscriptions).then_some(number),
            user_properties: Vec::new(),
        };
        let client = &open.client;
        client
            .try_subscribe_many_with_properties([filter], properties)
            .is_ok()
    }

    async fn apply(&mut self, open: &mut Open, note: Note) {
        match note {
            Note::Accepted(terms) => {
                open.window = Window::new(terms.packet_ids);
                open.terms = Some(terms);
                if !terms.session_present {
                    self.known.clear();
                }
            }
            Note::Subscribed(refused) => self.subscribed(open, refused).await,
            Note::Unsubscribed => {
                if let Some(Step::Unsubscribe(filter)) = open.asked.take() {
                    self.known.retain(|known| known != &filter);
                    open.subscribed.retain(|one| one.filter != filter);
                }
            }
            Note::Sent(packet_id) => open.window.sent(packet_id),
            Note::Acknowledged => open.acknowledging = open.acknowledging.saturating_sub(1),
            Note::Answered(packet_id, outcome) => {
                if let Some(token) = open.window.acknowledged(packet_id) {
                    self.tell(token, outcome).await;
                }
            }
            Note::Merged => self.numbers_subscriptions = false,
        }
    }

    async fn subscribed(&mut self, open: &mut Open, refused: Option<String>) {
        let Some(Step::Subscribe(subscription)) = open.asked.take() else {
            return;
        };
        let filter = subscription.filter.clone();
        open.subscribed.retain(|one| one.filter != filter);
        match refused {
            None => open.subscribed.push(subscription),
            Some(why) => {
                open.refused.push(subscription);
                open.again_at = Some(Instant::now() + REFUSED_PAUSE);
                let event = DeviceEvent::SubscriptionRefused { filter, why };
                drop(self.events.send(event).await);
            }
        }
    }

    async fn hand_over(&self, open: &mut Open, submitted: Submitted) {
        let Submitted {
            connection,
            token,
            message,
        } = submitted;
        if connection != self.connection {
            return; // its caller has heard of the end of that connection
        }
        let limit = open.terms.map_or(0, |terms| terms.packet_bytes_max);
        let bytes = packet_bytes(&message);
        if bytes > usize::try_from(limit).unwrap_or(usize::MAX) {
            let why = format!("{bytes} bytes are more than the {limit} that it takes");
            return self.tell(token, Outcome::Never(why)).await;
        }
        let is_acknowledged = message.at_least_once;
        if !publish(&open.client, message) {
            tracing::debug!("the connection ended before a message");
        }
        open.window.handed(is_acknowledged.then_some(token));
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

/// Says goodbye.
fn disconnect(open: &mut Open) {
    if open.client.try_disconnect().is_err() {
        tracing::debug!("the connection ended before its DISCONNECT");
    }
    open.disconnecting = true;
    open.deadline = Some(Instant::now() + FLUSH_TIMEOUT);
}

fn publish(client: &AsyncClient, message: DevicePublish) -> bool {
    let properties = PublishProperties {
        content_type: Some(message.content_type),
        user_properties: message.user_properties,
        ..PublishProperties::default()
    };
    let taken = client.try_publish_with_properties(
        message.topic.as_str(),
        quality(message.at_least_once),
        message.retain,
        message.payload,
        properties,
    );
    taken.is_ok()
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
