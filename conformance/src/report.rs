//! What came of a run, for people and for programs.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::case::Case;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What came of one case.
pub(crate) struct Outcome {
    /// The case.
    pub(crate) case: &'static Case,
    /// How long it took.
    pub(crate) time: Duration,
    /// Why it failed, if it did.
    pub(crate) failure: Option<String>,
    /// The last status and the end of the agent's log, when it failed.
    pub(crate) diagnosis: String,
    /// What is worth knowing.
    pub(crate) notes: Vec<String>,
    /// What was measured.
    pub(crate) figures: Vec<(String, f64)>,
}

impl Outcome {
    fn word(&self) -> &'static str {
        if self.failure.is_some() {
            "FAILED"
        } else {
            "ok"
        }
    }
}

/// The line of one case, printed as soon as it has ended.
pub(crate) fn line(outcome: &Outcome) -> String {
    let failure = outcome.failure.as_deref().unwrap_or_default();
    let mut notes: Vec<&str> = outcome.notes.iter().map(String::as_str).collect();
    notes.extend(failure.lines().next().filter(|line| !line.is_empty()));
    format!(
        "{:<6} {:>6.1} s  {:<68} {:<24} {}",
        outcome.word(),
        outcome.time.as_secs_f64(),
        outcome.case.name,
        outcome.case.requirements.join(","),
        notes.join("; ")
    )
    .trim_end()
    .to_owned()
}

/// Everything about the failures, and the sums.
pub(crate) fn summary(outcomes: &[Outcome], time: Duration) -> String {
    let mut text = String::new();
    for outcome in outcomes {
        if let Some(failure) = &outcome.failure {
            text.push_str(&format!(
                "\n---- {}\n{failure}\n{}\n",
                outcome.case.name, outcome.diagnosis
            ));
        }
    }
    let failed = outcomes.iter().filter(|one| one.failure.is_some()).count();
    text.push_str(&format!(
        "\n{} cases, {failed} failed, {:.0} s",
        outcomes.len(),
        time.as_secs_f64()
    ));
    text
}

/// The run for programs.
pub(crate) fn json(outcomes: &[Outcome], time: Duration) -> Value {
    let cases: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            let figures: Map<String, Value> = outcome
                .figures
                .iter()
                .map(|(name, value)| (name.clone(), json!(value)))
                .collect();
            json!({
                "name": outcome.case.name,
                "requirements": outcome.case.requirements,
                "outcome": outcome.word().to_lowercase(),
                "seconds": outcome.time.as_secs_f64(),
                "failure": outcome.failure,
                "diagnosis": outcome.diagnosis,
                "notes": outcome.notes,
                "figures": figures,
            })
        })
        .collect();
    let failed = outcomes.iter().filter(|one| one.failure.is_some()).count();
    json!({ "cases": cases, "failed": failed, "seconds": time.as_secs_f64() })
}
