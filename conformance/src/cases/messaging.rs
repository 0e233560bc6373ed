//! Messages: order, source, routes, typed errors, rejection, full inboxes.

use anyhow::{Context as _, ensure};
use haar_conformance_artifacts::Guest;
use serde_json::json;

use crate::case::{Case, Node};
use crate::scene::Scene;
use crate::talk::{Reply, SUBJECT, Talk};

const NODE: Node = Node::Shared("messaging");

pub(super) static CASES: &[&Case] = &[
    &ORDER,
    &SOURCE,
    &BETWEEN_NODES,
    &NO_ROUTE,
    &WRONG_TYPE,
    &TYPED_ERRORS,
    &RATE,
    &REJECTED,
    &FULL_INBOX,
    &BATCH,
    &REQUESTS,
    &ACKNOWLEDGED,
];

pub(super) static ORDER: Case = Case::new(
    "messages_arrive_complete_and_in_order",
    &["R-MSG-01"],
    &[Guest::Source, Guest::Echo, Guest::Sink],
    NODE,
    order,
);

fn order(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let application = scene
        .application("app")
        .with(
            "source",
            Guest::Source,
            json!({ "configuration": { "period_ms": 10, "messages": 5, "total": 500 } }),
        )
        .with("echo", Guest::Echo, json!({}))
        .with(
            "sink",
            Guest::Sink,
            json!({ "configuration": { "report_ms": 100 } }),
        )
        .route("source.out", "echo.in")
        .route("echo.out", "sink.in");
    scene.run(&application)?;
    let line = scene.wait_line(&application.name, "sink", "messages=500 ")?;
    ensure!(line.contains("missing=0 disordered=0"), "{line}");
    Ok(())
}

pub(super) static SOURCE: Case = Case::new(
    "a_message_carries_its_true_source_and_a_sequence_without_gaps",
    &["R-MSG-02", "R-MSG-03"],
    &[Guest::Driver, Guest::Echo],
    NODE,
    source,
);

fn source(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut talk = Talk::start(scene, Guest::Echo, json!({}))?;
    let lines = (0..20).map(|index| format!("line {index}"));
    let lines: Vec<String> = lines.collect();
    let replies = talk.ask_all(scene, &lines.join("\n"), lines.len())?;
    let source = format!("{}/{}/{SUBJECT}.out", scene.agent.name, talk.name());
    let first = sequence_of(&replies[0])?;
    for (sequence, (line, reply)) in (first..).zip(lines.iter().zip(&replies)) {
        ensure!(reply.0["source"] == source.as_str(), "{source}: {reply:?}");
        ensure!(reply.0["sequence"] == sequence, "{sequence}: {reply:?}");
        ensure!(reply.text() == line, "{line}: {reply:?}");
        ensure!(reply.0["type"] == crate::application::TYPE, "{reply:?}");
    }
    Ok(())
}

/// A new outlet continues above the numbers of earlier outlets of its node.
fn sequence_of(reply: &Reply) -> anyhow::Result<u64> {
    let sequence = reply.0["sequence"].as_u64();
    sequence.with_context(|| format!("without a sequence: {reply:?}"))
}

pub(super) static BETWEEN_NODES: Case = Case::new(
    "messages_between_nodes_keep_their_source_and_order",
    &["R-MSG-04"],
    &[Guest::Source, Guest::Sink],
    NODE,
    between_nodes,
);

fn between_nodes(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let other = scene
        .site
        .new_agent("messaging-far", &["--memory", "256MiB"], "")?;
    let application = scene
        .application("app")
        .with(
            "sink",
            Guest::Sink,
            json!({ "configuration": { "report_ms": 100 } }),
        )
        .with(
            "source",
            Guest::Source,
            json!({
                "place": { "node": other.name },
                "configuration": { "period_ms": 10, "messages": 5, "total": 500 },
            }),
        )
        .route("source.out", "sink.in");
    scene.apply(&application)?;
    // The first ones may be sent before the receiver has its route: live messages are not kept.
    let line = scene.wait_lines(&application.name, "sink", "hundreds of messages", |lines| {
        let texts = lines.iter().map(|entry| entry.line.text.as_str());
        let mut counted = texts.filter(|text| count(text, "messages=").is_some_and(|n| n >= 300));
        counted.next_back().map(str::to_owned)
    })?;
    ensure!(line.contains("sources=1 missing=0 disordered=0"), "{line}");
    let name = application.name.clone();
    scene.delete(&name)
}

