//! What brokers of others are known to do otherwise than MQTT says, or than Haar asks for, each with its
//! public report: expected, listed, and a failure as soon as it does not happen any more. Everything
//! else that goes wrong is new, and fails.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::bail;

use super::broker::Kind;
use super::checks;
use super::devices::Protocol;
use super::report::Outcome;
use crate::broker::HOST;

/// How long a broker may take to answer a subscription.
const PATIENCE: Duration = Duration::from_secs(10);
/// MQTT 3.1.1, section 3.9.3: the failure of a subscription.
const REFUSED: u8 = 0x80;

/// One that makes a check fail.
#[derive(Debug)]
pub(super) struct Deviation {
    broker: Kind,
    check: &'static str,
    /// With clients of this protocol only; none: of both.
    protocol: Option<Protocol>,
    /// What the failure of the check says then; any other failure is new.
    sign: &'static str,
    happens: Happens,
    report: &'static str,
}

/// How surely something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happens {
    /// Each time: once it does not, the entry is out of date.
    Always,
    /// As the timing has it.
    AtTimes,
}

/// All that make a check fail.
const KNOWN: &[Deviation] = &[
    Deviation {
        broker: Kind::Rmqtt,
        check: checks::QUALITIES,
        protocol: None,
        sign: "messages came twice",
        happens: Happens::AtTimes,
        report: "QoS 2 more than once, https://github.com/rmqtt/rmqtt/pull/458",
    },
    Deviation {
        broker: Kind::Rmqtt,
        check: checks::QUALITIES,
        protocol: Some(Protocol::V311),
        sign: "does not end",
        happens: Happens::AtTimes,
        report: "a client waits for ever; no report was found",
    },
    Deviation {
        broker: Kind::Rmqtt,
        check: checks::POWER_CUT,
        protocol: None,
        sign: "out of order",
        happens: Happens::Always,
        report: "sends again out of order (MQTT 5.0 section 4.6); no report was found",
    },
    Deviation {
        broker: Kind::Rmqtt,
        check: checks::RESTART,
        protocol: None,
        sign: "first missing",
        happens: Happens::Always,
        report: "loses messages between its restart and the node's return, https://github.com/rmqtt/rmqtt/pull/477",
    },
    Deviation {
        broker: Kind::Rumqttd,
        check: checks::RETAINED,
        protocol: None,
        sign: "all retained messages arrive",
        happens: Happens::Always,
        report: "forwards not all of many; no report was found",
    },
    Deviation {
        broker: Kind::Rumqttd,
        check: checks::OUTWARD,
        protocol: Some(Protocol::V311),
        sign: "the client hears everything",
        happens: Happens::Always,
        report: "panics when a message with properties goes to MQTT 3.1.1; no report was found",
    },
];

/// What came of a check with a broker, and a note: the check's own, or what is wrong.
pub(super) fn judged(
    tried: anyhow::Result<String>,
    broker: Kind,
    check: &str,
    protocol: Protocol,
) -> (Outcome, String) {
    let mut known = KNOWN.iter().filter(|one| {
        let is_protocol = one.protocol.is_none_or(|known| known == protocol);
        one.broker == broker && one.check == check && is_protocol
    });
    match tried {
        Ok(note) => match known.find(|one| one.happens == Happens::Always) {
            None => (Outcome::Ok, note),
            Some(one) => (
                Outcome::Failed,
                format!(
                    "{note}; but not as known ({}): take it out of deviations.rs",
                    one.report
                ),
            ),
        },
        Err(error) => {
            let error = format!("{error:#}");
            match known.find(|one| error.contains(one.sign)) {
                Some(one) => (Outcome::Deviates, format!("{}: {error}", one.report)),
                None => (Outcome::Failed, error),
            }
        }
    }
}

/// A topic that is of no use at a broker, though MQTT allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Useless {
    report: &'static str,
    /// Whether the broker refuses to subscribe to it; otherwise it ends over a message.
    is_refused: bool,
}

impl Useless {
    /// Whether `topic` is, at this broker.
    pub(super) fn at(broker: Kind, topic: &str) -> Option<Self> {
        let begins_so = |level: &str| level.starts_with('$');
        let refused = |report| {
            Some(Self {
                report,
                is_refused: true,
            })
        };
        match broker {
            Kind::Rmqtt if topic.split('/').skip(1).any(begins_so) => {
                refused("refuses `$` at later levels; no report was found")
            }
            Kind::Rumqttd if begins_so(topic) => {
                refused("https://github.com/bytebeamio/rumqtt/issues/650")
            }
            Kind::Rumqttd if topic.starts_with(|first: char| !first.is_ascii()) => Some(Self {
                report: "panics over a first character beyond ASCII; no report was found",
                is_refused: false,
            }),
            Kind::Mosquitto | Kind::Rmqtt | Kind::Rumqttd => None,
        }
    }

