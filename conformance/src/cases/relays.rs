//! Several relays: a broker that is not ours, and one in the agent of a neighbour.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use haar_conformance_artifacts::Guest;
use serde_json::{Value, json};

use crate::application::Application;
use crate::broker::{Broker, HOST, free_port};
use crate::case::{Case, Node};
use crate::scene::Scene;
use crate::site::{Agent, Output};
use crate::soak::account::compare;
use crate::soak::journals::{Published, received};
use crate::{child, mosquitto};

/// Messages that must get through before anything else happens.
const SOME: u64 = 200;
/// A publisher of some hundred messages a second has ended when it stores none for so long.
const QUIET: Duration = Duration::from_millis(500);

pub(super) static CASES: &[&Case] = &[&BROKER, &NEIGHBOURHOOD, &RIGHTS, &CERTIFICATES];

/// Two nodes with a steady durable route from one to the other, and journals of both ends.
struct Pair {
    sender: Agent,
    receiver: Agent,
    left: PathBuf,
    right: PathBuf,
}

impl Pair {
    /// Enrols both, with a label of their own, and starts them.
    fn new(scene: &Scene<'_>, label: &str) -> anyhow::Result<Self> {
        let label = format!("pair={label}");
        let enrol = &["--memory", "256MiB", "--label", &label];
        let agent = |end: &str| scene.site.new_agent(&scene.name(end), enrol, "");
        Ok(Self {
            sender: agent("sender")?,
            receiver: agent("receiver")?,
            left: scene.folder("left")?,
            right: scene.folder("right")?,
        })
    }

    fn application(&self, scene: &Scene<'_>) -> Application {
        let grants = |folder: &PathBuf| json!({ "directories": [{ "host": folder, "guest": "/journal", "access": "read-write" }] });
        let publisher = json!({
            "place": { "node": self.sender.name },
            "configuration": { "source": 1, "messages": 1_000_000, "batch": 4 },
            "limits": { "publish_per_second": 400 },
            "grants": grants(&self.left),
        });
        let receiver = json!({
            "place": { "node": self.receiver.name },
            "grants": grants(&self.right),
        });
        scene
            .application("app")
            .with("publisher", Guest::Numbering, publisher)
            .with("receiver", Guest::Journal, receiver)
            .durable_route("publisher.out", "receiver.in")
    }

    fn handled(&self) -> anyhow::Result<u64> {
        Ok(received(&self.right.join("journal"))?.len() as u64)
    }

    /// Waits until both say that they are connected to a relay.
    fn wait_connected(&self, scene: &mut Scene<'_>, relay: &str) -> anyhow::Result<()> {
        let client = scene.site.another_client()?;
        for node in [&self.sender.name, &self.receiver.name] {
            let path = format!("nodes/{node}");
            scene.wait(&format!("{node} is at {relay}"), || {
                let found = client.get(&path)?;
                let mut relays = found["relays"].as_array().into_iter().flatten();
                Ok(relays.any(|one| one["name"] == relay && one["connected"] == true))
            })?;
        }
        Ok(())
    }

    /// Waits until more messages have got through.
    fn more(&self, scene: &mut Scene<'_>, over: &str) -> anyhow::Result<()> {
        let before = self.handled()?;
        let what = format!("{SOME} more messages are handled {over}");
        scene.wait(&what, || Ok(self.handled()? >= before + SOME))
    }

    /// Ends the publisher. Then nothing is lost and nothing out of order.
    fn check(&self, scene: &mut Scene<'_>) -> anyhow::Result<()> {
        std::fs::write(self.left.join("stop"), "")?;
        let published = || Published::read(&self.left.join("journal"));
        scene.wait("the publisher has ended", || {
            let stored = published()?.stored();
            std::thread::sleep(QUIET);
            Ok(published()?.stored() == stored)
        })?;
        let account = || {
            let received = received(&self.right.join("journal"))?;
            anyhow::Ok(compare(1, &published()?, &received))
        };
        scene.wait("nothing is missing", || {
            let missing = account()?.violations();
            Ok(missing.iter().all(|(what, _)| *what != "lost"))
        })?;
        let account = account()?;
        ensure!(account.violations().is_empty(), "{account:?}");
        scene.note(format!("{} messages", account.handled));
        Ok(())
    }

    fn end(mut self) -> anyhow::Result<()> {
        self.sender.kill()?;
        self.receiver.kill()
    }
}

/// Applies the manifest of a relay.
pub(super) fn apply(scene: &Scene<'_>, name: &str, manifest: &Value) -> anyhow::Result<()> {
    let file = format!("{name}.yaml");
    std::fs::write(scene.site.folder().join(&file), manifest.to_string())?;
    scene
        .site
        .haar(&["apply", "-f", &file, "--yes"])?
        .ok()
        .map(drop)
}

