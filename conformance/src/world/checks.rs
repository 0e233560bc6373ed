//! What is tried with each broker and client, and what must come of it.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::client::Listener;
use super::deviations::Useless;
use super::devices::{self, Device, Protocol, Publish, hex};
use super::scene::{From, Stage, is_probe};
use super::witness::{Seen, Witness};
use crate::application::TYPE;

/// Messages of each quality of service, in both protocols.
const SOME: u32 = 200;
/// Topics that have a retained message.
const RETAINED_TOPICS: u32 = 200;
/// Messages that a burst has before something is ended in its middle, in parts of the whole.
const MIDDLE: u32 = 3;

// Names of checks for which brokers are known to deviate.
pub(super) const QUALITIES: &str = "QoS 0, 1 and 2, in order";
pub(super) const RETAINED: &str = "retained messages";
pub(super) const POWER_CUT: &str = "a burst over a power cut of the agent";
pub(super) const RESTART: &str = "a burst over a restart of the broker";
pub(super) const OUTWARD: &str = "from an outlet to a topic";

/// One thing that is tried.
pub(super) struct Check {
    /// A sentence.
    pub(super) name: &'static str,
    /// The protocols that it is tried with; each message of a device family has its own.
    pub(super) protocols: &'static [Protocol],
    /// Whether the client must connect again by itself and send what is left.
    pub(super) needs_survivor: bool,
    /// Tries it. Returns a note, or what is wrong.
    pub(super) run: fn(&mut Stage<'_, '_>) -> anyhow::Result<String>,
}

const DEFAULT: Check = Check {
    name: "",
    protocols: &Protocol::ALL,
    needs_survivor: false,
    run: |_| Ok(String::new()),
};

/// All of them, in the order in which they are tried.
pub(super) const ALL: &[Check] = &[
    Check {
        name: "messages of device families, durable route",
        protocols: &[Protocol::V5],
        run: |stage| families(stage, "durable"),
        ..DEFAULT
    },
    Check {
        name: "messages of device families, live route",
        protocols: &[Protocol::V5],
        run: |stage| families(stage, "live"),
        ..DEFAULT
    },
    Check {
        name: QUALITIES,
        run: qualities,
        ..DEFAULT
    },
    Check {
        name: RETAINED,
        run: retained,
        ..DEFAULT
    },
    Check {
        name: "a burst",
        run: burst,
        ..DEFAULT
    },
    Check {
        name: POWER_CUT,
        protocols: &[Protocol::V5],
        run: burst_over_power_cut,
        ..DEFAULT
    },
    Check {
        name: RESTART,
        protocols: &[Protocol::V5],
        needs_survivor: true,
        run: burst_over_restart,
    },
    Check {
        name: OUTWARD,
        run: outward,
        ..DEFAULT
    },
];

/// Each message reaches a handler byte for byte with its topic and what MQTT says of it, or its route is
/// refused with a reason.
fn families(stage: &mut Stage<'_, '_>, delivery: &str) -> anyhow::Result<String> {
    let all = devices::all()?;
    let route = |device: &'_ Device| -> anyhow::Result<(String, String)> {
        let told = device.publish.properties.content_type.clone();
        Ok((
            device.publish.topic.clone(),
            told.unwrap_or(TYPE.to_owned()),
        ))
    };
    let mut routes = BTreeSet::new();
    for device in &all {
        routes.insert(route(device)?);
    }
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    let kind = stage.broker.kind;
    for (topic, content_type) in &routes {
        if let Some(useless) = Useless::at(kind, topic) {
            let told = useless.confirm(stage.broker.port(Protocol::V311), topic)?;
            stage.deviations.push(told);
            continue;
        }
        let from = || From {
            filter: topic,
            delivery,
            content_type,
        };
        match stage.world.refusal(from())? {
            None => taken.push(from()),
            Some(why) => refused.push((topic.clone(), why)),
        }
    }
    for (topic, why) in &refused {
        ensure!(
            why.contains("begin"),
            "{topic} is refused for another reason: {why}"
        );
    }
    let mut running = stage.start(&taken, &[])?;
    let topics: Vec<&str> = taken.iter().map(|from| from.filter).collect();
    stage.wait_subscribed(&mut running.witness, &topics)?;
    let is_taken = |device: &&Device| topics.contains(&device.publish.topic.as_str());
    let sent: Vec<&Device> = all.iter().filter(is_taken).collect();
    let protocol = stage.protocol;
    for device in &sent {
        stage.protocol = device.protocol;
        let published = stage.publish(std::slice::from_ref(&device.publish));
        published.with_context(|| device.family.clone())?;
    }
    stage.protocol = protocol;
    let arrived = |witness: &mut Witness| -> anyhow::Result<Vec<Seen>> {
        let mut seen = witness.seen()?.to_vec();
        seen.retain(|one| one.body().is_ok_and(|body| !is_probe(&body)));
        Ok(seen)
    };
    stage.wait("all messages of device families arrive", || {
        Ok(arrived(&mut running.witness)?.len() >= sent.len())
    })?;
    stage.wait_quiet(&mut running.witness)?;
    let mut seen = arrived(&mut running.witness)?;
    for device in &sent {
        let wanted = &device.publish;
        let is_it = |one: &Seen| {
            one.topic() == wanted.topic && one.body().is_ok_and(|body| body == wanted.body)
        };
        let at = seen.iter().position(is_it);
        let at =
            at.with_context(|| format!("{}: {} did not arrive", device.family, wanted.topic))?;
        told(&seen.remove(at), wanted).with_context(|| device.family.clone())?;
    }
    ensure!(seen.is_empty(), "more arrived than was sent: {seen:?}");
    stage.world.end()?;
    // The broker keeps what devices retained: the next check begins without it.
    stage.protocol = Protocol::V311;
    for device in sent.iter().filter(|device| device.publish.retain) {
        let nothing = Publish {
            retain: true,
            ..Publish::plain(&device.publish.topic, b"", 1)
        };
        stage.publish(&[nothing])?;
    }
    stage.protocol = protocol;
    let names: Vec<&str> = refused.iter().map(|(topic, _)| topic.as_str()).collect();
    Ok(match names.is_empty() {
        true => format!("{} messages", sent.len()),
        false => format!(
            "{} messages; refused at apply: {}",
            sent.len(),
            names.join(", ")
        ),
    })
}

