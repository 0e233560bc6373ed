//! The three programs that are started: those that are named on the command line, or those that
//! cargo builds beside us.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::child;

/// The package of the agent.
const AGENT: &str = "haar-host";
/// What the agent is built with.
const AGENT_FEATURES: [&str; 2] = ["compiler", "neighbourhood-relay"];

/// How long cargo may take.
const BUILD_TIME: Duration = Duration::from_secs(40 * 60);

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// `haar`, the person's tool.
    pub(crate) haar: Program,
    /// `haar-agent`, what is proved.
    pub(crate) agent: Program,
    /// `haar-controller`.
    pub(crate) controller: Program,
}

/// One program.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    path: PathBuf,
    /// What runs it when this machine can't: an emulator with its arguments.
    runner: Vec<String>,
}

impl Program {
    /// The same, started through a wrapper program.
    pub(crate) fn under(&self, words: &[&str]) -> Self {
        let words = words.iter().map(|word| (*word).to_owned());
        Self {
            path: self.path.clone(),
            runner: words.chain(self.runner.clone()).collect(),
        }
    }

    /// To start it with arguments.
    pub(crate) fn command(&self) -> Command {
        match &self.runner[..] {
            [] => Command::new(&self.path),
            [runner, arguments @ ..] => {
                let mut command = Command::new(runner);
                command.args(arguments).arg(&self.path);
                command
            }
        }
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for word in &self.runner {
            write!(formatter, "{word} ")?;
        }
        write!(formatter, "{}", self.path.display())
    }
}

/// Which programs to use; what is left out is built.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Choice {
    /// The agent to prove [default: built by cargo, in this program's profile]
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// What runs an agent of another machine, with its arguments: such as "qemu-aarch64-static", or
    /// "qemu-arm-static -L /usr/arm-linux-gnueabihf"
    #[arg(long, value_name = "COMMAND", requires = "agent")]
    agent_runner: Option<String>,
    /// The `haar` to drive it with [default: likewise]
    #[arg(long, value_name = "PATH")]
    haar: Option<PathBuf>,
    /// The controller to drive it with [default: likewise]
    #[arg(long, value_name = "PATH")]
    controller: Option<PathBuf>,
}

impl Programs {
    /// Finds the programs, after building those that were not named.
    pub(crate) fn of(choice: &Choice) -> anyhow::Result<Self> {
        let wanted = [
            (&choice.haar, "haar", "haar"),
            (&choice.agent, AGENT, "haar-agent"),
            (&choice.controller, "haar-controller", "haar-controller"),
        ];
        let missing: Vec<&str> = wanted
            .iter()
            .filter(|(path, ..)| path.is_none())
            .map(|(_, package, _)| *package)
            .collect();
        let built = if missing.is_empty() {
            PathBuf::new()
        } else {
            build(&missing)?
        };
        let mut paths = wanted.iter().map(|(path, _, program)| {
            let path = (*path).clone().unwrap_or_else(|| built.join(program));
            path.canonicalize()
                .with_context(|| format!("there is no program {}", path.display()))
        });
        let mut next = || -> anyhow::Result<Program> {
            Ok(Program {
                path: paths.next().expect("three programs are wanted")?,
                runner: Vec::new(),
            })
        };
        let mut programs = Self {
            haar: next()?,
            agent: next()?,
            controller: next()?,
        };
        let words = choice
            .agent_runner
            .iter()
            .flat_map(|line| line.split_whitespace());
        programs.agent.runner = words.map(str::to_owned).collect();
        Ok(programs)
    }
}

/// Builds the programs of `packages` in our own profile. Returns the folder in which they are.
fn build(packages: &[&str]) -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .args(["build", "--bins"]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    if packages.contains(&AGENT) {
        // The agent that proves everything: gateways' is smaller, and its site compiles for it.
        for feature in AGENT_FEATURES {
            cargo.args(["--features", &format!("{AGENT}/{feature}")]);
        }
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    eprintln!("building {} with cargo ...", packages.join(", "));
    // In our process group: Ctrl-C reaches it, too.
    let mut cargo = cargo.spawn().context("can't start cargo")?;
    let status = child::wait(&mut cargo, "cargo build", BUILD_TIME)?;
    if !status.success() {
        bail!("cargo could not build {}", packages.join(", "));
    }
    let us = std::env::current_exe().context("can't find this program")?;
    us.parent()
        .map(Path::to_owned)
        .context("this program has no folder")
}