/// The number after a key in a line of the sink.
fn count(line: &str, key: &str) -> Option<u64> {
    let mut words = line.split(' ');
    words.find_map(|word| word.strip_prefix(key))?.parse().ok()
}

pub(super) static NO_ROUTE: Case = Case::new(
    "a_message_never_reaches_a_microservice_without_a_route_to_it",
    &["R-MSG-05"],
    &[Guest::Source, Guest::Sink],
    NODE,
    no_route,
);

fn no_route(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let report = json!({ "configuration": { "report_ms": 100 } });
    let application = scene
        .application("app")
        .with(
            "source",
            Guest::Source,
            json!({ "configuration": { "period_ms": 10 } }),
        )
        .with("reached", Guest::Sink, report.clone())
        .with("apart", Guest::Sink, report)
        .route("source.out", "reached.in");
    scene.run(&application)?;
    scene.wait_lines(&application.name, "reached", "messages", |lines| {
        let mut texts = lines.iter().map(|entry| entry.line.text.as_str());
        texts
            .any(|text| count(text, "messages=").is_some_and(|n| n > 50))
            .then_some(())
    })?;
    let from = scene.lines(&application.name, "apart")?.len();
    scene.wait_lines(&application.name, "apart", "a report", |lines| {
        (lines.len() > from).then_some(())
    })?;
    for entry in scene.lines(&application.name, "apart")? {
        let text = &entry.line.text;
        ensure!(text.starts_with("messages=0 "), "it was reached: {text}");
    }
    Ok(())
}

pub(super) static WRONG_TYPE: Case = Case::new(
    "a_route_between_ports_of_two_types_is_refused",
    &["R-MSG-06"],
    &[Guest::Echo, Guest::Sink],
    NODE,
    wrong_type,
);

fn wrong_type(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let application = scene
        .application("app")
        .with("echo", Guest::Echo, json!({}))
        .with(
            "sink",
            Guest::Sink,
            json!({ "inlets": { "in": "text/plain" } }),
        )
        .route("echo.out", "sink.in");
    let refusal = scene.refusal(&application)?;
    ensure!(
        refusal.contains("text/plain") && refusal.contains("echo.out"),
        "{refusal}"
    );
    Ok(())
}

pub(super) static TYPED_ERRORS: Case = Case::new(
    "an_unknown_outlet_and_a_large_message_are_typed_answers",
    &["R-MSG-07", "R-MSG-08"],
    &[Guest::Limits],
    NODE,
    typed_errors,
);

fn typed_errors(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut talk = Talk::start(
        scene,
        Guest::Limits,
        json!({ "limits": { "message_size": "1KiB" } }),
    )?;
    let unknown = talk.ask(scene, "publish nowhere 10 1")?;
    ensure!(
        unknown.text().starts_with("0 ") && unknown.text().contains("no such outlet"),
        "{unknown:?}"
    );
    let large = talk.ask(scene, "publish out 1025 1")?;
    ensure!(
        large.text().starts_with("0 ") && large.text().contains("limit of 1024 bytes"),
        "{large:?}"
    );
    Ok(())
}

pub(super) static RATE: Case = Case::new(
    "publishing_too_fast_is_a_typed_answer_with_the_time_to_wait",
    &["R-MSG-09", "R-LIMIT-08"],
    &[Guest::Source, Guest::Sink],
    NODE,
    rate,
);

fn rate(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let application = scene
        .application("app")
        .with(
            "source",
            Guest::Source,
            json!({
                "limits": { "publish_per_second": 50 },
                "configuration": { "period_ms": 10, "burst": 1_000 },
            }),
        )
        .with(
            "driver",
            Guest::Driver,
            json!({
                "limits": { "publish_per_second": 1 },
                "configuration": { "say": "one\ntwo\nthree" },
            }),
        )
        .with("sink", Guest::Sink, json!({}))
        .route("source.out", "sink.in")
        .route("driver.out", "sink.in");
    scene.run(&application)?;
    let burst = scene.wait_line(&application.name, "source", "burst messages=")?;
    let passed = count(&burst, "messages=").unwrap_or(u64::MAX);
    let refused = count(&burst, "refused=").unwrap_or(0);
    ensure!(passed < 500 && passed + refused == 1_000, "{burst}");
    let told = scene.wait_line(&application.name, "driver", "too many messages")?;
    ensure!(told.contains("try again in "), "{told}");
    Ok(())
}

