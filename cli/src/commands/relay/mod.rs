//! `haar relay`: brokers that are not ours, between the site, its nodes and devices.

mod check;
mod credentials;

use clap::Subcommand;

use crate::config::Options;
use crate::error::Result;

/// Work with the brokers between the site and its nodes
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Credentials(credentials::Arguments),
    Check(check::Arguments),
}

/// Runs `haar relay …`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    match &arguments.command {
        Command::Credentials(arguments) => credentials::run(arguments, options),
        Command::Check(arguments) => check::run(arguments, options),
    }
}
