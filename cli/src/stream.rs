//! Server-sent events (HTML living standard, "Server-sent events"): the part of the format that
//! the site's API uses, and log lines followed over cut connections without losing or repeating.

use std::io::{self, BufRead, Read as _};
use std::time::Duration;

use haar_protocol::rest::LogEntry;

use crate::client::Client;
use crate::error::{Exit, Result};
use crate::interrupt;

/// The longest line of a stream, in bytes; a stream with a longer one is cut.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// How many lines a controller of an earlier release is asked for again after a cut.
const OVERLAP_LINES: u32 = 1_000;
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// One event: its name (`message` when it has none), its number and its data. One without data only
/// says where the stream is.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    name: String,
    id: Option<u64>,
    data: String,
}

/// Reads the next event; none at the end of the stream. Comments (the signs of life of an idle
/// connection) are passed over.
fn next_event(stream: &mut impl BufRead) -> io::Result<Option<Event>> {
    let mut name: Option<String> = None;
    let mut id: Option<u64> = None;
    let mut data: Option<String> = None;
    loop {
        let Some(line) = next_line(stream)? else {
            return Ok(None);
        };
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match (field, &mut data) {
            ("", _) if line.is_empty() => {
                if data.is_some() || id.is_some() {
                    return Ok(Some(Event {
                        name: name.unwrap_or_else(|| "message".into()),
                        id,
                        data: data.unwrap_or_default(),
                    }));
                }
                name = None;
            }
            ("event", _) => name = Some(value.to_owned()),
            ("id", _) => id = value.parse().ok(),
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

/// What a follower is told.
pub(crate) enum Followed<'a> {
    /// A line, and its JSON as it came.
    Line(&'a LogEntry, &'a str),
    /// So many lines came faster than they were read, and are left out; none when nobody knows how many:
    /// the site no longer has them after a cut connection.
    Missed(Option<u64>),
    /// The stream was cut, for the reason given; it is opened again.
    Cut(&'a str),
}

/// Follows log lines until `stop` says so, giving each to `on`. `filter` is the query of
/// `GET /logs` without `tail` and `follow`. The first connection may fail; after it, only a refusal ends it.
pub(crate) fn follow_logs(
    client: &Client,
    filter: &str,
    tail: u32,
    stop: &dyn Fn() -> bool,
    on: &mut dyn FnMut(Followed<'_>) -> Result<()>,
) -> Result<()> {
    let mut last = None;
    let mut pause = Duration::ZERO;
    let mut connected_once = false;
    // Each reason is reported once until the connection is back.
    let mut said = String::new();
    while !stop() {
        let tail = last.map_or(tail, |_| OVERLAP_LINES);
        let path = format!("logs?{filter}tail={tail}&follow=true");
        let cut = match client.open_stream(&path, last) {
            Ok(stream) => {
                connected_once = true;
                let mut stream = io::BufReader::new(stream);
                read_lines(&mut stream, &mut last, stop, on, &mut pause)?
            }
            Err(error) if !connected_once || !may_pass(error.exit) => return Err(error),
            Err(error) => error.message,
        };
        if stop() {
            return Ok(());
        }
        if pause.is_zero() {
            said = String::new();
        } else if said != cut {
            on(Followed::Cut(&cut))?;
            said = cut;
        }
        pause = (pause * 2).clamp(Duration::from_millis(250), PAUSE_MAX);
        interrupt::sleep(pause)?;
    }
    Ok(())
}

/// True for what a site says while it starts, or a proxy before it: it may serve again after a while.
fn may_pass(exit: Exit) -> bool {
    matches!(exit, Exit::Unreachable | Exit::Failure)
}

/// Reads one connection to its end; why it ended.
fn read_lines(
    stream: &mut impl BufRead,
    last: &mut Option<u64>,
    stop: &dyn Fn() -> bool,
    on: &mut dyn FnMut(Followed<'_>) -> Result<()>,
    pause: &mut Duration,
) -> Result<String> {
    loop {
        match next_event(stream) {
            Ok(Some(event)) => {
                *pause = Duration::ZERO;
                take(&event, last, on)?;
                if stop() {
                    return Ok(String::new());
                }
            }
            Ok(None) => return Ok("the connection was cut".into()),
            Err(error) => return Ok(crate::error::reason(&error)),
        }
    }
}

/// Passes one event on, and notes its number. What a newer controller says and we don't know is passed
/// over.
fn take(
    event: &Event,
    last: &mut Option<u64>,
    on: &mut dyn FnMut(Followed<'_>) -> Result<()>,
) -> Result<()> {
    let is_line = event.name == "message" && !event.data.is_empty();
    if is_line && event.id.is_some() && event.id <= *last {
        return Ok(()); // a controller of an earlier release begins further back than it was asked to
    }
    *last = event.id.or(*last);
    if event.name == "lag" {
        let missed = serde_json::from_str::<serde_json::Value>(&event.data)
            .ok()
            .and_then(|data| data["missed"].as_u64());
        return on(Followed::Missed(missed));
    }
    match serde_json::from_str::<LogEntry>(&event.data) {
        Ok(entry) => on(Followed::Line(&entry, &event.data)),
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

    /// What a follower that has the line `last` is told by a stream.
    fn told(text: &str, last: &mut Option<u64>) -> Vec<String> {
        let mut stream = text.as_bytes();
        let mut told = Vec::new();
        let mut on = |followed: Followed<'_>| {
            told.push(match followed {
                Followed::Line(entry, _) => entry.line.text.clone(),
                Followed::Missed(lines) => format!("missed {lines:?}"),
                Followed::Cut(_) => "cut".into(),
            });
            Ok(())
        };
        while let Some(event) = next_event(&mut stream).unwrap() {
            take(&event, last, &mut on).unwrap();
        }
        told
    }

    /// A line of which nothing but its number in the site tells it from others.
    fn line(id: u64) -> String {
        let line = serde_json::json!({
            "node": "gateway", "application": "a", "microservice": "m", "sequence": 1,
            "time_ms": 1, "level": "info", "stream": "log", "text": id.to_string()
        });
        format!("id: {id}\ndata: {line}\n\n")
    }

    #[test]
    fn after_a_cut_nothing_is_repeated_and_only_the_site_speaks_of_a_gap() {
        let mut last = None;
        assert_eq!(told(&(line(1) + &line(2)), &mut last), ["1", "2"]);
        assert_eq!(last, Some(2));
        // The controller goes on where it was asked to, with lines of other microservices left out.
        assert_eq!(told(&line(7), &mut last), ["7"]);
        // One of an earlier release begins further back.
        let again = line(1) + &line(2) + &line(7) + &line(8);
        assert_eq!(told(&again, &mut last), ["8"]);
        let gap = "event: lag\ndata: {\"missed\":null}\n\n".to_owned();
        assert_eq!(told(&(gap + &line(40)), &mut last), ["missed None", "40"]);
        assert_eq!(last, Some(40));
    }

    #[test]
    fn a_site_that_numbers_from_its_backup_again_is_followed() {
        let mut last = Some(90);
        let gap = "event: lag\nid: 0\ndata: {\"missed\":null}\n\n".to_owned();
        assert_eq!(told(&(gap + &line(5)), &mut last), ["missed None", "5"]);
    }

    #[test]
    fn a_follower_that_got_nothing_yet_knows_where_it_is() {
        let mut last = None;
        assert!(told("id: 12\n\n", &mut last).is_empty());
        assert_eq!(last, Some(12));
    }
}
