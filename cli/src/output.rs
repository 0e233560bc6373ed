//! What commands print: tables and sentences for people, the API's JSON for programs. Results go
//! to stdout, everything else to stderr. A reader that goes away (`| head`) ends the command
//! without a word. Colours are for tables on a terminal; documents never have any.

mod table;
mod yaml;

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use haar_protocol::rest::HealthState;
use serde::Serialize;

pub(crate) use haar_protocol::text::duration;
pub(crate) use table::Table;

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
    /// The same, easier to read.
    Yaml,
    /// Only what things are called: KIND/NAME.
    Name,
}

/// Whether what people read has colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    /// On terminals that have them; `NO_COLOR`, `CLICOLOR` and `TERM=dumb` are respected.
    #[default]
    Auto,
    /// Always, also in pipes.
    Always,
    /// Never.
    Never,
}

/// How documents are written. Set once, by [`begin`].
static FORMAT: OnceLock<Format> = OnceLock::new();
/// True once a YAML document was written: another one needs a line between them.
static WRITTEN: AtomicBool = AtomicBool::new(false);

/// Says how everything is written from now on. Called once, by `main`.
pub(crate) fn begin(format: Format, color: Color) {
    let _ = FORMAT.set(format); // a second call would change nothing
    if format == Format::Json {
        keep_warnings();
    }
    let is_colored = match color {
        Color::Auto => return,
        Color::Always => true,
        Color::Never => false,
    };
    console::set_colors_enabled(is_colored);
    console::set_colors_enabled_stderr(is_colored);
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

/// Warnings for the next JSON document; `None` while warnings go to people. Locked only while a warning
/// is added or the document is written.
static WAITING: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// From now on warnings are part of the JSON documents.
fn keep_warnings() {
    *WAITING.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
}

/// Takes the warnings that are not in a document yet.
pub(crate) fn take_warnings() -> Vec<String> {
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.as_mut().map(std::mem::take).unwrap_or_default()
}

/// Writes the remaining warnings to stderr, as a document of their own.
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

/// Writes `value` as a document for programs to stdout. An object includes the waiting warnings.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let failed = |error| CommandError::failure(format!("can't write the result: {error}"));
    if is_yaml() {
        return write_yaml(&serde_json::to_value(value).map_err(failed)?);
    }
    let warnings = take_warnings();
    let text = match serde_json::to_value(value).map_err(failed)? {
        serde_json::Value::Object(_) if !warnings.is_empty() => {
            serde_json::to_string_pretty(&WithWarnings { value, warnings })
        }
        _ => serde_json::to_string_pretty(value),
    };
    line(text.map_err(failed)?)
}

/// Writes the API's JSON as a document for programs to stdout, with what this release does not know.
pub(crate) fn answer(json: &str) -> Result<()> {
    match serde_json::from_str(json) {
        Ok(value) if is_yaml() => write_yaml(&value),
        _ => line(json.trim_end()),
    }
}

fn is_yaml() -> bool {
    FORMAT.get() == Some(&Format::Yaml)
}

fn write_yaml(value: &serde_json::Value) -> Result<()> {
    let separator = match WRITTEN.swap(true, Ordering::Relaxed) {
        true => "---\n",
        false => "",
    };
    text(&format!("{separator}{}", yaml::document(value)))
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

/// A text in the colour of the state that it tells.
pub(crate) fn colored(text: impl std::fmt::Display, state: HealthState) -> String {
    let text = console::style(text);
    match state {
        HealthState::Healthy => text.green(),
        HealthState::Progressing | HealthState::Degraded | HealthState::Unknown => text.yellow(),
        HealthState::Failed => text.red(),
    }
    .to_string()
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
    fn colours_take_no_place_in_a_column() {
        let mut table = Table::new(&["STATE", "NAME"]);
        let red = console::style("failed").force_styling(true).red();
        table.row([red.to_string(), "a".into()]);
        table.row(["up".into(), "b".into()]);
        let rendered = table.render("none");
        assert!(rendered.contains('\u{1b}'), "{rendered:?}");
        assert_eq!(
            console::strip_ansi_codes(&rendered),
            "STATE   NAME\nfailed  a\nup      b\n"
        );
    }

    #[test]
    fn text_from_outside_does_not_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
    }
}
