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

/// Whether a case proved what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It did.
    Ok,
    /// It could not be tried here, and why.
    Skipped(String),
    /// It did not, and what is wrong.
    Failed(String),
}

/// What came of one case.
pub(crate) struct Outcome {
    /// The case.
    pub(crate) case: &'static Case,
    /// How long it took.
    pub(crate) time: Duration,
    /// Whether it proved what it should.
    pub(crate) verdict: Verdict,
    /// The last status and the end of the agent's log, when it failed.
    pub(crate) diagnosis: String,
    /// What is worth knowing.
    pub(crate) notes: Vec<String>,
    /// What was measured.
    pub(crate) figures: Vec<(String, f64)>,
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Skipped(_) => "skipped",
            Verdict::Failed(_) => "FAILED",
        }
    }

    /// What is wrong, when it failed.
    pub(crate) fn failure(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Failed(failure) => Some(failure),
            Verdict::Ok | Verdict::Skipped(_) => None,
        }
    }

    /// Why it was not tried, when it was not.
    pub(crate) fn skipped(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Skipped(why) => Some(why),
            Verdict::Ok | Verdict::Failed(_) => None,
        }
    }
}

/// The line of one case, printed as soon as it has ended.
pub(crate) fn line(outcome: &Outcome) -> String {
    let why = outcome.failure().or(outcome.skipped()).unwrap_or_default();
    let mut notes: Vec<&str> = outcome.notes.iter().map(String::as_str).collect();
    notes.extend(why.lines().next().filter(|line| !line.is_empty()));
    format!(
        "{:<7} {:>6.1} s  {:<68} {:<24} {}",
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
        if let Some(failure) = outcome.failure() {
            text.push_str(&format!(
                "\n---- {}\n{failure}\n{}\n",
                outcome.case.name, outcome.diagnosis
            ));
        }
    }
    let (failed, skipped) = count(outcomes);
    text.push_str(&format!(
        "\n{} cases, {failed} failed, {skipped} skipped, {:.0} s",
        outcomes.len(),
        time.as_secs_f64()
    ));
    text
}

/// How many failed, and how many were skipped.
pub(crate) fn count(outcomes: &[Outcome]) -> (usize, usize) {
    let failed = outcomes.iter().filter_map(Outcome::failure).count();
    let skipped = outcomes.iter().filter_map(Outcome::skipped).count();
    (failed, skipped)
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
                "failure": outcome.failure(),
                "skipped": outcome.skipped(),
                "diagnosis": outcome.diagnosis,
                "notes": outcome.notes,
                "figures": figures,
            })
        })
        .collect();
    let (failed, skipped) = count(outcomes);
    json!({ "cases": cases, "failed": failed, "skipped": skipped, "seconds": time.as_secs_f64() })
}
