//! `haar node`: lets devices join the site, and leave it.

use std::collections::BTreeMap;

use clap::Subcommand;
use haar_protocol::ids::{InvalidId, Name, check_label};
use haar_protocol::quantity::Millis;
use haar_protocol::rest::{LinkKeyRotation, Token, TokenRequest};
use serde_json::json;

use super::delete;
use crate::client::Client;
use crate::config::Options;
use crate::consent::Consent;
use crate::error::{CommandError, Result};
use crate::output;

/// Let devices join the site, and leave it
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token with which one device joins
    Token {
        /// Name of the node [default: the device chooses]
        #[arg(long)]
        name: Option<Name>,
        /// Label that the node gets; may be repeated
        #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
        label: Vec<(String, String)>,
        /// How long the token may be used
        #[arg(long, value_name = "TIME", default_value = "1h")]
        expires: Millis,
    },
    /// Have a node make another key for its links to other nodes
    RotateKey { name: Name },
    /// Revoke the key of a node: it can't come back without a new token
    Delete {
        name: Name,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Runs `haar node …`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    match &arguments.command {
        Command::Token {
            name,
            label,
            expires,
        } => token(name.clone(), label, *expires, options),
        Command::RotateKey { name } => rotate_key(name, options),
        Command::Delete { name, consent } => delete::delete("node", name, consent, options),
    }
}

fn token(
    name: Option<Name>,
    labels: &[(String, String)],
    expires: Millis,
    options: &Options,
) -> Result<()> {
    if expires.0 < 1_000 {
        return Err(CommandError::usage(
            "a token must live for a second at least",
        ));
    }
    let client = Client::of(options)?;
    let expires_in_s = expires.0 / 1000;
    let labels: BTreeMap<String, String> = labels.iter().cloned().collect();
    let asked_ms = output::now_ms();
    let answer = client.post_text(
        "tokens",
        &TokenRequest {
            name,
            labels,
            expires_in_s: Some(expires_in_s),
        },
    )?;
    if options.is_json() {
        return output::answer(&answer);
    }
    let token: Token = client.parse(&answer)?;
    output::line(&token.token)?;
    output::note(format!(
        "On the device, within {}: haar-agent enrol TOKEN --data DIR, then haar-agent run --data DIR. \
         The token is for one device and is shown only now.",
        output::duration(expires.0)
    ));
    warn_of_clocks(token.expires_ms, expires_in_s * 1000, asked_ms);
    Ok(())
}

fn rotate_key(name: &Name, options: &Options) -> Result<()> {
    let client = Client::of(options)?;
    let answer = client.post_text(&format!("nodes/{name}/link-key/rotate"), &json!({}))?;
    if options.is_json() {
        return output::answer(&answer);
    }
    let rotation: LinkKeyRotation = client.parse(&answer)?;
    output::line(format!(
        "{} makes key {} for its links when it gets its assignment; `haar get events` tells when it has.",
        rotation.node, rotation.generation
    ))
}

/// The controller's clock decides about tokens and certificates; told when ours is far from it.
fn warn_of_clocks(expires_ms: u64, life_ms: u64, asked_ms: u64) {
    let theirs_ms = expires_ms.saturating_sub(life_ms);
    let apart = theirs_ms.abs_diff(asked_ms);
    if apart > haar_protocol::proof::CLOCK_SKEW_MS / 2 {
        output::warning(format!(
            "the controller's clock says {}, this machine's {}: nodes whose clock is wrong can't connect",
            output::timestamp(theirs_ms),
            output::timestamp(asked_ms)
        ));
    }
}

/// Reads `NAME=VALUE`.
pub(super) fn parse_label(text: &str) -> std::result::Result<(String, String), InvalidId> {
    let invalid = || {
        InvalidId(format!(
            "`{text}` is not a label: write NAME=VALUE, such as role=gateway"
        ))
    };
    let (name, value) = text.split_once('=').ok_or_else(invalid)?;
    check_label(name, value)?;
    Ok((name.to_owned(), value.to_owned()))
}
