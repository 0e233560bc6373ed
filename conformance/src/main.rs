//! The conformance suite: proves an agent from outside. It starts a real controller with its relay
//! and real agents as processes, drives them as people do (the command line and REST), and checks
//! what REQUIREMENTS.md promises. It never links the agent, so that any build of it can be checked.

mod requirements;
mod case;
mod cases;

mod programs;
mod child;
mod process;
mod processors;
mod rest;
mod modules;
mod broker;
mod mosquitto;
mod site;
mod application;
mod scene;
mod talk;
mod attack;
mod interrupt;
mod chaos;

mod run;
mod soak;
mod world;
mod truth;
mod list;
mod report;
mod junit;

use std::process::ExitCode;

use clap::Parser;

/// Proves an agent from outside.
#[derive(Debug, Parser)]
#[command(name = "haar-conformance", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the cases
    Run(run::Arguments),
    /// Send very many messages over durable routes while everything fails
    Soak(soak::Arguments),
    /// Try brokers and clients that others make
    World(world::Arguments),
    /// Compare what a site says of itself with what is true
    Truth(truth::Arguments),
    /// Show the requirements and the cases
    List(list::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = requirements::checked().and_then(|requirements| match arguments.command {
        Command::Run(arguments) => run::run(&arguments, &requirements),
        Command::Soak(arguments) => soak::soak(&arguments),
        Command::World(arguments) => world::world(&arguments),
        Command::Truth(arguments) => truth::truth(&arguments),
        Command::List(arguments) => list::list(&arguments, &requirements),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
