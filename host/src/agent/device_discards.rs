//! Messages of devices that go nowhere: each is counted on its route, or on the node when it has none,
//! and the log says why. It says so of the first message, and then each time that their number has
//! doubled: a device that sends nothing else must not fill the log.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};

use haar_protocol::ids::{Name, RouteId};

use crate::bus::Bus;
use crate::bus::message::{Headers, count};
use crate::bus::topics::{IncomingTopic, TooLarge};

/// Why a route does not take a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// The device says that it is of another type.
    Type(String),
    /// It is larger than the microservice or the log takes.
    Size(TooLarge),
    /// The log is full, and nobody keeps the message meanwhile: it came with QoS 0.
    Full,
    /// The log could not be opened, and nobody keeps the message meanwhile: it came with QoS 0.
    NoLog,
}

/// Counts the messages of one broker that were discarded.
#[derive(Debug)]
pub(super) struct Discards {
    relay: Name,
    routes: HashMap<(RouteId, Discriminant<Unfit>), u64>,
    without_route: u64,
    without_properties: u64,
}

impl Discards {
    pub(super) fn new(relay: Name) -> Self {
        Self {
            relay,
            routes: HashMap::new(),
            without_route: 0,
            without_properties: 0,
        }
    }

    /// The message goes to no inlet over this route.
    pub(super) fn discard(&mut self, route: &IncomingTopic, why: &Unfit) {
        let counters = &route.entry.counters;
        count(&counters.dropped);
        let kind = (counters.id, discriminant(why));
        let messages = self.routes.entry(kind).or_default();
        *messages += 1;
        if !messages.is_power_of_two() {
            return;
        }
        let (relay, filter) = (&self.relay, &route.filter);
        match why {
            Unfit::Type(said) => {
                let (said, takes) = (said.escape_debug(), &route.entry.content_type);
                tracing::warn!(%relay, %filter, messages, "dropped a message of type `{said}`: the inlet takes {takes}");
            }
            Unfit::Size(error) => {
                tracing::warn!(%relay, %filter, messages, "dropped a message that is too large: {error}");
            }
            Unfit::Full => {
                tracing::warn!(%relay, %filter, messages, "dropped a message of QoS 0: the backlog of the route is full (publish with QoS 1, or say `when_full: drop-oldest`)");
            }
            Unfit::NoLog => {
                tracing::error!(%relay, %filter, messages, "dropped a message of QoS 0: the log of the route could not be opened");
            }
        }
    }

    /// Properties of a message that have the names of our own headers do not become headers.
    pub(super) fn without_properties(&mut self, topic: &str, properties: usize) {
        let before = self.without_properties;
        self.without_properties += properties as u64;
        if self.without_properties.checked_ilog2() != before.checked_ilog2() {
            let (relay, topic) = (&self.relay, topic.escape_debug());
            let properties = self.without_properties;
            tracing::warn!(%relay, properties, "left out a property of a message to `{topic}`: names that begin with `mqtt-` are those of the node's own headers");
        }
    }

    /// No route takes the topic: it is withdrawn by now, or the broker sends what nobody asked for.
    pub(super) fn without_route(&mut self, bus: &Bus, topic: &str) {
        count(&bus.device_messages_dropped);
        self.without_route += 1;
        if self.without_route.is_power_of_two() {
            let (relay, topic, messages) = (&self.relay, topic.escape_debug(), self.without_route);
            tracing::warn!(%relay, messages, "dropped a message to `{topic}`: no route of this node takes it");
        }
    }
}

/// Whether the inlet of a route takes such a message.
///
/// # Errors
/// Why it never does.
pub(super) fn check(
    route: &IncomingTopic,
    content_type: Option<&str>,
    headers: &Headers,
    body: &[u8],
) -> Result<(), Unfit> {
    if !route.takes(content_type) {
        let said = content_type.unwrap_or_default();
        return Err(Unfit::Type(said.to_owned()));
    }
    route.check_size(headers, body).map_err(Unfit::Size)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn a_message_without_a_route_is_no_frame_of_another_node() {
        let bus = Bus::default();
        let mut discards = Discards::new("plant".parse().unwrap());
        for _ in 0..3 {
            discards.without_route(&bus, "hall/door");
        }
        assert_eq!(bus.device_messages_dropped.load(Ordering::Relaxed), 3);
        assert_eq!(bus.frames_refused(), 0);
    }
}
