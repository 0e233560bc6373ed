//! Waits until what was applied runs: every node has taken its new assignment, and reports every
//! instance as running with the module that it should have. Deciding is pure; see [`judge`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use haar_protocol::ids::Digest;
use haar_protocol::rest::{ApplyResult, Microservice, ModuleCode, Node};
use haar_protocol::status::State;

use crate::client::Client;
use crate::error::{CommandError, Result};
use crate::interrupt;
use crate::output;
use crate::progress::Progress;

/// The site is asked again after this pause, then after twice as much, and so on.
const FIRST_POLL: Duration = Duration::from_millis(20);
const LAST_POLL: Duration = Duration::from_millis(320);
/// A refusal must have been said for so long before it is believed: a module may still be on its way.
const REFUSED_FOR: Duration = Duration::from_millis(1_200);

/// After this time the site is asked what it compiles.
const COMPILED_WITHIN: Duration = Duration::from_secs(1);

/// How far an application is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Everything runs.
    Running { instances: usize },
    /// Not yet: how many run, and what is missed first.
    Waiting {
        running: usize,
        instances: usize,
        missing: Vec<String>,
    },
    /// It will not run as it is.
    Refused(Vec<String>),
}

/// Waits until all instances run, for `time` at most, showing how far it is.
pub(crate) fn until_running(
    client: &Client,
    applied: &ApplyResult,
    time: Duration,
    progress: Progress,
) -> Result<()> {
    let began = Instant::now();
    let end = began + time;
    let step = progress.step(format!("Waiting for {}", applied.name));
    let mut refused_since = None;
    let mut poll = FIRST_POLL;
    let mut shown = String::new();
    loop {
        let microservices: Vec<Microservice> =
            client.list(&format!("microservices?application={}", applied.name))?;
        let nodes: Vec<Node> = client.list("nodes")?;
        let verdict = judge(applied, &microservices, &nodes);
        refused_since = match verdict {
            Verdict::Refused(_) => refused_since.or_else(|| Some(Instant::now())),
            _ => None,
        };
        match verdict {
            Verdict::Running { instances } => {
                step.done(format!(
                    "{} runs: {instances} of {instances} instances",
                    applied.name
                ));
                return Ok(());
            }
            Verdict::Refused(reasons)
                if refused_since.is_some_and(|since| since.elapsed() >= REFUSED_FOR) =>
            {
                return Err(refused(applied, &reasons));
            }
            Verdict::Waiting { mut missing, .. } | Verdict::Refused(mut missing)
                if Instant::now() >= end =>
            {
                missing.extend(compiling(client, &microservices)?);
                return Err(timed_out(applied, time, &missing));
            }
            Verdict::Waiting {
                running, instances, ..
            } => {
                let mut now = format!("Waiting for {}: {running} of {instances} run", applied.name);
                // Small modules are compiled before anybody could read of it.
                if began.elapsed() >= COMPILED_WITHIN
                    && let Some(progress) = compiling(client, &microservices)?.first()
                {
                    now = format!("{now}; {progress}");
                }
                if now != shown {
                    step.now(&now);
                    shown = now;
                }
            }
            Verdict::Refused(_) => {}
        }
        interrupt::sleep(poll)?;
        poll = (poll * 2).min(LAST_POLL);
    }
}

/// What the site compiles for instances that do not run yet.
fn compiling(client: &Client, microservices: &[Microservice]) -> Result<Vec<String>> {
    let mut told = Vec::new();
    for (digest, label) in not_up(microservices) {
        let code: Vec<ModuleCode> = client.list(&format!("modules/{digest}/code"))?;
        let under_way = code.iter().filter_map(|code| {
            let progress = output::printable(code.progress.as_ref()?);
            let target = output::printable(&code.target);
            Some(format!(
                "{} for {target}: {progress}",
                output::printable(label)
            ))
        });
        told.extend(under_way);
    }
    Ok(told)
}

/// The modules of instances that do not run.
fn not_up(microservices: &[Microservice]) -> BTreeMap<Digest, &str> {
    let waiting = microservices.iter().filter(|microservice| {
        let status = microservice.status.as_ref();
        let is_up =
            status.is_some_and(|one| one.module == microservice.module && one.state.is_up());
        microservice.wanted && !is_up
    });
    waiting
        .map(|microservice| (microservice.module, microservice.module_label.as_str()))
        .collect()
}

