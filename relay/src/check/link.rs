//! One connection of a check: what is asked of the broker, and what comes back within a deadline.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Packet, PubAckReason, PubRecReason, Publish, PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop};
use tokio::time::{Instant, timeout, timeout_at};

use crate::PACKET_BYTES_MAX;
use crate::connection::mqtt_options;
use crate::endpoint::Endpoint;
use crate::reason::DisconnectReason;
use crate::session::{Identity, SessionOptions};

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests that may wait: all messages of a trial.
const CAPACITY: usize = 2 * super::QUEUED_MESSAGES;

/// Why something was not tried to its end.
pub(super) type Broken = String;

/// A connection.
pub(super) struct Link {
    client: AsyncClient,
    event_loop: EventLoop,
    /// Messages that came while something else was waited for.
    messages: VecDeque<Publish>,
    is_open: bool,
    /// The largest packet that the broker takes, as it says.
    pub(super) packet_bytes_max: usize,
}

impl Link {
    /// Connects. With `expiry_s` above 0 the broker keeps the session for that time.
    pub(super) async fn open(
        endpoint: &Endpoint,
        identity: &Identity,
        clean: bool,
        expiry_s: u32,
    ) -> Result<(Self, ConnAck), DisconnectReason> {
        let mut mqtt = mqtt_options(&SessionOptions {
            endpoint: endpoint.clone(),
            identity: identity.clone(),
            will: None,
            subscriptions: Vec::new(),
            queue_messages: 1,
        })?;
        mqtt.set_clean_start(clean).set_manual_acks(true);
        mqtt.set_session_expiry_interval(Some(expiry_s));
        let (client, event_loop) = AsyncClient::new(mqtt, CAPACITY);
        let mut link = Self {
            client,
            event_loop,
            messages: VecDeque::new(),
            is_open: true,
            packet_bytes_max: PACKET_BYTES_MAX as usize,
        };
        loop {
            match link.event_loop.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(answer))) => {
                    let properties = answer.properties.as_ref();
                    let told = properties.and_then(|properties| properties.max_packet_size);
                    let most = told.map_or(link.packet_bytes_max, |told| told as usize);
                    link.packet_bytes_max = most.min(link.packet_bytes_max);
                    return Ok((link, answer));
                }
                Ok(_) => {}
                Err(error) => return Err(DisconnectReason::from(error).without_answer()),
            }
        }
    }

    /// False when the broker has closed the connection.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    async fn poll(&mut self) -> Result<Event, Broken> {
        let event = self.event_loop.poll().await.map_err(|error| {
            self.is_open = false;
            DisconnectReason::from(error).to_string()
        })?;
        if let Event::Incoming(Packet::Publish(publish)) = &event {
            self.messages.push_back(publish.clone());
        }
        Ok(event)
    }

    /// Polls until `pick` takes something of an event, for a few seconds.
    async fn answer<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(&Packet) -> Option<T>,
    ) -> Result<T, Broken> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            match timeout_at(deadline, self.poll()).await {
                Ok(Ok(Event::Incoming(packet))) => {
                    if let Some(found) = pick(&packet) {
                        return Ok(found);
                    }
                }
                Ok(Ok(Event::Outgoing(_))) => {}
                Ok(Err(broken)) => return Err(broken),
                Err(_) => return Err(format!("the broker does not answer {what}")),
            }
        }
    }

    /// Subscribes to one filter.
    pub(super) async fn subscribe(&mut self, filter: &str, quality: QoS) -> Result<(), Broken> {
        self.asked(self.client.try_subscribe(filter, quality).is_ok())?;
        let code = self.answer("a subscription", |packet| match packet {
            Packet::SubAck(answer) => answer.return_codes.first().copied(),
            _ => None,
        });
        match code.await? {
            SubscribeReasonCode::Success(_) => Ok(()),
            code => Err(format!("it refuses to subscribe to {filter}: {code:?}")),
        }
    }

    /// Withdraws one filter.
    pub(super) async fn unsubscribe(&mut self, filter: &str) -> Result<(), Broken> {
        self.asked(self.client.try_unsubscribe(filter).is_ok())?;
        let answered = self.answer("the end of a subscription", |packet| {
            matches!(packet, Packet::UnsubAck(_)).then_some(())
        });
        answered.await
    }

    /// Publishes, without waiting for an answer.
    pub(super) fn submit(
        &mut self,
        topic: &str,
        quality: QoS,
        retain: bool,
        payload: impl Into<Bytes>,
        properties: PublishProperties,
    ) -> Result<(), Broken> {
        let taken = self.client.try_publish_with_properties(
            topic,
            quality,
            retain,
            payload.into(),
            properties,
        );
        self.asked(taken.is_ok())
    }

    /// Publishes and waits until the broker has it.
    pub(super) async fn publish(
        &mut self,
        topic: &str,
        quality: QoS,
        retain: bool,
        payload: impl Into<Bytes>,
    ) -> Result<(), Broken> {
        self.submit(
            topic,
            quality,
            retain,
            payload,
            PublishProperties::default(),
        )?;
        if quality == QoS::AtMostOnce {
            return Ok(());
        }
        self.taken(1).await
    }

    /// Waits until the broker has answered so many messages of QoS 1 or 2.
    pub(super) async fn taken(&mut self, count: usize) -> Result<(), Broken> {
        let mut first_refusal = None;
        for _ in 0..count {
            let refusal = self.answer("a message", |packet| match packet {
                Packet::PubAck(answer) => Some(match answer.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
                    reason => Some(format!("{reason:?}")),
                }),
                Packet::PubRec(answer) => match answer.reason {
                    PubRecReason::Success | PubRecReason::NoMatchingSubscribers => None,
                    reason => Some(Some(format!("{reason:?}"))),
                },
                Packet::PubComp(_) => Some(None),
                _ => None,
            });
            let refusal = refusal.await?;
            first_refusal = first_refusal.or(refusal);
        }
        match first_refusal {
            None => Ok(()),
            Some(reason) => Err(format!("it refuses messages: {reason}")),
        }
    }

    /// The next message, acknowledged; none when none comes within `patience`.
    pub(super) async fn message(&mut self, patience: Duration) -> Result<Option<Publish>, Broken> {
        let message = self.unacknowledged(patience).await?;
        if let Some(message) = &message {
            self.acknowledge(message)?;
        }
        Ok(message)
    }

    /// The next message, as it came.
    pub(super) async fn unacknowledged(
        &mut self,
        patience: Duration,
    ) -> Result<Option<Publish>, Broken> {
        let deadline = Instant::now() + patience;
        while self.messages.is_empty() {
            match timeout_at(deadline, self.poll()).await {
                Ok(polled) => drop(polled?),
                Err(_) => return Ok(None),
            }
        }
        Ok(self.messages.pop_front())
    }

    /// Acknowledges a message. It goes out with the next wait.
    pub(super) fn acknowledge(&mut self, message: &Publish) -> Result<(), Broken> {
        let taken = message.qos == QoS::AtMostOnce || self.client.try_ack(message).is_ok();
        self.asked(taken)
    }

    fn asked(&self, is_queued: bool) -> Result<(), Broken> {
        match is_queued && self.is_open {
            true => Ok(()),
            false => Err("the connection is gone".to_owned()),
        }
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) {
        if !self.is_open || self.client.try_disconnect().is_err() {
            return;
        }
        let ended = async { while self.event_loop.poll().await.is_ok() {} };
        let _ = timeout(ANSWER_TIMEOUT, ended).await; // it is dropped then
    }
}