    /// Makes sure that it still is, as far as the broker survives it. `port` is for clients of MQTT 3.1.1.
    /// Returns what is to be told.
    pub(super) fn confirm(self, port: u16, topic: &str) -> anyhow::Result<String> {
        if self.is_refused && subscribes(port, topic)? {
            bail!(
                "the broker takes {topic}, and not as known ({}): take it out of deviations.rs",
                self.report
            );
        }
        Ok(format!("{topic} ({})", self.report))
    }
}

/// Whether a broker takes a subscription: false when it says no, or ends the connection. By hand, because
/// clients hide which of both it was, and connect again.
fn subscribes(port: u16, topic: &str) -> anyhow::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((HOST, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let text = |text: &str| -> anyhow::Result<Vec<u8>> {
        let length = u16::try_from(text.len())?.to_be_bytes();
        Ok([&length[..], text.as_bytes()].concat())
    };
    // A clean session of MQTT 3.1.1 that is kept alive for a minute (section 3.1).
    let connect = [&text("MQTT")?[..], &[4, 2, 0, 60], &text("world-asks")?].concat();
    stream.write_all(&packet(0x10, &connect)?)?;
    let mut connected = [0; 4];
    stream.read_exact(&mut connected)?;
    if connected[3] != 0 {
        bail!("the broker refuses a connection with code {}", connected[3]);
    }
    // Packet 1 asks for QoS 1 (section 3.8).
    let subscribe = [&[0, 1][..], &text(topic)?, &[1]].concat();
    stream.write_all(&packet(0x82, &subscribe)?)?;
    let mut answer = [0; 5];
    match stream.read_exact(&mut answer) {
        Ok(()) => Ok(answer[4] != REFUSED),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            bail!("the broker does not answer a subscription to {topic}")
        }
        Err(_) => Ok(false),
    }
}

/// A packet that is shorter than 128 bytes behind its first two.
fn packet(kind: u8, content: &[u8]) -> anyhow::Result<Vec<u8>> {
    let length = u8::try_from(content.len())?;
    anyhow::ensure!(length < 0x80, "a packet of one byte of length has no room");
    Ok([&[kind, length][..], content].concat())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_known_deviation_is_listed_and_anything_else_fails() {
        let known = KNOWN
            .iter()
            .find(|one| one.happens == Happens::Always && one.protocol.is_none());
        let known = known.unwrap();
        let judge = |tried| judged(tried, known.broker, known.check, Protocol::V5);
        let (outcome, note) = judge(Err(anyhow!("of 9: {} at 3", known.sign)));
        assert_eq!(outcome, Outcome::Deviates);
        assert!(note.starts_with(known.report), "{note}");
        assert_eq!(judge(Err(anyhow!("the agent ended"))).0, Outcome::Failed);
        let (outcome, note) = judge(Ok("9 messages".into()));
        assert_eq!(outcome, Outcome::Failed);
        assert!(note.contains("deviations.rs"), "{note}");

        let elsewhere = |tried| judged(tried, Kind::Mosquitto, known.check, Protocol::V5);
        assert_eq!(elsewhere(Ok(String::new())).0, Outcome::Ok);
        assert_eq!(elsewhere(Err(anyhow!(known.sign))).0, Outcome::Failed);
    }

    #[test]
    fn what_happens_at_times_may_stay_away() {
        let known = KNOWN.iter().find(|one| one.happens == Happens::AtTimes);
        let known = known.unwrap();
        let judge = |tried| judged(tried, known.broker, known.check, Protocol::V311);
        assert_eq!(judge(Ok(String::new())).0, Outcome::Ok);
        assert_eq!(judge(Err(anyhow!(known.sign))).0, Outcome::Deviates);
    }

    #[test]
    fn every_deviation_is_of_a_check_that_there_is() {
        for known in KNOWN {
            let is_it = |check: &checks::Check| check.name == known.check;
            assert!(checks::ALL.iter().any(is_it), "{known:?}");
        }
    }
}
