//! Topics and topic filters of plain MQTT devices, as ends of routes. What Haar itself sends over
//! relays stands in [`crate::topics`]; nothing here may touch it.
//!
//! Their form is that of MQTT 5.0 sections 4.7 (names and filters) and 4.8.2 (shared subscriptions),
//! with a few things left out: none below `haar`, and none with control characters. Filters with a
//! wildcard at their first level are for brokers over which nothing of Haar's own passes; the
//! controller knows which those are ([`TopicFilter::takes_everything`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::InvalidId;

/// Longest topic or filter, in bytes.
pub const TOPIC_BYTES_MAX: usize = 256;
/// What shared subscriptions begin with.
const SHARE: &str = "$share";
/// The first level of what brokers say of themselves.
const SYSTEM: &str = "$SYS";
/// The first level of what Haar sends.
const OURS: &str = "haar";

/// Which topics a route takes messages from: a topic with wildcards, perhaps shared with others
/// (`$share/GROUP/FILTER`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(with = "String")
)]
#[serde(try_from = "String", into = "String")]
pub struct TopicFilter(String);

/// One topic to publish to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(with = "String")
)]
#[serde(try_from = "String", into = "String")]
pub struct TopicName(String);

/// What becomes of messages that a broker retains (MQTT 5.0 section 3.3.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Retained {
    /// At `from`: they do not come.
    None,
    /// At `from`: they come when the broker begins to keep the node's session.
    First,
    /// At `from`: they come with each connection, unless the node has had the same already.
    EachConnection,
    /// At `to`: the node has the broker forget its own when the route is deleted.
    ClearOnDelete,
}

impl TopicFilter {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The group that shares the messages, if one does.
    pub fn group(&self) -> Option<&str> {
        split_share(&self.0).map(|(group, _)| group)
    }

    /// The filter that topics must match: without the group.
    pub fn unshared(&self) -> TopicFilter {
        let filter = split_share(&self.0).map_or(self.0.as_str(), |(_, filter)| filter);
        TopicFilter(filter.to_owned())
    }

    /// True when a wildcard stands at its first level: it takes in what Haar itself sends over the
    /// same broker.
    pub fn takes_everything(&self) -> bool {
        let filter = split_share(&self.0).map_or(self.0.as_str(), |(_, filter)| filter);
        filter.starts_with(['+', '#'])
    }

    /// The same as a topic to publish to; none when it has wildcards or a group, or is below `$SYS`.
    pub fn as_name(&self) -> Option<TopicName> {
        self.0.parse().ok()
    }

    /// True when messages to `topic` pass the filter (MQTT 5.0 sections 4.7.1 and 4.7.2).
    pub fn matches(&self, topic: &str) -> bool {
        let filter = split_share(&self.0).map_or(self.0.as_str(), |(_, filter)| filter);
        if topic.starts_with('$') && self.takes_everything() {
            return false;
        }
        let (mut wanted, mut levels) = (filter.split('/'), topic.split('/'));
        loop {
            match (wanted.next(), levels.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(_)) => {}
                (Some(wanted), Some(level)) if wanted == level => {}
                _ => return false,
            }
        }
    }

    /// A number for the filter, as MQTT numbers subscriptions: from 1 to 268,435,455 (section
    /// 3.8.2.1.2). The same every time; that of another filter, too, once in a very long while.
    pub fn subscription_id(&self) -> u32 {
        const RANGE: u64 = 268_435_455;
        let digest = crate::ids::Digest::of(self.0.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_bytes()[..8]);
        let number = u64::from_be_bytes(first) % RANGE + 1;
        u32::try_from(number).unwrap_or(1) // it is in range
    }
}