/// A Mosquitto with the rules and passwords of the site, as the relay `name` of nodes with a label.
fn broker(scene: &mut Scene<'_>, name: &str, label: &str) -> anyhow::Result<Broker> {
    let port = free_port()?;
    let manifest = json!({
        "api_version": "haar/v1",
        "kind": "Relay",
        "name": name,
        "url": format!("mqtts://{HOST}:{port}"),
        "nodes": { "labels": { "pair": label } },
    });
    apply(scene, name, &manifest)?;
    let arguments = ["relay", "credentials", name, "--out", name, "--certificate"];
    scene.site.haar(&arguments)?.ok()?;
    let mut broker = mosquitto::with_rules(&scene.site.folder().join(name), port)?;
    broker.start()?;
    Ok(broker)
}

fn forget(scene: &Scene<'_>, relay: &str) -> anyhow::Result<()> {
    scene
        .site
        .haar(&["delete", "relay", relay, "--yes"])?
        .ok()
        .map(drop)
}

pub(super) static BROKER: Case = Case::new(
    "a_route_goes_on_over_the_broker_or_the_relay_of_the_controller_whichever_is_left",
    &["R-RELAY-01", "R-RELAY-02"],
    &[Guest::Numbering, Guest::Journal],
    Node::OWN,
    |scene| {
        let pair = Pair::new(scene, "broker")?;
        let mut broker = broker(scene, "broker-relay", "broker")?;
        let application = pair.application(scene);
        scene.apply(&application)?;
        pair.wait_connected(scene, "broker-relay")?;
        pair.more(scene, "over the broker")?;
        broker.freeze(true)?;
        pair.more(scene, "past a broker that keeps silent")?;
        broker.freeze(false)?;
        pair.wait_connected(scene, "broker-relay")?;
        scene.site.kill_controller()?;
        pair.more(scene, "over the broker alone")?;
        scene.site.ensure_controller()?;
        pair.wait_connected(scene, "controller")?;
        broker.kill()?;
        pair.more(scene, "over the relay of the controller")?;
        broker.start()?;
        pair.wait_connected(scene, "broker-relay")?;
        scene.site.kill_controller()?;
        pair.more(scene, "over the broker, which was away")?;
        scene.site.ensure_controller()?;
        pair.check(scene)?;
        forget(scene, "broker-relay")?;
        pair.end()
    },
);

pub(super) static NEIGHBOURHOOD: Case = Case::new(
    "two_neighbours_keep_talking_over_a_relay_of_their_own_while_everybody_else_is_away",
    &["R-RELAY-03"],
    &[Guest::Numbering, Guest::Journal],
    Node::OWN,
    |scene| {
        let mut pair = Pair::new(scene, "neighbours")?;
        let manifest = json!({
            "api_version": "haar/v1",
            "kind": "Relay",
            "name": "neighbour-relay",
            "node": pair.receiver.name,
            "address": format!("{HOST}:{}", free_port()?),
            "nodes": { "labels": { "pair": "neighbours" } },
        });
        apply(scene, "neighbour-relay", &manifest)?;
        let application = pair.application(scene);
        scene.apply(&application)?;
        pair.wait_connected(scene, "neighbour-relay")?;
        pair.more(scene, "at first")?;
        scene.site.kill_controller()?;
        pair.more(scene, "without the controller")?;
        // Both start again with nobody but each other.
        pair.sender.kill()?;
        pair.receiver.kill()?;
        scene.site.start_agent(&mut pair.receiver)?;
        scene.site.start_agent(&mut pair.sender)?;
        pair.more(scene, "after a restart without the controller")?;
        scene.site.ensure_controller()?;
        pair.check(scene)?;
        forget(scene, "neighbour-relay")?;
        pair.end()
    },
);

pub(super) static RIGHTS: Case = Case::new(
    "a_node_hears_and_says_nothing_of_others_at_a_broker_with_the_rules_of_the_site",
    &["R-RELAY-04"],
    &[Guest::Numbering, Guest::Journal],
    Node::OWN,
    rights,
);

