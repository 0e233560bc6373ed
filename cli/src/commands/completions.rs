//! `haar completions`: what a shell needs to complete command lines. The scripts for bash, zsh and fish ask
//! `haar complete` each time, which knows the names of things in the site as well.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::complete::{self, Found};
use crate::error::{CommandError, Result};
use crate::output;

/// Print a script that completes haar's command lines in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For bash, zsh and fish, names of what the site has are completed, too:
  bash: source <(haar completions bash), in ~/.bashrc
  zsh:  source <(haar completions zsh), in ~/.zshrc behind compinit
  fish: haar completions fish > ~/.config/fish/completions/haar.fish")]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

/// What may stand where the last of some words is being typed: for the scripts
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct CompleteArguments {
    /// The words behind `haar`, the last as far as it is typed
    #[arg(last = true, value_name = "WORD")]
    words: Vec<OsString>,
}

/// Runs `haar completions`.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match arguments.shell {
        Shell::Bash => output::text(include_str!("completions/haar.bash")),
        Shell::Zsh => output::text(include_str!("completions/haar.zsh")),
        Shell::Fish => output::text(include_str!("completions/haar.fish")),
        shell => generated(shell),
    }
}

/// A script for a shell that completes words of ours alone.
fn generated(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    let mut command = super::Arguments::command();
    clap_complete::generate(shell, &mut command, "haar", &mut script);
    let script = String::from_utf8(script)
        .map_err(|_| CommandError::failure("the completion script is not text"))?;
    output::text(&script)
}

/// Runs `haar complete`: a candidate on a line, behind a tab what it is. Ends with 1 where the shell should
/// complete names of files.
pub(crate) fn complete(arguments: &CompleteArguments) -> Result<ExitCode> {
    let words: Vec<String> = arguments
        .words
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    match complete::complete(&words) {
        Found::Files => Ok(ExitCode::FAILURE),
        Found::Words(candidates) => {
            for candidate in candidates {
                output::line(match candidate.about.as_str() {
                    "" => candidate.word,
                    about => format!("{}\t{about}", candidate.word),
                })?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
