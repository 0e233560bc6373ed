//! What commands print: tables and sentences for people, the API's JSON for programs. Results go
//! to stdout, everything else to stderr. A reader that goes away (`| head`) ends the command
//! without a word.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

pub(crate) use haar_protocol::text::duration;

use crate::error::{CommandError, Result};

/// How results and errors are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For people, with all columns.
    Wide,
    /// For programs.
    Json,
}

/// Writes `text` and a line end to stdout.
pub(crate) fn line(text: impl AsRef<str>) -> Result<()> {
    raw(text.as_ref(), "\n")
}

/// Writes `text` to stdout as it is.
pub(crate) fn text(text: &str) -> Result<()> {
    raw(text, "")
}

fn raw(text: &str, end: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(end.as_bytes()))
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(CommandError::failure(format!(
            "can't write the result: {error}"
        ))),
        Ok(()) => Ok(()),
    }
}

/// Warnings that wait for a JSON document to stand in; none while they go to people. Taken for one
/// look by whoever warns or writes.
static WAITING: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// From now on warnings stand in the JSON documents that are written.
pub(crate) fn keep_warnings() {
    *WAITING.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
}

/// The warnings that no document has yet.
pub(crate) fn take_warnings() -> Vec<String> {
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.as_mut().map(std::mem::take).unwrap_or_default()
}

/// Writes the warnings that no document has yet, as one of their own on stderr.
pub(crate) fn flush_warnings() {
    let warnings = take_warnings();
    if !warnings.is_empty() {
        note(serde_json::json!({ "warnings": warnings }).to_string());
    }
}

/// A document with the warnings that came up while it was made.
#[derive(Debug, Serialize)]
pub(crate) struct WithWarnings<T> {
    #[serde(flatten)]
    value: T,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl<T> WithWarnings<T> {
    pub(crate) fn of(value: T) -> Self {
        let warnings = take_warnings();
        Self { value, warnings }
    }
}

/// Writes `value` as JSON to stdout; warnings that wait stand in it, when it is an object.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let failed = |error| CommandError::failure(format!("can't write the result: {error}"));
    let warnings = take_warnings();
    let text = match serde_json::to_value(value).map_err(failed)? {
        serde_json::Value::Object(_) if !warnings.is_empty() => {
            serde_json::to_string_pretty(&WithWarnings { value, warnings })
        }
        _ => serde_json::to_string_pretty(value),
    };
    line(text.map_err(failed)?)
}

/// A sentence on stderr that is not part of the result.
pub(crate) fn note(text: impl AsRef<str>) {
    // Notes are not worth failing for.
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// What people do next, on stderr; programs know.
pub(crate) fn hint(text: impl AsRef<str>) {
    let is_for_people = WAITING.lock().is_ok_and(|waiting| waiting.is_none());
    if is_for_people {
        note(text);
    }
}

/// Something that works but may not be meant: on stderr, or in the JSON document.
pub(crate) fn warning(text: impl AsRef<str>) {
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(waiting) = waiting.as_mut() {
        waiting.push(text.as_ref().to_owned());
        return;
    }
    drop(waiting);
    note(format!(
        "{} {}",
        console::style("Warning:").for_stderr().yellow(),
        text.as_ref()
    ));
}

/// True when somebody watches stdout.
pub(crate) fn is_watched() -> bool {
    io::stdout().is_terminal()
}

/// Rows under a header, in columns as wide as they need.
#[derive(Debug)]
pub(crate) struct Table {
    header: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &'static [&'static str]) -> Self {
        Self {
            header,
            rows: Vec::new(),
        }
    }

    pub(crate) fn row<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        debug_assert_eq!(
            COLUMNS,
            self.header.len(),
            "a row has a cell for each column"
        );
        self.rows.push(cells.into());
    }

    /// Takes away the first column.
    pub(crate) fn drop_first(&mut self) {
        self.header = &self.header[1..];
        for row in &mut self.rows {
            row.remove(0);
        }
    }

    /// The table, every line with its end; `none` when it has no rows.
    pub(crate) fn render(&self, none: &str) -> String {
        if self.rows.is_empty() {
            return format!("{none}\n");
        }
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| width(&row[column]));
                cells.chain([self.header[column].len()]).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        let header: Vec<String> = self.header.iter().map(|name| (*name).to_owned()).collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = String::new();
            for (cell, column_width) in row.iter().zip(&widths) {
                let padding = column_width.saturating_sub(width(cell)) + 2;
                let _ = write!(line, "{cell}{:padding$}", ""); // writing to a string never fails
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn width(cell: &str) -> usize {
    console::measure_text_width(cell)
}

/// Pairs of a name and a value, one on a line, for `describe` and the like.
pub(crate) fn facts(pairs: &[(&str, String)]) -> String {
    let widest = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let mut text = String::new();
    for (name, value) in pairs {
        let name = format!("{name}:");
        let _ = writeln!(text, "{name:<widest$}  {value}"); // writing to a string never fails
    }
    text
}

/// Text from outside as a terminal may show it: control characters are shown, not obeyed.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() && character != '\t' {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}

/// A number of bytes for people: three digits and a unit.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut unit = 0;
    let mut whole = count;
    let mut tenth = 0;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        tenth = (whole % 1024) * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    if unit == 0 || whole >= 100 {
        format!("{whole} {}", UNITS[unit])
    } else {
        format!("{whole}.{tenth} {}", UNITS[unit])
    }
}

/// How long ago `then` was.
pub(crate) fn age(now_ms: u64, then_ms: u64) -> String {
    if then_ms > now_ms + 1_000 {
        return "in the future".into();
    }
    duration(now_ms.saturating_sub(then_ms))
}

/// How long ago these times were, the shortest and the longest: `3 d`, or `12 s to 3 d`.
pub(crate) fn ages(now_ms: u64, then_ms: impl Iterator<Item = u64>) -> String {
    let times: Vec<u64> = then_ms.collect();
    let (Some(last), Some(first)) = (times.iter().max(), times.iter().min()) else {
        return "-".into();
    };
    match [last, first].map(|then_ms| age(now_ms, *then_ms)) {
        [shortest, longest] if shortest == longest => shortest,
        [shortest, longest] => format!("{shortest} to {longest}"),
    }
}

/// A point in time in UTC, RFC 3339 with milliseconds.
pub(crate) fn timestamp(milliseconds: u64) -> String {
    // Later than year 9999 nothing can be written; such a time is not ours.
    const LAST_MS: u64 = 253_402_300_799_999;
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(milliseconds.min(LAST_MS));
    humantime::format_rfc3339_millis(time).to_string()
}

/// Now, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(43_008), "42.0 KiB");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
        assert_eq!(bytes(300 << 20), "300 MiB");
        assert_eq!(duration(900), "900 ms");
        assert_eq!(duration(61_000), "61 s");
        assert_eq!(duration(7_300_000), "2 h");
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(timestamp(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(timestamp(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn columns_are_as_wide_as_they_need() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["gateway".into(), "up".into()]);
        table.row(["a".into(), "down".into()]);
        assert_eq!(
            table.render("none"),
            "NAME     STATE\ngateway  up\na        down\n"
        );
        assert_eq!(Table::new(&["NAME"]).render("none yet"), "none yet\n");
    }

    #[test]
    fn text_from_outside_does_not_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
    }
}
