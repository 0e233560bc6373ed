//! What one call and one instance may use.

use std::time::Duration;

use anyhow::ensure;
use haar_conformance_artifacts::Guest;
use haar_protocol::rest::NodeDetail;
use haar_protocol::status::{Exceeded, State};
use serde_json::{Value, json};

use crate::case::{Case, Node};
use crate::scene::Scene;
use crate::talk::{SUBJECT, Talk};

const NODE: Node = Node::Shared("limits");

pub(super) static CASES: &[&Case] = &[
    &FUEL,
    &DEADLINE,
    &PARKED,
    &MEMORY,
    &STACKS,
    &LIVE,
    &SHARE,
    &CONTENTION,
    &PARTS,
];

/// Says something to a guest that it does not survive. It must be started again, healthy, and the
/// agent must have logged why in these words.
fn dies(
    scene: &mut Scene<'_>,
    guest: Guest,
    limits: Value,
    command: &str,
    (words, counted): (&str, fn(&Exceeded) -> u64),
) -> anyhow::Result<()> {
    // Without another attempt the message is not what it dies of again.
    let more = json!({ "limits": limits, "retry": { "attempts": 1 } });
    let mut talk = Talk::start(scene, guest, more)?;
    talk.say(scene, command)?;
    let one = scene.wait_for(talk.name(), SUBJECT, "was started again", |one| {
        one.restarts >= 1 && one.failures >= 1 && one.state == State::Running
    })?;
    ensure!(
        one.restarts == 1,
        "it died {} times of one message",
        one.restarts
    );
    ensure!(
        counted(&one.exceeded) >= 1,
        "it is not counted: {:?}",
        one.exceeded
    );
    let name = talk.name().to_owned();
    scene.wait_line(&name, SUBJECT, words)?;
    scene.note(words);
    Ok(())
}

pub(super) static FUEL: Case = Case::new(
    "a_call_that_spins_runs_out_of_fuel",
    &["R-LIMIT-01", "R-LIMIT-14", "R-FAIL-01"],
    &[Guest::Spin],
    NODE,
    |scene| {
        let limits = json!({ "fuel_per_call": 50_000_000 });
        dies(
            scene,
            Guest::Spin,
            limits,
            "spin",
            ("out of fuel", |exceeded| exceeded.fuel),
        )
    },
);

pub(super) static DEADLINE: Case = Case::new(
    "a_call_that_spins_with_fuel_to_spare_runs_out_of_time",
    &["R-LIMIT-02", "R-LIMIT-14"],
    &[Guest::Spin],
    NODE,
    |scene| {
        let limits = json!({ "fuel_per_call": 1_000_000_000_000u64, "call_timeout": "300ms" });
        dies(
            scene,
            Guest::Spin,
            limits,
            "spin",
            ("took too long", |exceeded| exceeded.call_timeout),
        )
    },
);

pub(super) static PARKED: Case = Case::new(
    "a_call_that_is_parked_in_a_host_function_runs_out_of_time",
    &["R-LIMIT-03"],
    &[Guest::Sleeper],
    NODE,
    |scene| {
        let limits = json!({ "call_timeout": "300ms" });
        dies(
            scene,
            Guest::Sleeper,
            limits,
            "600000",
            ("took too long", |exceeded| exceeded.call_timeout),
        )
    },
);

pub(super) static MEMORY: Case = Case::new(
    "growing_beyond_the_memory_limit_is_denied",
    &["R-LIMIT-04"],
    &[Guest::Memory],
    NODE,
    memory,
);

fn memory(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let limits = json!({ "memory": "4MiB" });
    let mut talk = Talk::start(
        scene,
        Guest::Memory,
        json!({ "limits": limits, "retry": { "attempts": 1 } }),
    )?;
    talk.say(scene, "try-grow")?;
    let line = scene.wait_line(talk.name(), SUBJECT, "refused after ")?;
    let bytes = line
        .split(' ')
        .filter_map(|word| word.parse::<u64>().ok())
        .max();
    ensure!(
        bytes.is_some_and(|bytes| bytes > 1 << 20 && bytes < 4 << 20),
        "{line}"
    );
    talk.say(scene, "grow")?;
    scene.wait_line(talk.name(), SUBJECT, "out of memory")?;
    scene.wait_for(talk.name(), SUBJECT, "was started again", |one| {
        one.restarts == 1 && one.state == State::Running
    })?;
    Ok(())
}

pub(super) static STACKS: Case = Case::new(
    "recursion_without_end_ends_the_instance_alone",
    &["R-LIMIT-05"],
    &[Guest::Recurse],
    NODE,
    stacks,
);

fn stacks(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut talk = Talk::start(scene, Guest::Recurse, json!({ "retry": { "attempts": 1 } }))?;
    talk.say(scene, "calls")?;
    let name = talk.name().to_owned();
    scene.wait_line(&name, SUBJECT, "stack overflow")?;
    scene.wait_for(&name, SUBJECT, "was started again", |one| {
        one.restarts == 1 && one.state == State::Running
    })?;
    talk.say(scene, "frames")?;
    scene.wait_lines(
        &name,
        SUBJECT,
        "the end of the guest's own stack",
        |lines| {
            let mut texts = lines.iter().map(|entry| entry.line.text.as_str());
            let overflows = texts
                .clone()
                .filter(|text| text.starts_with("stack overflow"))
                .count();
            (overflows > 1 || texts.any(|text| text.contains("recursed too deep"))).then_some(())
        },
    )
}

pub(super) static LIVE: Case = Case::new(
    "a_limit_changes_while_the_instance_runs",
    &["R-LIMIT-10"],
    &[Guest::Limits],
    NODE,
    live,
);

