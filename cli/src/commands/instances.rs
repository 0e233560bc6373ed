//! Instances of microservices with everything that their nodes say of them: what they use, which
//! limits they exceeded, and how they last failed. For `haar describe` and wide tables.

use std::fmt::Write as _;

use haar_protocol::rest::Microservice;
use haar_protocol::status::{Exceeded, FailureReport, MicroserviceStatus};

use super::get;
use crate::output::{self, Table, facts};

/// Instances of a long list of which everything is told.
const DETAILED_MAX: usize = 10;

/// Instances with all columns.
pub(super) fn wide(
    microservices: &[Microservice],
    now: u64,
    all_remarks: bool,
    none: &str,
) -> String {
    let mut table = Table::new(&[
        "MICROSERVICE",
        "NODE",
        "STATE",
        "SINCE",
        "MODULE",
        "CALLS",
        "FAILURES",
        "RESTARTS",
        "DISCARDED",
        "COUNTED",
        "MEMORY",
        "CPU",
        "INBOX",
        "KEY-VALUE",
        "FILES",
        "DEAD LETTERS",
        "EXCEEDED",
    ]);
    for microservice in get::worst_first(microservices, |one| &one.health) {
        let status = microservice.status.as_ref();
        let told = |show: &dyn Fn(&MicroserviceStatus) -> String| {
            status.map_or_else(|| "-".to_owned(), show)
        };
        table.row([
            microservice.name.to_string(),
            microservice.node.to_string(),
            get::state_cell(microservice),
            get::since_age(microservice, now),
            output::printable(&microservice.module_label),
            told(&|status| status.calls.to_string()),
            told(&|status| status.failures.to_string()),
            told(&|status| status.restarts.to_string()),
            told(&|status| status.discarded.to_string()),
            get::counted(microservice.counted.as_ref(), now),
            told(&|status| output::bytes(status.memory_bytes)),
            told(&|status| output::duration(status.cpu_ms)),
            told(&|status| status.inbox_messages.to_string()),
            told(&|status| output::bytes(status.key_value_bytes)),
            told(&|status| output::bytes(status.files_bytes)),
            told(&|status| status.dead_letters.to_string()),
            told(&|status| exceeded(&status.exceeded).unwrap_or_else(|| "-".to_owned())),
        ]);
    }
    get::remarks(microservices, now, all_remarks, &table.render(none))
}

/// Instances as a table, and below it what is worth saying of each; of many only of the first that are
/// not as they should be.
pub(super) fn described(microservices: &[Microservice], now: u64) -> String {
    let mut text = get::instances(microservices, now, false, "It runs nowhere.");
    let is_long = microservices.len() > get::LONG;
    let all = get::worst_first(microservices, |one| &one.health);
    let mut told: Vec<&Microservice> = all
        .into_iter()
        .filter(|one| one.status.is_some() && (!is_long || !one.health.is_healthy()))
        .collect();
    if is_long {
        told.truncate(DETAILED_MAX);
    }
    let left_out = is_long && told.len() < microservices.len();
    for microservice in told {
        if let Some(status) = &microservice.status {
            let _ = write!(
                text,
                "\n{} on {}\n{}",
                microservice.name,
                microservice.node,
                usage(status)
            ); // writing to a string never fails
        }
    }
    if left_out {
        text += "\nOf the others: `haar describe microservice NAME --node NODE`\n";
    }
    text
}

fn usage(status: &MicroserviceStatus) -> String {
    let mut pairs = vec![
        ("  CPU", output::duration(status.cpu_ms)),
        ("  Memory", output::bytes(status.memory_bytes)),
        (
            "  Inbox",
            format!("{} messages wait", status.inbox_messages),
        ),
        ("  Key-value", output::bytes(status.key_value_bytes)),
        ("  Files", output::bytes(status.files_bytes)),
        ("  Dead letters", status.dead_letters.to_string()),
    ];
    if let Some(exceeded) = exceeded(&status.exceeded) {
        pairs.push(("  Exceeded", exceeded));
    }
    let mut text = facts(&pairs);
    if let Some(report) = &status.last_failure {
        text.push_str(&failure(report));
    }
    text
}

/// The limits that were exceeded, with how often; none when none was.
fn exceeded(exceeded: &Exceeded) -> Option<String> {
    let counts: Vec<String> = exceeded
        .by_name()
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count} times"))
        .collect();
    (!counts.is_empty()).then(|| counts.join(", "))
}

fn failure(report: &FailureReport) -> String {
    let mut text = format!(
        "  Last failure, {}: {}\n",
        output::timestamp(report.time_ms),
        report.cause
    );
    let parts = [
        ("", report.details.lines().collect::<Vec<_>>()),
        (
            "backtrace:",
            report.backtrace.iter().map(String::as_str).collect(),
        ),
        (
            "last lines:",
            report.last_lines.iter().map(String::as_str).collect(),
        ),
    ];
    for (title, lines) in parts {
        if lines.is_empty() {
            continue;
        }
        if !title.is_empty() {
            let _ = writeln!(text, "    {title}"); // writing to a string never fails
        }
        for line in lines {
            let _ = writeln!(text, "    {}", output::printable(line));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use haar_protocol::status::FailureCause;
    use serde_json::json;

    use super::*;

    fn instance() -> Microservice {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let mut instance: Microservice = serde_json::from_value(json!({
            "application": "plant", "microservice": "filter", "node": "gw-1", "node_online": true,
            "health": {"state": "failed", "cause": "back-off", "since_ms": 1_000,
                       "reason": "it failed, and starts again after a pause: it panicked"},
            "wanted": true, "module": digest, "module_label": "filter@1.4.0",
            "status": {
                "application": "plant", "microservice": "filter", "module": digest,
                "module_label": "filter@1.4.0", "state": "back-off", "reason": "it panicked",
                "since_ms": 1_000, "restarts": 2, "calls": 10, "failures": 3, "fuel": 4,
                "memory_bytes": 2_097_152, "log_lines_dropped": 0, "cpu_ms": 1_234,
                "inbox_messages": 5, "key_value_bytes": 1_024, "files_bytes": 4_096,
                "dead_letters": 1, "exceeded": {"memory": 2, "log": 7},
            },
        }))
        .unwrap();
        instance.status.as_mut().unwrap().last_failure = Some(FailureReport {
            time_ms: 1_700_000_000_000,
            cause: FailureCause::Unreachable,
            details: "wasm `unreachable` instruction executed".into(),
            backtrace: vec!["filter::handle at src/lib.rs:12".into()],
            last_lines: vec!["ERROR no such \u{1b}[2Jsensor".into()],
        });
        instance
    }

    #[test]
    fn people_see_usage_and_exceeded_limits_and_the_last_failure() {
        insta::assert_snapshot!(described(&[instance()], 61_000));
    }

    #[test]
    fn a_wide_table_has_what_is_used() {
        insta::assert_snapshot!(wide(&[instance()], 61_000, false, "None."));
    }
}
