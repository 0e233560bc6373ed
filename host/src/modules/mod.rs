//! Compiled code on this node's disk, and the modules that the node compiles itself: fetched by
//! digest, verified before every load. Fail closed: what is not wholly right is not run, and what is
//! damaged is fetched anew.
//!
//! ```text
//! compiled/HEX.code   code, as it is mapped, and behind it who has signed the module and what it was
//!                     compiled from and for, signed by this node or its site
//! compiled/HEX.part   code that is being compiled, or a fetch that goes on where it was cut off
//! modules/HEX.wasm    what this node has compiled, as pushed; its name is its SHA-256
//! modules/HEX.part    a fetch of it that goes on where it was cut off
//! ```

pub mod compile;
pub mod code;
mod fetch;
mod fetch_code;
mod sparse;
mod sweep;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use anyhow::Context as _;
use code::CodeSources;
use haar_protocol::assignment::{Assignment, Microservice};
use haar_protocol::ids::Digest;
use haar_protocol::keys::PublicKey;
use haar_protocol::module::{Publishers, Signatures};
use wasmtime::component::{Component, InstancePre};

use crate::controller::{Controller, Credentials};
use crate::local_api::state::State;
use crate::policy::Policy;
use crate::runtime::GuestRuntime;

/// What is not understood of a microservice is named up to this number.
const NOT_UNDERSTOOD_MAX: usize = 4;

/// Why a module is not there to run.
#[derive(Debug)]
pub enum PrepareError {
    /// It never will be, as it is: not signed by a trusted publisher, not a component, imports
    /// what is not offered, takes too much to compile. Not tried again until the assignment changes.
    Refused(String),
    /// It may be later: no network, no room on the disk. Tried again after a pause.
    NotYet(String),
}

/// What the site says of whose signatures count for a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The keys of the publishers that it trusts.
    pub publishers: Vec<PublicKey>,
    /// Signatures that came after the module's file.
    pub later: Option<Signatures>,
}

impl Trust {
    /// What `assignment` says of `module`.
    pub fn of(assignment: &Assignment, module: &Digest) -> Self {
        let publishers = assignment.publishers.iter();
        let later = assignment.signatures.get(&module.to_string());
        Self {
            publishers: publishers.map(|publisher| publisher.key).collect(),
            later: later.and_then(|text| Signatures::from_text(text)),
        }
    }
}

/// A module that was verified and loaded.
#[derive(Debug, Clone)]
struct Loaded {
    component: Component,
    /// What was trusted then: with anything else it is verified again.
    trust: Trust,
}

/// The module files of a node.
#[derive(Debug)]
pub struct Modules {
    modules: PathBuf,
    compiled: PathBuf,
    controller: Controller,
    credentials: Credentials,
    sources: CodeSources,
    policy: Arc<Policy>,
    /// Code that instances of the same module share. Taken for one look-up each.
    loaded: Mutex<HashMap<Digest, Loaded>>,
    /// Modules that are being fetched or loaded: instances of one that come together would write one
    /// file. Taken for one look-up each; who finds its module there waits for `turns`.
    busy: Mutex<HashSet<Digest>>,
    turns: Condvar,
    /// Held by whoever compiles: one at a time, so that two modules that come together do not take
    /// twice the memory.
    compiling: Mutex<()>,
}

impl Modules {
    /// The files below the data directory.
    ///
    /// # Errors
    /// When the folders can't be made.
    pub fn open(
        data: &Path,
        controller: Controller,
        credentials: Credentials,
        sources: CodeSources,
        policy: Arc<Policy>,
    ) -> anyhow::Result<Arc<Self>> {
        let folder = |name: &str| -> anyhow::Result<PathBuf> {
            let path = data.join(name);
            std::fs::create_dir_all(&path)
                .with_context(|| format!("can't make {}", path.display()))?;
            Ok(path)
        };
        Ok(Arc::new(Self {
            modules: folder("modules")?,
            compiled: folder("compiled")?,
            controller,
            credentials,
            sources,
            policy,
            loaded: Mutex::default(),
            busy: Mutex::default(),
            turns: Condvar::new(),
            compiling: Mutex::new(()),
        }))
    }

