//! One connection of a session for devices, as its driver sees it: what the broker holds because of it,
//! and what it has not answered yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use haar_protocol::mqtt::TopicFilter;
use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::v5::{
    Filter, LastWill, LastWillProperties, RetainForwardRule, SubscribeProperties,
};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep_until};

use super::poller::{Note, Terms};
use super::steps::Step;
use super::{DevicePublish, DeviceSubscription, Outcome};
use crate::connection::{IN_FLIGHT_MAX, quality};
use crate::window::Window;

/// How long a session that ends waits for what was published, and how long then for the broker to
/// close the connection.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// After this time without a message the broker has sent what it had kept, most likely. Also how
/// often is looked whether messages still wait to be acknowledged.
const SILENCE: Duration = Duration::from_millis(500);
/// The longest wait for that silence.
const SILENCE_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long the broker waits with the will: an agent that comes back meanwhile was not away.
const WILL_DELAY_S: u32 = 10;

/// The connection that is open now.
pub(super) struct Open {
    pub(super) client: AsyncClient,
    pub(super) notes: mpsc::Receiver<Note>,
    pub(super) window: Window<u64>,
    /// Acknowledgements in rumqttc's request queue.
    pub(super) acknowledging: usize,
    pub(super) terms: Option<Terms>,
    /// What the former session is to be unsubscribed from.
    pub(super) leaving: Vec<TopicFilter>,
    /// What the broker holds because of this connection.
    pub(super) subscribed: Vec<DeviceSubscription>,
    /// The one step that it has not answered yet.
    pub(super) asked: Option<Step>,
    /// What it refused, and when that is asked for again.
    pub(super) refused: Vec<DeviceSubscription>,
    pub(super) again_at: Option<Instant>,
    /// When the broker counts as silent: see [`Open::heard`].
    pub(super) silent_at: Option<Instant>,
    silent_at_last: Instant,
    /// Messages that were received and are not acknowledged.
    unacknowledged: Arc<AtomicUsize>,
    /// What the connection is for is done, where the former session is taken over.
    pub(super) is_done: bool,
    /// When a closing connection is given up.
    pub(super) deadline: Option<Instant>,
    pub(super) disconnecting: bool,
}

impl Open {
    pub(super) fn new(
        client: AsyncClient,
        notes: mpsc::Receiver<Note>,
        unacknowledged: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            client,
            notes,
            window: Window::new(IN_FLIGHT_MAX),
            acknowledging: 0,
            terms: None,
            leaving: Vec::new(),
            subscribed: Vec::new(),
            asked: None,
            refused: Vec::new(),
            again_at: None,
            silent_at: None,
            silent_at_last: Instant::now() + SILENCE_WAIT_MAX,
            unacknowledged,
            is_done: false,
            deadline: None,
            disconnecting: false,
        }
    }

    /// The broker sends what it has kept in a session. Only afterwards it is asked for what it
    /// retains, which may be newer: of a window that is full the rest comes later. A former session,
    /// whose `silence` is given, is left when that has passed.
    pub(super) fn heard(&mut self, silence: Option<Duration>) {
        let now = Instant::now();
        self.silent_at = Some(match silence {
            Some(silence) => now + silence,
            None => (now + SILENCE).min(self.silent_at_last),
        });
    }

    /// The silence is over, unless something waits to be acknowledged. A former session is not left
    /// before everything is.
    pub(super) fn silent(&mut self, silence: Option<Duration>) {
        let now = Instant::now();
        let may_wait = silence.is_some() || now < self.silent_at_last;
        self.silent_at = (may_wait && self.has_unacknowledged()).then(|| now + SILENCE);
    }

    /// True when a message was received and is not acknowledged.
    pub(super) fn has_unacknowledged(&self) -> bool {
        self.unacknowledged.load(Ordering::Relaxed) > 0
    }

    /// Ends the connection in order, when what was published is answered.
    pub(super) fn close(&mut self) {
        if self.deadline.is_none() {
            self.deadline = Some(Instant::now() + FLUSH_TIMEOUT);
        }
    }

    /// Says goodbye.
    pub(super) fn disconnect(&mut self) {
        if self.client.try_disconnect().is_err() {
            tracing::debug!("the connection ended before its DISCONNECT");
        }
        self.disconnecting = true;
        self.deadline = Some(Instant::now() + FLUSH_TIMEOUT);
    }

    /// Hands a subscription to rumqttc. `is_numbered` when messages are to say that they come for it.
    pub(super) fn subscribe(
        &self,
        subscription: &DeviceSubscription,
        retain_forward_rule: RetainForwardRule,
        is_numbered: bool,
    ) -> bool {
        let quality = quality(subscription.at_least_once);
        let filter = Filter {
            retain_forward_rule,
            ..Filter::new(subscription.filter.as_str(), quality)
        };
        let number = subscription.filter.subscription_id() as usize;
        let properties = SubscribeProperties {
            id: is_numbered.then_some(number),
            user_properties: Vec::new(),
        };
        let subscribed = self
            .client
            .try_subscribe_many_with_properties([filter], properties);
        subscribed.is_ok()
    }

    /// Hands a message to rumqttc, but for what brokers have said that they do not take: they end the
    /// connection over it.
    ///
    /// # Errors
    /// What becomes of it then.
    pub(super) fn hand_over(
        &mut self,
        mut message: DevicePublish,
        token: u64,
    ) -> Result<(), Outcome> {
        let Some(terms) = self.terms else {
            return Ok(()); // the connection has ended
        };
        let (bytes, limit) = (message.packet_bytes(), terms.packet_bytes_max);
        if bytes > usize::try_from(limit).unwrap_or(usize::MAX) {
            let why = format!("{bytes} bytes are more than the {limit} that it takes");
            return Err(Outcome::Never(why));
        }
        if message.at_least_once && !terms.told.acknowledges {
            return Err(Outcome::Refused("it takes QoS 0 only".to_owned()));
        }
        message.retain &= terms.told.retains;
        let is_acknowledged = message.at_least_once;
        let taken = self.client.try_publish_with_properties(
            message.topic.as_str(),
            quality(message.at_least_once),
            message.retain,
            message.payload,
            message.properties.into(),
        );
        if taken.is_err() {
            tracing::debug!("the connection ended before a message");
        }
        self.window.handed(is_acknowledged.then_some(token));
        Ok(())
    }
}

pub(super) fn last_will(will: &DevicePublish, is_retained: bool) -> LastWill {
    LastWill {
        topic: will.topic.as_str().to_owned().into(),
        message: will.payload.clone(),
        qos: quality(will.at_least_once),
        retain: will.retain && is_retained,
        properties: Some(LastWillProperties {
            delay_interval: Some(WILL_DELAY_S),
            payload_format_indicator: None,
            message_expiry_interval: None,
            content_type: will.properties.content_type.clone(),
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
        }),
    }
}

/// Waits until then; for ever, when there is no such time.
pub(super) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
