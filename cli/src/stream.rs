//! Server-sent events (HTML living standard, "Server-sent events"): the part of the format that
//! the site's API uses, and log lines followed over cut connections without losing or repeating.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _};
use std::time::Duration;

use haar_protocol::ids::Name;
use haar_protocol::rest::LogEntry;

use crate::client::Client;
use crate::error::{Exit, Result};
use crate::interrupt;

/// The longest line of a stream, in bytes; a stream with a longer one is cut.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// How many lines are asked for again after a cut.
const OVERLAP_LINES: u32 = 1_000;
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// One event: its name (`message` when it has none) and its data.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    name: String,
    data: String,
}

/// Reads the next event; none at the end of the stream. Comments (the signs of life of an idle
/// connection) are passed over.
fn next_event(stream: &mut impl BufRead) -> io::Result<Option<Event>> {
    let mut name: Option<String> = None;
    let mut data: Option<String> = None;
    loop {
        let Some(line) = next_line(stream)? else {
            return Ok(None);
        };
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match (field, &mut data) {
            ("", _) if line.is_empty() => match data.take() {
                Some(data) => {
                    return Ok(Some(Event {
                        name: name.unwrap_or_else(|| "message".into()),
                        data,
                    }));
                }
                None => name = None,
            },
            ("event", _) => name = Some(value.to_owned()),
            ("data", None) => data = Some(value.to_owned()),
            ("data", Some(data)) => {
                if (data.len() + value.len()) as u64 > LINE_BYTES_MAX {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "an event is too long",
                    ));
                }
                data.push('\n');
                data.push_str(value);
            }
            _ => {} // a comment, or a field that we have no use for
        }
    }
}

fn next_line(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.pop_if(|last| *last == b'\n').is_none() {
        return if line.len() as u64 == LINE_BYTES_MAX {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line is too long",
            ))
        } else {
            Ok(None) // the rest of a cut line is worth nothing
        };
    }
    line.pop_if(|last| *last == b'\r');
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

/// Which log lines have been seen, so that none is shown twice after a reconnection.
///
/// A node numbers its lines from 1 each time its agent starts: a line is old when neither its
/// number nor its time is beyond the last one.
#[derive(Debug, Default)]
struct Seen {
    last: BTreeMap<Name, (u64, u64)>,
    /// The next line should be one that was seen.
    is_reconnected: bool,
}

impl Seen {
    /// True when the line is new; it is remembered.
    fn is_new(&mut self, entry: &LogEntry) -> bool {
        let line = (entry.line.sequence, entry.line.time_ms);
        match self.last.get_mut(&entry.node) {
            Some(last) if line.0 <= last.0 && line.1 <= last.1 => false,
            Some(last) => {
                *last = line;
                true
            }
            None => {
                self.last.insert(entry.node.clone(), line);
                true
            }
        }
    }
}

/// What a follower is told.
pub(crate) enum Followed<'a> {
    /// A line, and its JSON as it came.
    Line(&'a LogEntry, &'a str),
    /// So many lines came faster than we read, and are left out; none when nobody knows: they came
    /// while we were not connected.
    Missed(Option<u64>),
    /// The stream was cut, for the reason given; it is opened again.
    Cut(&'a str),
}

