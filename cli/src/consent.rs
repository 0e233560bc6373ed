//! Asks before something stops or is lost: every command that takes something away goes through here.
//! The site computes the losses and the change in one transaction (a node's revocation is tried in a
//! transaction before); when nothing is lost, nothing is asked.
//!
//! ```text
//! request with `careful=true` ─┬─ done
//!                              └─ refused: `would_lose` ─┬─ terminal: yes ─► request ─► done
//!                                                        │            no ──► nothing was changed
//!                                                        └─ none: refused, with a hint (exit code 3)
//! ```

use std::io::{self, IsTerminal as _, Write as _};

use haar_protocol::rest::Preview;

use crate::client::Client;
use crate::config::Options;
use crate::error::{CommandError, Exit, Result};
use crate::output;

/// The error code of the site when something would stop or be lost.
const WOULD_LOSE: &str = "would_lose";

/// How a command that takes something away is run.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Consent {
    /// Go on, whatever stops or is lost
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Only say what would be done
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
}

impl Consent {
    /// Makes a request that may take something away, with a query that it needs for that.
    pub(crate) fn ask<T>(
        &self,
        options: &Options,
        request: impl Fn(&'static str) -> Result<T>,
    ) -> Result<T> {
        if self.yes {
            return request("careful=false");
        }
        match request("careful=true") {
            Err(mut error) if error.code == WOULD_LOSE => {
                let is_asked =
                    !options.is_json() && io::stdin().is_terminal() && io::stderr().is_terminal();
                error.message = format!("this would stop or lose something:\n{}", error.message);
                if !is_asked {
                    return Err(error.hinted(
                        "Nothing was changed. --yes goes on all the same; --dry-run only says what would be done.",
                    ));
                }
                confirm(&error.message)?;
                request("careful=false")
            }
            other => other,
        }
    }

    /// Takes away what is at `path`, and says so; or only says what would be lost. `query` goes with it.
    pub(crate) fn delete(
        &self,
        client: &Client,
        options: &Options,
        path: &str,
        query: &str,
        done: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if self.dry_run {
            can_try(client)?;
            let answer = client.delete(&format!("{path}?dry_run=true{query}"))?;
            return preview(client, options, &answer);
        }
        self.ask(options, |care| {
            client.delete(&format!("{path}?{care}{query}")).map(drop)
        })?;
        done()
    }
}

/// A controller of an earlier release ignores an unknown `dry_run` and makes the change.
///
/// # Errors
/// When the site's controller is one.
pub(crate) fn can_try(client: &Client) -> Result<()> {
    if client.get_text("openapi.json")?.contains("\"careful\"") {
        return Ok(());
    }
    Err(CommandError::failure(
        "the site's controller is of an earlier release: it can't tell what would be lost",
    )
    .hinted("Update the controller; see `haar version --site`."))
}

/// Shows what a change would take away.
pub(crate) fn preview(client: &Client, options: &Options, answer: &str) -> Result<()> {
    if options.is_json() {
        return output::answer(answer);
    }
    let Preview { losses } = client.parse(answer)?;
    if losses.is_empty() {
        return nothing(options);
    }
    for loss in losses {
        output::line(format!(
            "Would happen: {}",
            output::printable(&loss.message)
        ))?;
    }
    Ok(())
}

/// Shows that a change takes nothing away.
pub(crate) fn nothing(options: &Options) -> Result<()> {
    if options.is_json() {
        return output::json(&Preview { losses: Vec::new() });
    }
    output::line("Nothing would stop or be lost.")
}

/// Asks the person at the terminal.
fn confirm(what: &str) -> Result<()> {
    let failed = |error: io::Error| CommandError::failure(format!("can't ask: {error}"));
    let mut stderr = io::stderr().lock();
    for line in what.lines() {
        writeln!(stderr, "{}", output::printable(line)).map_err(failed)?;
    }
    write!(stderr, "Go on? [y/N] ").map_err(failed)?;
    stderr.flush().map_err(failed)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed)?;
    if is_yes(&answer) {
        return Ok(());
    }
    Err(CommandError::new(
        Exit::Refused,
        "not_confirmed",
        "nothing was changed",
    ))
}

fn is_yes(answer: &str) -> bool {
    ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_a_yes() {
        for yes in ["y\n", "Y", "yes", " YES \r\n"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n", "no", "yes please", "j"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