impl TopicName {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn split_share(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix(SHARE)?.strip_prefix('/')?.split_once('/')
}

/// What both kinds must hold.
fn check(text: &str) -> Result<(), InvalidId> {
    let problem = if text.is_empty() {
        "is empty: write it behind `mqtt:`, such as `mqtt:plant/+/temperature`"
    } else if text.len() > TOPIC_BYTES_MAX {
        "is longer than 256 bytes"
    } else if text.chars().any(char::is_control) {
        "holds control characters"
    } else {
        return Ok(());
    };
    let shown: String = text
        .chars()
        .take(60)
        .filter(|one| !one.is_control())
        .collect();
    Err(InvalidId(format!("the topic `{shown}` {problem}")))
}

fn check_levels(whole: &str, filter: &str) -> Result<(), InvalidId> {
    let wrong = |why: &str| Err(InvalidId(format!("the topic `{whole}` {why}")));
    let mut levels = filter.split('/').peekable();
    if levels.peek() == Some(&OURS) {
        return wrong("is Haar's own: devices publish and listen elsewhere than below `haar/`");
    }
    while let Some(level) = levels.next() {
        match level {
            "#" if levels.peek().is_some() => {
                return wrong("has `#` before its end: it stands for everything that follows");
            }
            "#" | "+" => {}
            level if level.contains(['#', '+']) => {
                return wrong(
                    "has a wildcard beside other characters: `+` and `#` stand for whole levels",
                );
            }
            _ => {}
        }
    }
    Ok(())
}

impl FromStr for TopicFilter {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        check(text)?;
        let filter = match text.split('/').next() {
            Some(SHARE) => match split_share(text) {
                Some((group, filter))
                    if !group.is_empty() && !group.contains(['+', '#']) && !filter.is_empty() =>
                {
                    filter
                }
                _ => {
                    return Err(InvalidId(format!(
                        "the topic `{text}` names no group: write `$share/GROUP/FILTER`, such as `$share/workers/plant/#`"
                    )));
                }
            },
            _ => text,
        };
        check_levels(text, filter)?;
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for TopicName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        check(text)?;
        check_levels(text, text)?;
        if text.contains(['+', '#']) {
            return Err(InvalidId(format!(
                "the topic `{text}` has wildcards: messages go to one topic"
            )));
        }
        if let Some(SHARE | SYSTEM) = text.split('/').next() {
            return Err(InvalidId(format!(
                "nobody publishes to the topic `{text}`: brokers keep `$SYS/` and `$share/` to themselves"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

macro_rules! text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(topic: $name) -> String {
                topic.0
            }
        }
    };
}

text!(TopicFilter);
text!(TopicName);

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> TopicFilter {
        text.parse().unwrap()
    }

    #[test]
    fn wildcards_stand_for_levels_as_the_standard_says() {
        for (wanted, topic, expected) in [
            ("plant/+/temperature", "plant/7/temperature", true),
            ("plant/+/temperature", "plant//temperature", true),
            ("plant/+/temperature", "plant/7/8/temperature", false),
            ("plant/#", "plant", true),
            ("plant/#", "plant/7/8", true),
            ("plant/#", "plants/7", false),
            ("plant/+", "plant", false),
            ("plant", "plant/", false),
            ("/plant", "/plant", true),
            ("$share/a/plant/+", "plant/7", true),
            ("$share/a/plant/+", "a/plant/7", false),
            ("+/events/rpc", "shellyplus1-a8032abe54dc/events/rpc", true),
            ("+/events/rpc", "$aws/events/rpc", false),
            ("#", "plant", true),
            ("#", "$SYS/uptime", false),
            ("$share/a/#", "$SYS/uptime", false),
            (
                "$aws/things/+/shadow/#",
                "$aws/things/7/shadow/update",
                true,
            ),
        ] {
            assert_eq!(filter(wanted).matches(topic), expected, "{wanted} {topic}");
        }
    }

    #[test]
    fn a_shared_filter_has_a_group_and_a_filter() {
        let shared = filter("$share/workers/plant/#");
        assert_eq!(shared.group(), Some("workers"));
        assert_eq!(shared.unshared(), filter("plant/#"));
        assert_eq!(filter("plant/#").group(), None);
        for wrong in [
            "$share",
            "$share/",
            "$share/a",
            "$share//b",
            "$share/a/",
            "$share/+/b",
        ] {
            assert!(wrong.parse::<TopicFilter>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_for_devices_is_refused() {
        for wrong in [
            "",
            "haar",
            "haar/x",
            "$share/a/haar/b",
            "a/#/b",
            "a/b+",
            "a\nb",
        ] {
            assert!(wrong.parse::<TopicFilter>().is_err(), "{wrong}");
        }
        for wrong in ["a/+", "a/#", "$SYS/a", "$share/a/b", "haar/a", ""] {
            assert!(wrong.parse::<TopicName>().is_err(), "{wrong}");
        }
        for right in ["$aws/things/7/shadow/update", "/a", "a//b"] {
            assert!(right.parse::<TopicName>().is_ok(), "{right}");
        }
        for (text, expected) in [
            ("#", true),
            ("+/a", true),
            ("$share/a/+/b", true),
            ("a/#", false),
        ] {
            assert_eq!(filter(text).takes_everything(), expected, "{text}");
        }
        let long = "a".repeat(TOPIC_BYTES_MAX + 1);
        assert!(long.parse::<TopicName>().is_err());
        assert_eq!(filter("a/b").as_name().unwrap().as_str(), "a/b");
        assert_eq!(filter("a/+").as_name(), None);
    }

    #[test]
    fn a_filter_has_a_number_that_a_broker_takes() {
        let number = filter("plant/#").subscription_id();
        assert_eq!(number, filter("plant/#").subscription_id());
        assert_ne!(number, filter("plant/+").subscription_id());
        assert!((1..=268_435_455).contains(&number));
    }
}
