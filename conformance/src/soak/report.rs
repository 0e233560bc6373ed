//! What came of a soak, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::account::Account;
use super::fleet::Ledger;
use super::plan::Fault;

/// What came of a run.
pub(crate) struct Report {
    pub(crate) seed: u64,
    /// From the first message to the last.
    pub(crate) time: Duration,
    pub(crate) injected: Vec<Fault>,
    /// What half-open connections took.
    pub(crate) swallowed_bytes: u64,
    pub(crate) ledger: Ledger,
}

impl Report {
    /// What must not be.
    pub(crate) fn violations(&self) -> Vec<String> {
        let routes = self.ledger.iter().flat_map(|(route, account)| {
            let violations = account.violations().into_iter();
            violations.map(move |(what, count)| format!("{route}: {count} {what}"))
        });
        routes.collect()
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "\n{} messages, {} faults, {:.0} s: {:.0} messages/s; half-open connections swallowed {} bytes; seed {}\n\n",
            self.messages(),
            self.injected.len(),
            self.time.as_secs_f64(),
            self.rate(),
            self.swallowed_bytes,
            self.seed,
        );
        for (name, times) in self.faults() {
            text.push_str(&format!("{times:>5}  {name}\n"));
        }
        text.push_str(&format!(
            "\n{:<30} {:>8} {:>8} {:>7} {:>7} {:>7} {:>8} {:>5} {:>10} {:>11} {:>8} {:>11} {:>7}\n",
            "route",
            "stored",
            "handled",
            "refused",
            "unknown",
            "repeats",
            "rejected",
            "lost",
            "disordered",
            "unexplained",
            "invented",
            "misnumbered",
            "damaged"
        ));
        for (route, account) in &self.ledger {
            text.push_str(&line(route, account));
        }
        let violations = self.violations();
        if violations.is_empty() {
            text.push_str("\nnothing lost, nothing out of order, every repeat is explained\n");
        }
        for violation in violations {
            text.push_str(&format!("\nVIOLATION  {violation}"));
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let routes: Vec<Value> = self
            .ledger
            .iter()
            .map(|(route, account)| json!({ "route": route, "account": account.json() }))
            .collect();
        json!({
            "seed": self.seed,
            "messages": self.messages(),
            "seconds": self.time.as_secs_f64(),
            "messages_per_second": self.rate(),
            "faults": self.injected.len(),
            "faults_by_kind": self.faults(),
            "swallowed_bytes": self.swallowed_bytes,
            "routes": routes,
            "violations": self.violations(),
        })
    }

    /// Different messages that crossed from one node to the other.
    fn messages(&self) -> u64 {
        let crossing = self.ledger.iter().take(2);
        crossing.map(|(_, account)| account.handled).sum()
    }

    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    fn rate(&self) -> f64 {
        self.messages() as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn faults(&self) -> BTreeMap<&'static str, u64> {
        let mut times = BTreeMap::new();
        for fault in &self.injected {
            *times.entry(fault.name()).or_default() += 1;
        }
        times
    }
}

fn line(route: &str, account: &Account) -> String {
    format!(
        "{route:<30} {:>8} {:>8} {:>7} {:>7} {:>7} {:>8} {:>5} {:>10} {:>11} {:>8} {:>11} {:>7}\n",
        account.stored,
        account.handled,
        account.refused,
        account.unknown,
        account.repeats,
        account.rejected,
        account.lost,
        account.disordered,
        account.unexplained,
        account.invented,
        account.misnumbered,
        account.damaged
    )
}