/// A third node, whose place at the broker somebody else uses.
fn rights(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let pair = Pair::new(scene, "rights")?;
    let label = &["--label", "pair=rights"];
    let third = scene
        .site
        .enrolled_agent(&scene.name("third"), label, "")?
        .name;
    let broker = broker(scene, "rights-relay", "rights")?;
    let arguments = [
        "relay",
        "credentials",
        "rights-relay",
        "--format",
        "json",
        "--out",
        "rights-json",
    ];
    scene.site.haar(&arguments)?.ok()?;
    let file = scene.site.folder().join("rights-json/haar.json");
    let credentials: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let users = credentials["users"].as_array().context("no users")?;
    let user = |name: &str| -> anyhow::Result<(String, String)> {
        let mut users = users.iter();
        let found = users.find(|user| user["name"] == name);
        let found = found.with_context(|| format!("no user for {name}"))?;
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        Ok((text("user"), text("password")))
    };
    let (third, password) = user(&third)?;
    let (receiver, _) = user(&pair.receiver.name)?;
    let (sender, _) = user(&pair.sender.name)?;
    let site = credentials["site"].as_str().context("no site")?.to_owned();
    let application = pair.application(scene);
    scene.apply(&application)?;
    pair.wait_connected(scene, "rights-relay")?;

    // It listens to everything: to its own assignment, which the broker keeps for it, and then for
    // as long as some messages take.
    let own = format!("haar/{site}/{third}/");
    let heard = scene.site.folder().join("heard-by-the-third");
    let mut listening = mosquitto::tool("mosquitto_sub", &broker, &third, &password)?;
    listening.args(["-i", &third, "-t", "#", "-t", "haar/#", "-v"]);
    let output = std::fs::File::create(&heard)?;
    listening.stdout(output).stderr(Stdio::null());
    let mut listening = listening.spawn().context("starting mosquitto_sub")?;
    let listened = scene
        .wait_for_file(&heard, &own)
        .context("it does not hear its own assignment")
        .and_then(|()| pair.more(scene, "while somebody listens").map(drop));
    listening.kill()?;
    listening.wait()?;
    listened?;
    let heard = String::from_utf8_lossy(&std::fs::read(&heard)?).into_owned();
    for other in [&receiver, &sender] {
        let others = format!("haar/{site}/{other}/");
        ensure!(!heard.contains(&others), "it heard of {other}: {heard}");
    }

    // It speaks as another node, as the site, and as itself.
    let say = |topic: &str| -> anyhow::Result<()> {
        let mut saying = mosquitto::tool("mosquitto_pub", &broker, &third, &password)?;
        saying.args(["-i", &third, "-q", "1", "-t", topic, "-m", "forged"]);
        saying.stdout(Stdio::null()).stderr(Stdio::null());
        child::status(&mut saying, child::SHORT).map(drop) // it may be refused
    };
    let refused = |scene: &Scene<'_>| -> anyhow::Result<u64> {
        let node = scene
            .site
            .rest()
            .get(&format!("nodes/{}", pair.receiver.name))?;
        Ok(node["frames_refused"].as_u64().unwrap_or(0))
    };
    let before = refused(scene)?;
    say(&format!("haar/{site}/{receiver}/in/{sender}/link"))?;
    say(&format!("haar/{site}/{receiver}/ctl/assignment"))?;
    say(&format!("haar/{site}/{sender}/up/alive"))?;
    pair.more(scene, "after forgeries")?;
    let after = refused(scene)?;
    ensure!(after == before, "a frame in another's name came through");
    say(&format!("haar/{site}/{receiver}/in/{third}/link"))?;
    let client = scene.site.another_client()?;
    let path = format!("nodes/{}", pair.receiver.name);
    scene.wait("a frame of a node without a route is refused", || {
        let node = client.get(&path)?;
        Ok(node["frames_refused"].as_u64() > Some(before))
    })?;
    pair.check(scene)?;
    forget(scene, "rights-relay")?;
    pair.end()
}

pub(super) static CERTIFICATES: Case = Case::new(
    "no_certificate_is_issued_for_a_name_of_the_controller_and_each_one_is_an_event",
    &["R-RELAY-09"],
    &[],
    Node::OWN,
    |scene| {
        let issue = |scene: &Scene<'_>, host: &str| -> anyhow::Result<Output> {
            let manifest = json!({
                "api_version": "haar/v1",
                "kind": "Relay",
                "name": "certified",
                "url": format!("mqtts://{host}:9"),
                "carries": "topics",
            });
            apply(scene, "certified", &manifest)?;
            let out = ["--out", "certified", "--certificate"];
            let arguments = [&["relay", "credentials", "certified"], out.as_slice()].concat();
            scene.site.haar(&arguments)
        };
        for host in ["127.0.0.1", "LOCALHOST", "[::ffff:127.0.0.1]"] {
            let outcome = issue(scene, host)?;
            let refused = outcome.stderr.contains("it is a name of the controller");
            ensure!(outcome.code != 0 && refused, "{host}: {}", outcome.stderr);
        }
        issue(scene, &HOST.to_string())?.ok()?;
        forget(scene, "certified")?;
        let events = scene.site.haar(&["get", "events"])?.ok()?.stdout;
        let is_issue =
            |line: &&str| line.contains("certificate_issued") && line.contains("certified");
        let issued = events.lines().filter(is_issue).count();
        ensure!(issued == 1, "{issued} certificates are events: {events}");
        Ok(())
    },
);
