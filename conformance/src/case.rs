//! What a case is.

use haar_conformance_artifacts::Guest;

use crate::scene::Scene;

/// One thing that is proved.
pub(crate) struct Case {
    /// A sentence in snake case.
    pub(crate) name: &'static str,
    /// Ids of the requirements that it proves.
    pub(crate) requirements: &'static [&'static str],
    /// The guests that it runs, beside the driver and the neighbours of the suite itself.
    pub(crate) guests: &'static [Guest],
    /// Where it runs.
    pub(crate) node: Node,
    /// Proves it, or says what is wrong.
    pub(crate) run: fn(&mut Scene<'_>) -> anyhow::Result<()>,
}

/// What a case or trial returns that can't be tried on this machine: it proves nothing, and fails
/// nothing unless `--no-skips` says so.
#[derive(Debug)]
pub(crate) struct Skipped(pub(crate) String);

impl Skipped {
    /// For what `why` says is missing.
    pub(crate) fn because(why: impl std::fmt::Display) -> anyhow::Error {
        Self(why.to_string()).into()
    }
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "skipped, nothing is proved: {}", self.0)
    }
}

impl std::error::Error for Skipped {}

/// The agent that a case runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    /// One for all cases of this name; they leave nothing behind on it.
    Shared(&'static str),
    /// A fresh one.
    Own {
        /// What `haar-agent enrol` is told beside the token.
        enrol: &'static [&'static str],
        /// Its `agent.toml`.
        settings: &'static str,
    },
}

impl Node {
    /// A fresh one with so much memory for microservices that every case fits on it.
    pub(crate) const OWN: Node = Node::Own {
        enrol: &["--memory", "1GiB"],
        settings: "",
    };
}

impl Case {
    /// A case. One that proves nothing does not compile where it stands in a `static`.
    pub(crate) const fn new(
        name: &'static str,
        requirements: &'static [&'static str],
        guests: &'static [Guest],
        node: Node,
        run: fn(&mut Scene<'_>) -> anyhow::Result<()>,
    ) -> Self {
        assert!(!requirements.is_empty(), "a case names what it proves");
        Self {
            name,
            requirements,
            guests,
            node,
            run,
        }
    }
}
