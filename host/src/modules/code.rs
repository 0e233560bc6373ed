//! The code of modules: what is on the disk and good, else what the controller has compiled and
//! the site has signed, else what this node compiles itself where its build can. All of it passes
//! the same checks ([`haar_engine::artifact`]) before it is mapped.
//!
//! ```text
//! compiled/HEX.code ──good───────────────────────────────────────────────────────────┐
//!    └ not there, damaged, of another engine ─► controller ─► unpacked ──────────────┤► checked, mapped
//!                                                  └ none ─► module ─► compiler ─────┘
//! ```

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use haar_engine::artifact::{self, ArtifactError, CheckedCode, Expected, GoodSeal, Origin};
use haar_engine::{configuration, load};
use haar_protocol::assignment::Microservice;
use haar_protocol::ids::Digest;
use haar_protocol::keys::PublicKey;
use wasmtime::component::Component;

use super::compile::Compiler;
use super::fetch_code::NoCode;
use super::sparse::SparseFile;
use super::{Modules, PrepareError, Trust};
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

impl Modules {
    /// The module's code, loaded. Blocks; for whoever has the module's turn. What is returned was
    /// signed as `trust` and the policy demand, and compiled by somebody who is trusted with it.
    pub(super) fn code(
        &self,
        spec: &Microservice,
        trust: &Trust,
        runtime: &GuestRuntime,
    ) -> Result<Component, PrepareError> {
        let target = configuration::target();
        // Most likely first: what is not the first one's costs two verifications.
        let site = self.sources.precompiled_by.into_iter();
        let trusted: Vec<PublicKey> = site
            .chain(std::iter::once(self.credentials.key.public()))
            .collect();
        let expected = Expected {
            module: &spec.module,
            publishers: self.policy.publishers(trust),
            fingerprint: runtime.fingerprint(),
            target: &target,
            trusted: &trusted,
        };
        let label = &spec.module_label;
        if let Some(component) = self.load_kept(label, &expected, runtime)? {
            return Ok(component);
        }
        let fetched = match self.sources.precompiled_by {
            None => Err(NoCode::Elsewhere("the node compiles itself".into())),
            Some(_) => self.fetch_code(&expected),
        };
        let code = match fetched {
            Ok(code) => code,
            Err(NoCode::Refused(why)) => {
                return Err(PrepareError::Refused(format!("{label}: {why}")));
            }
            // To compile it here, too, would not be faster.
            Err(NoCode::Later(why)) => {
                return Err(PrepareError::NotYet(format!("{label}: {why}")));
            }
            Err(NoCode::Elsewhere(why)) if self.sources.compiler == Compiler::None => {
                return Err(PrepareError::NotYet(format!(
                    "{label}: no compiled code to be had: {why}; this agent was built without the compiler"
                )));
            }
            Err(NoCode::Elsewhere(why)) => {
                tracing::debug!(module = %label, "compiled here: {why}");
                self.compile(spec, &expected, runtime)?
            }
        };
        load::load(runtime.engine(), code).map_err(|error| not_loaded(label, &error))
    }

    /// Loads the code on the disk, if it is there and good for this engine and this processor.
    fn load_kept(
        &self,
        label: &str,
        expected: &Expected<'_>,
        runtime: &GuestRuntime,
    ) -> Result<Option<Component>, PrepareError> {
        let path = self.code_path(expected.module);
        let Ok(file) = File::open(&path) else {
            return Ok(None);
        };
        let kept = match expected.check_file(file) {
            Ok(code) => match load::load(runtime.engine(), code) {
                Err(error) if is_of_machine(&error) => return Err(not_loaded(label, &error)),
                loaded => loaded.map_err(|error| format!("{error:#}")),
            },
            // Other code of the module would not be better.
            Err(error @ ArtifactError::Publisher(_)) => {
                return Err(PrepareError::Refused(format!("{label}: {error}")));
            }
            Err(error) => Err(error.to_string()),
        };
        match kept {
            Ok(component) => Ok(Some(component)),
            Err(why) => {
                tracing::info!("{}: {why}: it is fetched or compiled again", path.display());
                Ok(None)
            }
        }
    }

