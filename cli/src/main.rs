//! `haar`: the person's tool. Parses the command line, runs one command, reports its error and
//! ends with its exit code. It contains the controller and the agent as commands of their own, so
//! that one file is enough to try everything.

mod commands;

mod children;
mod client;
mod demo;
mod local_site;
mod roles;
mod stream;
mod wait;

mod complete;
mod config;
mod consent;
mod error;
mod files;
mod interrupt;
mod kinds;
mod output;
mod place;
mod progress;
mod terminal;

use std::process::ExitCode;

use clap::Parser as _;

use commands::Arguments;
use error::{CommandError, Exit};
use output::Format;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(kinds::apart(std::env::args_os())) {
        Ok(arguments) => arguments,
        Err(error) => return report_usage(&error),
    };
    let format = arguments.options.output;
    output::begin(format, arguments.options.color);
    match commands::run(arguments) {
        Ok(code) => {
            output::flush_warnings();
            code
        }
        Err(error) => {
            error.report(format);
            error.exit.into()
        }
    }
}

/// Errors of the command line, and `--help` and `--version`, which clap also calls errors.
fn report_usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && wants_json() {
        let text = error.render().to_string();
        let message = text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("error: ")
            .to_owned();
        CommandError::usage(message)
            .hinted("See `haar --help`.")
            .report(Format::Json);
        return Exit::Usage.into();
    }
    let _ = error.print(); // there is nobody left to tell when it can't be written
    if error.use_stderr() {
        Exit::Usage.into()
    } else {
        ExitCode::SUCCESS
    }
}

/// Whether `--output json` stands on a command line that could not be parsed, in one of its forms.
fn wants_json() -> bool {
    let arguments: Vec<_> = std::env::args_os().collect();
    let is_one = |word: &std::ffi::OsString| {
        ["--output=json", "-ojson", "-o=json"]
            .iter()
            .any(|form| word == form)
    };
    arguments.iter().any(is_one)
        || arguments
            .windows(2)
            .any(|pair| (pair[0] == "--output" || pair[0] == "-o") && pair[1] == "json")
}
