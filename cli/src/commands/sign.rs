//! `haar sign`: name, version and signatures of a module file. A name or version that the toolchain did
//! not write is added before signing, because the signature covers both.

use std::path::{Path, PathBuf};

use haar_engine::inspect::Inspected;
use haar_protocol::ids::{InvalidId, Name};
use haar_protocol::keys::{PublicKey, SecretKey};
use haar_protocol::module::{self, ModuleError, Signatures, check_version};
use wasm_encoder::ComponentSection as _;

use super::module::{describe, inspect_file};
use crate::config::Options;
use crate::error::{CommandError, Result, about_file};
use crate::files::{self, Readers};
use crate::output;

/// How many public keys beside the signing key are tried.
const NEIGHBOURS_MAX: usize = 64;

/// Sign a module, in place unless told otherwise, beside those who have signed it before
#[derive(Debug, clap::Args)]
pub(crate) struct SignArguments {
    /// The module
    file: PathBuf,
    /// The secret key, as `haar key new` makes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Write the signed module here and leave the original alone
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The name of a module that does not say one: `haar build` writes it, other tools may not
    #[arg(long)]
    name: Option<Name>,
    /// The version of a module that does not say one, such as 1.4.2
    #[arg(long, value_parser = parse_version)]
    version: Option<String>,
    /// Take the signatures of everybody else out
    #[arg(long)]
    replace: bool,
}

fn parse_version(text: &str) -> std::result::Result<String, InvalidId> {
    check_version(text).map(|()| text.to_owned())
}

/// Runs `haar sign`.
pub(crate) fn run(arguments: &SignArguments, options: &Options) -> Result<()> {
    let key = files::read_secret_key(&arguments.key)?;
    let file = &arguments.file;
    let target = arguments.out.as_deref().unwrap_or(file);
    let content = files::read_module(file)?;
    let inspected = inspect_file(file, &content)?;
    let named = complete(file, &content, &inspected, arguments)?;
    let about = |error: ModuleError| about_module(file, &error);
    let signed = match arguments.replace {
        true => module::sign_alone(&named, &key),
        false => module::sign(&named, &key),
    }
    .map_err(about)?;
    let inspected = inspect_file(file, &signed)?;
    let signatures = Signatures::of(&signed).map_err(about)?;
    warn_of_losses(&content, arguments, &signatures);
    write(target, &signed)?;

    let known = known_signers(&signatures, key.public(), &arguments.key);
    if options.is_json() {
        return output::json(&describe(target, inspected, Some(&signatures), known));
    }
    output::line(format!(
        "Signed {} with {}: {}",
        target.display(),
        key.public().fingerprint(),
        inspected.digest
    ))?;
    tell_others(&signatures, &known, key.public());
    Ok(())
}

/// Signs the module `file` with nothing but `key` and writes the result to `target`, which may be the same.
pub(crate) fn sign_file(file: &Path, key: &SecretKey, target: &Path) -> Result<Inspected> {
    let content = files::read_module(file)?;
    inspect_file(file, &content)?;
    let signed =
        module::sign_alone(&content, key).map_err(|error| files::about_module(file, &error))?;
    let inspected = inspect_file(file, &signed)?;
    write(target, &signed)?;
    Ok(inspected)
}

fn write(target: &Path, signed: &[u8]) -> Result<()> {
    files::write(target, signed, Readers::Everybody, true).map_err(about_file("write", target))
}

fn about_module(file: &Path, error: &ModuleError) -> CommandError {
    let about = files::about_module(file, error);
    match error {
        ModuleError::UnknownSignature(_) => {
            about.hinted("Take the signatures of others out with --replace.")
        }
        _ => about,
    }
}

