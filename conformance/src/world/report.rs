//! What came of the checks, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

/// What came of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    /// As the broker is known to behave.
    Deviates,
    Failed,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Deviates => "deviates",
            Outcome::Failed => "FAILED",
        }
    }
}

/// One check with one broker and one client.
pub(super) struct Row {
    pub(super) broker: &'static str,
    pub(super) broker_version: String,
    pub(super) client: &'static str,
    pub(super) client_version: String,
    /// The version of MQTT.
    pub(super) protocol: &'static str,
    pub(super) check: &'static str,
    pub(super) outcome: Outcome,
    /// What is worth knowing, or what is wrong.
    pub(super) note: String,
    pub(super) time: Duration,
}

/// The line of one check.
pub(super) fn line(row: &Row) -> String {
    let broker = format!("{} {}", row.broker, row.broker_version);
    let client = format!("{} {}", row.client, row.client_version);
    format!(
        "{:<8} {:>6.1} s  {broker:<17} {client:<24} MQTT {:<5}  {:<44} {}",
        row.outcome.word(),
        row.time.as_secs_f64(),
        row.protocol,
        row.check,
        row.note
    )
    .trim_end()
    .to_owned()
}

/// The sums.
pub(super) fn summary(rows: &[Row], time: Duration) -> String {
    let count = |outcome| rows.iter().filter(|row| row.outcome == outcome).count();
    format!(
        "\n{} checks, {} deviate, {} failed, {:.0} s",
        rows.len(),
        count(Outcome::Deviates),
        count(Outcome::Failed),
        time.as_secs_f64()
    )
}

/// The run for programs.
pub(super) fn json(rows: &[Row], time: Duration) -> Value {
    let checks = rows.iter().map(|row| {
        json!({
            "broker": row.broker,
            "broker_version": row.broker_version,
            "client": row.client,
            "client_version": row.client_version,
            "mqtt": row.protocol,
            "check": row.check,
            "outcome": row.outcome.word().to_lowercase(),
            "note": row.note,
            "seconds": row.time.as_secs_f64(),
        })
    });
    let failed = rows.iter().filter(|row| row.outcome == Outcome::Failed);
    json!({ "checks": checks.collect::<Vec<_>>(), "failed": failed.count(), "seconds": time.as_secs_f64() })
}