pub(super) static REJECTED: Case = Case::new(
    "a_rejected_message_comes_again_or_is_dropped_as_the_handler_says",
    &["R-MSG-10"],
    &[Guest::Reject],
    NODE,
    rejected,
);

fn rejected(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut talk = Talk::start(scene, Guest::Reject, json!({}))?;
    let third = talk.ask(scene, "retry 2")?;
    ensure!(
        third.text() == "3",
        "the third attempt was to succeed: {third:?}"
    );
    talk.say(scene, "discard")?;
    scene.wait_line(talk.name(), SUBJECT, "discarded: the message asks for it")?;
    let after = talk.ask(scene, "good")?;
    ensure!(after.text() == "1", "{after:?}");
    Ok(())
}

pub(super) static FULL_INBOX: Case = Case::new(
    "a_full_inbox_drops_the_oldest_and_counts_them",
    &["R-MSG-11", "R-BOUND-01"],
    &[Guest::Sleeper],
    NODE,
    full_inbox,
);

fn full_inbox(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let limits = json!({ "limits": { "inbox_messages": 4 } });
    let mut talk = Talk::start(scene, Guest::Sleeper, limits)?;
    let lines = vec!["300"; 40].join("\n");
    talk.say(scene, &lines)?;
    let node = scene.wait_until("every message was handled or dropped", |node| {
        let mut routes = node.routes.iter();
        routes.any(|route| route.dropped > 0 && route.dropped + route.handled >= 40)
    })?;
    ensure!(
        node.microservices.iter().all(|one| one.restarts == 0),
        "something failed"
    );
    Ok(())
}

pub(super) static BATCH: Case = Case::new(
    "a_batch_is_published_as_a_whole_or_not_at_all",
    &["R-MSG-12"],
    &[Guest::Batch],
    NODE,
    batch,
);

fn batch(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let limits = json!({ "limits": { "message_size": "1KiB" } });
    let mut talk = Talk::start(scene, Guest::Batch, limits)?;
    let five = talk.ask_all(scene, "5 10", 5)?;
    let first = sequence_of(&five[0])?;
    for (sequence, one) in (first..).zip(&five) {
        ensure!(one.0["sequence"] == sequence, "{five:?}");
    }
    talk.say(scene, "3 10 2000")?;
    let refused = scene.wait_line(talk.name(), SUBJECT, "3 10 2000: ")?;
    ensure!(refused.contains("limit of 1024 bytes"), "{refused}");
    // Nothing of it was published: the next message has the next number.
    let next = talk.ask(scene, "1 10")?;
    ensure!(next.0["sequence"] == first + 5, "{next:?}");
    Ok(())
}

pub(super) static REQUESTS: Case = Case::new(
    "a_reply_finds_its_request_over_two_routes",
    &["R-MSG-13"],
    &[Guest::Requester, Guest::Responder],
    NODE,
    requests,
);

fn requests(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    use crate::application::TYPE;
    let application = scene
        .application("app")
        .with(
            "requester",
            Guest::Requester,
            json!({
                "configuration": { "questions": 5 },
                "outlets": { "requests": TYPE },
                "inlets": { "replies": TYPE },
            }),
        )
        .with(
            "responder",
            Guest::Responder,
            json!({ "inlets": { "requests": TYPE }, "outlets": { "replies": TYPE } }),
        )
        .route("requester.requests", "responder.requests")
        .route("responder.replies", "requester.replies");
    scene.run(&application)?;
    for number in 1..=5 {
        let line = format!("{number}: {}", number * number);
        scene.wait_line(&application.name, "requester", &line)?;
    }
    Ok(())
}

pub(super) static ACKNOWLEDGED: Case = Case::new(
    "every_acknowledged_message_is_counted_on_its_route",
    &["R-MSG-17"],
    &[Guest::Quiet],
    NODE,
    acknowledged,
);

fn acknowledged(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut talk = Talk::start(scene, Guest::Quiet, json!({}))?;
    talk.say(scene, &vec!["hello"; 200].join("\n"))?;
    scene.wait_until("200 messages are sent, delivered and handled", |node| {
        node.routes.iter().any(|route| {
            [route.sent, route.delivered, route.handled, route.dropped] == [200, 200, 200, 0]
        })
    })?;
    Ok(())
}
