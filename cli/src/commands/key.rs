//! `haar key`: key pairs of publishers.

use std::io;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use haar_protocol::keys::SecretKey;
use serde::Serialize;

use crate::config::Options;
use crate::error::{CommandError, Result, about_file};
use crate::files::{self, Readers};
use crate::output;

/// Make keys to sign modules with
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key pair: NAME.key to sign with (keep it secret) and NAME.pub to be trusted by
    New {
        /// Path of the two files without their endings
        name: PathBuf,
        /// Replace files that are there. Nothing that only the old key signed is trusted any more
        #[arg(long)]
        force: bool,
    },
    /// Write a key in the format of the tool wasmsign2
    Export {
        /// The key: a file that ends in .key or .pub
        file: PathBuf,
        /// Where to write it
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Replace a file that is there
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Serialize)]
struct KeyPair<'a> {
    secret_file: &'a Path,
    public_file: &'a Path,
    key: String,
    fingerprint: String,
}

#[derive(Debug, Serialize)]
struct Exported<'a> {
    file: &'a Path,
    secret: bool,
    key: String,
    fingerprint: String,
}

/// Runs `haar key …`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    match &arguments.command {
        Command::New { name, force } => new(name, *force, options),
        Command::Export { file, out, force } => export(file, out, *force, options),
    }
}

fn export(file: &Path, out: &Path, force: bool, options: &Options) -> Result<()> {
    let (bytes, public, readers) = match files::read_public_key(file) {
        Ok(key) => (key.to_wasmsign2(), key, Readers::Everybody),
        Err(_) => {
            let key = files::read_secret_key(file)?;
            (key.to_wasmsign2(), key.public(), Readers::Owner)
        }
    };
    write(out, &bytes, readers, force)?;
    if options.is_json() {
        return output::json(&Exported {
            file: out,
            secret: readers == Readers::Owner,
            key: public.to_string(),
            fingerprint: public.fingerprint(),
        });
    }
    output::note(format!("Wrote {} for wasmsign2.", out.display()));
    Ok(())
}

fn new(name: &Path, force: bool, options: &Options) -> Result<()> {
    let Some(stem) = name.file_name().and_then(|stem| stem.to_str()) else {
        return Err(
            CommandError::usage(format!("`{}` does not name a key", name.display()))
                .hinted("Write `haar key new acme`."),
        );
    };
    let secret_file = name.with_file_name(format!("{stem}.key"));
    let public_file = name.with_file_name(format!("{stem}.pub"));
    if !force
        && let Some(there) = [&secret_file, &public_file]
            .into_iter()
            .find(|file| file.exists())
    {
        return Err(already_there(there));
    }
    let secret = make()?;
    write(
        &secret_file,
        secret.to_pem().as_bytes(),
        Readers::Owner,
        force,
    )?;
    write(
        &public_file,
        secret.public().to_pem().as_bytes(),
        Readers::Everybody,
        force,
    )?;

    let fingerprint = secret.public().fingerprint();
    if options.is_json() {
        let (secret_file, public_file) = (secret_file.as_path(), public_file.as_path());
        return output::json(&KeyPair {
            secret_file,
            public_file,
            key: secret.public().to_string(),
            fingerprint,
        });
    }
    output::text(&output::facts(&[
        (
            "Secret key",
            format!(
                "{} (keep it secret, keep a copy: it can't be made again)",
                secret_file.display()
            ),
        ),
        ("Public key", public_file.display().to_string()),
        ("Fingerprint", fingerprint),
    ]))?;
    output::note(format!(
        "Next: sign with `haar sign FILE --key {}`, and have the site trust it with `haar publisher trust NAME {}`.",
        secret_file.display(),
        public_file.display()
    ));
    Ok(())
}

/// A new key from the operating system's randomness.
pub(crate) fn make() -> Result<SecretKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| {
        CommandError::failure(format!("the system gives no random bytes: {error}"))
    })?;
    Ok(SecretKey::from_seed(seed))
}

fn write(path: &Path, content: &[u8], readers: Readers, force: bool) -> Result<()> {
    files::write(path, content, readers, force).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => already_there(path),
        _ => about_file("write", path)(error),
    })
}

fn already_there(path: &Path) -> CommandError {
    CommandError::refused("key_exists", format!("{} is there already", path.display()))
        .hinted("Choose another name, or replace it with --force. What only the old key signed is then not trusted any more.")
}
