//! Guests that attack their node while a well-behaved neighbour is measured.

use anyhow::ensure;
use haar_conformance_artifacts::{self as artifacts, Guest};
use haar_protocol::status::MicroserviceStatus;
use serde_json::{Value, json};

use crate::attack::{Attackers, Neighbour, Step, attacker};
use crate::case::{Case, Node};
use crate::scene::Scene;

/// Every attack has an agent of its own.
const NODE: Node = Node::OWN;
/// The memory limit of each microservice that says nothing of it.
pub(super) const MEMORY_BYTES: u64 = 16 << 20;

pub(super) static CASES: &[&Case] = &[
    &SPIN,
    &RECURSION,
    &MEMORY,
    &INITIAL_MEMORY,
    &TABLES,
    &PARKED,
    &LOGS,
    &MESSAGES,
    &TIMERS,
    &KEY_VALUES,
    &HUGE_LISTS,
    &TRAPS,
];

/// What must be seen of an attacker before its round ends.
struct Seen {
    /// Its log must show this, unless it is empty.
    words: &'static str,
    /// Its status must be so.
    status: fn(&MicroserviceStatus) -> bool,
}

impl Seen {
    /// It failed, with these words in the log.
    const fn failed(words: &'static str) -> Self {
        Self {
            words,
            status: |one| one.failures >= 1,
        }
    }
}

/// Lets attackers of one guest loose, each told `message` every `every_ms`.
fn attack(
    scene: &mut Scene<'_>,
    guest: Guest,
    limits: &Value,
    (message, every_ms): (&str, u32),
    seen: &Seen,
) -> anyhow::Result<()> {
    let more = json!({ "limits": limits });
    let mut attackers = Attackers::deploy(scene, guest, &more, message, every_ms)?;
    let instances = 1 + 2 * u64::from(scene.measuring.rounds);
    let mut neighbour = Neighbour::start(scene, instances * MEMORY_BYTES)?;
    let name = attackers.name().to_owned();
    neighbour.under_attack(scene, |scene, step| match step {
        Step::Begin(round) => attackers.begin(scene, round),
        Step::End(round) => {
            let attacker = attacker(round);
            scene.wait_for(&name, &attacker, "got what it deserves", seen.status)?;
            if !seen.words.is_empty() {
                scene.wait_line(&name, &attacker, seen.words)?;
            }
            attackers.end(scene, round)
        }
    })?;
    neighbour.judge(scene)
}

/// Long enough for a phase, short enough that a case ends.
fn long_call() -> Value {
    json!({ "fuel_per_call": 1_000_000_000_000u64, "call_timeout": "3s" })
}

pub(super) static SPIN: Case = Case::new(
    "hostile_spin",
    &["R-HOSTILE-01"],
    &[Guest::Spin, Guest::Probe],
    NODE,
    |scene| {
        attack(
            scene,
            Guest::Spin,
            &long_call(),
            ("spin", 100),
            &Seen::failed("took too long"),
        )
    },
);

pub(super) static RECURSION: Case = Case::new(
    "hostile_recursion_on_both_stacks",
    &["R-HOSTILE-02"],
    &[Guest::Recurse],
    NODE,
    |scene| {
        let message = ("calls\nframes", 50);
        attack(
            scene,
            Guest::Recurse,
            &json!({}),
            message,
            &Seen::failed("stack overflow"),
        )
    },
);

pub(super) static MEMORY: Case = Case::new(
    "hostile_memory_bomb_by_growth",
    &["R-HOSTILE-03"],
    &[Guest::Memory],
    NODE,
    |scene| {
        attack(
            scene,
            Guest::Memory,
            &json!({}),
            ("grow", 50),
            &Seen::failed("out of memory"),
        )
    },
);

pub(super) static PARKED: Case = Case::new(
    "hostile_parked_host_call",
    &["R-HOSTILE-06"],
    &[Guest::Sleeper],
    NODE,
    |scene| {
        attack(
            scene,
            Guest::Sleeper,
            &long_call(),
            ("600000", 50),
            &Seen::failed("took too long"),
        )
    },
);

pub(super) static LOGS: Case = Case::new(
    "hostile_log_flood",
    &["R-HOSTILE-07"],
    &[Guest::Flood],
    NODE,
    |scene| {
        attack(
            scene,
            Guest::Flood,
            &long_call(),
            ("log 2500", 100),
            &Seen {
                words: "a line of the flood",
                status: |one| one.log_lines_dropped > 1_000,
            },
        )
    },
);

pub(super) static MESSAGES: Case = Case::new(
    "hostile_publish_flood",
    &["R-HOSTILE-08"],
    &[Guest::Flood],
    NODE,
    |scene| {
        let message = ("publish 2500 200000", 100);
        attack(
            scene,
            Guest::Flood,
            &long_call(),
            message,
            &Seen {
                words: "",
                status: |one| one.calls >= 2 && one.failures == 0,
            },
        )
    },
);

