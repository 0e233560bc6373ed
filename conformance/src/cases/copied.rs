//! A node whose directory was copied, so that two agents run with its identity.

use std::process::Command;

use anyhow::{Context as _, ensure};
use haar_conformance_artifacts::Guest;
use haar_protocol::rest::{Event, List};
use serde_json::json;

use crate::application::Application;
use crate::case::{Case, Node};
use crate::child;
use crate::scene::Scene;
use crate::site::Agent;

pub(super) static CASES: &[&Case] = &[&COPIED];

/// What each start of the source publishes, over some seconds.
const MESSAGES: u64 = 100;

pub(super) static COPIED: Case = Case::new(
    "of_two_agents_with_one_identity_nothing_stored_is_lost_and_the_site_reports_both",
    &["R-COPY-01", "R-COPY-02", "R-COPY-03"],
    &[Guest::Source, Guest::Sink],
    Node::OWN,
    copied,
);

fn copied(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut sender = scene
        .site
        .new_agent("copied-sender", &["--memory", "256MiB"], "")?;
    let source = json!({
        "place": { "node": sender.name },
        "configuration": { "period_ms": 50, "total": MESSAGES },
    });
    let application = scene
        .application("app")
        .with("source", Guest::Source, source)
        .with(
            "sink",
            Guest::Sink,
            json!({ "configuration": { "report_ms": 100 } }),
        )
        .durable_route("source.out", "sink.in");
    scene.apply(&application)?;
    arrived(scene, &application, MESSAGES)?;
    sender.kill()?;

    let mut copy = Agent {
        name: sender.name.clone(),
        data: scene.site.data("copied-sender-again"),
        process: None,
    };
    let mut copying = Command::new("cp");
    copying.arg("-a").args([&sender.data, &copy.data]);
    child::run(&mut copying, child::SHORT)?;
    // Both publish under the same sequences. Which of them is served changes; neither loses any.
    scene.site.start_agent(&mut sender)?;
    scene.site.start_agent(&mut copy)?;
    arrived(scene, &application, 3 * MESSAGES)?;
    let events = scene.wait_events("identity_in_use", &sender.name)?;
    ensure!(events == 1, "two agents were reported {events} times");
    let answer = scene.site.rest().get("events?tail=1000")?;
    let events: List<Event> = serde_json::from_value(answer)?;
    let mut events = events.items.iter();
    let event = events.find(|event| event.kind == "identity_in_use");
    let told = &event.context("the event is gone")?.message;
    ensure!(
        told.matches("127.0.0.1").count() == 2,
        "not both addresses: {told}"
    );
    let node = scene.site.rest().get(&format!("nodes/{}", sender.name))?;
    let mut observations = node["observations"].as_array().into_iter().flatten();
    ensure!(
        observations.any(|one| one["kind"] == "identity_in_use"
            && one["message"]
                .as_str()
                .is_some_and(|said| said.contains("127.0.0.1"))),
        "`describe node` does not show it: {}",
        node["observations"]
    );

    // One stops, and the other goes on.
    copy.kill()?;
    sender.kill()?;
    scene.site.start_agent(&mut sender)?;
    arrived(scene, &application, 4 * MESSAGES)?;
    sender.kill()
}

/// Waits until exactly so many messages have arrived.
fn arrived(scene: &mut Scene<'_>, application: &Application, messages: u64) -> anyhow::Result<()> {
    let begin = format!("messages={messages} ");
    let what = format!("{messages} messages have arrived");
    scene.wait_lines(&application.name, "sink", &what, |lines| {
        let mut lines = lines.iter();
        lines
            .find(|entry| entry.line.text.starts_with(&begin))
            .map(drop)
    })
}
