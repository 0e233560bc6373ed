//! `haar apply` and `haar schema`: manifests of applications and relays.

mod relay;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use haar_protocol::ids::Name;
use haar_protocol::manifest::{self, Document, MANIFEST_BYTES_MAX, Manifest};
use haar_protocol::quantity::Millis;
use haar_protocol::rest::{Application, ApplyResult, Change, Difference, Loss, Unplaced};

use crate::client::Client;
use crate::config::Options;
use crate::consent::Consent;
use crate::error::{CommandError, Result};
use crate::{files, output, wait};

/// Run what a manifest says
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --dry-run it only prints in what the manifest differs from what is applied, and what would stop
or be lost. The exit code is 0 whether it differs or not; JSON says `changed`.")]
pub(crate) struct ApplyArguments {
    /// The manifest; `-` reads it from standard input
    #[arg(long, short, value_name = "FILE", required_unless_present = "manifest")]
    file: Option<PathBuf>,
    /// The same, without the flag
    #[arg(value_name = "FILE", conflicts_with = "file")]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
    /// Keep what is stored for microservices that the manifest names no more
    #[arg(long)]
    keep_data: bool,
    /// How long to wait until every instance runs, such as 90s or 10m
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_value = "30s", default_missing_value = "30s")]
    wait: Millis,
    /// Do not wait until it runs
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
}

/// Print the JSON Schema of the manifest
#[derive(Debug, clap::Args)]
pub(crate) struct SchemaArguments {
    /// What the manifest describes
    #[arg(value_enum, default_value_t = Described::Application)]
    kind: Described,
}

/// What a manifest describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Described {
    /// An application
    Application,
    /// A relay
    Relay,
}

/// Runs `haar apply`.
pub(crate) fn apply(arguments: &ApplyArguments, options: &Options) -> Result<()> {
    let file = arguments
        .file
        .as_deref()
        .or(arguments.manifest.as_deref())
        .expect("clap requires one of them");
    let (text, document) = read(file)?;
    let manifest = match document {
        Document::Application(manifest) => manifest,
        Document::Relay(relay) => return relay::apply(arguments, options, &text, &relay.name),
    };
    let warnings = manifest::warnings(&manifest);
    for warning in &warnings {
        output::warning(warning);
    }
    let client = Client::of(options)?;
    let put = |query: &str| {
        let keep_data = arguments.keep_data;
        let path = format!(
            "applications/{}?keep_data={keep_data}&{query}",
            manifest.name
        );
        client.put_manifest(&path, &text)
    };
    let answer = match arguments.consent.dry_run {
        true => put("dry_run=true")?,
        false => arguments.consent.ask(options, put)?,
    };
    let result: ApplyResult = client.parse(&answer)?;
    let waits = !arguments.consent.dry_run && !arguments.no_wait;
    match options.is_json() {
        true => {
            output::take_warnings(); // the site says them in its answer
            if !waits {
                output::answer(&answer)?;
            } // else once it is known how it went
        }
        false => output::text(&describe(&result))?,
    }
    // What the site found beyond what was said above.
    let more = result
        .warnings
        .iter()
        .filter(|warning| !options.is_json() && !warnings.contains(warning));
    for warning in more {
        output::warning(output::printable(warning));
    }
    for one in result.unplaced.iter().filter(|_| !options.is_json()) {
        output::warning(without_place(one));
    }
    if !waits {
        return Ok(());
    }
    let time = Duration::from_millis(arguments.wait.0);
    let waited = wait::until_running(&client, &result, time, options.progress());
    if options.is_json() {
        output::json(&AppliedAndSeen {
            result,
            application: waited.application,
        })?;
    }
    waited.result
}

/// What an apply did, and the application when the wait ended, for programs.
#[derive(serde::Serialize)]
struct AppliedAndSeen {
    #[serde(flatten)]
    result: ApplyResult,
    /// None when the site did not show it.
    application: Option<Application>,
}

/// Instances without a place, for a person.
fn without_place(one: &Unplaced) -> String {
    let hint = one
        .hint
        .as_ref()
        .map_or_else(String::new, |hint| format!(" ({hint})"));
    output::printable(&format!(
        "{} of the instances of {} {} no place: {}{hint}",
        one.instances,
        one.microservice,
        if one.instances == 1 { "has" } else { "have" },
        one.reason
    ))
}

/// Runs `haar schema`.
pub(crate) fn schema(arguments: &SchemaArguments) -> Result<()> {
    output::json(&match arguments.kind {
        Described::Application => manifest::json_schema(),
        Described::Relay => manifest::relay_json_schema(),
    })
}

/// Reads and checks the manifest of an application.
pub(crate) fn read_application(file: &Path) -> Result<(String, Manifest)> {
    match read(file)? {
        (text, Document::Application(manifest)) => Ok((text, manifest)),
        (_, Document::Relay(_)) => Err(CommandError::refused(
            "bad_manifest",
            format!(
                "{} is a relay, and an application is wanted here",
                file.display()
            ),
        )),
    }
}

/// Reads and checks a manifest; its text goes to the site as it is.
fn read(file: &Path) -> Result<(String, Document)> {
    let is_stdin = file == Path::new("-");
    let (text, name) = if is_stdin {
        (read_stdin()?, "<stdin>".to_owned())
    } else {
        (files::read_text(file)?, file.display().to_string())
    };
    match manifest::parse_document(&text, &name) {
        Ok(document) => Ok((text, document)),
        Err(errors) => {
            let count = errors.errors.len() + errors.more;
            let message = match count {
                1 => format!("the manifest is refused:\n{errors}"),
                count => format!("the manifest is refused, {count} errors:\n{errors}"),
            };
            Err(CommandError::refused("bad_manifest", message).hinted(
                "`haar schema` prints the JSON Schema, which editors use to complete and check.",
            ))
        }
    }
}

