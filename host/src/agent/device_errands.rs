//! What a node tells a broker of devices in the name of a route, beside the messages of its outlet:
//! that it is gone (the payload that its will has), or that what the broker retains is to be
//! forgotten (an empty message that is to be retained, MQTT 5.0 section 3.3.1.3).

use std::sync::Arc;

use bytes::Bytes;
use haar_protocol::ids::Name;
use haar_protocol::mqtt::TopicName;
use haar_relay::{DevicePublish, DeviceSession, DeviceTerms, MessageProperties, Outcome};

use crate::bus::topics::OutgoingTopic;

/// Messages that the broker has not acknowledged. They are sent on each connection until it has.
#[derive(Debug, Default)]
pub(super) struct Errands(Vec<(Arc<DevicePublish>, Option<u64>)>);

impl Errands {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Queues the messages that are due when a route is withdrawn.
    pub(super) fn withdrawn(&mut self, route: &OutgoingTopic) {
        if route.clears && route.target.retain {
            let topic = route.target.topic.clone();
            self.add(message(topic, Bytes::new(), true));
        } else {
            self.leave(route);
        }
    }

    /// Queues what the will says, because a broker does not publish the will of a node that leaves in order.
    pub(super) fn leave(&mut self, route: &OutgoingTopic) {
        if let Some(will) = will(route) {
            self.add(will);
        }
    }

    fn add(&mut self, message: DevicePublish) {
        self.cancel(&message.topic);
        self.0.push((Arc::new(message), None));
    }

    /// Drops messages for a topic to which a route publishes again.
    pub(super) fn cancel(&mut self, topic: &TopicName) {
        self.0.retain(|(message, _)| &message.topic != topic);
    }

    pub(super) fn disconnected(&mut self) {
        for (_, token) in &mut self.0 {
            *token = None;
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.0.iter().any(|(_, token)| token.is_none())
    }

    /// Sends the next message. Returns false when there is none.
    pub(super) fn send(
        &mut self,
        session: &DeviceSession,
        connection: u64,
        token: u64,
        terms: DeviceTerms,
    ) -> bool {
        let Some(index) = self.0.iter().position(|(_, token)| token.is_none()) else {
            return false;
        };
        let mut message = DevicePublish::clone(&self.0[index].0);
        message.at_least_once = terms.acknowledges;
        if session.publish(connection, token, message).is_ok() {
            self.0[index].1 = Some(token);
            if !terms.acknowledges {
                self.0.remove(index);
            }
        }
        true
    }

    /// Takes the broker's answer. Returns false when it is for none of these messages.
    pub(super) fn published(&mut self, relay: &Name, token: u64, outcome: &Outcome) -> bool {
        let Some(index) = self.0.iter().position(|(_, sent)| *sent == Some(token)) else {
            return false;
        };
        let (message, _) = self.0.remove(index);
        if let Outcome::Refused(why) | Outcome::Never(why) = outcome {
            let topic = &message.topic;
            match message.payload.is_empty() {
                true => {
                    tracing::warn!(%relay, %topic, "the broker did not clear the topic of a withdrawn route: {why}");
                }
                false => {
                    tracing::warn!(%relay, %topic, "the broker did not take the message that says that the node is gone: {why}");
                }
            }
        }
        true
    }
}

/// The will of a route, which the broker publishes when the node is gone. QoS 0, because a broker refuses the
/// connection for a will above its maximum QoS, which it announces only on connections.
pub(super) fn will(route: &OutgoingTopic) -> Option<DevicePublish> {
    let text = route.target.will.as_ref()?;
    let payload = Bytes::from(text.clone());
    let mut will = message(route.target.topic.clone(), payload, route.target.retain);
    will.properties.content_type = Some(route.content_type.clone());
    Some(will)
}

fn message(topic: TopicName, payload: Bytes, retain: bool) -> DevicePublish {
    DevicePublish {
        topic,
        payload,
        retain,
        properties: MessageProperties::default(),
        at_least_once: false,
    }
}
