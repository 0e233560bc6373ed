//! `haar delete`: takes something away from a site.

use clap::Subcommand;
use haar_protocol::ids::Name;
use serde_json::json;

use super::describe::find_module;
use crate::client::Client;
use crate::config::Options;
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
    /// Stop all microservices of an application and forget it
    Application { name: Name },
    /// Forget a pushed module that no application uses
    Module {
        /// NAME@VERSION, or the digest, whole or its beginning
        module: String,
    },
    /// Revoke the key of a node: it can't come back without a new token
    Node { name: Name },
    /// Trust the key of a publisher no more
    Publisher { name: Name },
    /// Let all nodes leave a relay
    Relay { name: Name },
}

/// Runs `haar delete`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    match &arguments.what {
        What::Application { name } => delete("application", name.as_str(), options),
        What::Node { name } => delete("node", name.as_str(), options),
        What::Publisher { name } => delete("publisher", name.as_str(), options),
        What::Relay { name } => delete("relay", name.as_str(), options),
        What::Module { module } => {
            let digest = find_module(&Client::of(options)?, module)?.digest;
            delete("module", &digest.to_string(), options)
        }
    }
}

/// Deletes the `kind` called `name`.
pub(super) fn delete(kind: &str, name: &str, options: &Options) -> Result<()> {
    Client::of(options)?.delete(&format!("{kind}s/{name}"))?;
    if options.is_json() {
        return output::json(&json!({ "kind": kind, "name": name, "deleted": true }));
    }
    output::line(format!("Deleted the {kind} {name}."))
}
