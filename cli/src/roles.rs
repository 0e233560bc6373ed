//! The controller and the agent as commands of this binary, as k3s and nomad have it: one file is
//! enough to try everything. The only place that knows their crates. They own their process: its
//! signals, its log on stderr, its standard input.

use std::process::ExitCode;

use crate::error::{CommandError, Result};

/// Run the controller of a site
#[derive(Debug, clap::Args)]
#[command(disable_version_flag = true)]
pub(crate) struct ControllerArguments {
    #[command(flatten)]
    arguments: haar_controller::cli::Arguments,
}

/// Run the agent of a node
#[derive(Debug, clap::Args)]
pub(crate) struct AgentArguments {
    #[command(flatten)]
    arguments: haar_host::cli::Arguments,
}

/// Runs `haar controller …`.
pub(crate) fn run_controller(arguments: ControllerArguments) -> Result<ExitCode> {
    done(haar_controller::cli::run(
        arguments.arguments,
        &["controller"],
    ))
}

/// Runs `haar agent …`.
pub(crate) fn run_agent(arguments: AgentArguments) -> Result<ExitCode> {
    done(haar_host::cli::run(arguments.arguments, &["agent"]))
}

/// Their errors are for people already.
fn done(result: anyhow::Result<()>) -> Result<ExitCode> {
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(CommandError::failure(format!("{error:#}"))),
    }
}
