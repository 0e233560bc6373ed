//! Waits until what was applied runs, as far as the site says: the controller judges every instance,
//! this only reads what it says; see [`judge`]. A controller of an earlier release judges nothing: what
//! the node reports counts then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use haar_protocol::ids::Digest;
use haar_protocol::rest::{
    Application, ApplicationDetail, ApplyResult, Cause, Microservice, ModuleCode,
};
use haar_protocol::status::State;

use crate::client::Client;
use crate::error::{CommandError, Result};
use crate::interrupt;
use crate::output;
use crate::progress::Progress;

/// The site is asked again after this pause, then after twice as much, and so on.
const FIRST_POLL: Duration = Duration::from_millis(20);
const LAST_POLL: Duration = Duration::from_secs(1);
/// A refusal must have been said for so long before it is believed: a module may still be on its way.
const REFUSED_FOR: Duration = Duration::from_millis(1_200);

/// How the wait ended.
pub(crate) struct Waited {
    /// The application as the site showed it last.
    pub(crate) application: Option<Application>,
    /// An error when not every instance that has a place runs.
    pub(crate) result: Result<()>,
}
/// How long the wait lasts before the site is asked what it compiles.
const COMPILED_WITHIN: Duration = Duration::from_secs(1);

/// How far an application is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Every placed instance runs.
    Running,
    /// Not yet, with what is missing.
    Waiting(Vec<String>),
    /// It will not run as it is.
    Refused(Vec<String>),
}

/// Waits until all instances that have a place run, for `time` at most, showing how far it is.
pub(crate) fn until_running(
    client: &Client,
    applied: &ApplyResult,
    time: Duration,
    progress: Progress,
) -> Waited {
    let mut application = None;
    let result = wait(client, applied, time, progress, &mut application);
    Waited {
        application,
        result,
    }
}

