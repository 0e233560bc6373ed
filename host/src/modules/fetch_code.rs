//! Code from the controller: unpacked as it comes, going on where a cut-off fetch stopped.

use std::io::{self, Read};
use std::path::Path;

use anyhow::Context as _;
use haar_engine::artifact::{ArtifactError, CheckedCode, Expected, Unpacking};

use super::Modules;
use super::code::finish;
use super::sparse::SparseFile;
use crate::controller::Refused;

/// Why there is no code from the controller.
pub(super) enum NoCode {
    /// Nor will there be: the module can't be compiled, or no trusted publisher has signed it.
    Refused(String),
    /// Not yet: the controller is compiling it.
    Later(String),
    /// It can't be had now, or from there.
    Elsewhere(String),
}

impl From<anyhow::Error> for NoCode {
    fn from(error: anyhow::Error) -> Self {
        let why = format!("{error:#}");
        let answer = error.downcast_ref::<Refused>();
        match answer.map(|refused| &*refused.0.code) {
            Some("not_compilable") => Self::Refused(why),
            Some("compiling") => Self::Later(why),
            _ if matches!(error.downcast_ref(), Some(ArtifactError::Publisher(_))) => {
                Self::Refused(why)
            }
            _ => Self::Elsewhere(why),
        }
    }
}

impl Modules {
    /// Code that the controller has compiled, kept on the disk.
    pub(super) fn fetch_code(&self, expected: &Expected<'_>) -> Result<CheckedCode, NoCode> {
        let path = self.code_path(expected.module);
        let part = path.with_extension("part");
        Ok(self
            .fetch_code_into(expected, &part)
            .and_then(|()| finish(&part, &path, expected))?)
    }

    /// Fetches what is lacking of the code into `part`, with its seal behind it.
    fn fetch_code_into(&self, expected: &Expected<'_>, part: &Path) -> anyhow::Result<()> {
        let open = |offset| {
            let (module, target) = (expected.module, expected.target);
            let engine = expected.fingerprint;
            self.controller
                .code(module, target, engine, offset, &self.credentials)
        };
        let (mut answer, _) = open(0)?;
        let mut unpacking = expected
            .read(&mut answer)
            .and_then(|seal| seal.unpack(&mut answer))
            .map_err(|error| match error {
                ArtifactError::Publisher(_) => error.into(),
                error => anyhow::Error::from(error)
                    .context("what the controller sent is not the code of the module"),
            })?;
        let mut file = SparseFile::resume(part).context("it can't be kept")?;
        let kept = unpacking.resume(file.content()?)?;
        file.go_on_at(kept)?;
        let outcome = if kept == 0 {
            unpack(&mut unpacking, &mut answer, &mut file)
        } else {
            drop(answer);
            let (mut rest, partial) = open(unpacking.offset())?;
            if !partial {
                // Somebody in between sends all of it again.
                let known = unpacking.offset();
                io::copy(&mut rest.by_ref().take(known), &mut io::sink())?;
            }
            unpack(&mut unpacking, &mut rest, &mut file)
        };
        let (done, total) = (unpacking.unpacked_bytes(), unpacking.code_bytes());
        let outcome = outcome.and_then(|()| {
            let seal = unpacking.finish()?;
            seal.write_trailer(&mut file)
        });
        match outcome {
            Ok(()) => Ok(file.finish()?),
            Err(error) => {
                let next = if is_worth_keeping(&error) {
                    file.finish()?;
                    "goes on from there"
                } else {
                    let _ = std::fs::remove_file(part); // or the next attempt finds out
                    "begins anew"
                };
                Err(anyhow::Error::from(error).context(format!(
                    "the fetch ended after {done} of {total} bytes of code; the next attempt {next}"
                )))
            }
        }
    }
}

fn unpack(
    unpacking: &mut Unpacking,
    packed: &mut impl Read,
    file: &mut SparseFile,
) -> Result<(), ArtifactError> {
    while unpacking.next(packed, file)? {}
    Ok(())
}

/// Whether the next attempt may go on with what has come: the connection ended, rather than that
/// something came which is not the code, or that the disk is full.
fn is_worth_keeping(error: &ArtifactError) -> bool {
    match error {
        ArtifactError::File(error) => error.kind() != io::ErrorKind::StorageFull,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use haar_protocol::rest::ErrorBody;

    use super::*;

    #[test]
    fn code_that_the_controller_is_compiling_is_waited_for_and_what_it_can_not_compile_is_refused()
    {
        let answer = |code: &str| {
            let body = ErrorBody {
                code: code.to_owned(),
                message: "it is said why".to_owned(),
                hint: None,
            };
            NoCode::from(anyhow::Error::from(Refused(body)).context("the controller"))
        };
        assert!(matches!(answer("compiling"), NoCode::Later(_)));
        assert!(matches!(answer("not_compilable"), NoCode::Refused(_)));
        for elsewhere in ["no_compiler", "not_compiled", "no_compiler_now"] {
            assert!(matches!(answer(elsewhere), NoCode::Elsewhere(_)));
        }
    }
}
