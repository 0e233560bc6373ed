//! The command line as one enum, and the one place that starts each command. One file per group
//! of commands below this one.

pub(crate) mod application;
pub(crate) mod build;
pub(crate) mod completions;
pub(crate) mod dead_letters;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod get;
mod instances;
pub(crate) mod key;
pub(crate) mod logs;
pub(crate) mod module;
pub(crate) mod new;
pub(crate) mod node;
pub(crate) mod publisher;
pub(crate) mod relay;
pub(crate) mod sign;
pub(crate) mod up;
pub(crate) mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Options;
use crate::error::{CommandError, EXIT_CODES_HELP, Result};
use crate::output::Format;
use crate::{demo, interrupt, roles};

/// Signed WebAssembly microservices on fleets of small gateways.
#[derive(Debug, Parser)]
#[command(name = "haar", version, max_term_width = 100, after_long_help = EXIT_CODES_HELP, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) options: Options,
}

/// Everything that `haar` does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    // Writing microservices.
    New(new::Arguments),
    Build(build::Arguments),
    Key(key::Arguments),
    Sign(sign::SignArguments),
    Verify(module::VerifyArguments),

    // Working with a site.
    Push(module::PushArguments),
    Apply(application::ApplyArguments),
    Get(get::Arguments),
    Describe(describe::Arguments),
    Logs(logs::Arguments),
    DeadLetters(dead_letters::Arguments),
    Delete(delete::Arguments),
    Node(node::Arguments),
    Publisher(publisher::Arguments),
    Relay(relay::Arguments),

    // Running one.
    Up(up::Arguments),
    Demo(demo::Arguments),
    Controller(roles::ControllerArguments),
    Agent(roles::AgentArguments),

    // About the tool itself.
    Schema(application::SchemaArguments),
    Completions(completions::Arguments),
    Complete(completions::CompleteArguments),
    Version(version::Arguments),
}

/// Runs one command.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { command, options } = arguments;
    if options.output == Format::Name && !matches!(command, Command::Get(_)) {
        return Err(CommandError::usage(
            "`--output name` goes with `haar get` only",
        ));
    }
    // The roles have their own way of ending in order: their signals are theirs.
    match command {
        Command::Controller(arguments) => return roles::run_controller(arguments),
        Command::Agent(arguments) => return roles::run_agent(arguments),
        _ => interrupt::listen()?,
    }
    match command {
        Command::New(arguments) => new::run(&arguments, &options),
        Command::Build(arguments) => build::run(&arguments, &options),
        Command::Key(arguments) => key::run(&arguments, &options),
        Command::Sign(arguments) => sign::run(&arguments, &options),
        Command::Verify(arguments) => module::verify(&arguments, &options),
        Command::Push(arguments) => module::push(&arguments, &options),
        Command::Apply(arguments) => application::apply(&arguments, &options),
        Command::Get(arguments) => get::run(&arguments, &options),
        Command::Describe(arguments) => describe::run(&arguments, &options),
        Command::Logs(arguments) => logs::run(&arguments, &options),
        Command::DeadLetters(arguments) => dead_letters::run(&arguments, &options),
        Command::Delete(arguments) => delete::run(&arguments, &options),
        Command::Node(arguments) => node::run(&arguments, &options),
        Command::Publisher(arguments) => publisher::run(&arguments, &options),
        Command::Relay(arguments) => relay::run(&arguments, &options),
        Command::Up(arguments) => up::run(&arguments, &options),
        Command::Demo(arguments) => demo::run(&arguments, &options),
        Command::Schema(arguments) => application::schema(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Complete(arguments) => return completions::complete(&arguments),
        Command::Version(arguments) => version::run(&arguments, &options),
        Command::Controller(_) | Command::Agent(_) => unreachable!("returned above"),
    }
    .map(|()| ExitCode::SUCCESS)
}
