//! Whether a file that has arrived is a module to run: digest, signatures, a valid component, name
//! and version. Not async; `uploads` runs it on a thread of its own and survives its panics.

use haar_engine::inspect::{self, Inspected};
use haar_protocol::exports;
use haar_protocol::ids::Digest;
use haar_protocol::keys::PublicKey;
use haar_protocol::module::{self, ModuleError};

use crate::db::modules::ModuleRow;
use crate::failure::{Failure, Kind};

const VERSION_CHARACTERS_MAX: usize = 64;

/// The whole check of a file: heavy, and not async. Gives what it says of itself, and which of the
/// `trusted` keys have signed it.
///
/// # Errors
/// The first thing that is wrong with it.
pub(super) fn check(
    file: &[u8],
    digest: Digest,
    trusted: &[PublicKey],
) -> Result<(Inspected, Vec<PublicKey>), Failure> {
    let actual = Digest::of(file);
    if actual != digest {
        return Err(Failure::new(
            Kind::Refused,
            "wrong_digest",
            format!("what arrived is {actual}, not {digest}: it was changed or damaged on its way"),
        )
        .hint("push it again"));
    }
    let signers = match module::verify(file, trusted) {
        Ok(signers) => signers.into_iter().copied().collect(),
        Err(error) => return Err(unverified(&error, trusted.is_empty())),
    };
    let inspected = inspect::inspect(file)
        .map_err(|error| Failure::new(Kind::Refused, "invalid_component", error.to_string()))?;
    Ok((inspected, signers))
}

fn unverified(error: &ModuleError, nobody_is_trusted: bool) -> Failure {
    let code = match error {
        ModuleError::NotWasm => "not_wasm",
        ModuleError::CoreModule => "core_module",
        ModuleError::Malformed(_) => "malformed_module",
        ModuleError::Unsigned => "unsigned",
        ModuleError::UnknownSignature(_) => "unknown_signature",
        ModuleError::Untrusted | ModuleError::NotAllowed { .. } => "untrusted",
        ModuleError::TooLarge(_) => "too_large",
    };
    let failure = Failure::new(
        Kind::Refused,
        code,
        format!("the module is refused: {error}"),
    );
    match error {
        ModuleError::Untrusted | ModuleError::Unsigned if nobody_is_trusted => {
            failure.hint("this site trusts no publisher yet: `haar publisher trust NAME KEY.pub`")
        }
        ModuleError::Untrusted => failure.hint(
            "sign it with a trusted key, or trust its publisher: `haar publisher trust NAME KEY.pub`",
        ),
        ModuleError::Unsigned => failure.hint("sign it: `haar sign FILE --key KEY`"),
        _ => failure,
    }
}

/// A module has a name and a version, or nobody could say which one to run; and something of it is
/// called.
///
/// # Errors
/// When it lacks one of them.
pub(super) fn describe(
    inspected: Inspected,
    signers: Vec<PublicKey>,
) -> Result<ModuleRow, Failure> {
    let lacks = |code, what: &str| {
        Failure::new(
            Kind::Refused,
            code,
            format!("the module says no {what} of its own"),
        )
        .hint("build it with `haar build`, which writes name and version into the file")
    };
    if let Some(why) = exports::never_called(&inspected.exports) {
        let message = format!("the module {why}");
        return Err(
            Failure::new(Kind::Refused, "never_called", message).hint(exports::EXPORTS_HINT)
        );
    }
    let name = inspected
        .name
        .ok_or_else(|| lacks("no_name", "usable name"))?;
    let is_usable = |version: &String| {
        (1..=VERSION_CHARACTERS_MAX).contains(&version.len())
            && version.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let version = inspected
        .version
        .filter(is_usable)
        .ok_or_else(|| lacks("no_version", "usable version"))?;
    Ok(ModuleRow {
        digest: inspected.digest,
        name,
        version,
        bytes: inspected.bytes,
        signers,
        imports: inspected.imports,
        exports: inspected.exports,
        pushed_ms: 0,
    })
}