/// The module with the given name and version, where it has none.
fn complete(
    file: &Path,
    content: &[u8],
    inspected: &Inspected,
    arguments: &SignArguments,
) -> Result<Vec<u8>> {
    let differs = |what: &str, says: &str, given: &str| {
        let message = format!(
            "{}: it says that its {what} is `{}`, and --{what} that it is `{given}`",
            file.display(),
            output::printable(says)
        );
        CommandError::refused("contradiction", message).hinted(format!(
            "Leave --{what} away, or build the module with the other {what}."
        ))
    };
    if let (Some(says), Some(given)) = (&inspected.name, &arguments.name)
        && says != given
    {
        return Err(differs("name", says.as_str(), given.as_str()));
    }
    if let (Some(says), Some(given)) = (&inspected.version, &arguments.version)
        && says != given
        && check_version(says).is_ok()
    {
        return Err(differs("version", says, given));
    }
    let name = arguments.name.as_ref().filter(|_| inspected.name.is_none());
    let version = arguments.version.as_deref();
    let version = version.filter(|given| inspected.version.as_deref() != Some(*given));
    name_module(content, name, version).map_err(|error| {
        CommandError::failure(format!(
            "{}: can't write its name into it: {error}",
            file.display()
        ))
    })
}

/// Writes name and version into a component: the `component-name` section, and the `version`
/// section as `wasm-metadata` defines it (its own writer for that one comes with a URL parser and
/// a list of licences). The new version replaces an existing one.
pub(crate) fn name_module(
    component: &[u8],
    name: Option<&Name>,
    version: Option<&str>,
) -> anyhow::Result<Vec<u8>> {
    let mut named = component.to_vec();
    if name.is_some() || version.is_some() {
        let mut metadata = wasm_metadata::AddMetadata::default();
        if let Some(name) = name {
            metadata.name = wasm_metadata::AddMetadataField::Set(name.to_string());
        }
        metadata
            .processed_by
            .push(("haar".into(), env!("CARGO_PKG_VERSION").into()));
        named = metadata.to_wasm(component)?;
    }
    if let Some(version) = version {
        let version = wasm_encoder::CustomSection {
            name: "version".into(),
            data: version.as_bytes().into(),
        };
        version.append_to_component(&mut named);
    }
    Ok(named)
}

/// Warns about signatures in `before` that are not valid for the newly signed content.
fn warn_of_losses(before: &[u8], arguments: &SignArguments, now: &Signatures) {
    match Signatures::of(before) {
        _ if arguments.replace => {}
        Ok(before) if !before.is_of_same_content(now) => output::warning(
            "the name or version that was written makes it another file: those who have signed it before must sign it again",
        ),
        Err(ModuleError::Untrusted) => output::warning(
            "it was changed after others had signed it: their signatures were taken out",
        ),
        Err(ModuleError::Malformed(what)) => {
            output::warning(format!(
                "its signatures were damaged and are taken out: {what}"
            ));
        }
        Ok(_) | Err(_) => {}
    }
}

/// The known signers: the signing key, and the public keys in the same folder whose signature verifies. A
/// signature alone does not identify its signer.
fn known_signers(
    signatures: &Signatures,
    signer: PublicKey,
    key_file: &Path,
) -> Vec<(PathBuf, PublicKey)> {
    let mut known = vec![(key_file.to_owned(), signer)];
    let folder = key_file.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = files
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "pub"))
        .collect();
    files.sort();
    for file in files.into_iter().take(NEIGHBOURS_MAX) {
        if let Ok(key) = files::read_public_key(&file)
            && key != signer
            && signatures.verify(&[key]).is_ok()
        {
            let file = file.strip_prefix("./").unwrap_or(&file).to_owned();
            known.push((file, key));
        }
    }
    known
}

/// Reports the other signers to people.
fn tell_others(signatures: &Signatures, known: &[(PathBuf, PublicKey)], signer: PublicKey) {
    let others = known.iter().filter(|(_, key)| *key != signer);
    let mut others: Vec<String> = others
        .map(|(file, key)| format!("{} ({})", file.display(), key.fingerprint()))
        .collect();
    match signatures.count().saturating_sub(known.len()) {
        0 => {}
        1 => others.push("one key that is not here".into()),
        count => others.push(format!("{count} keys that are not here")),
    }
    if !others.is_empty() {
        output::note(format!(
            "Also signed by {}; --replace takes other signatures out.",
            others.join(" and ")
        ));
    }
}
