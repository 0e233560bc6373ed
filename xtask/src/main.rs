//! `cargo xtask`: what people and CI do with this repository beyond cargo's own commands. A
//! program and not a script, so that it is checked and tested like everything else. Only people
//! and CI start it; nothing of it ships.

mod dist;
mod target;
mod tools;
mod build;
mod package;
mod bill;
mod command;
mod compare;
mod night;

use std::process::ExitCode;

use clap::Parser;

/// Work on Haar.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Build the agent for gateways: programs, Debian packages, bills of materials, checksums
    Dist(dist::Arguments),
    /// Compare rates of this tree with another commit's, in turns
    Compare(compare::Arguments),
    Night(night::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Dist(arguments) => dist::dist(&arguments),
        Task::Compare(arguments) => compare::compare(&arguments),
        Task::Night(arguments) => night::night(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
