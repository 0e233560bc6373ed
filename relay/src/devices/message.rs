//! Messages of a session for devices, with what MQTT 5 says about them.

use bytes::Bytes;
use haar_protocol::mqtt::TopicName;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};

use super::budget::Held;

/// Bytes of a PUBLISH beside topic, payload and properties, at most (MQTT 5 section 3.3).
const PUBLISH_OVERHEAD_BYTES: usize = 40;

/// What a publisher says about its message (MQTT 5.0 section 3.3.2.3).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageProperties {
    /// Its media type.
    pub content_type: Option<String>,
    /// Where its publisher expects an answer.
    pub response_topic: Option<String>,
    /// What the answer carries, so that its receiver knows the request.
    pub correlation_data: Option<Bytes>,
    /// True when the payload is said to be UTF-8.
    pub is_text: bool,
    /// For how many more seconds it is of use.
    pub expiry_s: Option<u32>,
    /// Names and values that the publisher made up.
    pub user: Vec<(String, String)>,
}

impl MessageProperties {
    /// Their size in a packet, without what is fixed.
    pub(super) fn bytes(&self) -> usize {
        let user = self.user.iter();
        let user: usize = user.map(|(name, value)| 5 + name.len() + value.len()).sum();
        let texts = [&self.content_type, &self.response_topic];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        user + texts + self.correlation_data.as_ref().map_or(0, Bytes::len)
    }
}

impl From<PublishProperties> for MessageProperties {
    fn from(properties: PublishProperties) -> Self {
        Self {
            content_type: properties.content_type,
            response_topic: properties.response_topic,
            correlation_data: properties.correlation_data,
            is_text: properties.payload_format_indicator == Some(1),
            expiry_s: properties.message_expiry_interval,
            user: properties.user_properties,
        }
    }
}

impl From<MessageProperties> for PublishProperties {
    fn from(properties: MessageProperties) -> Self {
        Self {
            content_type: properties.content_type,
            response_topic: properties.response_topic,
            correlation_data: properties.correlation_data,
            payload_format_indicator: properties.is_text.then_some(1),
            message_expiry_interval: properties.expiry_s,
            user_properties: properties.user,
            ..Self::default()
        }
    }
}

/// A message of a device. Nothing about it was checked but its form.
#[derive(Debug)]
pub struct DeviceMessage {
    /// The topic that it was published to.
    pub topic: String,
    /// Its bytes.
    pub payload: Bytes,
    /// True when the broker had kept it from before the subscription.
    pub retained: bool,
    /// True when the broker has sent it before (DUP): it may be a repeat.
    pub duplicate: bool,
    /// What its publisher says about it.
    pub properties: MessageProperties,
    /// For which subscription it came
    /// ([`subscription_id`](haar_protocol::mqtt::TopicFilter::subscription_id)); none when the broker
    /// does not say.
    pub subscription: Option<u32>,
    /// What acknowledges it; none at QoS 0.
    pub receipt: Option<Receipt>,
    /// Its share of the session's budget: drop it when the message is stored, or let go.
    pub held: Held,
}

/// Acknowledges one message.
#[derive(Debug)]
pub struct Receipt {
    /// The connection that the message came on: on another one it means nothing.
    pub(super) connection: u64,
    pub(super) packet_id: u16,
    pub(super) quality: QoS,
    /// The message is of those for which a former session is drained.
    pub(super) is_awaited: bool,
}

impl Receipt {
    /// What rumqttc acknowledges.
    pub(super) fn publish(&self) -> Publish {
        let mut publish = Publish::new("", self.quality, Bytes::new(), None);
        publish.pkid = self.packet_id;
        publish
    }
}

/// A message for devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePublish {
    /// The topic.
    pub topic: TopicName,
    /// Its bytes.
    pub payload: Bytes,
    /// True when the broker keeps it for later subscribers.
    pub retain: bool,
    /// What is said about it.
    pub properties: MessageProperties,
    /// True to be told what became of it (QoS 1).
    pub at_least_once: bool,
}

impl DevicePublish {
    /// The size of the packet that carries it, at most.
    pub(super) fn packet_bytes(&self) -> usize {
        let topic = self.topic.as_str().len();
        PUBLISH_OVERHEAD_BYTES + topic + self.payload.len() + self.properties.bytes()
    }
}

/// What became of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The broker has it.
    Taken,
    /// The broker refused it, and may take it later: it has no right, or no room.
    Refused(String),
    /// No broker like this one ever takes it.
    Never(String),
}