    /// Makes the module of `spec` ready to start: loads its code, which is fetched or compiled when it is
    /// not here, after the signatures of a publisher and of whoever compiled it. Instances of one module
    /// share what was loaded. The one way by which code becomes something that can be started. Blocks.
    ///
    /// # Errors
    /// See [`PrepareError`].
    pub fn prepare(
        &self,
        spec: &Microservice,
        trust: Trust,
        runtime: &GuestRuntime,
    ) -> Result<InstancePre<State>, PrepareError> {
        if let Some(reason) = not_understood(spec) {
            return Err(PrepareError::Refused(reason));
        }
        let turn = self.turn(spec.module);
        let component = match self.loaded(&spec.module, &trust) {
            Some(component) => component,
            None => self.verify_and_load(spec, trust, runtime)?,
        };
        drop(turn);
        runtime.link(&component, &spec.grants).map_err(|error| {
            PrepareError::Refused(format!(
                "{} imports what it is not granted: {error:#}",
                spec.module_label
            ))
        })
    }

    /// What another instance of the module has verified and loaded, with the same trust.
    fn loaded(&self, module: &Digest, trust: &Trust) -> Option<Component> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let found = loaded.get(module)?;
        (found.trust == *trust).then(|| found.component.clone())
    }

    fn verify_and_load(
        &self,
        spec: &Microservice,
        trust: Trust,
        runtime: &GuestRuntime,
    ) -> Result<Component, PrepareError> {
        let component = self.code(spec, &trust, runtime)?;
        let loaded = Loaded {
            component: component.clone(),
            trust,
        };
        self.loaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(spec.module, loaded);
        Ok(component)
    }

    /// Waits until nobody else is at work on this module.
    fn turn(&self, digest: Digest) -> Turn<'_> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let mut busy = self
            .turns
            .wait_while(busy, |busy| busy.contains(&digest))
            .unwrap_or_else(PoisonError::into_inner);
        busy.insert(digest);
        Turn {
            modules: self,
            digest,
        }
    }

    /// The module itself, which `publishers` have signed, and the signatures in its file: fetched when it
    /// is not here.
    fn verified(
        &self,
        spec: &Microservice,
        publishers: Publishers<'_>,
    ) -> Result<(Vec<u8>, Signatures), PrepareError> {
        let file = match self.read(&spec.module) {
            Some(file) => file,
            None => self.fetch_and_read(spec)?,
        };
        let signed = Signatures::of(&file).and_then(|signatures| {
            signatures.check(publishers)?;
            Ok(signatures)
        });
        let signatures = signed
            .map_err(|error| PrepareError::Refused(format!("{}: {error}", spec.module_label)))?;
        Ok((file, signatures))
    }

    fn fetch_and_read(&self, spec: &Microservice) -> Result<Vec<u8>, PrepareError> {
        self.fetch(spec)?;
        self.read(&spec.module).ok_or_else(|| {
            PrepareError::NotYet("the fetched module can't be read back from the disk".into())
        })
    }

    /// The file of that digest, if it is here and whole. One that is not whole is removed.
    fn read(&self, digest: &Digest) -> Option<Vec<u8>> {
        let path = self.module_path(digest);
        let file = std::fs::read(&path).ok()?;
        if Digest::of(&file) == *digest {
            return Some(file);
        }
        tracing::error!(
            "{} is damaged: it is removed and fetched anew",
            path.display()
        );
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::error!("can't remove {}: {error}", path.display());
        }
        None
    }

    fn module_path(&self, digest: &Digest) -> PathBuf {
        self.modules.join(format!("{}.wasm", digest.to_hex()))
    }
}

/// Why a microservice does not run of which this release does not know everything: what it does not
/// know might narrow what it does know.
fn not_understood(spec: &Microservice) -> Option<String> {
    let (first, others) = spec
        .unknown
        .split_at(spec.unknown.len().min(NOT_UNDERSTOOD_MAX));
    if first.is_empty() {
        return None;
    }
    let more = match others.len() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    Some(format!(
        "this agent (release {}) does not know {}{more}: update the agent, or take that out of the manifest",
        env!("CARGO_PKG_VERSION"),
        first.join(", "),
    ))
}

/// The right to work on one module.
struct Turn<'m> {
    modules: &'m Modules,
    digest: Digest,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let busy = self.modules.busy.lock();
        busy.unwrap_or_else(PoisonError::into_inner)
            .remove(&self.digest);
        self.modules.turns.notify_all();
    }
}
