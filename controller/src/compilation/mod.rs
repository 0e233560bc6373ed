//! Compilation of modules for the nodes: once for each engine and target, at push for the fleet as
//! it is, else when a node first asks. Each module is compiled in a child process with limits, so
//! that one that was made to hurt its compiler hurts nothing; what comes out is signed with the
//! site's key and kept.
//!
//! ```text
//! wanted ─► kept? ─yes────────────────────────────────► packed code, or why there is none
//!             └ no ─► under way? ─yes─► wait ──────────────▲
//!                         └ no ─► a turn ─► child ─► kept ─┘
//!                                   ▲ pause ◄─┘ killed, no room, no process to be had
//! ```

mod compilers;
mod store;
mod turns;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use haar_engine::artifact;
use haar_engine::compiler::{CompileError, CompileLimits, Program};
use haar_protocol::ids::Digest;
use haar_protocol::keys::SecretKey;
use haar_protocol::module::Signatures;
use haar_protocol::rest::ModuleCode;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::compilers::Compilers;
use self::store::{CodeStore, Kept};
use self::turns::Turns;
use crate::failure::{Failure, Kind};
use crate::module_store::ModuleStore;

/// How long a request waits for a module that is being compiled.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Modules that are compiled at one time, unless the machine has fewer processors.
const AT_ONCE_MAX: usize = 4;
/// Pauses before a module is compiled again whose compiler could not do its work, in seconds.
const PAUSES_S: [u64; 5] = [1, 2, 5, 10, 30];
/// The pause after those, for as long as nodes ask for the code. An ask starts no attempt of its own.
const PAUSE_S_MAX: u64 = 60;
/// A job of which nobody has asked for the code for this long is given up after those pauses.
const ASKED_FOR: Duration = Duration::from_secs(600);
/// The code of a failure that has nothing to do with the module.
const NOT_COMPILED: &str = "not_compiled";
const LOOK_AT_THE_MACHINE: &str =
    "it is tried again; look at the memory and the disk of the controller's machine";

/// What is compiled for: the engine's fingerprint and a target, as a node names them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Platform {
    /// See [`haar_engine::configuration::fingerprint`].
    pub(crate) engine: String,
    /// See [`haar_engine::configuration::target`].
    pub(crate) target: String,
}

impl Platform {
    /// Checks what a node or a status says: both become names of files.
    pub(crate) fn new(engine: &str, target: &str) -> Option<Self> {
        let is_engine = engine.len() == 64
            && engine
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_target = (1..=32).contains(&target.len())
            && target
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        (is_engine && is_target).then(|| Self {
            engine: engine.to_owned(),
            target: target.to_owned(),
        })
    }
}

/// How the controller compiles.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// This program as a compiler; none where it can't be one.
    pub(crate) own: Option<Program>,
    /// Programs of other releases, whose engines nodes still have.
    pub(crate) others: Vec<PathBuf>,
    /// What compiling one module may take.
    pub(crate) limits: CompileLimits,
}

type Job = (Digest, Platform);
type Outcome = Option<Result<(), Failure>>;

/// The compilation of a site. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Compilation(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    modules: ModuleStore,
    store: CodeStore,
    compilers: Compilers,
    limits: CompileLimits,
    key: SecretKey,
    /// What is being compiled, for those who wait.
    turns: Turns,
    /// The tasks that compile. Taken when one is added, and at the end.
    tasks: Mutex<JoinSet<()>>,
}

