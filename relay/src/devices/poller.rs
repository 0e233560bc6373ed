//! The task that only polls rumqttc for one connection of a session for devices, until the first
//! error. What it reads of packets goes to the driver; messages go straight to the session's owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use haar_protocol::mqtt::TopicFilter;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Packet, PubAckReason, Publish, SubscribeReasonCode};
use rumqttc::v5::{Event, EventLoop};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::budget::{Budget, cost};
use super::former::Phase;
use super::{DeviceEvent, DeviceMessage, DeviceTerms, MessageProperties, Outcome, Receipt};
use crate::PACKET_BYTES_MAX;
use crate::connection::{IN_FLIGHT_MAX, KEEP_ALIVE};
use crate::reason::DisconnectReason;

/// What the poller tells the driver.
#[derive(Debug)]
pub(super) enum Note {
    /// The broker accepted the identity.
    Accepted(Terms),
    /// It has answered the one subscription that was asked for; why not, when it refused, or else
    /// whether with QoS 1.
    Subscribed(Result<bool, String>),
    /// It has answered the one filter that was withdrawn.
    Unsubscribed,
    /// The next publish was written, under this packet id; 0 for one without PUBACK.
    Sent(u16),
    /// The next acknowledgement was written.
    Acknowledged,
    /// It has answered the publish with this packet id.
    Answered(u16, Outcome),
    /// One copy of a message came for several subscriptions: see [`Poller::receive`].
    Merged,
}

/// What the broker said of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Whether it had kept the session.
    pub(super) session_present: bool,
    /// How many packet ids rumqttc goes around with on this connection.
    pub(super) packet_ids: u16,
    /// The largest packet that it takes.
    pub(super) packet_bytes_max: u32,
    /// Whether it says for which subscription a message came.
    pub(super) numbers_subscriptions: bool,
    /// Whether it takes filters with wildcards.
    pub(super) takes_wildcards: bool,
    /// Whether it takes shared subscriptions.
    pub(super) takes_shared: bool,
    /// What its owner hears of.
    pub(super) told: DeviceTerms,
}

pub(super) struct Poller {
    pub(super) event_loop: EventLoop,
    pub(super) connection: u64,
    /// How long the broker is asked to keep the session.
    pub(super) expiry_s: u32,
    /// One that only looks for a session ends when the broker has answered.
    pub(super) phase: Phase,
    /// The topics for which a former session is drained.
    pub(super) awaited: Vec<TopicFilter>,
    /// Whether the numbers of subscriptions are to be believed.
    pub(super) numbers_subscriptions: bool,
    /// Messages that were received and are not acknowledged.
    pub(super) unacknowledged: Arc<AtomicUsize>,
    /// Whether they were more than the window allows, and that was reported.
    pub(super) has_exceeded: bool,
    pub(super) budget: Budget,
    pub(super) notes: mpsc::Sender<Note>,
    pub(super) events: mpsc::Sender<DeviceEvent>,
    pub(super) closing: CancellationToken,
}

impl Poller {
    /// Runs until the connection ends, and says why.
    pub(super) async fn run(mut self) -> DisconnectReason {
        let mut is_answered = false;
        loop {
            let event = match self.event_loop.poll().await {
                Ok(event) => event,
                Err(error) if is_answered => return error.into(),
                Err(error) => return DisconnectReason::from(error).without_answer(),
            };
            is_answered |= matches!(event, Event::Incoming(Packet::ConnAck(_)));
            if let Err(reason) = self.handle(event).await {
                return reason;
            }
        }
    }

    async fn handle(&mut self, event: Event) -> Result<(), DisconnectReason> {
        match event {
            Event::Incoming(Packet::ConnAck(answer)) => {
                let terms = terms(&answer, self.expiry_s);
                self.note(Note::Accepted(terms)).await?;
                if self.phase == Phase::Looking {
                    return Err(DisconnectReason::Closed("it was looked for".to_owned()));
                }
                if self.phase.is_announced() {
                    self.emit(DeviceEvent::Connected {
                        connection: self.connection,
                        is_new_session: !terms.session_present,
                        drains_former: self.phase == Phase::Draining,
                        terms: terms.told,
                    })
                    .await;
                }
                Ok(())
            }
            Event::Incoming(Packet::SubAck(answer)) => {
                let granted = match answer.return_codes.first() {
                    Some(SubscribeReasonCode::Success(quality)) => Ok(*quality != QoS::AtMostOnce),
                    Some(code) => Err(format!("{code:?}")),
                    None => Err("an empty answer".to_owned()),
                };
                self.note(Note::Subscribed(granted)).await
            }
            Event::Incoming(Packet::UnsubAck(_)) => self.note(Note::Unsubscribed).await,
            Event::Incoming(Packet::Publish(publish)) => self.receive(publish).await,
            Event::Incoming(Packet::PubAck(answer)) => {
                let outcome = outcome(answer.reason);
                self.note(Note::Answered(answer.pkid, outcome)).await
            }
            Event::Outgoing(rumqttc::Outgoing::Publish(packet_id)) => {
                self.note(Note::Sent(packet_id)).await
            }
            Event::Outgoing(rumqttc::Outgoing::PubAck(_) | rumqttc::Outgoing::PubRec(_)) => {
                // Only of what was received.
                self.unacknowledged.fetch_sub(1, Ordering::Relaxed);
                self.note(Note::Acknowledged).await
            }
            _ => Ok(()),
        }
    }

