//! The programs that compile: this one, and those of other releases, whose engines some nodes still
//! have while a fleet is being updated. Each says of itself for which engine and which targets.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use haar_engine::compiler::{Description, Program};

use super::{Platform, Settings};
use crate::failure::{Failure, Kind};

/// How the programs of a release have their compiler: `haar-controller` and `haar-agent` as a
/// command, `haar` as a command of a role.
const PREFIXES: [&[&str]; 2] = [&[], &["controller"]];

/// Programs with what they say of themselves; this program first.
#[derive(Debug)]
pub(super) struct Compilers(Vec<(Program, Description)>);

impl Compilers {
    /// Asks each program.
    ///
    /// # Errors
    /// When one that is named in the settings is no compiler. That this program is none is only
    /// said in the log: nodes may compile for themselves.
    pub(super) fn find(settings: &Settings) -> anyhow::Result<Self> {
        let mut found = Vec::new();
        if let Some(own) = &settings.own {
            match own.describe() {
                Ok(description) => found.push((own.clone(), description)),
                Err(error) => {
                    tracing::error!("this program can't compile modules for nodes: {error}");
                }
            }
        }
        for path in &settings.others {
            let (program, description) = ask(path)?;
            tracing::info!(
                program = %path.display(),
                version = description.version,
                engine = description.fingerprint,
                "another compiler"
            );
            found.push((program, description));
        }
        Ok(Self(found))
    }

    /// The engines that are compiled for.
    pub(super) fn engines(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .map(|(_, description)| &*description.fingerprint)
    }

    /// The first one that compiles for `platform`.
    pub(super) fn of(&self, platform: &Platform) -> Option<&Program> {
        let fits = |description: &Description| {
            description.fingerprint == platform.engine
                && description.targets.contains(&platform.target)
        };
        let found = self.0.iter().find(|(_, description)| fits(description));
        found.map(|(program, _)| program)
    }

    /// Why nobody compiles for `platform`.
    pub(super) fn missing(&self, platform: &Platform) -> Failure {
        let has_engine =
            |(_, description): &&(Program, Description)| description.fingerprint == platform.engine;
        let short = platform.engine.get(..12).unwrap_or_default();
        let (message, hint) = match self.0.iter().find(has_engine) {
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
