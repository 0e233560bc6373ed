//! Components of other toolchains, each from a source that knows the WIT and nothing of Haar's SDK.
//! Where a toolchain can't be had, the case is skipped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use haar_conformance_artifacts::{self as artifacts, Guest};
use haar_protocol::status::State;
use serde_json::{Value, json};

use crate::case::{Case, Node, Skipped};
use crate::child;
use crate::scene::Scene;
use crate::talk::{SUBJECT, Talk};
use crate::world::tools::Tools;

const NODE: Node = Node::OWN;
/// How long a compiler may take.
const BUILD_TIME: Duration = Duration::from_secs(600);
/// The sources, with instructions for regenerating the bindings.
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
        let component = built(scene, "c", c)?;
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
        let component = built(scene, "python", python)?;
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
        let component = built(scene, "javascript", javascript)?;
        // Likewise.
        let words = "Redirecting call to abort()";
        talks(scene, "javascript", &component, &interpreter(), words)
    },
);

/// Limits for a guest that contains an interpreter.
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

/// The component that `build` makes in a folder of the case.
fn built(
    scene: &mut Scene<'_>,
    language: &str,
    build: fn(&Tools, &Path) -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<Vec<u8>> {
    let folder = scene.folder(language)?;
    build(&Tools::beside_us()?, &folder)
}

/// Skips the case when a toolchain can't be installed.
fn had<T>(toolchain: anyhow::Result<T>) -> anyhow::Result<T> {
    toolchain.map_err(|why| Skipped::because(format!("{why:#}")))
}

/// Runs a step of a build.
fn run(command: &mut Command) -> anyhow::Result<()> {
    child::run(command, BUILD_TIME)
}

/// Zig compiles, and the linker of Rust's target makes a component, with the C library that Rust has
/// for it: everybody who builds guests has both.
fn c(tools: &Tools, folder: &Path) -> anyhow::Result<Vec<u8>> {
    let source = |name: &str| Path::new(SOURCES).join("c").join(name);
    let mut objects = vec![source("guest_component_type.o")];
    for name in ["app", "guest"] {
        let mut compiler = had(tools.zig_cc())?;
        let object = folder.join(format!("{name}.o"));
        run(compiler
            .args(["--target=wasm32-wasi", "-Oz", "-c", "-o"])
            .arg(&object)
            .arg(source(&format!("{name}.c"))))?;
        objects.push(object);
    }
    let (linker, library) = had(tools.wasip2())?;
    let component = folder.join("guest.wasm");
    run(Command::new(linker.join("wasm-component-ld"))
        .arg("--wasm-ld-path")
        .arg(linker.join("gcc-ld/wasm-ld"))
        .args(["--entry", "_initialize", "--strip-debug"])
        // The linker's default here is a stack of 16 MiB.
        .arg("-zstack-size=65536")
        .arg(library.join("crt1-reactor.o"))
        .args(&objects)
        .arg("-L")
        .arg(&library)
        .arg("-lc")
        .arg("-o")
        .arg(&component))?;
    Ok(std::fs::read(component)?)
}

fn python(tools: &Tools, folder: &Path) -> anyhow::Result<Vec<u8>> {
    let mut componentize = had(tools.componentize_py())?;
    // Its interpreter writes compiled Python beside what it reads.
    let source = folder.join("source");
    std::fs::create_dir_all(&source)?;
    std::fs::copy(Path::new(SOURCES).join("app.py"), source.join("app.py"))?;
    let component = folder.join("guest.wasm");
    run(componentize
        .arg("--wit-path")
        .arg(wit(folder)?)
        .args(["--world", "guest", "componentize", "--python-path"])
        .arg(&source)
        .arg("--output")
        .arg(&component)
        .arg("app"))?;
    Ok(std::fs::read(component)?)
}

fn javascript(tools: &Tools, folder: &Path) -> anyhow::Result<Vec<u8>> {
    let mut componentize = had(tools.componentize_js())?;
    let component = folder.join("guest.wasm");
    run(componentize
        .arg("--wit")
        .arg(wit(folder)?)
        // Without this it imports `wasi:http`, which no agent offers yet.
        .args(["--world-name", "guest", "--disable", "http", "fetch-event"])
        .arg("--out")
        .arg(&component)
        .arg(Path::new(SOURCES).join("app.js")))?;
    Ok(std::fs::read(component)?)
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