    /// Takes a message. A broker may send one copy of it for several subscriptions, with a number for
    /// each; rumqttc 0.25.1 counts the bytes of each number once too often, and may
    /// take the properties that follow for part of the payload. Such a broker is not asked for numbers
    /// again.
    ///
    /// While this waits for room nothing is read from the socket, and nothing is written. So it waits
    /// for one keep-alive interval at most; what is not acknowledged comes again on the next
    /// connection.
    async fn receive(&mut self, publish: Publish) -> Result<(), DisconnectReason> {
        let is_at_most_once = publish.qos == QoS::AtMostOnce;
        if self.phase == Phase::Preparing && !is_at_most_once {
            return Ok(()); // comes again when the former session is empty
        }
        let cost = cost(&publish);
        // A topic that is no text matches no filter of ours.
        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
        let mut properties = publish.properties.unwrap_or_default();
        let numbers = std::mem::take(&mut properties.subscription_identifiers);
        if numbers.len() > 1 && self.numbers_subscriptions {
            self.note(Note::Merged).await?;
            let why = "it sends one copy of a message for several subscriptions: connecting again without subscription identifiers";
            return Err(DisconnectReason::Closed(why.to_owned()));
        }
        let number = numbers.first().filter(|_| self.numbers_subscriptions);
        let subscription = number.and_then(|number| u32::try_from(*number).ok());
        let is_awaited = |filter: &TopicFilter| {
            subscription.is_none_or(|number| filter.subscription_id() == number)
                && filter.matches(&topic)
        };
        let receipt = (!is_at_most_once).then(|| Receipt {
            connection: self.connection,
            packet_id: publish.pkid,
            quality: publish.qos,
            is_awaited: self.awaited.iter().any(is_awaited),
        });
        let is_in_window = receipt.is_some() && self.is_in_window().await;
        let held = match is_in_window {
            true => self.budget.take_anyway(cost),
            false => tokio::select! {
                biased;
                held = self.budget.take(cost, KEEP_ALIVE) => held.ok_or_else(no_room)?,
                // What is not delivered comes again, or was sent at most once.
                () = self.closing.cancelled() => return Ok(()),
            },
        };
        let message = DeviceMessage {
            topic,
            payload: publish.payload,
            retained: publish.retain,
            duplicate: publish.dup,
            properties: MessageProperties::from(properties),
            subscription,
            receipt,
            held,
        };
        self.emit(DeviceEvent::Message(message)).await;
        Ok(())
    }

    /// Counts a message to be acknowledged. False when the receive maximum does not allow it yet.
    async fn is_in_window(&mut self) -> bool {
        let before = self.unacknowledged.fetch_add(1, Ordering::Relaxed);
        let is_in_window = before < usize::from(IN_FLIGHT_MAX);
        if !is_in_window && !self.has_exceeded {
            self.has_exceeded = true;
            let messages = IN_FLIGHT_MAX;
            self.emit(DeviceEvent::WindowExceeded { messages }).await;
        }
        is_in_window
    }

    /// Waits for room, but not while the session closes: what is not delivered comes again.
    async fn emit(&mut self, event: DeviceEvent) {
        tokio::select! {
            biased;
            sent = self.events.send(event) => drop(sent),
            () = self.closing.cancelled() => {}
        }
    }

    async fn note(&mut self, note: Note) -> Result<(), DisconnectReason> {
        let gone = |_| DisconnectReason::Closed("the session was dropped".into());
        self.notes.send(note).await.map_err(gone)
    }
}

fn no_room() -> DisconnectReason {
    let why = "there is no room for more of its messages: see the backlog of its routes";
    DisconnectReason::Closed(why.to_owned())
}

fn terms(answer: &ConnAck, expiry_s: u32) -> Terms {
    let said = answer.properties.as_ref();
    let flag = |flag: Option<u8>| flag != Some(0);
    let receive_max = said.and_then(|said| said.receive_max);
    let packet_bytes_max = said.and_then(|said| said.max_packet_size);
    let keeps_s = said.and_then(|said| said.session_expiry_interval);
    Terms {
        session_present: answer.session_present,
        packet_ids: receive_max.unwrap_or(u16::MAX).clamp(1, IN_FLIGHT_MAX),
        packet_bytes_max: packet_bytes_max
            .unwrap_or(PACKET_BYTES_MAX)
            .min(PACKET_BYTES_MAX),
        numbers_subscriptions: flag(said.and_then(|said| said.subscription_identifiers_available)),
        takes_wildcards: flag(said.and_then(|said| said.wildcard_subscription_available)),
        takes_shared: flag(said.and_then(|said| said.shared_subscription_available)),
        told: DeviceTerms {
            retains: flag(said.and_then(|said| said.retain_available)),
            acknowledges: flag(said.and_then(|said| said.max_qos)),
            keeps_s: keeps_s.unwrap_or(expiry_s),
        },
    }
}

fn outcome(reason: PubAckReason) -> Outcome {
    match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Outcome::Taken,
        PubAckReason::TopicNameInvalid => Outcome::Never("it does not take the topic".to_owned()),
        PubAckReason::PayloadFormatInvalid => {
            Outcome::Never("the payload does not match its declared format".to_owned())
        }
        PubAckReason::NotAuthorized => Outcome::Refused("not authorised".to_owned()),
        PubAckReason::QuotaExceeded => Outcome::Refused("it has no room".to_owned()),
        other => Outcome::Refused(format!("{other:?}")),
    }
}
