//! `cargo xtask night`: tests that take too long for every change. A failed step does not stop the others;
//! the failures are listed at the end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::command::{output, run};

/// Try for some hours what CI tries for some minutes
///
/// The conformance suite, components of other toolchains, whether a site in trouble says what is true,
/// brokers and clients that others make, a long soak, and each fuzz target for a while. Needs what `.ci/run` installs, and `protobuf-compiler` and `cmake` to build RMQTT; fuzzing
/// needs `rustup toolchain install nightly` and `cargo install cargo-fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only steps with this text in their name
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// How many messages the soak sends
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000)]
    messages: u64,
    /// How long each fuzz target runs, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    fuzz_seconds: u64,
    /// List the steps without running them
    #[arg(long)]
    list: bool,
}

/// A step.
struct Step {
    name: String,
    command: Command,
}

/// Does it.
pub(crate) fn night(arguments: &Arguments) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = root.canonicalize().context("the repository is gone")?;
    let mut steps = steps(arguments, &root)?;
    steps.retain(|step| step.name.contains(&arguments.only));
    let began = Instant::now();
    let mut failed = Vec::new();
    for Step { name, mut command } in steps {
        if arguments.list {
            println!("{name}");
            continue;
        }
        eprintln!("== {:>5} s  {name}", began.elapsed().as_secs());
        if let Err(error) = run(command.current_dir(&root)) {
            eprintln!("error: {error:#}");
            failed.push(name);
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("failed: {}", failed.join(", ")),
    }
}

fn steps(arguments: &Arguments, root: &Path) -> anyhow::Result<Vec<Step>> {
    let step = |name: &str, words: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(words);
        Step {
            name: name.to_owned(),
            command,
        }
    };
    let programs = Programs::of(root)?;
    let suite = |name: &str, words: &[&str]| {
        let mut step = step(name, &["run", "--release", "-p", "haar-conformance", "--"]);
        step.command.args(words);
        programs.name(&mut step.command);
        step
    };
    let messages = arguments.messages.to_string();
    let mut steps = vec![
        step("build", BUILD),
        suite("conformance", &["run", "--no-skips", "--rounds", "3"]),
        suite("languages", &["run", "--no-skips", "--set", "languages"]),
        suite("truth", &["truth", "--no-skips"]),
        suite("world", &["world", "--all"]),
        suite("soak", &["soak", "--messages", &messages]),
    ];
    let limit = format!("-max_total_time={}", arguments.fuzz_seconds);
    for target in fuzz_targets(root)? {
        let words = ["+nightly", "fuzz", "run", &target, "--", &limit];
        steps.push(step(&format!("fuzz {target}"), &words));
    }
    Ok(steps)
}

/// Builds the tested programs as CI does.
const BUILD: &[&str] = &[
    "build",
    "--release",
    "--bins",
    "-p",
    "haar",
    "-p",
    "haar-host",
    "-p",
    "haar-controller",
    "--features",
    "haar-host/compiler,haar-host/neighbourhood-relay",
];

/// The folder of these programs.
struct Programs(PathBuf);

impl Programs {
    fn of(root: &Path) -> anyhow::Result<Self> {
        let mut asked = Command::new("cargo");
        let asked = asked.current_dir(root);
        let text = output(asked.args(["metadata", "--format-version", "1", "--no-deps"]))?;
        let metadata: serde_json::Value = serde_json::from_str(&text)?;
        let folder = metadata["target_directory"].as_str();
        let folder = folder.context("cargo names no target folder")?;
        Ok(Self(Path::new(folder).join("release")))
    }

    fn name(&self, command: &mut Command) {
        for (option, program) in [
            ("--haar", "haar"),
            ("--agent", "haar-agent"),
            ("--controller", "haar-controller"),
        ] {
            command.arg(option).arg(self.0.join(program));
        }
    }
}

/// The fuzz targets, by the names of their files.
fn fuzz_targets(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root.join("fuzz/fuzz_targets"))? {
        let path = entry?.path();
        if let (Some("rs"), Some(name)) = (
            path.extension().and_then(|text| text.to_str()),
            path.file_stem().and_then(|text| text.to_str()),
        ) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}
