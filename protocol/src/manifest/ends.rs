//! The ends of a manifest's routes: a port of a microservice, or a topic of a broker.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{InvalidId, MediaType, Name, PortName, RouteId};
use crate::mqtt::TopicFilter;

use super::{Manifest, Route};

/// What topics begin with.
const SCHEME: &str = "mqtt:";

/// One end of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String", extend("pattern" = r"^(mqtt:[^\u0000-\u001f]{1,256}|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)$")))]
#[serde(try_from = "String", into = "String")]
pub enum RouteEnd {
    /// A port of a microservice of the application: `MICROSERVICE.PORT`.
    Port(PortName),
    /// A topic of a relay, for devices that speak plain MQTT: `mqtt:TOPIC`.
    Topic(TopicFilter),
}

impl RouteEnd {
    /// The port, if it is one.
    pub fn port(&self) -> Option<&PortName> {
        match self {
            RouteEnd::Port(port) => Some(port),
            RouteEnd::Topic(_) => None,
        }
    }

    /// The topic, if it is one.
    pub fn topic(&self) -> Option<&TopicFilter> {
        match self {
            RouteEnd::Port(_) => None,
            RouteEnd::Topic(topic) => Some(topic),
        }
    }
}

impl Route {
    /// The only type that passes: that of the outlet, or of the inlet when it begins at a topic.
    /// None when there is no such port.
    pub fn content_type<'m>(&self, manifest: &'m Manifest) -> Option<&'m MediaType> {
        let find = |name: &Name| {
            let microservices = &mut manifest.microservices.iter();
            microservices.find(|microservice| &microservice.name == name)
        };
        let port = match (&self.from, &self.to) {
            (RouteEnd::Port(from), _) => find(&from.microservice)?.outlets.get(&from.port),
            (_, RouteEnd::Port(to)) => find(&to.microservice)?.inlets.get(&to.port),
            _ => None,
        };
        port.map(|port| &port.media_type)
    }

    /// Its id in `application`, whose messages are of `content_type`. The relay belongs to the name of
    /// a topic: two brokers may have the same topic.
    pub fn id(&self, application: &Name, content_type: &MediaType) -> RouteId {
        let end = |end: &RouteEnd| match (&self.relay, end) {
            (Some(relay), RouteEnd::Topic(_)) => format!("{end}@{relay}"),
            _ => end.to_string(),
        };
        RouteId::of(application, &end(&self.from), &end(&self.to), content_type)
    }
}

impl From<PortName> for RouteEnd {
    fn from(port: PortName) -> Self {
        RouteEnd::Port(port)
    }
}

impl fmt::Display for RouteEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteEnd::Port(port) => write!(formatter, "{port}"),
            RouteEnd::Topic(topic) => write!(formatter, "{SCHEME}{topic}"),
        }
    }
}

impl FromStr for RouteEnd {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text.strip_prefix(SCHEME) {
            Some(topic) => topic.parse().map(RouteEnd::Topic),
            None => text.parse().map(RouteEnd::Port),
        }
    }
}

impl TryFrom<String> for RouteEnd {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<RouteEnd> for String {
    fn from(end: RouteEnd) -> String {
        end.to_string()
    }
}