impl Compilation {
    /// Opens the code in `directory`, without that of modules that are not `known` and of engines
    /// that nobody here compiles for and no node of the `fleet` has; asks the compilers what they
    /// are. Blocks for the time that these take to start.
    ///
    /// # Errors
    /// When the folder can't be used, or a compiler that is named in the settings is none.
    pub(crate) fn open(
        directory: &Path,
        known: &BTreeSet<Digest>,
        fleet: &BTreeSet<Platform>,
        modules: ModuleStore,
        key: SecretKey,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let compilers = Compilers::find(settings)?;
        let engines = fleet.iter().map(|platform| &*platform.engine);
        let engines = engines.chain(compilers.engines()).collect();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self(Arc::new(Parts {
            modules,
            store: CodeStore::open(directory, known, &engines)?,
            compilers,
            limits: settings.limits,
            key,
            turns: Turns::new(cores.min(AT_ONCE_MAX)),
            tasks: Mutex::default(),
        })))
    }

    /// Compiles a module for `platforms` when nobody waits for another one. What goes wrong is seen by
    /// those who ask for the code.
    pub(crate) fn prepare(&self, digest: Digest, platforms: impl IntoIterator<Item = Platform>) {
        for platform in platforms {
            if self.0.compilers.of(&platform).is_some()
                && self.0.store.get(digest, &platform).is_none()
            {
                drop(self.start((digest, platform), false));
            }
        }
    }

    /// The file with the packed code of a module, which is compiled now if it was not before.
    ///
    /// # Errors
    /// `not_compilable`: the module takes too much, or the engine does not take it. `no_compiler`:
    /// nobody compiles for the platform. `compiling`: it takes long; ask again. `not_compiled`: the
    /// compiler could not do its work, and it is not known when it can.
    pub(crate) async fn code(
        &self,
        digest: Digest,
        platform: Platform,
    ) -> Result<PathBuf, Failure> {
        if let Some(kept) = self.0.store.get(digest, &platform) {
            return found(digest, kept);
        }
        if self.0.compilers.of(&platform).is_none() && self.0.compilers.is_incomplete() {
            let this = self.clone();
            let asked = tokio::task::spawn_blocking(move || this.0.compilers.ask_own());
            asked.await.map_err(Failure::internal)?;
        }
        if self.0.compilers.of(&platform).is_none() {
            return Err(self.0.compilers.missing(&platform));
        }
        let mut outcome = self.start((digest, platform.clone()), true);
        let waiting = async {
            match outcome.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
                Err(_) => Err(Failure::internal("a compilation ended without an outcome")),
            }
        };
        match tokio::time::timeout(WAIT_MAX, waiting).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(self.unfinished(digest, platform)),
        }
        let kept = self.0.store.get(digest, &platform);
        found(
            digest,
            kept.ok_or_else(|| Failure::internal("compiled code is gone"))?,
        )
    }

    /// What there is of a module's code, and what there will be.
    pub(crate) fn list(&self, digest: Digest) -> Vec<ModuleCode> {
        let mut list = self.0.store.list(digest);
        for ((_, platform), progress) in self.0.turns.progress(|job| job.0 == digest) {
            let is_kept = |code: &ModuleCode| {
                code.engine == platform.engine && code.target == platform.target
            };
            if !list.iter().any(is_kept) {
                list.push(ModuleCode {
                    engine: platform.engine,
                    target: platform.target,
                    packed_bytes: None,
                    refused: None,
                    progress: Some(progress),
                });
            }
        }
        list
    }

    /// Forgets the code of a module.
    pub(crate) fn remove(&self, digest: Digest) {
        self.0.store.remove(digest);
    }

    /// Ends what is under way.
    pub(crate) async fn stop(&self) {
        let mut tasks = {
            let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        // The children end with this process at the latest.
        tasks.shutdown().await;
    }

    /// Starts a job, unless it is under way. `wanted` when somebody waits for it. Its outcome is told to
    /// whoever has the receiver.
    fn start(&self, job: Job, wanted: bool) -> watch::Receiver<Outcome> {
        let (receiver, sender) = self.0.turns.join(&job, wanted);
        let Some(sender) = sender else {
            return receiver;
        };
        let this = self.clone();
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let outcome = this.compile(&job).await;
            this.0.turns.leave(&job);
            sender.send_replace(Some(outcome));
        });
        receiver
    }

    /// Compiles when it is the job's turn, and again after pauses when the machine was at fault.
    async fn compile(&self, job: &Job) -> Result<(), Failure> {
        let mut pauses = PAUSES_S.into_iter();
        loop {
            self.0.turns.turn(job).await;
            let (this, (digest, platform)) = (self.clone(), job.clone());
            let compiled = tokio::task::spawn_blocking(move || this.0.compile(&digest, &platform));
            let outcome = compiled
                .await
                .unwrap_or_else(|error| Err(Failure::internal(error)));
            let next = pauses.next().or_else(|| {
                let is_asked_for = self.0.turns.was_asked_for(job, ASKED_FOR, Instant::now());
                is_asked_for.then_some(PAUSE_S_MAX)
            });
            match (outcome, next) {
                (Err(failure), Some(seconds)) if may_go_better(&failure) => {
                    let pause = Duration::from_secs(seconds);
                    self.0.turns.pause(job, pause, failure.message).await;
                }
                (outcome, _) => return outcome,
            }
        }
    }

    /// Why there is no code although somebody has waited for as long as anybody may.
    fn unfinished(&self, digest: Digest, platform: Platform) -> Failure {
        let job = (digest, platform);
        let jobs = self.0.turns.progress(|other| *other == job);
        let progress = jobs.into_iter().next().map(|(_, progress)| progress);
        let progress = progress.unwrap_or_else(|| "compiled by now".to_owned());
        let text = format!("module {digest} has no code yet: {progress}");
        match self.0.turns.pauses(&job) {
            // A node that has a compiler need not wait for this one.
            true => Failure::new(Kind::Overloaded, NOT_COMPILED, text).hint(LOOK_AT_THE_MACHINE),
            false => Failure::new(Kind::Overloaded, "compiling", text).hint("ask again in a while"),
        }
    }
}