    /// Compiles the module and keeps the code for the next time.
    fn compile(
        &self,
        spec: &Microservice,
        expected: &Expected<'_>,
        runtime: &GuestRuntime,
    ) -> Result<CheckedCode, PrepareError> {
        let (file, signatures) = self.verified(spec, expected.publishers)?;
        let _one_at_a_time = self
            .compiling
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let path = self.code_path(expected.module);
        let part = path.with_extension("part");
        let input = self.module_path(expected.module);
        let compiler = &self.sources.compiler;
        let code = compiler.compile(&file, &input, &part, runtime)?;
        let origin = Origin {
            module: expected.module,
            signatures: &signatures,
            fingerprint: expected.fingerprint,
            target: expected.target,
        };
        let seal = artifact::seal(&origin, &code, &self.credentials.key);
        let ours = |error: ArtifactError| PrepareError::NotYet(error.to_string());
        let seal = expected.open(&seal).map_err(ours)?;
        match write(&part, &code, &seal).and_then(|()| finish(&part, &path, expected)) {
            Ok(checked) => Ok(checked),
            Err(error) => {
                let _ = std::fs::remove_file(&part); // it is of no use; a leftover is overwritten
                tracing::warn!(
                    "can't keep the compiled code in {}: {error:#}",
                    path.display()
                );
                seal.check(code).map_err(ours)
            }
        }
    }

    /// Where the code of a module is.
    pub(super) fn code_path(&self, digest: &Digest) -> PathBuf {
        self.compiled.join(format!("{}.code", digest.to_hex()))
    }
}

/// Why code that was checked can't be loaded: the engine refuses it, or the machine has no memory, no
/// mappings or no descriptors for it, which says nothing of the module.
fn not_loaded(label: &str, error: &wasmtime::Error) -> PrepareError {
    let why = format!("the compiled code of {label} can't be loaded: {error:#}");
    match is_of_machine(error) {
        true => PrepareError::NotYet(why),
        false => PrepareError::Refused(why),
    }
}

/// True for an error of the operating system, or an allocation that failed.
fn is_of_machine(error: &wasmtime::Error) -> bool {
    error.is::<std::io::Error>()
        || error.is::<rustix::io::Errno>()
        || error.is::<wasmtime::OutOfMemory>()
}

/// Writes code with its seal.
fn write(part: &Path, code: &[u8], seal: &GoodSeal) -> anyhow::Result<()> {
    let mut file = SparseFile::create(part)?;
    file.write_all(code)?;
    seal.write_trailer(&mut file)?;
    Ok(file.finish()?)
}

/// Gives a file of code that is whole its name, and opens it.
pub(super) fn finish(
    part: &Path,
    path: &Path,
    expected: &Expected<'_>,
) -> anyhow::Result<CheckedCode> {
    // Nobody writes to it any more: it may be mapped.
    std::fs::set_permissions(part, std::fs::Permissions::from_mode(0o400))?;
    std::fs::rename(part, path)?;
    sync_directory(path);
    Ok(expected.check_file(File::open(path)?)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn code_that_the_machine_can_not_load_is_tried_again_and_code_that_the_engine_refuses_is_not() {
        let errors = [
            (wasmtime::Error::from(Errno::NOMEM), true),
            (Errno::MFILE.into(), true),
            (Errno::NFILE.into(), true),
            (Error::from_raw_os_error(28).into(), true),
            (Error::from(ErrorKind::OutOfMemory).into(), true),
            (wasmtime::OutOfMemory::new(1 << 20).into(), true),
            (wasmtime::Error::msg("compiled with other settings"), false),
        ];
        for (error, is_of_machine) in errors {
            let error = error.context("mmap failed to allocate 0x1000 bytes");
            let text = format!("{error:#}");
            let outcome = not_loaded("m@1", &error);
            let is_tried_again = matches!(outcome, PrepareError::NotYet(_));
            assert_eq!(is_tried_again, is_of_machine, "{text}");
        }
    }
}
