//! `haar verify` and `haar push`: module files, and modules of a site.

use std::path::{Path, PathBuf};

use haar_engine::inspect::{InspectError, Inspected, inspect};
use haar_protocol::grants;
use haar_protocol::ids::{Digest, Name};
use haar_protocol::keys::PublicKey;
use haar_protocol::module::{self, NAMING_HINT, Signatures, check_version};
use serde::Serialize;

use crate::client::Client;
use crate::client::upload::{Upload, upload};
use crate::config::Options;
use crate::error::{CommandError, Result};
use crate::files;
use crate::output;
use crate::progress::Progress;

/// Check who has signed a module, and show what it is
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArguments {
    /// The module
    file: PathBuf,
    /// Public keys to trust, as `haar key new` makes them
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    key: Vec<PathBuf>,
}

/// Push signed modules to the site
#[derive(Debug, clap::Args)]
pub(crate) struct PushArguments {
    /// The modules
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What a module file is, for programs.
#[derive(Debug, Serialize)]
pub(super) struct Description {
    file: PathBuf,
    digest: Digest,
    bytes: u64,
    name: Option<String>,
    version: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    signers: Vec<Signer>,
    /// The number of signatures, including those whose key is not at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    signatures: Option<usize>,
    /// What its manifest must grant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    grants: Vec<&'static str>,
    imports: Vec<String>,
    exports: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Signer {
    file: PathBuf,
    key: PublicKey,
}

/// Runs `haar verify`.
pub(crate) fn verify(arguments: &VerifyArguments, options: &Options) -> Result<()> {
    let keys: Vec<PublicKey> = arguments
        .key
        .iter()
        .map(|file| files::read_public_key(file))
        .collect::<Result<_>>()?;
    let content = files::read_module(&arguments.file)?;
    let inspected = inspect_file(&arguments.file, &content)?;
    warn_of_lacking(&inspected);
    let about = |error| files::about_module(&arguments.file, &error);
    let signatures = Signatures::of(&content).map_err(about)?;
    let signed_by = signatures.verify(&keys).map_err(about)?;
    let signers: Vec<(PathBuf, PublicKey)> = arguments
        .key
        .iter()
        .zip(&keys)
        .filter(|(_, key)| signed_by.contains(key))
        .map(|(file, key)| (file.clone(), *key))
        .collect();
    if options.is_json() {
        let file = &arguments.file;
        return output::json(&describe(file, inspected, Some(&signatures), signers));
    }
    let others = signatures.count().saturating_sub(signed_by.len());
    let mut by: Vec<String> = signers
        .iter()
        .map(|(file, key)| format!("{} ({})", file.display(), key.fingerprint()))
        .collect();
    if others > 0 {
        by.push(format!("{others} by other keys"));
    }
    let mut facts = facts(&inspected);
    facts.insert(2, ("Signed by", by.join(", ")));
    output::text(&output::facts(&facts))?;
    tell_grants(&inspected);
    Ok(())
}

/// Runs `haar push`.
pub(crate) fn push(arguments: &PushArguments, options: &Options) -> Result<()> {
    // All files are checked before the first byte is sent.
    let modules: Vec<_> = arguments
        .files
        .iter()
        .map(|file| read_signed(file))
        .collect::<Result<_>>()?;
    let client = Client::of(options)?;
    let mut pushed = Vec::new();
    for (file, (content, inspected)) in arguments.files.iter().zip(&modules) {
        warn_of_lacking(inspected);
        tell_grants(inspected);
        let upload = push_one(&client, options.progress(), file, content, inspected)?;
        if !options.is_json() {
            output::line(told(&upload, inspected))?;
        }
        pushed.push(output::WithWarnings::of(upload.into_module()));
    }
    if options.is_json() {
        output::json(&pushed)
    } else {
        Ok(())
    }
}

/// What a push did, for people.
fn told(upload: &Upload, inspected: &Inspected) -> String {
    let module = upload.module();
    let label = format!("{}@{}", module.name, module.version);
    if module.digest != inspected.digest {
        let publishers: Vec<&str> = module.publishers.iter().map(Name::as_str).collect();
        return format!(
            "The site has this code: {label} {} is signed by {} now",
            module.digest,
            publishers.join(" and ")
        );
    }
    let verb = if matches!(upload, Upload::AlreadyThere(_)) {
        "Already there:"
    } else {
        "Pushed"
    };
    format!("{verb} {label} {}", module.digest)
}

/// Reads a module that the site would take: everything that can be checked without it.
pub(crate) fn read_signed(file: &Path) -> Result<(Vec<u8>, Inspected)> {
    let content = files::read_module(file)?;
    let inspected = inspect_file(file, &content)?;
    // Without trusted keys the best answer is `Untrusted`: signed, by whoever.
    if let Err(error) = module::verify(&content, &[])
        && error != module::ModuleError::Untrusted
    {
        return Err(files::about_module(file, &error));
    }
    let refused = |code, message: String, hint: &str| {
        let message = format!("{}: {message}", file.display());
        Err(CommandError::refused(code, message).hinted(hint))
    };
    let lacks = match (&inspected.name, &inspected.version) {
        (None, None) => "it does not say its name and version",
        (None, Some(_)) => "it does not say a name that commands can use",
        (Some(_), None) => "it does not say its version",
        (Some(_), Some(version)) => {
            return match check_version(version) {
                Ok(()) => Ok((content, inspected)),
                Err(error) => refused("bad_version", error.to_string(), NAMING_HINT),
            };
        }
    };
    refused("unnamed_module", lacks.to_owned(), NAMING_HINT)
}

/// Uploads one module, showing how far it is.
pub(crate) fn push_one(
    client: &Client,
    progress: Progress,
    file: &Path,
    content: &[u8],
    inspected: &Inspected,
) -> Result<Upload> {
    let what = label(inspected).unwrap_or_else(|| file.display().to_string());
    let step = progress.bytes(format!("Pushing {what}"), inspected.bytes, 0);
    upload(
        client,
        inspected.digest,
        content,
        &mut |done| step.position(done),
        &mut |note| step.now(note),
    )
}

/// Looks into a module file.
pub(crate) fn inspect_file(file: &Path, content: &[u8]) -> Result<Inspected> {
    inspect(content).map_err(|error| match error {
        InspectError::Module(error) => files::about_module(file, &error),
        InspectError::NewerWasi(_) => {
            CommandError::refused("newer_wasi", format!("{}: {error}", file.display()))
        }
        InspectError::Invalid(_) | InspectError::TooMany { .. } => {
            CommandError::refused("invalid_module", format!("{}: {error}", file.display()))
        }
    })
}

/// `NAME@VERSION`, when the module says both.
pub(crate) fn label(inspected: &Inspected) -> Option<String> {
    Some(format!(
        "{}@{}",
        inspected.name.as_ref()?,
        inspected.version.as_deref()?
    ))
}

/// Warns of imports that no agent of this release offers.
pub(crate) fn warn_of_lacking(inspected: &Inspected) {
    for import in &inspected.imports {
        if grants::is_beyond_all(import) {
            output::warning(format!(
                "it imports {}, which no agent offers: it will not start",
                output::printable(import)
            ));
        }
    }
}

/// Says what a manifest must grant.
pub(crate) fn tell_grants(inspected: &Inspected) {
    let needed = grants::needed(&inspected.imports);
    if !needed.is_empty() {
        let needed: Vec<String> = needed.iter().map(|grant| format!("`{grant}`")).collect();
        output::hint(format!("Its manifest needs {}.", needed.join(" and ")));
    }
}

/// What a module is, for people.
pub(crate) fn facts(inspected: &Inspected) -> Vec<(&'static str, String)> {
    let one = |text: Option<&str>| text.map_or_else(|| "(none)".to_owned(), output::printable);
    let list = |names: &[String]| match names {
        [] => "(none)".to_owned(),
        names => output::printable(&names.join(", ")),
    };
    vec![
        (
            "Module",
            format!(
                "{} {}",
                one(inspected.name.as_ref().map(|name| name.as_str())),
                one(inspected.version.as_deref())
            ),
        ),
        ("Digest", inspected.digest.to_string()),
        ("Size", output::bytes(inspected.bytes)),
        ("Imports", list(&inspected.imports)),
        ("Exports", list(&inspected.exports)),
    ]
}

/// A module for programs, with the keys that signed it and the files of those keys.
pub(super) fn describe(
    file: &Path,
    inspected: Inspected,
    signatures: Option<&Signatures>,
    signers: Vec<(PathBuf, PublicKey)>,
) -> Description {
    let signers = signers.into_iter();
    Description {
        file: file.to_owned(),
        digest: inspected.digest,
        bytes: inspected.bytes,
        name: inspected.name.map(|name| name.to_string()),
        version: inspected.version,
        signers: signers.map(|(file, key)| Signer { file, key }).collect(),
        signatures: signatures.map(Signatures::count),
        grants: grants::needed(&inspected.imports),
        imports: inspected.imports,
        exports: inspected.exports,
    }
}