pub(super) static TIMERS: Case = Case::new(
    "hostile_timer_flood",
    &["R-HOSTILE-09"],
    &[Guest::Flood],
    NODE,
    |scene| {
        let limits = json!({ "timers": 1_024 });
        attack(
            scene,
            Guest::Flood,
            &limits,
            ("timers 2500", 5_000),
            &Seen {
                words: "",
                status: |one| one.calls > 1_000 && one.failures == 0,
            },
        )
    },
);

pub(super) static KEY_VALUES: Case = Case::new(
    "hostile_key_value_flood",
    &["R-HOSTILE-18"],
    &[Guest::KeyValueFlood],
    NODE,
    key_values,
);

/// This attacker needs no messages: it floods from its start on.
fn key_values(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut neighbour = Neighbour::start(scene, MEMORY_BYTES)?;
    neighbour.under_attack(scene, |scene, step| match step {
        Step::Begin(round) => {
            let more = json!({
                "grants": { "key_value": true },
                "limits": { "key_value_size": "2MiB" },
            });
            let application = scene.application(&format!("flood-{round}")).with(
                "attacker",
                Guest::KeyValueFlood,
                more,
            );
            scene.apply(&application)?;
            scene.wait_for(&application.name, "attacker", "floods", |one| {
                one.key_value_bytes > 0
            })?;
            Ok(())
        }
        Step::End(round) => {
            let application = scene.name(&format!("flood-{round}"));
            scene.wait_for(&application, "attacker", "got what it deserves", |one| {
                let exceeded = &one.exceeded;
                exceeded.key_value_writes_per_second >= 1
            })?;
            scene.delete(&application)
        }
    })?;
    neighbour.judge(scene)
}

pub(super) static HUGE_LISTS: Case = Case::new(
    "hostile_huge_lists_across_the_border",
    &["R-HOSTILE-12", "R-HOSTILE-13"],
    &[Guest::Abi],
    NODE,
    |scene| {
        let messages = "headers 100000 1000000\nbody 10000000\nlog 10000000\nreject 10000000";
        attack(
            scene,
            Guest::Abi,
            &json!({}),
            (messages, 50),
            &Seen::failed(""),
        )
    },
);

pub(super) static TRAPS: Case = Case::new(
    "hostile_handler_that_traps_on_every_message",
    &["R-HOSTILE-14"],
    &[Guest::Trap],
    NODE,
    |scene| {
        attack(
            scene,
            Guest::Trap,
            &json!({}),
            ("panic", 5),
            &Seen::failed("panicked"),
        )
    },
);

pub(super) static INITIAL_MEMORY: Case = Case::new(
    "hostile_memory_bomb_at_the_start",
    &["R-HOSTILE-04"],
    &[],
    NODE,
    |scene| {
        // 4 GiB less a page of initial memory: refused at apply.
        let frank = artifacts::component_with_memory(65_535, 1);
        scene.site.push_component("frank-memory", &frank)?;
        let nothing = json!({ "inlets": {}, "outlets": {} });
        let application = scene
            .application("frank")
            .with_module("bomb", "frank-memory", nothing);
        let refusal = scene.refusal(&application)?;
        ensure!(refusal.contains("of memory, and its limit is"), "{refusal}");
        // Eight memories of 12 MiB: each is within the limit, their sum is not.
        let bomb = artifacts::component_with_memory(192, 8);
        deployed(scene, "initial-memory", &bomb, &["memory"])
    },
);

pub(super) static TABLES: Case = Case::new(
    "hostile_table_bombs_at_the_start_and_by_growth",
    &["R-HOSTILE-05"],
    &[],
    NODE,
    |scene| {
        let initial = artifacts::component_with_table(10_000_000);
        deployed(scene, "initial-table", &initial, &["table", "memory"])?;
        let growing = artifacts::component_growing_table(10_000);
        deployed(
            scene,
            "growing-table",
            &growing,
            &["unreachable", "table", "panicked"],
        )
    },
);

/// Deploys a component that attacks while it is instantiated. It must never run, and the node must
/// say why in one of these words.
fn deployed(
    scene: &mut Scene<'_>,
    name: &'static str,
    component: &[u8],
    words: &[&str],
) -> anyhow::Result<()> {
    scene.site.push_component(name, component)?;
    let mut neighbour = Neighbour::start(scene, MEMORY_BYTES)?;
    let mut reason = String::new();
    neighbour.under_attack(scene, |scene, step| match step {
        Step::Begin(round) => {
            let application = scene.application(&format!("{name}-{round}")).with_module(
                "bomb",
                name,
                json!({ "inlets": {}, "outlets": {} }),
            );
            scene.apply(&application)?;
            let status = scene.wait_for(&application.name, "bomb", "failed", |one| {
                one.reason.is_some()
            })?;
            reason = status.reason.unwrap_or_default();
            Ok(())
        }
        Step::End(round) => {
            let application = scene.name(&format!("{name}-{round}"));
            scene.delete(&application)
        }
    })?;
    ensure!(
        words.iter().any(|word| reason.contains(word)),
        "the node says `{reason}`"
    );
    neighbour.judge(scene)
}
