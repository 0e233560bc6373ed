//! Files that attack whoever reads or compiles them, while a well-behaved neighbour is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::ensure;
use haar_conformance_artifacts as artifacts;
use haar_protocol::keys::SecretKey;
use haar_protocol::module;
use haar_protocol::rest::NodeDetail;
use haar_protocol::status::State;
use serde_json::json;

use super::hostile::MEMORY_BYTES;
use crate::attack::{Neighbour, Step};
use crate::case::{Case, Node};
use crate::rest::Client;
use crate::scene::Scene;

pub(super) static CASES: &[&Case] = &[&MALFORMED, &COMPILE_BOMB];

pub(super) static MALFORMED: Case = Case::new(
    "hostile_components_of_too_many_parts_and_names_that_are_no_text",
    &["R-HOSTILE-15", "R-HOSTILE-16"],
    &[],
    Node::OWN,
    malformed,
);

/// Pushes signed files that hurt whoever reads them. All of them must be refused, with a reason.
fn malformed(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    const PARTS: u32 = 10_000;
    let key = std::fs::read_to_string(scene.site.folder().join("team.key"))?;
    let key = SecretKey::from_pem(&key)?;
    let signed = |component: Vec<u8>| module::sign(&component, &key);
    let files: Files = [
        ("imports", signed(artifacts::component_with_imports(PARTS))?),
        ("exports", signed(artifacts::component_with_exports(PARTS))?),
        (
            "instances",
            signed(artifacts::component_with_nested_instances(PARTS))?,
        ),
        (
            "components in components",
            signed(artifacts::component_nested_deeply(PARTS))?,
        ),
        (
            "types in types",
            signed(artifacts::component_with_types_nested_deeply(PARTS))?,
        ),
        (
            "an import's name",
            signed(artifacts::component_with_invalid_utf8_name())?,
        ),
        (
            "an export's name",
            signed(artifacts::component_with_invalid_utf8_export())?,
        ),
        (
            "a section's name",
            signed(artifacts::component_with_invalid_utf8_section())?,
        ),
    ];
    let files = Arc::new(files);
    let mut neighbour = Neighbour::start(scene, 0)?;
    let mut pushing: Option<Pushing> = None;
    neighbour.under_attack(scene, |scene, step| match step {
        Step::Begin(_) => {
            pushing = Some(Pushing::begin(
                scene.site.another_client()?,
                Arc::clone(&files),
            ));
            Ok(())
        }
        Step::End(_) => {
            let pushed = pushing.take().map_or(Ok(0), Pushing::end)?;
            ensure!(pushed >= files.len(), "only {pushed} files were pushed");
            scene.site.ensure_controller()
        }
    })?;
    neighbour.judge(scene)
}

/// Between two pushes. Controller and pusher stand for other machines; without a pause they would use
/// one of the processors on which the neighbour is measured up entirely.
const PUSH_PAUSE: Duration = Duration::from_millis(100);

/// Files with what is wrong with them.
type Files = [(&'static str, Vec<u8>); 8];

/// A thread that pushes files over and over, each of which must be refused.
struct Pushing {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<usize>>,
}

impl Pushing {
    fn begin(client: Client, files: Arc<Files>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut pushed = 0;
            // All of them once, at least.
            while pushed == 0 || !seen.load(Ordering::Relaxed) {
                for (what, file) in files.iter() {
                    let (status, words) = client.push(file)?;
                    ensure!((400..500).contains(&status), "{what}: {status} {words}");
                    pushed += 1;
                    std::thread::sleep(PUSH_PAUSE);
                }
            }
            Ok(pushed)
        });
        Self { is_over, thread }
    }

    /// Ends after the file in hand. Returns how many were refused.
    fn end(self) -> anyhow::Result<usize> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("pushing does not panic")
    }
}

pub(super) static COMPILE_BOMB: Case = Case::new(
    "hostile_module_that_takes_for_ever_to_compile",
    &["R-HOSTILE-17"],
    &[],
    Node::Own {
        enrol: &["--memory", "1GiB"],
        settings: "",
    },
    compile_bomb,
);

/// On a node that compiles itself, where it can: then the neighbour is measured while the compiler is
/// at work beside it. Otherwise the controller's compiler ends first.
fn compile_bomb(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let can_compile = |node: &NodeDetail| node.engine.as_ref().is_some_and(|it| it.compiler);
    let compiles = can_compile(&scene.status()?);
    if compiles {
        scene.kill_agent()?;
        let settings = "precompiled = \"refuse\"\ncompile = { time = \"10s\" }\n";
        let folder = scene.site.data(&scene.agent.name);
        std::fs::write(folder.join("agent.toml"), settings)?;
        scene.start_agent()?;
        scene.wait_until("it takes its own code only", |node| {
            node.engine.as_ref().is_some_and(|it| !it.precompiled)
        })?;
    }
    // Each a module of its own: what can't be compiled is not tried twice.
    let bombs: Vec<String> = (1..=scene.measuring.rounds)
        .map(|round| format!("compile-bomb-{round}"))
        .collect();
    for bomb in &bombs {
        scene
            .site
            .push_component(bomb, &artifacts::compile_bomb())?;
    }
    let mut neighbour = Neighbour::start(scene, MEMORY_BYTES)?;
    neighbour.under_attack(scene, |scene, step| {
        let (Step::Begin(round) | Step::End(round)) = step;
        let application = scene.name(&format!("bomb-{round}"));
        match step {
            Step::Begin(_) => {
                let more = json!({ "inlets": {}, "outlets": {} });
                let bomb = format!("compile-bomb-{round}");
                let it = scene.application(&format!("bomb-{round}"));
                scene.apply(&it.with_module("bomb", &bomb, more))?;
                scene.wait_for(&application, "bomb", "is being compiled", |one| {
                    one.state == State::Preparing || one.reason.is_some()
                })?;
                Ok(())
            }
            Step::End(_) => {
                let status = scene.wait_for(&application, "bomb", "was refused", |one| {
                    one.state != State::Preparing && one.reason.is_some()
                })?;
                let reason = status.reason.unwrap_or_default();
                ensure!(reason.contains("compile"), "the node says `{reason}`");
                scene.delete(&application)
            }
        }
    })?;
    neighbour.judge(scene)
}
