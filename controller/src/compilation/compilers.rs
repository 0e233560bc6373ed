//! The programs that compile: this one, and those of other releases, whose engines some nodes still
//! have while a fleet is being updated. Each says of itself for which engine and which targets.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use haar_engine::compiler::{Description, Program};

use super::{Platform, Settings};
use crate::failure::{Failure, Kind};

/// How the programs of a release have their compiler: `haar-controller` and `haar-agent` as a
/// command, `haar` as a command of a role.
const PREFIXES: [&[&str]; 2] = [&[], &["controller"]];

/// A program that could not be asked is asked again after this time at the earliest.
const ASK_PAUSE: Duration = Duration::from_secs(10);

/// Programs with what they say of themselves.
#[derive(Debug)]
pub(super) struct Compilers {
    /// This program, once it could be asked.
    own: Option<(Program, OnceLock<Description>)>,
    /// When it was last asked. Taken while it is: whoever comes meanwhile does without.
    asked: Mutex<Option<Instant>>,
    others: Vec<(Program, Description)>,
}

impl Compilers {
    /// Asks each program.
    ///
    /// # Errors
    /// When one that is named in the settings is no compiler.
    pub(super) fn find(settings: &Settings) -> anyhow::Result<Self> {
        let mut others = Vec::new();
        for path in &settings.others {
            let (program, description) = ask(path)?;
            tracing::info!(
                program = %path.display(),
                version = description.version,
                engine = description.fingerprint,
                "another compiler"
            );
            others.push((program, description));
        }
        let own = settings.own.clone();
        let compilers = Self {
            own: own.map(|program| (program, OnceLock::new())),
            asked: Mutex::default(),
            others,
        };
        compilers.ask_own();
        Ok(compilers)
    }

    /// Whether this program could not be asked yet what it compiles: the machine had no process to spare.
    pub(super) fn is_incomplete(&self) -> bool {
        let own = self.own.as_ref();
        own.is_some_and(|(_, description)| description.get().is_none())
    }

    /// Asks this program. That it is no compiler is only said in the log: nodes may compile for
    /// themselves. Blocks.
    pub(super) fn ask_own(&self) {
        let Some((program, description)) = &self.own else {
            return;
        };
        // One at a time, and not at the pace of those who ask for code.
        let Ok(mut asked) = self.asked.try_lock() else {
            return;
        };
        if asked.is_some_and(|at| at.elapsed() < ASK_PAUSE) {
            return;
        }
        *asked = Some(Instant::now());
        match program.describe() {
            Ok(found) => drop(description.set(found)), // or another one has just asked
            Err(error) => tracing::error!("this program can't compile modules for nodes: {error}"),
        }
    }

    /// The engines that are compiled for.
    pub(super) fn engines(&self) -> impl Iterator<Item = &str> {
        self.known()
            .map(|(_, description)| &*description.fingerprint)
    }

    /// The first one that compiles for `platform`.
    pub(super) fn of(&self, platform: &Platform) -> Option<&Program> {
        let fits = |description: &Description| {
            description.fingerprint == platform.engine
                && description.targets.contains(&platform.target)
        };
        let found = self.known().find(|(_, description)| fits(description));
        found.map(|(program, _)| program)
    }

    /// This program first.
    fn known(&self) -> impl Iterator<Item = (&Program, &Description)> {
        let own = self.own.iter();
        let own = own.filter_map(|(program, description)| Some((program, description.get()?)));
        own.chain(
            self.others
                .iter()
                .map(|(program, description)| (program, description)),
        )
    }

    /// Why nobody compiles for `platform`.
    pub(super) fn missing(&self, platform: &Platform) -> Failure {
        if self.is_incomplete() {
            let message = "the controller can't start its compiler now; its log says why";
            return Failure::new(Kind::Overloaded, "no_compiler_now", message)
                .hint("ask again in a while; look at the memory and the processes of its machine");
        }
        let short = platform.engine.get(..12).unwrap_or_default();
        let (message, hint) = match self
            .known()
            .find(|(_, one)| one.fingerprint == platform.engine)
        {
            Some((_, description)) => (
                format!(
                    "nobody here compiles for {}: only for {}",
                    platform.target,
                    description.targets.join(", ")
                ),
                "run an agent with the compiler on this node",
            ),
            None => (
                format!("nobody here compiles for the engine {short}… of this agent's release"),
                "give the controller the program of that release with --compiler, or update the agent to the controller's release",
            ),
        };
        Failure::new(Kind::NotFound, "no_compiler", message).hint(hint)
    }
}

fn ask(path: &Path) -> anyhow::Result<(Program, Description)> {
    let absolute = std::path::absolute(path)
        .and_then(|path| path.canonicalize())
        .with_context(|| format!("the compiler {}", path.display()))?;
    let mut why = None;
    for prefix in PREFIXES {
        let program = Program {
            path: PathBuf::from(&absolute),
            arguments: prefix.iter().map(Into::into).collect(),
        };
        match program.describe() {
            Ok(description) => return Ok((program, description)),
            Err(error) => why = why.or(Some(error)),
        }
    }
    let why = why.map(|error| error.to_string()).unwrap_or_default();
    anyhow::bail!(
        "{} is no compiler of Haar: name a `haar-controller`, a `haar`, or a `haar-agent` that was built with the compiler ({why})",
        path.display()
    )
}
