//! The controller as a program of its own: everything is in [`haar_controller::cli`].

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    haar_controller::cli::exit_code(haar_controller::cli::run(
        haar_controller::cli::Arguments::parse(),
        &[],
    ))
}
