//! Whether a file that has arrived is a module to run: digest, signatures, a valid component, name
//! and version. Not async; `uploads` runs it on a thread of its own and survives its panics.

use haar_engine::inspect::{self, InspectError, Inspected};
use haar_protocol::exports;
use haar_protocol::ids::Digest;
use haar_protocol::keys::PublicKey;
use haar_protocol::module::{ModuleError, NAMING_HINT, Signatures, check_version};

use crate::db::modules::ModuleRow;
use crate::failure::{Failure, Kind};

/// A file that passed.
pub(super) struct Checked {
    /// What it says of itself.
    inspected: Inspected,
    /// Which trusted keys have signed it.
    signers: Vec<PublicKey>,
    /// All its signatures.
    signatures: Signatures,
}

/// The whole check of a file: heavy, and not async.
///
/// # Errors
/// The first thing that is wrong with it.
pub(super) fn check(
    file: &[u8],
    digest: Digest,
    trusted: &[PublicKey],
) -> Result<Checked, Failure> {
    let actual = Digest::of(file);
    if actual != digest {
        return Err(Failure::new(
            Kind::Refused,
            "wrong_digest",
            format!("what arrived is {actual}, not {digest}: it was changed or damaged on its way"),
        )
        .hint("push it again"));
    }
    let signed = Signatures::of(file).and_then(|signatures| {
        let signers = signatures.verify(trusted)?.into_iter().copied().collect();
        Ok((signatures, signers))
    });
    let (signatures, signers) = signed.map_err(|error| unverified(&error, trusted.is_empty()))?;
    let inspected = inspect::inspect(file).map_err(|error| {
        let code = match error {
            InspectError::NewerWasi(_) => "newer_wasi",
            _ => "invalid_component",
        };
        Failure::new(Kind::Refused, code, error.to_string())
    })?;
    Ok(Checked {
        inspected,
        signers,
        signatures,
    })
}

fn unverified(error: &ModuleError, nobody_is_trusted: bool) -> Failure {
    let code = match error {
        ModuleError::NotWasm => "not_wasm",
        ModuleError::CoreModule => "core_module",
        ModuleError::Malformed(_) => "malformed_module",
        ModuleError::Unsigned => "unsigned",
        ModuleError::UnknownSignature(_) => "unknown_signature",
        ModuleError::TooManySignatures => "too_many_signatures",
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
pub(super) fn describe(checked: Checked) -> Result<ModuleRow, Failure> {
    let Checked {
        inspected,
        signers,
        signatures,
    } = checked;
    let refused =
        |code, message: String| Failure::new(Kind::Refused, code, message).hint(NAMING_HINT);
    let lacks = |code, what: &str| refused(code, format!("the module says no {what} of its own"));
    if let Some(why) = exports::never_called(&inspected.exports) {
        let message = format!("the module {why}");
        return Err(
            Failure::new(Kind::Refused, "never_called", message).hint(exports::EXPORTS_HINT)
        );
    }
    let name = inspected
        .name
        .ok_or_else(|| lacks("no_name", "usable name"))?;
    let version = inspected
        .version
        .ok_or_else(|| lacks("no_version", "version"))?;
    check_version(&version).map_err(|error| refused("bad_version", error.to_string()))?;
    Ok(ModuleRow {
        digest: inspected.digest,
        name,
        version,
        bytes: inspected.bytes,
        memory_bytes: Some(inspected.memory_bytes),
        signers,
        imports: inspected.imports,
        exports: inspected.exports,
        pushed_ms: 0,
        signatures: Some(signatures),
        resigned: Vec::new(),
    })
}