/// Whether a handler saw what MQTT 5 says beside a message.
fn told(seen: &Seen, wanted: &Publish) -> anyhow::Result<()> {
    let properties = &wanted.properties;
    if let Some(content_type) = &properties.content_type {
        ensure!(
            &seen.content_type == content_type,
            "its type is {}",
            seen.content_type
        );
    }
    for (name, value) in &properties.user {
        ensure!(
            seen.header(name) == Some(value),
            "the property {name} is missing"
        );
    }
    Ok(())
}

fn qualities(stage: &mut Stage<'_, '_>) -> anyhow::Result<String> {
    let mut running = stage.start(&[From::durable("qualities/#")], &[])?;
    stage.wait_subscribed(&mut running.witness, &["qualities/probe"])?;
    for qos in 0..=2 {
        let topic = format!("qualities/{qos}");
        stage.publish(&Publish::numbered(&topic, SOME, qos))?;
        arrive_in_order(stage, &mut running.witness, &topic, SOME, false)?;
    }
    stage.world.end()?;
    Ok(format!("{SOME} each"))
}

fn retained(stage: &mut Stage<'_, '_>) -> anyhow::Result<String> {
    let topic = |number: u32| format!("retained/{number}");
    let message = |number: u32, body: &[u8]| Publish {
        retain: true,
        ..Publish::plain(&topic(number), body, 1)
    };
    let all: Vec<Publish> = (0..RETAINED_TOPICS)
        .map(|number| message(number, b"kept"))
        .collect();
    stage.publish(&all)?;
    let mut running = stage.start(&[From::durable("retained/+")], &[])?;
    let seen = |witness: &mut Witness| -> anyhow::Result<BTreeSet<String>> {
        let seen = witness.below("retained/")?;
        let kept = seen
            .iter()
            .filter(|one| one.header("mqtt-retained") == Some("true"));
        Ok(kept.map(|one| one.topic().to_owned()).collect())
    };
    let wanted = RETAINED_TOPICS as usize;
    let arrived = stage.wait("all retained messages arrive", || {
        Ok(seen(&mut running.witness)?.len() == wanted)
    });
    stage.world.end()?;
    let nothing: Vec<Publish> = (0..RETAINED_TOPICS)
        .map(|number| message(number, b""))
        .collect();
    stage.publish(&nothing)?;
    arrived?;
    Ok(format!("{RETAINED_TOPICS} topics"))
}

fn burst(stage: &mut Stage<'_, '_>) -> anyhow::Result<String> {
    let mut running = stage.start(&[From::durable("burst/#")], &[])?;
    stage.wait_subscribed(&mut running.witness, &["burst/probe"])?;
    stage.publish(&Publish::numbered("burst/t", stage.burst, 1))?;
    let repeats = arrive_in_order(stage, &mut running.witness, "burst/t", stage.burst, false)?;
    stage.world.end()?;
    Ok(format!("{} messages, {repeats} repeats", stage.burst))
}

fn burst_over_power_cut(stage: &mut Stage<'_, '_>) -> anyhow::Result<String> {
    interrupted_burst(stage, |stage| stage.cut_power())
}

fn burst_over_restart(stage: &mut Stage<'_, '_>) -> anyhow::Result<String> {
    interrupted_burst(stage, |stage| stage.broker.restart())
}