/// Follows log lines until `stop` says so, giving each to `on`. `filter` is the query of
/// `GET /logs` without `tail` and `follow`. Only the first connection may fail.
pub(crate) fn follow_logs(
    client: &Client,
    filter: &str,
    tail: u32,
    stop: &dyn Fn() -> bool,
    on: &mut dyn FnMut(Followed<'_>) -> Result<()>,
) -> Result<()> {
    let mut seen = Seen::default();
    let mut pause = Duration::ZERO;
    let mut connected_once = false;
    while !stop() {
        let tail = if connected_once { OVERLAP_LINES } else { tail };
        let cut = match client.open_stream(&format!("logs?{filter}tail={tail}&follow=true")) {
            Ok(stream) => {
                seen.is_reconnected = !seen.last.is_empty();
                connected_once = true;
                let mut stream = io::BufReader::new(stream);
                read_lines(&mut stream, &mut seen, stop, on, &mut pause)?
            }
            Err(error) if !connected_once || error.exit != Exit::Unreachable => return Err(error),
            Err(error) => error.message,
        };
        if stop() {
            return Ok(());
        }
        if !pause.is_zero() {
            on(Followed::Cut(&cut))?;
        }
        pause = (pause * 2).clamp(Duration::from_millis(250), PAUSE_MAX);
        interrupt::sleep(pause)?;
    }
    Ok(())
}

/// Reads one connection to its end; why it ended.
fn read_lines(
    stream: &mut impl BufRead,
    seen: &mut Seen,
    stop: &dyn Fn() -> bool,
    on: &mut dyn FnMut(Followed<'_>) -> Result<()>,
    pause: &mut Duration,
) -> Result<String> {
    loop {
        match next_event(stream) {
            Ok(Some(event)) => {
                *pause = Duration::ZERO;
                take(&event, seen, on)?;
                if stop() {
                    return Ok(String::new());
                }
            }
            Ok(None) => return Ok("the connection was cut".into()),
            Err(error) => return Ok(crate::error::reason(&error)),
        }
    }
}

/// Passes one event on. What a newer controller says and we don't know is passed over.
fn take(
    event: &Event,
    seen: &mut Seen,
    on: &mut dyn FnMut(Followed<'_>) -> Result<()>,
) -> Result<()> {
    if event.name == "lag" {
        let missed = serde_json::from_str::<serde_json::Value>(&event.data)
            .ok()
            .and_then(|data| data["missed"].as_u64());
        return on(Followed::Missed(missed));
    }
    match serde_json::from_str::<LogEntry>(&event.data) {
        Ok(entry) => {
            let is_first = std::mem::take(&mut seen.is_reconnected);
            if !seen.is_new(&entry) {
                return Ok(());
            }
            if is_first {
                on(Followed::Missed(None))?;
            }
            on(Followed::Line(&entry, &event.data))
        }
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Vec<(String, String)> {
        let mut stream = text.as_bytes();
        std::iter::from_fn(|| next_event(&mut stream).unwrap())
            .map(|event| (event.name, event.data))
            .collect()
    }

    #[test]
    fn events_are_read_and_signs_of_life_passed_over() {
        let text = ":\n\nid: 1\nevent: log\ndata: {\"a\":1}\n\n: alive\n\ndata:two\r\ndata: lines\r\n\r\ndata: cut";
        let expected = [
            ("log".to_owned(), "{\"a\":1}".to_owned()),
            ("message".to_owned(), "two\nlines".to_owned()),
        ];
        assert_eq!(events(text), expected);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let endless = vec![b'x'; usize::try_from(LINE_BYTES_MAX).unwrap() + 1];
        assert!(next_event(&mut endless.as_slice()).is_err());
    }

    #[test]
    fn more_lines_than_are_asked_for_again_after_a_cut_are_told() {
        let line = |sequence: u64| Event {
            name: "message".into(),
            data: serde_json::json!({
                "node": "gateway", "application": "a", "microservice": "m", "sequence": sequence,
                "time_ms": sequence, "level": "info", "stream": "log", "text": ""
            })
            .to_string(),
        };
        let mut seen = Seen::default();
        let mut told = Vec::new();
        let mut on = |followed: Followed<'_>| {
            told.push(match followed {
                Followed::Line(entry, _) => entry.line.sequence.to_string(),
                Followed::Missed(lines) => format!("missed {lines:?}"),
                Followed::Cut(_) => "cut".into(),
            });
            Ok(())
        };
        take(&line(1), &mut seen, &mut on).unwrap();
        seen.is_reconnected = true;
        take(&line(1), &mut seen, &mut on).unwrap();
        take(&line(2), &mut seen, &mut on).unwrap();
        seen.is_reconnected = true;
        take(&line(4), &mut seen, &mut on).unwrap();
        take(&line(5), &mut seen, &mut on).unwrap();
        assert_eq!(told, ["1", "2", "missed None", "4", "5"]);
    }

    #[test]
    fn repeated_lines_are_known_and_those_after_a_restart_are_new() {
        let entry = |sequence: u64, time_ms: u64| -> LogEntry {
            serde_json::from_value(serde_json::json!({
                "node": "gateway", "application": "a", "microservice": "m", "sequence": sequence,
                "time_ms": time_ms, "level": "info", "stream": "log", "text": ""
            }))
            .unwrap()
        };
        let mut seen = Seen::default();
        assert!(seen.is_new(&entry(1, 10)));
        assert!(seen.is_new(&entry(2, 10)));
        assert!(!seen.is_new(&entry(1, 10)));
        assert!(!seen.is_new(&entry(2, 10)));
        assert!(seen.is_new(&entry(1, 11)), "the agent was restarted");
        assert!(seen.is_new(&entry(2, 5)), "the clock was set back");
    }
}