impl Parts {
    /// Compiles, seals and keeps. Blocks for as long as the child may run.
    fn compile(&self, digest: &Digest, platform: &Platform) -> Result<(), Failure> {
        if self.store.get(*digest, platform).is_some() {
            return Ok(()); // another job has just done so
        }
        let compiler = self
            .compilers
            .of(platform)
            .ok_or_else(|| self.compilers.missing(platform))?;
        let started = Instant::now();
        let input = self.modules.path(*digest);
        let signatures = signatures(digest, &input)?;
        let part = self.store.part(*digest, platform)?;
        let code = match compiler.compile(self.limits, Some(&platform.target), &input, &part) {
            Ok(code) => code,
            Err(error @ CompileError::Module(_)) => {
                tracing::warn!(%digest, target = platform.target, "{error}");
                return self.store.refuse(*digest, platform, &error.to_string());
            }
            Err(error @ CompileError::Machine(_)) => {
                tracing::error!(%digest, target = platform.target, "{error}");
                return Err(
                    Failure::new(Kind::Overloaded, NOT_COMPILED, format!("{error}"))
                        .hint(LOOK_AT_THE_MACHINE),
                );
            }
        };
        let origin = artifact::Origin {
            module: digest,
            signatures: &signatures,
            fingerprint: &platform.engine,
            target: &platform.target,
        };
        let seal = artifact::seal(&origin, &code, &self.key);
        let packed = artifact::pack(&seal, &code);
        self.store.keep(*digest, platform, &packed)?;
        tracing::info!(
            %digest,
            target = platform.target,
            bytes = code.len(),
            packed_bytes = packed.len(),
            ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "compiled a module"
        );
        Ok(())
    }
}

/// Those of the module in `file`. Nodes rely on it that they are of the module with this digest.
fn signatures(digest: &Digest, file: &Path) -> Result<Signatures, Failure> {
    let bytes = std::fs::read(file)
        .map_err(|error| Failure::internal(format_args!("{}: {error}", file.display())))?;
    if Digest::of(&bytes) != *digest {
        let damaged = format!("the controller's file of module {digest} is damaged");
        return Err(Failure::new(Kind::Internal, "damaged_module", damaged)
            .hint("delete the module and push it again"));
    }
    Signatures::of(&bytes)
        .map_err(|error| Failure::internal(format_args!("the file of module {digest}: {error}")))
}

/// Whether it was the machine's fault.
fn may_go_better(failure: &Failure) -> bool {
    [NOT_COMPILED, "disk_full"].contains(&failure.code)
}

fn found(digest: Digest, kept: Kept) -> Result<PathBuf, Failure> {
    match kept {
        Kept::Code(path) => Ok(path),
        Kept::Refused(why) => Err(Failure::new(
            Kind::Refused,
            "not_compilable",
            format!("module {digest}: {why}"),
        )),
    }
}
