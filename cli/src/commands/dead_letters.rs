//! `haar dead-letters`: messages that no instance could handle. Nodes keep them; the site asks the
//! nodes.

mod survey;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Subcommand;
use haar_protocol::dead_letters::{
    DeadLetterSelection, Dropped, LettersOf, NOT_THERE, NamedLetters, Replayed, WholeDeadLetter,
};
use haar_protocol::ids::Name;

use crate::client::Client;
use crate::config::Options;
use crate::error::{CommandError, Result};
use crate::files::{self, Readers};
use crate::output::{self, facts};
use survey::{Filter, list};

/// Characters of a body that a terminal is shown.
const BODY_CHARACTERS_MAX: usize = 2_000;

/// See, replay and drop messages that no instance could handle
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List them: of one node, or of every node that runs something
    List {
        /// Only of this node
        #[arg(long, value_name = "NAME")]
        node: Option<Name>,
        /// Only of this application
        #[arg(long, value_name = "NAME")]
        application: Option<Name>,
        /// Only of this microservice of the application
        #[arg(long, value_name = "NAME", requires = "application")]
        microservice: Option<Name>,
    },
    /// Show one with its headers and its body
    Show {
        /// Its number, as `list` shows it
        id: u64,
        /// The node that keeps it
        #[arg(long, value_name = "NAME")]
        node: Name,
        /// Write the body alone, as it is, to this file; `-` for standard output
        #[arg(long, value_name = "FILE")]
        body: Option<PathBuf>,
    },
    /// Put them back into their inboxes
    Replay(Which),
    /// Forget them
    Drop {
        #[command(flatten)]
        which: Which,
        /// Forget all of a microservice without asking
        #[arg(long)]
        yes: bool,
    },
}

/// Which letters of a node.
#[derive(Debug, clap::Args)]
struct Which {
    /// Their numbers, as `list` shows them
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<u64>,
    /// All of one microservice
    #[arg(long, conflicts_with = "ids", requires_all = ["application", "microservice"])]
    all: bool,
    /// The application, with --all
    #[arg(long, value_name = "NAME", requires = "all")]
    application: Option<Name>,
    /// The microservice of the application, with --all
    #[arg(long, value_name = "NAME", requires = "all")]
    microservice: Option<Name>,
    /// The node that keeps them
    #[arg(long, value_name = "NAME")]
    node: Name,
}

/// Runs `haar dead-letters …`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    match &arguments.command {
        Command::List {
            node,
            application,
            microservice,
        } => {
            let filter = Filter {
                application: application.clone(),
                microservice: microservice.clone(),
            };
            list(node.as_ref(), &filter, options)
        }
        Command::Show { id, node, body } => show(*id, node, body.as_ref(), options),
        Command::Replay(which) => replay(which, options),
        Command::Drop { which, yes } => discard(which, *yes, options),
    }
}

fn show(id: u64, node: &Name, body: Option<&PathBuf>, options: &Options) -> Result<()> {
    let client = Client::of(options)?;
    let answer = client.get_text(&format!("nodes/{node}/dead-letters/{id}"))?;
    if body.is_none() && options.is_json() {
        return output::answer(&answer);
    }
    let whole: WholeDeadLetter = client.parse(&answer)?;
    let Some(file) = body else {
        return output::text(&describe(&whole));
    };
    let bytes = &whole.body.0;
    let written = if file.as_os_str() == "-" {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush())
    } else {
        files::write(file, bytes, Readers::Everybody, true)
    };
    written.map_err(|error| {
        CommandError::failure(format!(
            "can't write the body to {}: {error}",
            file.display()
        ))
    })
}

fn describe(whole: &WholeDeadLetter) -> String {
    let letter = &whole.letter;
    let source = &letter.source;
    let mut pairs = vec![
        ("Dead letter", letter.id.to_string()),
        ("Microservice", letter.owner.to_string()),
        ("Inlet", output::printable(&letter.inlet)),
        (
            "From",
            output::printable(&format!(
                "{}/{}.{} on {}",
                source.application, source.microservice, source.outlet, source.node
            )),
        ),
        ("Sequence", letter.sequence.to_string()),
        ("Published", output::timestamp(letter.published_ms)),
        ("Type", output::printable(&letter.content_type)),
        ("Attempts", letter.attempts.to_string()),
        ("Died", output::timestamp(letter.died_ms)),
        ("Reason", indented(&letter.reason)),
    ];
    for header in &whole.headers {
        let line = format!("{}: {}", header.name, header.value);
        pairs.push(("Header", output::printable(&line)));
    }
    let body = &whole.body.0;
    pairs.push(("Body", output::bytes(body.len() as u64)));
    let shown = match std::str::from_utf8(body) {
        Ok(text) if text.chars().count() <= BODY_CHARACTERS_MAX => {
            let lines: Vec<String> = text.lines().map(output::printable).collect();
            lines.join("\n")
        }
        _ => "(not a short text: get it with --body FILE)".to_owned(),
    };
    format!("{}\n{shown}\n", facts(&pairs))
}

