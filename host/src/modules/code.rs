//! The code of modules: what is on the disk and good, else what the controller has compiled and
//! the site has signed, else what this node compiles itself where its build can. All of it passes
//! the same checks ([`haar_engine::artifact`]) before it is mapped.
//!
//! ```text
//! compiled/HEX.code + HEX.seal ──good──────────────────────────────────────────┐
//!        └ not there, damaged, of another engine ─► controller ─► unpacked ────┤► checked, mapped
//!                                                       └ none ─► compiler ────┘
//! ```

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use anyhow::Context as _;
use haar_engine::artifact::{self, CheckedCode, Expected, GoodSeal};
use haar_engine::{configuration, load};
use haar_protocol::assignment::Microservice;
use haar_protocol::ids::Digest;
use haar_protocol::keys::PublicKey;
use wasmtime::component::Component;

use super::compile::Compiler;
use super::sparse::SparseFile;
use super::{Modules, PrepareError, write_whole};
use crate::controller::Refused;
use crate::identity::sync_directory;
use crate::runtime::GuestRuntime;

/// Where a node has the code of modules from, besides its own disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeSources {
    /// Who compiles on this node.
    pub compiler: Compiler,
    /// The site's key, whose compiled code is taken; none when the node compiles all of it itself.
    pub precompiled_by: Option<PublicKey>,
}

/// Why there is no code from the controller.
enum NoCode {
    /// Nor will there be: the module can't be compiled.
    Refused(String),
    /// It can't be had now, or from there.
    Elsewhere(String),
}

impl Modules {
    /// The module's code, loaded. Blocks; for whoever has the module's turn.
    pub(super) fn code(
        &self,
        spec: &Microservice,
        file: &[u8],
        runtime: &GuestRuntime,
    ) -> Result<Component, PrepareError> {
        let (fingerprint, target) = (runtime.fingerprint(), configuration::target());
        // Most likely first: what is not the first one's costs two verifications.
        let site = self.sources.precompiled_by.into_iter();
        let trusted: Vec<PublicKey> = site
            .chain(std::iter::once(self.credentials.key.public()))
            .collect();
        let expected = Expected {
            module: &spec.module,
            fingerprint,
            target: &target,
            trusted: &trusted,
        };
        if let Some(component) = self.load_kept(&expected, runtime) {
            return Ok(component);
        }
        let fetched = match self.sources.precompiled_by {
            None => Err(NoCode::Elsewhere("the node compiles itself".into())),
            Some(_) => self.fetch_code(&expected),
        };
        let code = match fetched {
            Ok(code) => code,
            Err(NoCode::Refused(why)) => return Err(PrepareError::Refused(why)),
            Err(NoCode::Elsewhere(why)) if self.sources.compiler == Compiler::None => {
                return Err(PrepareError::NotYet(format!(
                    "{}: no compiled code to be had: {why}; this agent was built without the compiler",
                    spec.module_label
                )));
            }
            Err(NoCode::Elsewhere(why)) => {
                tracing::debug!(module = %spec.module_label, "compiled here: {why}");
                self.compile(&expected, file, runtime)?
            }
        };
        load::load(runtime.engine(), code).map_err(|error| {
            PrepareError::Refused(format!(
                "the compiled code of {} can't be loaded: {error:#}",
                spec.module_label
            ))
        })
    }

    /// Loads the code on the disk, if it is there and good for this engine and this processor.
    fn load_kept(&self, expected: &Expected<'_>, runtime: &GuestRuntime) -> Option<Component> {
        let path = self.code_path(expected.module);
        let seal = std::fs::read(path.with_extension("seal")).ok()?;
        let kept = expected
            .open(&seal)
            .and_then(|seal| seal.check_file(File::open(&path)?))
            .map_err(|error| error.to_string())
            .and_then(|code| {
                load::load(runtime.engine(), code).map_err(|error| format!("{error:#}"))
            });
        match kept {
            Ok(component) => Some(component),
            Err(why) => {
                tracing::info!("{}: {why}: it is had anew", path.display());
                None
            }
        }
    }

    /// Code that the controller has compiled, kept on the disk.
    fn fetch_code(&self, expected: &Expected<'_>) -> Result<CheckedCode, NoCode> {
        let elsewhere = |error: anyhow::Error| NoCode::Elsewhere(format!("{error:#}"));
        let answer = self.controller.code(
            expected.module,
            expected.target,
            expected.fingerprint,
            &self.credentials,
        );
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                return Err(match error.downcast_ref::<Refused>() {
                    Some(refused) if refused.0.code == "not_compilable" => {
                        NoCode::Refused(format!("{error:#}"))
                    }
                    _ => elsewhere(error),
                });
            }
        };
        let seal = expected
            .read(&mut answer)
            .context("what the controller sent is not the code of the module")
            .map_err(elsewhere)?;
        let path = self.code_path(expected.module);
        Self::keep(&path, &seal, |file| seal.unpack(answer, file))
            .with_context(|| format!("the code of module {} can't be fetched", expected.module))
            .map_err(elsewhere)
    }

    /// Compiles the module and keeps the code for the next time.
    fn compile(
        &self,
        expected: &Expected<'_>,
        file: &[u8],
        runtime: &GuestRuntime,
    ) -> Result<CheckedCode, PrepareError> {
        let _one_at_a_time = self
            .compiling
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let path = self.code_path(expected.module);
        let (input, output) = (
            self.module_path(expected.module),
            path.with_extension("part"),
        );
        let compiler = &self.sources.compiler;
        let code = compiler.compile(file, &input, &output, runtime)?;
        let seal = artifact::seal(
            expected.module,
            expected.fingerprint,
            expected.target,
            &code,
            &self.credentials.key,
        );
        let ours = |error: artifact::ArtifactError| PrepareError::NotYet(error.to_string());
        let seal = expected.open(&seal).map_err(ours)?;
        match Self::keep(&path, &seal, |file| seal.copy(&code, file)) {
            Ok(checked) => Ok(checked),
            Err(error) => {
                tracing::warn!(
                    "can't keep the compiled code in {}: {error:#}",
                    path.display()
                );
                seal.check(code).map_err(ours)
            }
        }
    }

    /// Writes code and seal, each whole or not at all, the seal last; then opens what was written.
    fn keep(
        path: &Path,
        seal: &GoodSeal,
        write: impl FnOnce(&mut SparseFile) -> Result<(), artifact::ArtifactError>,
    ) -> anyhow::Result<CheckedCode> {
        let part = path.with_extension("part");
        let mut file = SparseFile::create(&part)?;
        if let Err(error) = write(&mut file) {
            let _ = std::fs::remove_file(&part); // it is of no use; a leftover is overwritten
            return Err(error.into());
        }
        file.finish()?;
        // Nobody writes to it any more: it may be mapped.
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o400))?;
        std::fs::rename(&part, path)?;
        write_whole(&path.with_extension("seal"), seal.as_bytes())?;
        sync_directory(path);
        Ok(seal.check_file(File::open(path)?)?)
    }

    /// Where the code of a module is.
    pub(super) fn code_path(&self, digest: &Digest) -> PathBuf {
        self.compiled.join(format!("{}.code", digest.to_hex()))
    }
}
