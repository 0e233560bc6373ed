//! `haar sign`, `haar verify` and `haar push`: module files, and modules of a site.

use std::path::{Path, PathBuf};

use haar_engine::inspect::{InspectError, Inspected, inspect};
use haar_protocol::grants::{Grants, lacking};
use haar_protocol::ids::Digest;
use haar_protocol::keys::{PublicKey, SecretKey};
use haar_protocol::module;
use serde::Serialize;

use crate::client::Client;
use crate::client::upload::{Upload, upload};
use crate::config::Options;
use crate::error::{CommandError, Result, about_file};
use crate::files::{self, Readers};
use crate::output;
use crate::progress::Progress;

/// Sign a module, in place unless told otherwise
#[derive(Debug, clap::Args)]
pub(crate) struct SignArguments {
    /// The module
    file: PathBuf,
    /// The secret key, as `haar key new` makes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Write the signed module here and leave the original alone
    #[arg(long = "out", short, value_name = "FILE")]
    out: Option<PathBuf>,
}

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
struct Description {
    file: PathBuf,
    digest: Digest,
    bytes: u64,
    name: Option<String>,
    version: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    signers: Vec<Signer>,
    imports: Vec<String>,
    exports: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Signer {
    file: PathBuf,
    key: PublicKey,
}

/// Runs `haar sign`.
pub(crate) fn sign(arguments: &SignArguments, options: &Options) -> Result<()> {
    let key = files::read_secret_key(&arguments.key)?;
    let target = arguments.out.as_deref().unwrap_or(&arguments.file);
    let inspected = sign_file(&arguments.file, &key, target)?;
    if options.is_json() {
        return output::json(&describe(target, inspected, Vec::new()));
    }
    output::line(format!(
        "Signed {} with {}: {}",
        target.display(),
        key.public().fingerprint(),
        inspected.digest
    ))
}

/// Signs the module `file` and writes the result to `target`, which may be the same.
pub(crate) fn sign_file(file: &Path, key: &SecretKey, target: &Path) -> Result<Inspected> {
    let content = files::read_module(file)?;
    inspect_file(file, &content)?;
    let signed = module::sign(&content, key).map_err(|error| files::about_module(file, &error))?;
    let inspected = inspect_file(file, &signed)?;
    files::write(target, &signed, Readers::Everybody, true).map_err(about_file("write", target))?;
    Ok(inspected)
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
    let signed_by = module::verify(&content, &keys)
        .map_err(|error| files::about_module(&arguments.file, &error))?;
    let signers: Vec<Signer> = keys
        .iter()
        .zip(&arguments.key)
        .filter(|(key, _)| signed_by.contains(key))
        .map(|(key, file)| Signer {
            file: file.clone(),
            key: *key,
        })
        .collect();
    if options.is_json() {
        return output::json(&describe(&arguments.file, inspected, signers));
    }
    let signers: Vec<String> = signers
        .iter()
        .map(|signer| format!("{} ({})", signer.file.display(), signer.key.fingerprint()))
        .collect();
    let mut facts = facts(&inspected);
    facts.insert(2, ("Signed by", signers.join(", ")));
    output::text(&output::facts(&facts))?;
    warn_of_lacking(&inspected);
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
        let upload = push_one(&client, options.progress(), file, content, inspected)?;
        if !options.is_json() {
            let module = upload.module();
            let verb = if matches!(upload, Upload::AlreadyThere(_)) {
                "Already there:"
            } else {
                "Pushed"
            };
            output::line(format!(
                "{verb} {}@{} {}",
                module.name, module.version, module.digest
            ))?;
        }
        pushed.push(upload.into_module());
    }
    if options.is_json() {
        output::json(&pushed)
    } else {
        Ok(())
    }
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
    if inspected.name.is_none() || inspected.version.is_none() {
        let message = format!("{}: it does not say its name and version", file.display());
        return Err(CommandError::refused("unnamed_module", message)
            .hinted("`haar build` writes them into the module; then sign it again."));
    }
    Ok((content, inspected))
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
    for import in lacking(&inspected.imports, &Grants::default()) {
        output::warning(format!(
            "it imports {}, which no agent offers: it will not start",
            output::printable(import)
        ));
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

fn describe(file: &Path, inspected: Inspected, signers: Vec<Signer>) -> Description {
    Description {
        file: file.to_owned(),
        digest: inspected.digest,
        bytes: inspected.bytes,
        name: inspected.name.map(|name| name.to_string()),
        version: inspected.version,
        signers,
        imports: inspected.imports,
        exports: inspected.exports,
    }
}