fn interrupted_burst(
    stage: &mut Stage<'_, '_>,
    interrupt: fn(&mut Stage<'_, '_>) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let mut running = stage.start(&[From::durable("cut/#")], &[])?;
    stage.wait_subscribed(&mut running.witness, &["cut/probe"])?;
    let messages = Publish::numbered("cut/t", stage.burst, 1);
    let protocol = stage.protocol;
    let port = stage.broker.port(protocol);
    let mut device = stage.client.begin_publishing(port, protocol, &messages)?;
    let middle = (stage.burst / MIDDLE) as usize;
    let outcome = (|| {
        stage.wait("the burst is in its middle", || {
            Ok(running.witness.below("cut/t")?.len() >= middle)
        })?;
        interrupt(stage)?;
        stage.wait("the device is done", || Ok(device.try_wait()?.is_some()))?;
        arrive_in_order(stage, &mut running.witness, "cut/t", stage.burst, true)
    })();
    let _ = device.kill(); // it has ended already, then
    let status = device.wait()?;
    let repeats = outcome?;
    ensure!(status.success(), "the device ended with {status}");
    stage.world.end()?;
    Ok(format!("{} messages, {repeats} repeats", stage.burst))
}

/// Waits for the numbers from 1 to `count` on a topic. Returns how many came again; none may where
/// nothing was interrupted.
fn arrive_in_order(
    stage: &Stage<'_, '_>,
    witness: &mut Witness,
    topic: &str,
    count: u32,
    may_repeat: bool,
) -> anyhow::Result<usize> {
    let numbers = |witness: &mut Witness| -> anyhow::Result<Vec<u32>> {
        let seen = witness.below(topic)?;
        let of_topic = seen.iter().filter(|one| one.topic() == topic);
        Ok(of_topic.filter_map(Seen::number).collect())
    };
    let complete = stage.wait("all messages arrive", || {
        let distinct: BTreeSet<u32> = numbers(witness)?.into_iter().collect();
        Ok(distinct.len() >= count as usize)
    });
    if let Err(error) = complete {
        let came: BTreeSet<u32> = numbers(witness)?.into_iter().collect();
        let missing = (1..=count).find(|number| !came.contains(number));
        return Err(error.context(format!(
            "{} of {count} came; first missing: {missing:?}",
            came.len()
        )));
    }
    stage.wait_quiet(witness)?;
    let came = numbers(witness)?;
    let mut first = Vec::new();
    let mut known = BTreeSet::new();
    for number in &came {
        if known.insert(*number) {
            first.push(*number);
        }
    }
    let disorder = first.windows(2).find(|pair| pair[0] > pair[1]);
    ensure!(disorder.is_none(), "out of order: {disorder:?}");
    let repeats = came.len() - first.len();
    ensure!(may_repeat || repeats == 0, "{repeats} messages came twice");
    Ok(repeats)
}

/// What a handler publishes reaches a client byte for byte, in order, with its headers where the client can
/// see them, and is kept for later subscribers.
fn outward(stage: &mut Stage<'_, '_>) -> anyhow::Result<String> {
    let to = json!({ "from": "witness.out", "to": "mqtt:outward/out", "relay": "world", "retain": true });
    let mut running = stage.start(&[From::durable("outward/in/#")], &[to])?;
    stage.wait_subscribed(&mut running.witness, &["outward/in/probe"])?;
    let protocol = stage.protocol;
    let port = stage.broker.port(protocol);
    let listener = stage.client.listen(port, protocol, "outward/out")?;
    let mut messages: Vec<Publish> = (0..=255u8)
        .map(|byte| Publish::plain("outward/in/t", &[byte, 0, 255, byte], 1))
        .collect();
    for (message, number) in messages.iter_mut().zip(1..) {
        let number: u32 = number;
        message.properties.user = vec![("number".to_owned(), number.to_string())];
    }
    stage.publish(&messages)?;
    let bodies: Vec<String> = messages.iter().map(|message| hex(&message.body)).collect();
    let heard = |listener: &Listener| -> anyhow::Result<Vec<_>> {
        let mut heard = listener.heard()?;
        heard.retain(|one| one.body != hex(b"probe"));
        Ok(heard)
    };
    stage.wait("the client hears everything", || {
        Ok(heard(&listener)?.len() >= bodies.len())
    })?;
    let heard = heard(&listener)?;
    drop(listener);
    let came: Vec<&str> = heard.iter().map(|one| one.body.as_str()).collect();
    ensure!(came == bodies, "not what was published: {came:?}");
    if protocol == Protocol::V5 {
        for (one, number) in heard.iter().zip(1..) {
            let number: u32 = number;
            let header = ("number".to_owned(), number.to_string());
            ensure!(
                one.user.contains(&header),
                "{number}: its header is missing"
            );
            ensure!(
                one.content_type.as_deref() == Some(TYPE),
                "{number}: its type is missing"
            );
        }
    }
    let later = stage.client.listen(port, protocol, "outward/out")?;
    stage.wait("a later subscriber gets the last message", || {
        let heard = later.heard()?;
        let last = bodies.last();
        Ok(heard
            .first()
            .is_some_and(|one| one.retain && Some(&one.body) == last))
    })?;
    drop(later);
    stage.world.end()?;
    let nothing = Publish {
        retain: true,
        ..Publish::plain("outward/out", b"", 1)
    };
    stage.publish(&[nothing])?;
    Ok(format!("{} messages", bodies.len()))
}
