//! `haar publisher`: whose modules the site runs.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use haar_protocol::ids::Name;
use haar_protocol::keys::PublicKey;
use haar_protocol::manifest::meant;
use haar_protocol::rest::{PublisherRequest, TrustedPublisher};
use serde_json::json;

use super::delete;
use crate::client::Client;
use crate::config::Options;
use crate::consent::{self, Consent};
use crate::error::{CommandError, Result};
use crate::{files, output};

/// Say whose modules the site runs
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trust modules that are signed with a key, beside the keys that the publisher has
    Trust {
        /// What to call the publisher
        name: Name,
        /// Its public key, as `haar key new` makes it
        #[arg(value_name = "KEY.pub")]
        key: PathBuf,
        /// Trust no other key of the publisher any more: what only they have signed stops
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        consent: Consent,
    },
    /// Trust a publisher no more, or one key of it: what nobody else has signed stops
    Delete {
        name: Name,
        /// Only this key: its file, or its fingerprint as `haar get publishers` shows it
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Runs `haar publisher …`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    match &arguments.command {
        Command::Trust {
            name,
            key,
            replace,
            consent,
        } => trust(name, key, *replace, consent, options),
        Command::Delete {
            name,
            key: None,
            consent,
        } => delete::delete("publisher", name, consent, options),
        Command::Delete {
            name,
            key: Some(key),
            consent,
        } => delete_key(name, key, consent, options),
    }
}

fn trust(
    name: &Name,
    key: &Path,
    replace: bool,
    consent: &Consent,
    options: &Options,
) -> Result<()> {
    let key = files::read_public_key(key)?;
    let client = Client::of(options)?;
    let replacing = |query: &str| {
        let request = PublisherRequest { key };
        client.put_text(&format!("publishers/{name}?{query}"), &request)
    };
    let answer = match (replace, consent.dry_run) {
        (true, true) => {
            consent::can_try(&client)?;
            return consent::preview(&client, options, &replacing("dry_run=true")?);
        }
        // A further key takes nothing away.
        (false, true) => return consent::nothing(options),
        (true, false) => consent.ask(options, replacing)?,
        (false, false) => client.put_text(&format!("publishers/{name}/keys/{key}"), &json!({}))?,
    };
    if options.is_json() {
        return output::answer(&answer);
    }
    let publisher: TrustedPublisher = client.parse(&answer)?;
    output::line(format!(
        "The site {} trusts {} ({}).",
        client.context().name,
        publisher.name,
        publisher.key.fingerprint()
    ))?;
    let others = keys_of(&client, name)?;
    let others: Vec<String> = others
        .iter()
        .filter(|other| **other != key)
        .map(PublicKey::fingerprint)
        .collect();
    if !others.is_empty() {
        output::note(format!(
            "It trusts {name} by {} as well. When everything is signed with the new key: haar publisher delete {name} --key FINGERPRINT",
            others.join(" and ")
        ));
    }
    Ok(())
}

/// The keys of a publisher. Fails when there is none of this name.
fn keys_of(client: &Client, name: &Name) -> Result<Vec<PublicKey>> {
    let publishers: Vec<TrustedPublisher> = client.list("publishers")?;
    let of_name = publishers.iter().filter(|one| one.name == *name);
    let keys: Vec<PublicKey> = of_name.map(|one| one.key).collect();
    match keys.is_empty() {
        false => Ok(keys),
        true => {
            let known = publishers.iter().map(|one| one.name.as_str());
            Err(CommandError::unknown("publisher", name.as_str(), known))
        }
    }
}

/// The key that `text` is, or names by its fingerprint or its file.
fn key_named(name: &Name, text: &str, keys: &[PublicKey]) -> Result<PublicKey> {
    if let Some(key) = keys.iter().find(|key| key.fingerprint() == text) {
        return Ok(*key);
    }
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let file = Path::new(text);
    if file.exists() {
        return files::read_public_key(file);
    }
    let fingerprints: Vec<String> = keys.iter().map(PublicKey::fingerprint).collect();
    let near = meant(text, fingerprints.iter().map(String::as_str));
    // As the site says it of a key.
    let message = format!("publisher `{name}` has no key `{text}`, and there is no such file");
    Err(CommandError::not_found("unknown_publisher", message)
        .hinted(near.unwrap_or_else(|| "see its keys with `haar get publishers`".into())))
}

fn delete_key(name: &Name, text: &str, consent: &Consent, options: &Options) -> Result<()> {
    let client = Client::of(options)?;
    let key = key_named(name, text, &keys_of(&client, name)?)?;
    let path = format!("publishers/{name}/keys/{key}");
    consent.delete(&client, options, &path, "", || {
        if options.is_json() {
            return output::json(
                &json!({ "kind": "publisher", "name": name, "key": key, "deleted": true }),
            );
        }
        output::line(format!(
            "The site {} trusts {name} by {} no more.",
            client.context().name,
            key.fingerprint()
        ))
    })
}
