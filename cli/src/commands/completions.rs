//! `haar completions`: what a shell needs to complete command lines.

use clap::CommandFactory as _;

use crate::error::{CommandError, Result};
use crate::output;

/// Print a script that completes haar's command lines in a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "bash: haar completions bash > ~/.local/share/bash-completion/completions/haar"
)]
pub(crate) struct Arguments {
    /// The shell
    shell: clap_complete::Shell,
}

/// Runs `haar completions`.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut super::Arguments::command(),
        "haar",
        &mut script,
    );
    let script = String::from_utf8(script)
        .map_err(|_| CommandError::failure("the completion script is not text"))?;
    output::text(&script)
}
