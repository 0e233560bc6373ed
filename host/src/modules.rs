//! Module files and compiled code on this node's disk: fetched by digest, verified before every
//! load. Fail closed: what is not wholly right is not run, and what is damaged is fetched anew.
//!
//! ```text
//! modules/HEX.wasm    as pushed; its name is its SHA-256
//! modules/HEX.part    a fetch that was cut off; goes on where it stopped
//! compiled/HEX.code   compiled by this node, bound and signed with its key (see haar_engine::artifact)
//! ```

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use haar_engine::{artifact, configuration, load};
use haar_protocol::assignment::{Microservice, Publisher};
use haar_protocol::ids::Digest;
use haar_protocol::keys::PublicKey;
use haar_protocol::module;
use wasmtime::component::{Component, InstancePre};

use crate::controller::{Controller, Credentials, Refused};
use crate::identity::sync_directory;
use crate::local_api::state::State;
use crate::runtime::GuestRuntime;

/// Bytes of modules and code that no assignment names and that are kept all the same.
const SPARE_BYTES_MAX: u64 = 32 << 20;

/// Why a module is not there to run.
#[derive(Debug)]
pub enum PrepareError {
    /// It never will be, as it is: not signed by a trusted publisher, not a component, imports
    /// what is not offered. Not tried again until the assignment changes.
    Refused(String),
    /// It may be later: no network, no room on the disk. Tried again after a pause.
    NotYet(String),
}

