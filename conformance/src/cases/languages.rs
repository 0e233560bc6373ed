//! Components of other toolchains, each from a source that knows the WIT and nothing of Haar's SDK.
//! Where a toolchain can't be had, the case says so and proves nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use haar_conformance_artifacts::{self as artifacts, Guest};
use haar_protocol::status::State;
use serde_json::{Value, json};

use crate::case::{Case, Node};
use crate::scene::Scene;
use crate::talk::{SUBJECT, Talk};
use crate::world::tools::{Tools, run};

const NODE: Node = Node::OWN;
/// The sources, and how to renew what is generated.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/languages");
const WIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit");

pub(super) static CASES: &[&Case] = &[&RUST, &C, &PYTHON, &JAVASCRIPT];

/// Whether the toolchain of a case is too large for every run.
pub(super) fn is_large(case: &Case) -> bool {
    [PYTHON.name, JAVASCRIPT.name].contains(&case.name)
}

pub(super) static RUST: Case = Case::new(
    "a_component_of_rust_without_the_sdk_receives_and_publishes",
    &["R-SHAPE-03"],
    &[Guest::Plain],
    NODE,
    |scene| {
        let component = artifacts::read(artifacts::PLAIN);
        let limits = json!({ "memory": "4MiB" });
        talks(
            scene,
            "rust",
            &component,
            &limits,
            "the message asks for it",
        )
    },
);

pub(super) static C: Case = Case::new(
    "a_component_of_c_receives_and_publishes",
    &["R-SHAPE-03"],
    &[],
    NODE,
    |scene| {
        let Some(component) = built(scene, "c", c)? else {
            return Ok(());
        };
        let limits = json!({ "memory": "4MiB" });
        talks(scene, "c", &component, &limits, "the message asks for it")
    },
);

pub(super) static PYTHON: Case = Case::new(
    "a_component_of_python_receives_and_publishes",
    &["R-SHAPE-03"],
    &[],
    NODE,
    |scene| {
        let Some(component) = built(scene, "python", python)? else {
            return Ok(());
        };
        // The exception itself is in the last lines of the report.
        let words = "Python function threw an unexpected exception";
        talks(scene, "python", &component, &interpreter(), words)
    },
);

pub(super) static JAVASCRIPT: Case = Case::new(
    "a_component_of_javascript_receives_and_publishes",
    &["R-SHAPE-03"],
    &[],
    NODE,
    |scene| {
        let Some(component) = built(scene, "javascript", javascript)? else {
            return Ok(());
        };
        // Likewise.
        let words = "Redirecting call to abort()";
        talks(scene, "javascript", &component, &interpreter(), words)
    },
);

/// What an interpreter takes.
fn interpreter() -> Value {
    json!({ "memory": "128MiB", "call_timeout": "30s" })
}

/// The component receives a message with a header, answers it, and fails when it is asked to, with its
/// own words in the reason.
fn talks(
    scene: &mut Scene<'_>,
    language: &str,
    component: &[u8],
    limits: &Value,
    words: &str,
) -> anyhow::Result<()> {
    scene.site.push_component(language, component)?;
    let more = json!({
        "limits": limits,
        "grants": { "key_value": true },
        "retry": { "attempts": 1 },
        "restart": { "pauses": ["1h"], "jitter": "0%" },
    });
    let mut talk = Talk::with_module(scene, language, more)?;
    let reply = talk.ask(scene, "hello")?;
    let expected = format!("{language}: hello");
    ensure!(reply.text() == expected, "{reply:?}");
    talk.say(scene, "fail")?;
    let failed = scene.wait_for(talk.name(), SUBJECT, "has failed", |one| {
        one.state == State::BackOff
    })?;
    let reason = failed.reason.unwrap_or_default();
    let label = format!("{language}@{}: ", crate::modules::VERSION);
    ensure!(
        reason.starts_with(&label) && reason.contains(words),
        "the reason is `{reason}`"
    );
    Ok(())
}

