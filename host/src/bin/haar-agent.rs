//! The agent alone: what gateways get.

use std::process::ExitCode;

use clap::Parser as _;
use haar_host::cli::{Command, run};

fn main() -> ExitCode {
    match run(Command::parse().arguments, &[]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