/// The module files of a node.
#[derive(Debug)]
pub struct Modules {
    modules: PathBuf,
    compiled: PathBuf,
    controller: Controller,
    credentials: Credentials,
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
        }))
    }

    /// Makes the module of `spec` ready to start: fetches it when it is not here, verifies digest
    /// and publishers' signatures, loads its code, compiling it first when needed. Blocks.
    ///
    /// # Errors
    /// See [`PrepareError`].
    pub fn prepare(
        &self,
        spec: &Microservice,
        publishers: &[Publisher],
        runtime: &GuestRuntime,
    ) -> Result<InstancePre<State>, PrepareError> {
        let file = match self.read(&spec.module) {
            Some(file) => file,
            None => {
                self.fetch(spec)?;
                let damaged = || {
                    PrepareError::NotYet(
                        "the fetched module can't be read back from the disk".into(),
                    )
                };
                self.read(&spec.module).ok_or_else(damaged)?
            }
        };
        verify(spec, &file, publishers)?;
        let component = match self.load_cached(spec, runtime) {
            Some(component) => component,
            None => self.compile_and_load(spec, &file, runtime)?,
        };
        runtime.link(&component, &spec.grants).map_err(|error| {
            PrepareError::Refused(format!(
                "{} imports what it is not granted: {error:#}",
                spec.module_label
            ))
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

    fn fetch(&self, spec: &Microservice) -> Result<(), PrepareError> {
        let path = self.module_path(&spec.module);
        let part = path.with_extension("part");
        let label = &spec.module_label;
        let outcome = self
            .fetch_into(spec, &part)
            .with_context(|| format!("{label} can't be fetched"));
        match outcome {
            Ok(true) => {}
            Ok(false) => {
                let _ = std::fs::remove_file(&part); // it is of no use; a leftover is overwritten
                return Err(PrepareError::NotYet(format!(
                    "{label}: what the controller sent is not the module {}",
                    spec.module
                )));
            }
            Err(error)
                if error
                    .downcast_ref::<Refused>()
                    .is_some_and(|refused| refused.0.code == "unknown_module") =>
            {
                return Err(PrepareError::NotYet(format!("{error:#}")));
            }
            Err(error) => return Err(PrepareError::NotYet(format!("{error:#}"))),
        }
        std::fs::rename(&part, &path).map_err(|error| {
            PrepareError::NotYet(format!("can't write {}: {error}", path.display()))
        })?;
        sync_directory(&path);
        Ok(())
    }

    /// Fetches what is lacking of the module into `part`. False when the whole is not the module.
    fn fetch_into(&self, spec: &Microservice, part: &Path) -> anyhow::Result<bool> {
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(part)?;
        let mut have = file.metadata()?.len();
        if have > spec.module_bytes {
            have = 0;
        }
        if have < spec.module_bytes {
            let (reader, partial) =
                self.controller
                    .module(&spec.module, have, &self.credentials)?;
            let start = if partial { have } else { 0 };
            file.set_len(start)?;
            file.seek(SeekFrom::Start(start))?;
            // One byte more than there should be, so that too long an answer is noticed.
            std::io::copy(&mut reader.take(spec.module_bytes - start + 1), &mut file)?;
        }
        file.sync_all()?;
        file.seek(SeekFrom::Start(0))?;
        let mut content = Vec::new();
        file.take(spec.module_bytes + 1).read_to_end(&mut content)?;
        if (content.len() as u64) < spec.module_bytes {
            anyhow::bail!(
                "the connection was cut after {} of {} bytes",
                content.len(),
                spec.module_bytes
            );
        }
        Ok(Digest::of(&content) == spec.module)
    }

    fn code_path(&self, digest: &Digest) -> PathBuf {
        self.compiled.join(format!("{}.code", digest.to_hex()))
    }

    /// Loads the code on disk, if it is there and good for this engine and this processor.
    fn load_cached(&self, spec: &Microservice, runtime: &GuestRuntime) -> Option<Component> {
        let path = self.code_path(&spec.module);
        let artifact = std::fs::read(&path).ok()?;
        match self.load(spec, &artifact, runtime) {
            Ok(component) => Some(component),
            Err(why) => {
                tracing::info!("{}: {why}: it is compiled anew", path.display());
                None
            }
        }
    }

    /// Compiles the module, keeps the code for the next time, and loads it.
    fn compile_and_load(
        &self,
        spec: &Microservice,
        file: &[u8],
        runtime: &GuestRuntime,
    ) -> Result<Component, PrepareError> {
        let code = compile(file, runtime)?;
        let (fingerprint, target) = (runtime.fingerprint(), configuration::target());
        let sealed = artifact::seal(
            &spec.module,
            fingerprint,
            &target,
            &code,
            &self.credentials.key,
        );
        let path = self.code_path(&spec.module);
        if let Err(error) = write_whole(&path, &sealed) {
            tracing::warn!(
                "can't keep the compiled code in {}: {error:#}",
                path.display()
            );
        }
        self.load(spec, &sealed, runtime).map_err(|why| {
            PrepareError::Refused(format!("{} can't be loaded: {why}", spec.module_label))
        })
    }

    /// Every check of an artifact, then the engine's own.
    fn load(
        &self,
        spec: &Microservice,
        artifact: &[u8],
        runtime: &GuestRuntime,
    ) -> Result<Component, String> {
        let trusted = [self.credentials.key.public()];
        let (fingerprint, target) = (runtime.fingerprint(), configuration::target());
        let checked = artifact::open(artifact, &spec.module, fingerprint, &target, &trusted)
            .map_err(|error| error.to_string())?;
        load::load(runtime.engine(), &checked).map_err(|error| format!("{error:#}"))
    }

    /// Removes what is not needed: files of modules outside of `keep`, but for the newest ones, which
    /// are likely to be wanted again (a rollback, an application that comes back).
    pub fn sweep(&self, keep: &BTreeSet<Digest>) {
        let names: BTreeSet<String> = keep.iter().map(|digest| digest.to_hex()).collect();
        let mut spare_bytes = SPARE_BYTES_MAX;
        for folder in [&self.modules, &self.compiled] {
            for (path, bytes) in unneeded(folder, &names) {
                if bytes <= spare_bytes && path.extension().is_none_or(|end| end != "part") {
                    spare_bytes -= bytes;
                } else if let Err(error) = std::fs::remove_file(&path) {
                    tracing::warn!("can't remove {}: {error}", path.display());
                }
            }
        }
    }
}

/// The files of a folder whose stems are not among `names`, the newest first, with their sizes.
fn unneeded(folder: &Path, names: &BTreeSet<String>) -> Vec<(PathBuf, u64)> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            !path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .is_some_and(|stem| names.contains(stem))
        })
        .filter_map(|path| {
            let metadata = path.metadata().ok()?;
            Some((metadata.modified().ok()?, path, metadata.len()))
        })
        .collect();
    found.sort();
    found
        .into_iter()
        .rev()
        .map(|(_, path, bytes)| (path, bytes))
        .collect()
}

fn verify(spec: &Microservice, file: &[u8], publishers: &[Publisher]) -> Result<(), PrepareError> {
    let trusted: Vec<PublicKey> = publishers.iter().map(|publisher| publisher.key).collect();
    match module::verify(file, &trusted) {
        Ok(_) => Ok(()),
        Err(error) => Err(PrepareError::Refused(format!(
            "{}: {error}",
            spec.module_label
        ))),
    }
}

#[cfg(feature = "compiler")]
fn compile(file: &[u8], runtime: &GuestRuntime) -> Result<Vec<u8>, PrepareError> {
    haar_engine::compile::compile(runtime.engine(), file)
        .map_err(|error| PrepareError::Refused(format!("the module can't be compiled: {error:#}")))
}

#[cfg(not(feature = "compiler"))]
fn compile(_file: &[u8], _runtime: &GuestRuntime) -> Result<Vec<u8>, PrepareError> {
    Err(PrepareError::Refused(
        "this agent was built without the compiler and has no compiled code of the module".into(),
    ))
}

/// Writes a file whole or not at all.
fn write_whole(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    let mut file = File::create(&part)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&part, path)?;
    sync_directory(path);
    Ok(())
}