fn judge(applied: &ApplyResult, microservices: &[Microservice], nodes: &[Node]) -> Verdict {
    let mut refusals = Vec::new();
    let mut missing = Vec::new();
    for (name, number) in &applied.assignments {
        let Some(node) = nodes.iter().find(|node| node.name == *name) else {
            continue;
        };
        match &node.refused {
            Some(refused)
                if refused.number.is_none_or(|refused| refused >= *number)
                    && node.applied < *number =>
            {
                refusals.push(format!(
                    "{name} refuses its assignment: {}",
                    output::printable(&refused.reason)
                ));
            }
            _ if node.applied < *number && !node.online => missing.push(format!(
                "{name} is offline: it runs it as soon as it is back"
            )),
            _ if node.applied < *number => {
                missing.push(format!("{name} has not taken its assignment yet"))
            }
            _ => {}
        }
    }
    let wanted: Vec<&Microservice> = microservices
        .iter()
        .filter(|microservice| microservice.wanted)
        .collect();
    let mut running = 0;
    for microservice in &wanted {
        let current = microservice
            .status
            .as_ref()
            .filter(|status| status.module == microservice.module);
        let name = format!(
            "{} on {}",
            microservice.name.microservice, microservice.node
        );
        let reported = microservice.status.as_ref();
        // What another module did is not the reason why this one does not run.
        let why = reported
            .filter(|status| {
                [Some(status.module), status.refused_module].contains(&Some(microservice.module))
            })
            .and_then(|status| status.reason.as_deref())
            .map(|reason| format!(": {}", output::printable(reason)))
            .unwrap_or_default();
        if reported.and_then(|status| status.refused_module) == Some(microservice.module) {
            refusals.push(format!("{name} is refused, and goes on as before{why}"));
            continue;
        }
        match current.map(|status| status.state) {
            Some(state) if state.is_up() => running += 1,
            Some(State::Refused) => refusals.push(format!("{name} is refused{why}")),
            Some(state) => missing.push(format!("{name} is in state {state}{why}")),
            None if microservice.node_online => missing.push(format!("{name} is not reported yet")),
            None => missing.push(format!("{name} waits for its node, which is offline")),
        }
    }
    // The site may be a moment behind what it has just answered.
    if wanted.len() < applied.placements.len() {
        missing.push("the site has not listed every instance yet".to_owned());
    }
    match (refusals.is_empty(), missing.is_empty()) {
        (false, _) => Verdict::Refused(refusals),
        (true, true) => Verdict::Running { instances: running },
        (true, false) => Verdict::Waiting {
            running,
            instances: wanted.len(),
            missing,
        },
    }
}

fn refused(applied: &ApplyResult, reasons: &[String]) -> CommandError {
    CommandError::refused(
        "not_running",
        format!("{} does not run:\n{}", applied.name, reasons.join("\n")),
    )
    .hinted("The application stays applied; apply a corrected manifest to replace it.")
}