fn wait(
    client: &Client,
    applied: &ApplyResult,
    time: Duration,
    progress: Progress,
    last: &mut Option<Application>,
) -> Result<()> {
    let began = Instant::now();
    let end = began + time;
    let step = progress.step(format!("Waiting for {}", applied.name));
    let path = format!("applications/{}", applied.name);
    let mut refused_since = None;
    let mut poll = FIRST_POLL;
    let mut shown = String::new();
    loop {
        let detail: ApplicationDetail = client.parse(&client.get_text(&path)?)?;
        let verdict = judge(applied, &detail);
        let ApplicationDetail {
            application,
            microservices,
            ..
        } = detail;
        let application = last.insert(application);
        let (running, instances) = (application.running, application.instances);
        refused_since = match verdict {
            Verdict::Refused(_) => refused_since.or_else(|| Some(Instant::now())),
            _ => None,
        };
        match verdict {
            Verdict::Running => {
                step.done(format!(
                    "{} runs: {running} of {instances} instances",
                    applied.name
                ));
                return Ok(());
            }
            Verdict::Refused(reasons)
                if refused_since.is_some_and(|since| since.elapsed() >= REFUSED_FOR) =>
            {
                return Err(refused(applied, &reasons));
            }
            Verdict::Waiting(mut missing) | Verdict::Refused(mut missing)
                if Instant::now() >= end =>
            {
                missing.extend(compiling(client, &microservices)?);
                return Err(timed_out(applied, time, &missing, application));
            }
            Verdict::Waiting(_) => {
                let mut now = format!("Waiting for {}: {running} of {instances} run", applied.name);
                // Small modules are compiled before anybody could read the progress.
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
    microservices
        .iter()
        .filter(|microservice| microservice.wanted && !microservice.health.is_healthy())
        .map(|microservice| (microservice.module, microservice.module_label.as_str()))
        .collect()
}

fn judge(applied: &ApplyResult, detail: &ApplicationDetail) -> Verdict {
    let (mut refusals, mut missing) = (Vec::new(), Vec::new());
    // The site may briefly show an older revision than it has just answered.
    if detail.application.revision < applied.revision {
        missing.push("the site does not show this revision yet".to_owned());
    }
    let wanted = detail.microservices.iter().filter(|one| one.wanted);
    let mut running = 0;
    for microservice in wanted {
        let health = &microservice.health;
        let is_judged = health.cause != Some(Cause::NotComputed);
        if health.is_healthy() || (!is_judged && is_up(microservice)) {
            running += 1;
            continue;
        }
        if !is_judged {
            let told = reported(microservice);
            match is_refused(microservice) {
                true => refusals.push(told),
                false => missing.push(told),
            }
            continue;
        }
        let reason = health.reason.as_deref().unwrap_or("no reason is known");
        let told = format!(
            "{} on {} is {}: {}",
            microservice.name.microservice,
            microservice.node,
            health.state,
            output::printable(reason)
        );
        match health.cause.is_some_and(Cause::is_refusal) {
            true => refusals.push(told),
            false => missing.push(told),
        }
    }
    let nowhere = running == 0 && missing.is_empty();
    if nowhere && refusals.is_empty() {
        let unplaced = detail.unplaced.iter();
        refusals.extend(unplaced.map(|one| output::printable(&one.reason)));
        refusals.push("none of its instances has a place".to_owned());
    }
    match (refusals.is_empty(), missing.is_empty()) {
        (false, _) => Verdict::Refused(refusals),
        (true, true) => Verdict::Running,
        (true, false) => Verdict::Waiting(missing),
    }
}

/// True when the node reports that it runs the module that it should.
fn is_up(microservice: &Microservice) -> bool {
    let status = microservice.status.as_ref();
    microservice.state().is_up() && status.is_some_and(|one| one.module == microservice.module)
}

/// True when the node reports that it will not run the module that it should.
fn is_refused(microservice: &Microservice) -> bool {
    let module = microservice.module;
    microservice.status.as_ref().is_some_and(|status| {
        let is_it = status.module == module && status.state == State::Refused;
        is_it || status.refused_module == Some(module)
    })
}

/// What the node reports of an instance.
fn reported(microservice: &Microservice) -> String {
    let status = microservice.status.as_ref();
    let reason = status.and_then(|status| status.reason.as_deref());
    format!(
        "{} on {} is {}: {}",
        microservice.name.microservice,
        microservice.node,
        microservice.state(),
        output::printable(reason.unwrap_or("its node gives no reason"))
    )
}

fn refused(applied: &ApplyResult, reasons: &[String]) -> CommandError {
    CommandError::refused(
        "not_running",
        format!(
            "{} does not run as it was applied:\n{}",
            applied.name,
            reasons.join("\n")
        ),
    )
    .hinted("The application stays applied; apply a corrected manifest to replace it.")
}

fn timed_out(
    applied: &ApplyResult,
    time: Duration,
    missing: &[String],
    last: &Application,
) -> CommandError {
    let time = output::duration(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let mut error = CommandError::failure(format!(
        "{}: {} of {} instances run after {time}:\n{}",
        applied.name,
        last.running,
        last.instances,
        missing.join("\n")
    ));
    error.code = "not_running_yet".into();
    let next = "It stays applied. `haar get microservices` shows how it goes on; --no-wait does not wait, --wait=2min waits longer.";
    match &last.health.hint {
        Some(hint) => error.hinted(format!("{}. {next}", output::printable(hint))),
        None => error.hinted(next),
    }
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

    fn detail(revision: u64, healths: &[serde_json::Value]) -> ApplicationDetail {
        let microservice = |health: &serde_json::Value| {
            json!({
                "application": "fleet", "microservice": "sampler", "node": "sensor", "node_online": true,
                "module": format!("sha256:{}", "a".repeat(64)), "module_label": "sampler@1.0.0",
                "wanted": true, "health": health, "status": null
            })
        };
        serde_json::from_value(json!({
            "name": "fleet", "revision": revision, "applied_ms": 1, "instances": healths.len(), "running": 0,
            "manifest": {"api_version": "haar/v1", "kind": "Application", "name": "fleet", "microservices": []},
            "microservices": healths.iter().map(microservice).collect::<Vec<_>>(), "routes": [],
            "unplaced": [{"microservice": "detector", "instances": 1, "code": "no_node", "reason": "no node", "since_ms": 1}]
        }))
        .unwrap()
    }

    #[test]
    fn it_runs_when_the_site_says_that_every_placed_instance_is_healthy() {
        let healthy = json!({"state": "healthy"});
        let verdict = |detail: &ApplicationDetail| judge(&applied(), detail);
        assert_eq!(
            verdict(&detail(2, &[healthy.clone(), healthy.clone()])),
            Verdict::Running
        );
        let older = verdict(&detail(1, std::slice::from_ref(&healthy)));
        assert!(matches!(older, Verdict::Waiting(_)), "{older:?}");
        let unknown =
            json!({"state": "unknown", "cause": "not-reached", "reason": "no relay has it"});
        assert_eq!(
            verdict(&detail(2, &[healthy, unknown])),
            Verdict::Waiting(vec!["sampler on sensor is unknown: no relay has it".into()])
        );
    }

    #[test]
    fn a_refusal_is_told_with_its_reason_and_so_is_what_has_no_place_at_all() {
        let refused =
            json!({"state": "failed", "cause": "change-refused", "reason": "no \u{1b}[2J"});
        assert_eq!(
            judge(&applied(), &detail(2, &[refused])),
            Verdict::Refused(vec!["sampler on sensor is failed: no \u{fffd}[2J".into()])
        );
        assert_eq!(
            judge(&applied(), &detail(2, &[])),
            Verdict::Refused(vec![
                "no node".into(),
                "none of its instances has a place".into()
            ])
        );
    }

    #[test]
    fn the_site_is_asked_for_modules_of_which_an_instance_does_not_run() {
        let healthy = detail(2, &[json!({"state": "healthy"})]);
        assert!(not_up(&healthy.microservices).is_empty());
        let progressing = detail(2, &[json!({"state": "progressing", "cause": "preparing"})]);
        let waiting = &progressing.microservices;
        assert_eq!(
            not_up(waiting),
            BTreeMap::from([(waiting[0].module, "sampler@1.0.0")])
        );
    }

    #[test]
    fn with_a_controller_of_an_earlier_release_what_the_node_reports_counts() {
        let mut old = detail(2, &[json!({"state": "healthy"})]);
        old.microservices[0].health = Default::default();
        let waits = |detail: &ApplicationDetail| {
            assert!(matches!(judge(&applied(), detail), Verdict::Waiting(_)));
        };
        waits(&old);
        let (module, other) = ("a".repeat(64), "b".repeat(64));
        let mut report = |state: &str, module: &str| {
            let status = json!({
                "application": "fleet", "microservice": "sampler", "module": format!("sha256:{module}"),
                "module_label": "sampler@1.0.0", "state": state, "reason": "no \u{1b}[2J", "since_ms": 1,
                "restarts": 0, "calls": 0, "failures": 0, "fuel": 0, "memory_bytes": 0,
                "log_lines_dropped": 0
            });
            old.microservices[0].status = Some(serde_json::from_value(status).unwrap());
            judge(&applied(), &old)
        };
        let verdict = report("back-off", &module);
        assert!(matches!(verdict, Verdict::Waiting(_)), "{verdict:?}");
        let verdict = report("running", &other);
        assert!(matches!(verdict, Verdict::Waiting(_)), "{verdict:?}");
        assert_eq!(report("running", &module), Verdict::Running);
        assert_eq!(report("hibernating", &module), Verdict::Running);
        assert_eq!(
            report("refused", &module),
            Verdict::Refused(vec!["sampler on sensor is refused: no \u{fffd}[2J".into()])
        );
    }
}
