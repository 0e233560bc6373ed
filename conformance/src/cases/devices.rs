//! Plain MQTT devices at a broker that is not ours: `mosquitto_pub`, which has the defaults of most.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use haar_conformance_artifacts::Guest;
use serde_json::json;

use super::relays::apply;
use crate::application::TYPE;
use crate::broker::{Broker, HOST, free_port};
use crate::case::{Case, Node};
use crate::scene::Scene;
use crate::world::witness::{Seen, Witness};
use crate::{child, mosquitto};

pub(super) static CASES: &[&Case] = &[&ARRIVES, &BURSTS];

/// A Mosquitto for devices, and a witness of everything below `plant/`.
struct Plant {
    broker: Broker,
    relay: String,
    witness: Witness,
}

impl Plant {
    fn start(scene: &mut Scene<'_>) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut broker = mosquitto::open(&scene.folder("broker")?, port)?;
        broker.start()?;
        let relay = scene.name("plant");
        let manifest = json!({
            "api_version": "haar/v1",
            "kind": "Relay",
            "name": relay,
            "carries": "topics",
            "url": format!("mqtt://{HOST}:{port}"),
            "credentials": "anonymous",
        });
        apply(scene, &relay, &manifest)?;
        let folder = scene.folder("witness")?;
        let grant = json!({ "host": folder, "guest": "/witness", "access": "read-write" });
        let witness = json!({
            "inlets": { "in": TYPE },
            "grants": { "directories": [grant] },
        });
        let application = scene
            .application("app")
            .with("witness", Guest::Witness, witness)
            .topic_route(&relay, "mqtt:plant/#", "witness.in");
        scene.run(&application)?;
        Ok(Self {
            broker,
            relay,
            witness: Witness::of(&folder),
        })
    }

    /// Publishes as a device does: what `mosquitto_pub` is to be told.
    fn publish(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut device = mosquitto::open_tool("mosquitto_pub", &self.broker)?;
        child::run(device.args(arguments), child::SHORT)
    }

    /// Publishes numbers, as fast as it can.
    fn count(
        &self,
        quality: &str,
        topic: &str,
        numbers: RangeInclusive<u32>,
    ) -> anyhow::Result<()> {
        let mut device = mosquitto::open_tool("mosquitto_pub", &self.broker)?;
        let device = device.args(["-q", quality, "-t", topic, "-l"]);
        let mut device = device.stdin(Stdio::piped()).spawn()?;
        let mut lines = device.stdin.take().context("it has no standard input")?;
        for number in numbers {
            writeln!(lines, "{number}")?;
        }
        drop(lines);
        let status = child::wait(&mut device, "mosquitto_pub", child::SHORT)?;
        ensure!(status.success(), "mosquitto_pub ended with {status}");
        Ok(())
    }

    /// The numbers that came on a topic, in their order. With QoS 1 they may come more than once.
    fn numbers(&mut self, topic: &str) -> anyhow::Result<Vec<u32>> {
        Ok(self
            .witness
            .below(topic)?
            .iter()
            .filter_map(Seen::number)
            .collect())
    }
}

pub(super) static ARRIVES: Case = Case::new(
    "a_message_of_a_device_reaches_a_handler_with_its_topic_and_properties",
    &["R-MQTT-01", "R-MQTT-02"],
    &[Guest::Witness],
    Node::OWN,
    |scene| {
        let mut plant = Plant::start(scene)?;
        let unit = ["-D", "publish", "user-property", "unit", "C"];
        for quality in ["0", "1", "2"] {
            let topic = format!("plant/{quality}");
            // Until the subscription is there.
            scene.wait(&format!("a message of QoS {quality} arrives"), || {
                let reading = ["-q", quality, "-t", &topic, "-m", "21.5"];
                plant.publish(&[&reading[..], &unit[..]].concat())?;
                Ok(!plant.witness.below(&topic)?.is_empty())
            })?;
        }
        let seen = plant.witness.below("plant/0")?;
        let first = seen.first().context("it arrived a moment ago")?;
        ensure!(first.body()? == b"21.5", "another body: {first:?}");
        let source = format!("mqtt:{}.plant/#", plant.relay);
        ensure!(first.source == source, "another source: {first:?}");
        ensure!(first.header("unit") == Some("C"), "no property: {first:?}");

        scene.kill_agent()?;
        plant.publish(&["-q", "1", "-t", "plant/away", "-m", "kept by the broker"])?;
        scene.start_agent()?;
        scene.wait(
            "what was published while the agent was down arrives",
            || Ok(!plant.witness.below("plant/away")?.is_empty()),
        )
    },
);

pub(super) static BURSTS: Case = Case::new(
    "readings_of_qos_0_and_bursts_beyond_the_window_arrive_in_order_also_when_the_agent_is_killed",
    &["R-MQTT-08", "R-MQTT-09"],
    &[Guest::Witness],
    Node::OWN,
    |scene| {
        let mut plant = Plant::start(scene)?;
        scene.wait("the node hears the device", || {
            plant.publish(&["-q", "1", "-t", "plant/probe", "-m", "probe"])?;
            Ok(!plant.witness.below("plant/probe")?.is_empty())
        })?;
        plant.count("0", "plant/1", 1..=200)?;
        scene.wait("all messages of QoS 0 are handled", || {
            Ok(plant.numbers("plant/1")?.contains(&200))
        })?;
        plant.count("1", "plant/1", 201..=1_260)?;
        scene.wait("some of the burst is handled", || {
            Ok(plant.numbers("plant/1")?.contains(&260))
        })?;
        scene.kill_agent()?;
        scene.start_agent()?;
        scene.wait("all of the burst is handled", || {
            Ok(plant.numbers("plant/1")?.contains(&1_260))
        })?;
        let mut found = plant.numbers("plant/1")?;
        let mut known = BTreeSet::new();
        found.retain(|number| known.insert(*number));
        let expected: Vec<u32> = (1..=1_260).collect();
        let count = found.len();
        ensure!(
            found == expected,
            "{count} of 1260, or out of order: {found:?}"
        );
        Ok(())
    },
);
