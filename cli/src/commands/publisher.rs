//! `haar publisher`: whose modules the site runs.

use std::path::PathBuf;

use clap::Subcommand;
use haar_protocol::ids::Name;
use haar_protocol::rest::{PublisherRequest, TrustedPublisher};

use super::delete;
use crate::client::Client;
use crate::config::Options;
use crate::consent::{self, Consent};
use crate::error::Result;
use crate::{files, output};

/// Say whose modules the site runs
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trust modules that are signed with a key
    Trust {
        /// What to call the publisher
        name: Name,
        /// Its public key, as `haar key new` makes it
        #[arg(value_name = "KEY.pub")]
        key: PathBuf,
        #[command(flatten)]
        consent: Consent,
    },
    /// Trust the key of a publisher no more
    Delete {
        name: Name,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Runs `haar publisher …`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    match &arguments.command {
        Command::Trust { name, key, consent } => {
            let request = PublisherRequest {
                key: files::read_public_key(key)?,
            };
            let client = Client::of(options)?;
            let put =
                |query: &str| client.put_text(&format!("publishers/{name}?{query}"), &request);
            if consent.dry_run {
                consent::can_try(&client)?;
                return consent::preview(&client, options, &put("dry_run=true")?);
            }
            let answer = consent.ask(options, put)?;
            if options.is_json() {
                return output::line(answer.trim_end());
            }
            let publisher: TrustedPublisher = client.parse(&answer)?;
            output::line(format!(
                "The site {} trusts {} ({}).",
                client.context().name,
                publisher.name,
                publisher.key.fingerprint()
            ))
        }
        Command::Delete { name, consent } => delete::delete("publisher", name, consent, options),
    }
}