fn live(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let limits = json!({ "limits": { "message_size": "1KiB" } });
    let mut talk = Talk::start(scene, Guest::Limits, limits)?;
    let before = talk.ask(scene, "publish out 2000 1")?;
    ensure!(before.text().starts_with("0 "), "{before:?}");
    let since = scene.wait_for(talk.name(), SUBJECT, "runs", |one| {
        one.state == State::Running
    })?;
    talk.application
        .limit(SUBJECT, "message_size", "4KiB".into());
    scene.apply(&talk.application)?;
    let node = scene.wait_until("the change is applied", |node| {
        node.node.applied == node.node.assignment
    })?;
    let replies = talk.ask_all(scene, "publish out 2000 1", 2)?;
    ensure!(replies[1].text() == "1 ok", "{replies:?}");
    let after = crate::scene::of(&node, talk.name(), SUBJECT);
    ensure!(
        after.is_some_and(|one| one.since_ms == since.since_ms && one.restarts == 0),
        "it was started again"
    );
    Ok(())
}

pub(super) static SHARE: Case = Case::new(
    "an_instance_over_its_processor_share_is_held_back_and_counted",
    &["R-LIMIT-15"],
    &[Guest::Compute],
    NODE,
    share,
);

fn share(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let limits = json!({ "cpu": "5%", "call_timeout": "60s" });
    let mut talk = Talk::start(scene, Guest::Compute, json!({ "limits": limits }))?;
    talk.say(scene, &vec!["sha256 2000"; 20].join("\n"))?;
    let one = scene.wait_for(talk.name(), SUBJECT, "is held back", |one| {
        one.exceeded.cpu >= 1 && one.cpu_ms > 0
    })?;
    ensure!(one.failures == 0, "it was not held back but ended");
    Ok(())
}

pub(super) static CONTENTION: Case = Case::new(
    "an_instance_has_its_share_of_a_processor_beside_others_that_spin",
    &["R-LIMIT-11"],
    &[Guest::Spin],
    Node::OWN,
    contention,
);

fn contention(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    const SPINNERS: usize = 4;
    const SHARE: f64 = 0.10;
    /// How much of the wall clock is looked at.
    const WINDOW_MS: u64 = 6_000;
    let spinning = json!({
        "fuel_per_call": 1_000_000_000_000u64, "call_timeout": "600s", "stop_grace": "100ms",
    });
    let mut held = spinning.clone();
    held["cpu"] = "10%".into();
    let mut talk = Talk::start(scene, Guest::Spin, json!({ "limits": held }))?;
    for number in 0..SPINNERS {
        let name = format!("spinner-{number}");
        let application = talk.application.clone();
        talk.application = application
            .with(&name, Guest::Spin, json!({ "limits": spinning }))
            .route("driver.out", &format!("{name}.in"));
    }
    let application = talk.application.clone();
    scene.run(&application)?;
    talk.say(scene, "spin")?;
    let used = |node: &NodeDetail, name: &str| {
        crate::scene::of(node, &application.name, name).map_or(0, |one| one.cpu_ms)
    };
    let seen = |node: &NodeDetail| node.node.last_seen_ms.unwrap_or(0);
    let before = scene.wait_until("all of them spin", |node| {
        let mut others = (0..SPINNERS).map(|number| used(node, &format!("spinner-{number}")));
        used(node, SUBJECT) >= 100 && others.all(|used_ms| used_ms >= 100)
    })?;
    let after = scene.wait_until("they have spun for a while", |node| {
        seen(node) >= seen(&before) + WINDOW_MS
    })?;
    // What spins would have its call before it ends, and that may take ten minutes.
    scene.kill_agent()?;
    let share = |name: &str| {
        let used_ms = used(&after, name) - used(&before, name);
        Duration::from_millis(used_ms).as_secs_f64()
            / Duration::from_millis(seen(&after) - seen(&before)).as_secs_f64()
    };
    let held = share(SUBJECT);
    scene.figure("processor_share", held);
    scene.note(format!("{:.1} % of a processor", held * 100.0));
    for number in 0..SPINNERS {
        let name = format!("spinner-{number}");
        scene.note(format!("{name} {:.1} %", share(&name) * 100.0));
    }
    ensure!(
        (SHARE / 2.0..=SHARE * 2.0).contains(&held),
        "it has {:.1} % of a processor",
        held * 100.0
    );
    Ok(())
}

pub(super) static PARTS: Case = Case::new(
    "a_component_with_more_tables_or_instances_than_its_limits_does_not_run",
    &["R-LIMIT-13"],
    &[Guest::Echo],
    NODE,
    parts,
);

fn parts(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    for limit in ["table_elements", "core_instances"] {
        // By default it would start again with its new limits after ten seconds.
        let more = json!({ "limits": { limit: 1 }, "restart": { "pauses": ["500ms"] } });
        let mut application =
            scene
                .application(&limit.replace('_', "-"))
                .with(SUBJECT, Guest::Echo, more);
        scene.apply(&application)?;
        let name = application.name.clone();
        let one = scene.wait_for(&name, SUBJECT, "does not run", |one| one.reason.is_some())?;
        let reason = one.reason.unwrap_or_default();
        ensure!(
            reason.contains(&format!("`{limit}`")),
            "{limit}: the node says `{reason}`"
        );
        let exceeded = one.exceeded.by_name();
        ensure!(
            exceeded
                .iter()
                .any(|(name, times)| *name == limit && *times > 0),
            "{limit} is not counted: {exceeded:?}"
        );
        application.limit(SUBJECT, limit, 500.into());
        scene.apply(&application)?;
        scene.wait_for(&name, SUBJECT, "runs", |one| one.state == State::Running)?;
    }
    Ok(())
}
