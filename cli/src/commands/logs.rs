//! `haar logs`: what microservices say.

use haar_protocol::ids::{InvalidId, Name};
use haar_protocol::log::{GapCause, Level, LogGap, Stream};
use haar_protocol::quantity::Millis;
use haar_protocol::rest::{List, LogEntry};

use crate::client::Client;
use crate::config::Options;
use crate::error::Result;
use crate::output;
use crate::stream::{Followed, follow_logs};

/// Show what microservices say
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this application, or this microservice of it
    #[arg(value_name = "APPLICATION[/MICROSERVICE]")]
    of: Option<Of>,
    /// Only from this node
    #[arg(long, value_name = "NAME")]
    node: Option<Name>,
    /// Go on with new lines until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// How many of the last lines to begin with [default: 100, or all with --since]
    #[arg(long, value_name = "COUNT")]
    tail: Option<u32>,
    /// Only lines of the last time, such as 90s, 10m or 2h
    #[arg(long, value_name = "TIME")]
    since: Option<Millis>,
}

/// Lines to begin with; with `--since` the most that the site gives.
const TAIL: u32 = 100;
const TAIL_SINCE: u32 = 10_000;

#[derive(Debug, Clone)]
struct Of {
    application: Name,
    microservice: Option<Name>,
}

impl std::str::FromStr for Of {
    type Err = InvalidId;

    fn from_str(text: &str) -> std::result::Result<Self, InvalidId> {
        Ok(match text.split_once('/') {
            Some((application, microservice)) => Self {
                application: application.parse()?,
                microservice: Some(microservice.parse()?),
            },
            None => Self {
                application: text.parse()?,
                microservice: None,
            },
        })
    }
}

/// Runs `haar logs`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let client = Client::of(options)?;
    let filter = filter(arguments) + &client.since(arguments.since)?;
    let all = arguments.since.map_or(TAIL, |_| TAIL_SINCE);
    let tail = arguments.tail.unwrap_or(all);
    if !arguments.follow {
        let answer = client.get_text(&format!("logs?{filter}tail={tail}"))?;
        if options.is_json() {
            return output::answer(&answer);
        }
        return client
            .parse::<List<LogEntry>>(&answer)?
            .items
            .iter()
            .try_for_each(|entry| output::line(line(entry)));
    }
    follow_logs(
        &client,
        &filter,
        tail,
        &|| false,
        &mut |followed| match followed {
            Followed::Line(_, json) if options.is_json() => output::answer(json),
            Followed::Line(entry, _) => output::line(line(entry)),
            Followed::Missed(lines) if options.is_json() => output::answer(&gap(lines)),
            Followed::Missed(Some(lines)) => {
                output::warning(format!(
                    "{lines} lines came faster than they were read, and are left out"
                ));
                Ok(())
            }
            Followed::Missed(None) => {
                output::warning(
                    "lines are missing here: the site no longer has all that came while the connection was cut",
                );
                Ok(())
            }
            Followed::Cut(why) => {
                options
                    .progress()
                    .say(format!("{why}; connecting again ..."));
                Ok(())
            }
        },
    )
}

fn filter(arguments: &Arguments) -> String {
    let of = arguments.of.as_ref();
    let parts = [
        ("application", of.map(|of| &of.application)),
        ("microservice", of.and_then(|of| of.microservice.as_ref())),
        ("node", arguments.node.as_ref()),
    ];
    // Names need no escapes in a URL.
    parts
        .iter()
        .filter_map(|(key, name)| name.map(|name| format!("{key}={name}&")))
        .collect()
}

/// What programs read in the place of missing lines: a document on one line, as that of each line.
fn gap(lines: Option<u64>) -> String {
    let cause = GapCause::Reader;
    serde_json::json!({ "gap": LogGap { lines, cause } }).to_string()
}

/// One line for people.
fn line(entry: &LogEntry) -> String {
    let log = &entry.line;
    let level = match log.level {
        Level::Trace => "TRACE",
        Level::Debug => "DEBUG",
        Level::Info => "INFO ",
        Level::Warn => "WARN ",
        Level::Error => "ERROR",
        Level::Critical => "CRIT ",
    };
    let origin = match (log.stream, log.context.as_str()) {
        (Stream::Log, "") => String::new(),
        (Stream::Log, context) => format!("{}: ", output::printable(context)),
        (Stream::Stdout, _) => "stdout: ".into(),
        (Stream::Stderr, _) => "stderr: ".into(),
        (Stream::Agent, _) => "agent: ".into(),
    };
    format!(
        "{} {level} {}@{} {origin}{}",
        output::timestamp(log.time_ms),
        log.name,
        entry.node,
        output::printable(&log.text)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_one_line_for_programs() {
        let text = gap(Some(7));
        assert!(!text.contains('\n'), "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            read,
            serde_json::json!({ "gap": { "cause": "reader", "lines": 7 } })
        );
    }
}