fn timed_out(applied: &ApplyResult, time: Duration, missing: &[String]) -> CommandError {
    let time = output::duration(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let mut error = CommandError::failure(format!(
        "{} does not run yet, after {time}:\n{}",
        applied.name,
        missing.join("\n")
    ));
    error.code = "not_running_yet".into();
    error.hinted("It stays applied. `haar get microservices` shows how it goes on; --no-wait does not wait, --wait=2min waits longer.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn applied() -> ApplyResult {
        serde_json::from_value(json!({
            "name": "fleet", "revision": 2, "changed": true, "dry_run": false, "warnings": [],
            "placements": [{"microservice": "sampler", "node": "sensor"}], "assignments": {"sensor": 7}
        }))
        .unwrap()
    }

    fn node(online: bool, applied: u64, refused: Option<&str>) -> Node {
        serde_json::from_value(json!({
            "name": "sensor", "id": format!("n{}", "a".repeat(26)), "labels": {}, "online": online,
            "last_seen_ms": 1, "assignment": 7, "applied": applied,
            "refused": refused.map(|reason| json!({"number": 7, "reason": reason})),
            "agent_version": "0.1.0", "target": "x", "budget": {"memory": "1MiB", "microservices": 4},
            "resident_bytes": null, "clock_skew_ms": null
        }))
        .unwrap()
    }

    fn microservice(state: Option<&str>, current: bool) -> Microservice {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        serde_json::from_value(json!({
            "application": "fleet", "microservice": "sampler", "node": "sensor", "node_online": true,
            "module": digest("a"), "module_label": "sampler@1.0.0", "wanted": true,
            "status": state.map(|state| json!({
                "application": "fleet", "microservice": "sampler", "module": digest(if current { "a" } else { "b" }),
                "module_label": "sampler@1.0.0", "state": state, "reason": null, "since_ms": 1, "restarts": 0,
                "calls": 0, "failures": 0, "fuel": 0, "memory_bytes": 0, "log_lines_dropped": 0
            }))
        }))
        .unwrap()
    }

    fn waits(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Waiting { .. })
    }

    #[test]
    fn runs_when_the_node_has_taken_the_assignment_and_reports_the_module() {
        let verdict = judge(
            &applied(),
            &[microservice(Some("running"), true)],
            &[node(true, 7, None)],
        );
        assert_eq!(verdict, Verdict::Running { instances: 1 });
    }

    #[test]
    fn an_older_module_or_assignment_that_runs_does_not_count() {
        assert!(waits(&judge(
            &applied(),
            &[microservice(Some("running"), false)],
            &[node(true, 7, None)]
        )));
        assert!(waits(&judge(
            &applied(),
            &[microservice(Some("running"), true)],
            &[node(true, 6, None)]
        )));
        assert!(waits(&judge(
            &applied(),
            &[microservice(None, true)],
            &[node(true, 7, None)]
        )));
        assert!(waits(&judge(&applied(), &[], &[node(true, 7, None)])));
    }

    #[test]
    fn the_site_is_asked_for_modules_of_which_an_instance_does_not_run() {
        let (runs, waits) = (Some("running"), Some("preparing"));
        assert!(not_up(&[microservice(runs, true)]).is_empty());
        for listed in [
            microservice(waits, true),
            microservice(runs, false),
            microservice(None, true),
        ] {
            let listed = [listed];
            assert_eq!(
                not_up(&listed),
                BTreeMap::from([(listed[0].module, "sampler@1.0.0")])
            );
        }
    }

    #[test]
    fn what_the_module_before_did_is_not_the_reason_why_the_new_one_does_not_run() {
        let mut listed = microservice(Some("back-off"), false);
        listed.status.as_mut().unwrap().reason = Some("sampler@0.9.0: unreachable".into());
        let verdict = judge(&applied(), &[listed.clone()], &[node(true, 7, None)]);
        let Verdict::Waiting { missing, .. } = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(missing, ["sampler on sensor is not reported yet"]);
        listed.status.as_mut().unwrap().module = listed.module;
        let verdict = judge(&applied(), &[listed], &[node(true, 7, None)]);
        let Verdict::Waiting { missing, .. } = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(
            missing,
            ["sampler on sensor is in state back-off: sampler@0.9.0: unreachable"]
        );
    }

    #[test]
    fn a_refused_change_is_a_refusal_while_what_ran_before_goes_on() {
        let mut listed = microservice(Some("running"), false);
        let status = listed.status.as_mut().unwrap();
        status.refused_module = Some(listed.module);
        status.reason = Some("the policy of this device allows no directory".into());
        let verdict = judge(&applied(), &[listed.clone()], &[node(true, 7, None)]);
        let Verdict::Refused(reasons) = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(
            reasons,
            [
                "sampler on sensor is refused, and goes on as before: the policy of this device allows no directory"
            ]
        );
        // It was another change that was refused then.
        let other = listed.status.as_ref().unwrap().module;
        listed.status.as_mut().unwrap().refused_module = Some(other);
        assert!(waits(&judge(&applied(), &[listed], &[node(true, 7, None)])));
    }

    #[test]
    fn a_refusal_is_told_with_its_reason() {
        let verdict = judge(
            &applied(),
            &[microservice(None, true)],
            &[node(true, 6, Some("over its budget"))],
        );
        assert_eq!(
            verdict,
            Verdict::Refused(vec![
                "sensor refuses its assignment: over its budget".into()
            ])
        );
    }
}
