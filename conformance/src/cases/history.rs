//! What passed the ports of a microservice, as it reads it again.

use anyhow::ensure;
use haar_conformance_artifacts::Guest;
use serde_json::{Value, json};

use crate::application::{Application, TYPE};
use crate::case::{Case, Node};
use crate::scene::Scene;
use crate::talk::SUBJECT;

const NODE: Node = Node::Shared("history");
/// Messages that a long conversation has.
const MANY: usize = 100;

pub(super) static CASES: &[&Case] = &[&QUERIES, &PAGES, &RETENTION];

/// A guest that keeps so much of each port. A driver says what enters it, and another one asks it.
fn historian(scene: &Scene<'_>, inlet: &Value) -> Application {
    let outlet = json!({ "size": "1MiB", "age": "1h" });
    scene
        .application("app")
        .with("driver", Guest::Driver, json!({}))
        .with("asker", Guest::Driver, json!({}))
        .with(
            SUBJECT,
            Guest::History,
            json!({
                "inlets": { "in": { "type": TYPE, "history": inlet }, "ask": TYPE },
                "outlets": { "out": { "type": TYPE, "history": outlet } },
                "limits": { "log_lines_per_second": 10_000 },
            }),
        )
        .route("driver.out", "subject.in")
        .route("asker.out", "subject.ask")
        .route("subject.out", "driver.in")
}

/// Has these messages said to the guest, and waits until it has handled all of them.
fn handled(
    scene: &mut Scene<'_>,
    application: &mut Application,
    messages: &[String],
) -> anyhow::Result<()> {
    application.say("driver", 1, &messages.join("\n"));
    scene.apply(application)?;
    // The guest publishes what it has handled: the driver has heard it.
    scene.wait_lines(&application.name, "driver", "all echoes", |lines| {
        (lines.len() >= messages.len()).then_some(())
    })
}

/// What the guest finds, for each of these queries.
fn answers<const COUNT: usize>(
    scene: &mut Scene<'_>,
    application: &mut Application,
    queries: [&str; COUNT],
) -> anyhow::Result<[String; COUNT]> {
    application.say("asker", 1, &queries.join("\n"));
    scene.apply(application)?;
    let lines = scene.wait_lines(&application.name, SUBJECT, "all answers", |lines| {
        let texts: Vec<_> = lines.iter().map(|entry| entry.line.text.clone()).collect();
        <[String; COUNT]>::try_from(texts).ok()
    })?;
    for (query, line) in queries.iter().zip(&lines) {
        ensure!(line.starts_with(&format!("{query} -> ")), "{lines:#?}");
    }
    Ok(lines.map(|line| line.split(" -> ").nth(1).unwrap_or_default().to_owned()))
}

/// As the guest writes messages of the driver down.
fn shown(numbers: impl Iterator<Item = usize>) -> String {
    let messages: Vec<String> = numbers
        .map(|number| format!("{number}:m{number}:driver:-"))
        .collect();
    messages.join(",")
}

/// The answer with sequences renumbered from 1. A new outlet continues above the numbers of earlier
/// outlets of its node.
fn from_one(answer: &str) -> String {
    let number = |text: &str| text.parse::<usize>().ok();
    let parts = |message: &str| {
        let (sequence, rest) = message.split_once(':')?;
        let index = rest.strip_prefix('m')?.split(':').next()?;
        Some((number(sequence)?, number(index)?, rest.to_owned()))
    };
    let Some((first, index, _)) = answer.split(',').next().and_then(parts) else {
        return answer.to_owned();
    };
    let before = first.saturating_sub(index);
    let messages = answer.split(',').map(|message| match parts(message) {
        Some((sequence, _, rest)) => format!("{}:{rest}", sequence.saturating_sub(before)),
        None => message.to_owned(),
    });
    messages.collect::<Vec<_>>().join(",")
}

fn messages(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("m{number}")).collect()
}

pub(super) static QUERIES: Case = Case::new(
    "a_microservice_reads_what_passed_its_own_ports",
    &["R-HIST-01"],
    &[Guest::History],
    NODE,
    queries,
);

fn queries(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut application = historian(scene, &json!({ "size": "1MiB", "age": "1h" }));
    scene.run(&application)?;
    handled(scene, &mut application, &messages(3))?;
    let from_driver = format!("inlet in from={}/driver", application.name);
    let node = format!("inlet in node={} since=1", scene.agent.name);
    let all = format!("{} pages=1", shown(1..=3));
    let expected = [
        ("inlet in", all.as_str()),
        (&from_driver, &all),
        (&node, &all),
        ("inlet in from=other/driver", " pages=1"),
        ("inlet in node=other", " pages=1"),
        ("inlet in until=1", " pages=1"),
        ("outlet out first=2 last=2", "2:m2:subject:echo pages=1"),
        ("inlet ask", "NoHistory"),
        ("outlet in", "NoHistory"),
        ("inlet in token=1-0", "BadToken"),
    ];
    let found = answers(scene, &mut application, expected.map(|(query, _)| query))?;
    ensure!(found == expected.map(|(_, answer)| answer), "{found:#?}");
    Ok(())
}

pub(super) static PAGES: Case = Case::new(
    "the_pages_of_a_history_are_together_complete_and_without_repeats",
    &["R-HIST-02"],
    &[Guest::History],
    NODE,
    pages,
);

fn pages(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut application = historian(scene, &json!({ "size": "1MiB", "age": "1h" }));
    scene.run(&application)?;
    handled(scene, &mut application, &messages(MANY))?;
    let queries = ["inlet in limit=7", "inlet in newest limit=30"];
    let [oldest, newest] = answers(scene, &mut application, queries)?;
    let all = format!("{} pages=15", shown(1..=MANY));
    ensure!(from_one(&oldest) == all, "{oldest}");
    let all = format!("{} pages=4", shown((1..=MANY).rev()));
    ensure!(from_one(&newest) == all, "{newest}");
    Ok(())
}

pub(super) static RETENTION: Case = Case::new(
    "a_history_is_no_larger_and_no_older_than_its_retention",
    &["R-HIST-03"],
    &[Guest::History],
    NODE,
    retention,
);

fn retention(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut application = historian(scene, &json!({ "size": "1KiB", "age": "1h" }));
    scene.run(&application)?;
    handled(scene, &mut application, &messages(MANY))?;
    let [kept] = answers(scene, &mut application, ["inlet in"])?;
    // Each takes 64 bytes and those of its body: `m86` to `m100`.
    let fits = format!("{} pages=1", shown(MANY - 14..=MANY));
    ensure!(from_one(&kept) == fits, "{kept}");

    let mut application = historian(scene, &json!({ "size": "1MiB", "age": "2s" }));
    application.configure("asker", "every_ms", "200");
    scene.run(&application)?;
    application.configure("asker", "say", "inlet in limit=2");
    application.configure("driver", "round", "2");
    application.configure("driver", "say", "young");
    scene.apply(&application)?;
    scene.wait_lines(&application.name, SUBJECT, "it come and go", |lines| {
        let is_there = |text: &str| text.contains(":young:");
        let mut texts = lines.iter().map(|entry| entry.line.text.as_str());
        texts.find(|text| is_there(text))?;
        texts.find(|text| text.ends_with("-> pages=1") || text.ends_with("->  pages=1"))?;
        Some(())
    })
}