/// Text of several lines beside the name of a fact.
fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(output::printable).collect();
    lines.join("\n    ")
}

impl Which {
    /// Nothing was found: there may be no such microservice.
    fn check(&self, client: &Client) -> Result<()> {
        client.check_names(self.application.as_ref(), self.microservice.as_ref(), None)
    }

    fn selection(&self) -> DeadLetterSelection {
        match (&self.application, &self.microservice) {
            (Some(application), Some(microservice)) if self.all => {
                DeadLetterSelection::All(LettersOf {
                    application: application.clone(),
                    microservice: microservice.clone(),
                })
            }
            _ => DeadLetterSelection::Named(NamedLetters {
                ids: self.ids.clone(),
            }),
        }
    }
}

fn replay(which: &Which, options: &Options) -> Result<()> {
    let client = Client::of(options)?;
    let path = format!("nodes/{}/dead-letters/replay", which.node);
    let answer = client.post_text(&path, &which.selection())?;
    let replayed: Replayed = client.parse(&answer)?;
    if options.is_json() {
        output::answer(&answer)?;
    } else {
        output::line(format!("Replayed {}.", letters(replayed.replayed)))?;
        for refused in &replayed.refused {
            output::warning(format!(
                "{} stays: {}",
                refused.id,
                output::printable(&refused.reason)
            ));
        }
    }
    if replayed.left > 0 {
        output::note(format!(
            "{} not tried yet: say it again.",
            letters(replayed.left)
        ));
    }
    if replayed.refused.is_empty() {
        return match replayed.replayed {
            0 => which.check(&client),
            _ => Ok(()),
        };
    }
    let is_unknown = replayed.refused.iter().all(|one| one.reason == NOT_THERE);
    if is_unknown && replayed.left == 0 {
        return Err(not_there(replayed.refused.len() as u64, &which.node));
    }
    let message = format!("{} not replayed", letters(replayed.refused.len() as u64));
    Err(CommandError::refused("not_replayed", message))
}

fn discard(which: &Which, yes: bool, options: &Options) -> Result<()> {
    if which.all && !yes {
        return Err(CommandError::usage(
            "this forgets all dead letters of the microservice on the node",
        )
        .hinted("Say --yes if you mean it."));
    }
    let client = Client::of(options)?;
    let path = format!("nodes/{}/dead-letters/drop", which.node);
    let answer = client.post_text(&path, &which.selection())?;
    let Dropped { dropped } = client.parse(&answer)?;
    if options.is_json() {
        output::answer(&answer)?;
    } else if dropped > 0 || which.all {
        output::line(format!("Dropped {}.", letters(dropped)))?;
    }
    let named: BTreeSet<u64> = which.ids.iter().copied().collect();
    match (named.len() as u64).saturating_sub(dropped) {
        0 if dropped == 0 => which.check(&client),
        0 => Ok(()),
        missing => Err(not_there(missing, &which.node)),
    }
}

/// Some of the letters that were named are not on the node.
fn not_there(missing: u64, node: &Name) -> CommandError {
    let message = match missing {
        1 => format!("node {node} keeps no such dead letter"),
        _ => format!("node {node} keeps none of {missing} that were named"),
    };
    CommandError::not_found("unknown_dead_letter", message).hinted(format!(
        "`haar dead-letters list --node {node}` shows what there is."
    ))
}

fn letters(count: u64) -> String {
    match count {
        1 => "1 dead letter".to_owned(),
        _ => format!("{count} dead letters"),
    }
}

#[cfg(test)]
mod tests {
    use haar_protocol::assignment::MicroserviceName;
    use haar_protocol::dead_letters::{Base64, DeadLetter, Header, Source};

    use super::survey::{Found, table};
    use super::*;

    fn letter() -> DeadLetter {
        DeadLetter {
            id: 7,
            owner: MicroserviceName {
                application: "plant".parse().unwrap(),
                microservice: "filter".parse().unwrap(),
            },
            inlet: "readings".into(),
            source: Source {
                node: "gw-1".into(),
                application: "plant".into(),
                microservice: "sampler".into(),
                outlet: "out".into(),
            },
            sequence: 3,
            published_ms: 1_700_000_000_000,
            content_type: "text/plain".into(),
            body_bytes: 5,
            attempts: 5,
            reason: "panicked: at \u{1b}[2J line 3\nsecond line".into(),
            died_ms: 1_700_000_001_000,
        }
    }

    #[test]
    fn a_letter_is_told_to_people() {
        let found = Found {
            node: "gw-1".parse().unwrap(),
            letter: letter(),
        };
        let whole = |body: &[u8]| WholeDeadLetter {
            letter: letter(),
            headers: vec![Header {
                name: "trace".into(),
                value: "1".into(),
            }],
            body: Base64(body.to_vec()),
        };
        insta::assert_snapshot!(format!(
            "{}\n{}\n{}",
            table(&[found], 1_700_000_061_000),
            describe(&whole(b"hello\x1b[2J")),
            describe(&whole(&[0xff, 0xfe]))
        ));
    }
}