fn read_stdin() -> Result<String> {
    let mut text = String::new();
    let failed = |error| {
        CommandError::failure(format!(
            "can't read the manifest from standard input: {error}"
        ))
    };
    std::io::stdin()
        .take(MANIFEST_BYTES_MAX as u64 + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

fn describe(result: &ApplyResult) -> String {
    let (name, revision) = (&result.name, result.revision);
    let heading = match (result.dry_run, result.changed) {
        (true, true) => format!("{name} would change to revision {revision}."),
        (false, true) => format!("Applied {name}: revision {revision}."),
        (_, false) => format!("{name} is unchanged: revision {revision}."),
    };
    let differences = match result.dry_run {
        true => differences(&result.differences),
        false => String::new(),
    };
    let mut placed: BTreeMap<&Name, Vec<&Name>> = BTreeMap::new();
    for placement in &result.placements {
        placed
            .entry(&placement.microservice)
            .or_default()
            .push(&placement.node);
    }
    let mut table = output::Table::new(&["MICROSERVICE", "INSTANCES", "NODES"]);
    for (microservice, nodes) in placed {
        table.row([
            microservice.to_string(),
            nodes.len().to_string(),
            first(&nodes),
        ]);
    }
    format!(
        "{heading}\n{differences}{}{}",
        table.render("It runs nowhere: no node matches."),
        losses(&result.losses)
    )
}

/// What would stop or be lost, a line for each.
fn losses(losses: &[Loss]) -> String {
    let lines = losses
        .iter()
        .map(|loss| format!("Would happen: {}\n", output::printable(&loss.message)));
    lines.collect()
}

/// Names, the first of many.
fn first(names: &[&Name]) -> String {
    const SHOWN: usize = 5;
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(ToString::to_string).collect();
    if names.len() > SHOWN {
        shown.push(format!("and {} more", names.len() - SHOWN));
    }
    shown.join(", ")
}

/// In what a manifest differs from what was applied, for people: a line for each thing, and one for
/// each key of it.
fn differences(differences: &[Difference]) -> String {
    let mut text = String::new();
    for one in differences {
        let sign = match one.change {
            Change::Added => '+',
            Change::Changed => '~',
            Change::Removed => '-',
        };
        let name = output::printable(&one.name);
        text += &format!("{sign} {} {name}\n", one.kind);
        for key in &one.keys {
            let name = output::printable(&key.key);
            text += &match (&key.before, &key.after) {
                (None, Some(after)) if one.change == Change::Added => {
                    format!("    {name}: {}\n", value(Some(after)))
                }
                (Some(before), None) if one.change == Change::Removed => {
                    format!("    {name}: {}\n", value(Some(before)))
                }
                (before, after) => format!(
                    "    {name}: {} -> {}\n",
                    value(before.as_deref()),
                    value(after.as_deref())
                ),
            };
        }
    }
    text
}

/// A value of a manifest on a line, the beginning of a long one.
fn value(value: Option<&str>) -> String {
    const SHOWN: usize = 60;
    let Some(value) = value else {
        return "(none)".into();
    };
    let line = value.lines().next().unwrap_or_default();
    let shown: String = line.chars().take(SHOWN).collect();
    match shown.len() == value.len() {
        true => output::printable(value),
        false => format!("{}… ({} bytes)", output::printable(&shown), value.len()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn people_see_what_would_be_added_changed_and_removed_and_what_runs_where() {
        let nodes =
            (1..=1_000).map(|node| json!({"microservice": "filter", "node": format!("gw-{node}")}));
        let mut placements: Vec<_> = nodes.collect();
        placements.push(json!({"microservice": "sink", "node": "hub"}));
        let result: ApplyResult = serde_json::from_value(json!({
            "name": "plant", "revision": 4, "changed": true, "dry_run": true, "warnings": [],
            "placements": placements, "assignments": {},
            "losses": [{"kind": "stop", "subject": "plant/old", "nodes": ["hub"], "count": 1,
                        "message": "plant/old stops on hub"}],
            "differences": [
                {"kind": "microservice", "name": "filter", "change": "changed", "keys": [
                    {"key": "configuration.text", "before": "a", "after": "b".repeat(200)},
                    {"key": "configuration.unit", "after": "K\u{1b}[2J"},
                    {"key": "limits.memory", "before": "8MiB", "after": "16MiB"},
                ]},
                {"kind": "microservice", "name": "old", "change": "removed", "keys": [
                    {"key": "module", "before": "old@1.0.0"},
                ]},
                {"kind": "microservice", "name": "sink", "change": "added", "keys": [
                    {"key": "module", "after": "sink@1.0.0"}, {"key": "nodes", "after": "hub"},
                ]},
                {"kind": "route", "name": "filter.out -> sink.in", "change": "added"},
            ],
        }))
        .unwrap();
        insta::assert_snapshot!(describe(&result));
    }

    #[test]
    fn an_unchanged_manifest_is_called_unchanged() {
        let result: ApplyResult = serde_json::from_value(json!({
            "name": "plant", "revision": 4, "changed": false, "dry_run": true, "warnings": [],
            "placements": [{"microservice": "sink", "node": "hub"}], "assignments": {},
        }))
        .unwrap();
        assert!(describe(&result).starts_with("plant is unchanged: revision 4.\n"));
    }
}