/// The component that `build` makes in a folder of the case; none, with a note, when its toolchain can't
/// be had.
fn built(
    scene: &mut Scene<'_>,
    language: &str,
    build: fn(&Tools, &Path) -> anyhow::Result<Built>,
) -> anyhow::Result<Option<Vec<u8>>> {
    let folder = scene.folder(language)?;
    let tools = Tools::beside_us()?;
    match build(&tools, &folder)? {
        Built::Component(component) => Ok(Some(component)),
        Built::NoToolchain(why) => {
            scene
                .notes
                .push(format!("skipped, nothing is proved: {why:#}"));
            Ok(None)
        }
    }
}

/// What came of a build.
enum Built {
    Component(Vec<u8>),
    NoToolchain(anyhow::Error),
}

/// Zig compiles, and the linker of Rust's target makes a component, with the C library that Rust has
/// for it: everybody who builds guests has both.
fn c(tools: &Tools, folder: &Path) -> anyhow::Result<Built> {
    let source = |name: &str| Path::new(SOURCES).join("c").join(name);
    let mut objects = vec![source("guest_component_type.o")];
    for name in ["app", "guest"] {
        let mut compiler = match tools.zig_cc() {
            Ok(compiler) => compiler,
            Err(why) => return Ok(Built::NoToolchain(why)),
        };
        let object = folder.join(format!("{name}.o"));
        run(compiler
            .args(["--target=wasm32-wasi", "-Oz", "-c", "-o"])
            .arg(&object)
            .arg(source(&format!("{name}.c"))))?;
        objects.push(object);
    }
    let (linker, library) = match tools.wasip2() {
        Ok(found) => found,
        Err(why) => return Ok(Built::NoToolchain(why)),
    };
    let component = folder.join("guest.wasm");
    run(Command::new(linker.join("wasm-component-ld"))
        .arg("--wasm-ld-path")
        .arg(linker.join("gcc-ld/wasm-ld"))
        .args(["--entry", "_initialize", "--strip-debug"])
        // Those who link have 16 MiB of stack otherwise.
        .arg("-zstack-size=65536")
        .arg(library.join("crt1-reactor.o"))
        .args(&objects)
        .arg("-L")
        .arg(&library)
        .arg("-lc")
        .arg("-o")
        .arg(&component))?;
    Ok(Built::Component(std::fs::read(component)?))
}

fn python(tools: &Tools, folder: &Path) -> anyhow::Result<Built> {
    let mut componentize = match tools.componentize_py() {
        Ok(componentize) => componentize,
        Err(why) => return Ok(Built::NoToolchain(why)),
    };
    let component = folder.join("guest.wasm");
    run(componentize
        .arg("--wit-path")
        .arg(wit(folder)?)
        .args(["--world", "guest", "componentize", "--python-path", SOURCES])
        .arg("--output")
        .arg(&component)
        .arg("app"))?;
    Ok(Built::Component(std::fs::read(component)?))
}

fn javascript(tools: &Tools, folder: &Path) -> anyhow::Result<Built> {
    let mut componentize = match tools.componentize_js() {
        Ok(componentize) => componentize,
        Err(why) => return Ok(Built::NoToolchain(why)),
    };
    let component = folder.join("guest.wasm");
    run(componentize
        .arg("--wit")
        .arg(wit(folder)?)
        // It imports `wasi:http` otherwise, which no agent offers yet.
        .args(["--world-name", "guest", "--disable", "http", "fetch-event"])
        .arg("--out")
        .arg(&component)
        .arg(Path::new(SOURCES).join("app.js")))?;
    Ok(Built::Component(std::fs::read(component)?))
}

/// A folder with our WIT and the world of these guests.
fn wit(folder: &Path) -> anyhow::Result<PathBuf> {
    let target = folder.join("wit");
    copy(Path::new(WIT), &target)?;
    std::fs::copy(
        Path::new(SOURCES).join("guest.wit"),
        target.join("guest.wit"),
    )?;
    Ok(target)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
