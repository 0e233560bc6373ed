//! `haar delete`: takes something away from a site.

use clap::Subcommand;
use haar_protocol::ids::Name;
use serde_json::json;

use super::describe::find_module;
use crate::client::Client;
use crate::config::Options;
use crate::consent::Consent;
use crate::error::Result;
use crate::output;

/// Take something away from the site
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Stop all microservices of an application, forget it, and delete what is stored for it
    Application {
        name: Name,
        /// Keep what is stored for it: an application of this name finds it again within a day
        #[arg(long)]
        keep_data: bool,
        #[command(flatten)]
        consent: Consent,
    },
    /// Forget a pushed module that no application uses
    Module {
        /// NAME@VERSION, or the digest, whole or its beginning
        module: String,
    },
    /// Revoke the key of a node: it can't come back without a new token
    Node {
        name: Name,
        #[command(flatten)]
        consent: Consent,
    },
    /// Trust the key of a publisher no more
    Publisher {
        name: Name,
        #[command(flatten)]
        consent: Consent,
    },
    /// Let all nodes leave a relay
    Relay {
        name: Name,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Runs `haar delete`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    match &arguments.what {
        What::Application {
            name,
            keep_data,
            consent,
        } => {
            let query = if *keep_data { "&keep_data=true" } else { "" };
            delete_with("application", name, query, consent, options)
        }
        What::Node { name, consent } => delete("node", name, consent, options),
        What::Publisher { name, consent } => delete("publisher", name, consent, options),
        What::Relay { name, consent } => delete("relay", name, consent, options),
        What::Module { module } => {
            let client = Client::of(options)?;
            let digest = find_module(&client, module)?.digest.to_string();
            client.delete(&format!("modules/{digest}"))?;
            deleted("module", &digest, options)
        }
    }
}

/// Deletes the `kind` called `name`.
pub(super) fn delete(kind: &str, name: &Name, consent: &Consent, options: &Options) -> Result<()> {
    delete_with(kind, name, "", consent, options)
}

fn delete_with(
    kind: &str,
    name: &Name,
    query: &str,
    consent: &Consent,
    options: &Options,
) -> Result<()> {
    let client = Client::of(options)?;
    let path = format!("{kind}s/{name}");
    consent.delete(&client, options, &path, query, || {
        deleted(kind, name.as_str(), options)
    })
}

fn deleted(kind: &str, name: &str, options: &Options) -> Result<()> {
    if options.is_json() {
        return output::json(&json!({ "kind": kind, "name": name, "deleted": true }));
    }
    output::line(format!("Deleted the {kind} {name}."))
}
