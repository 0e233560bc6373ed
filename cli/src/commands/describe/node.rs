//! A node as `haar describe` shows it: what it is and gives, how its assignment, its relays and its
//! logs fare, and what it reports to run.

use haar_protocol::grants::Access;
use haar_protocol::rest::NodeDetail;
use haar_protocol::status::{FlashStatus, PolicyStatus, StoreStatus};

use super::relay;
use crate::commands::get;
use crate::output::{self, facts};

/// Everything about a node, for people.
pub(super) fn described(detail: &NodeDetail) -> String {
    let node = &detail.node;
    let now = output::now_ms();
    let seen = node.last_seen_ms.map_or_else(
        || "never".to_owned(),
        |seen| format!("{} ago", output::age(now, seen)),
    );
    let reported = node.reported_ms.map_or_else(
        || "none yet".to_owned(),
        |reported| {
            format!(
                "{} ago: what follows is as it was then",
                output::age(now, reported)
            )
        },
    );
    let mut pairs = vec![
        ("Node", node.name.to_string()),
        ("Id", node.id.to_string()),
        ("State", get::node_cell(node)),
        ("Health", get::health(&node.health, now)),
        ("Last seen", seen),
        ("Last status", reported),
        ("Labels", get::labels(&node.labels)),
        ("Joined", output::timestamp(detail.enrolled_ms)),
        (
            "Agent",
            format!(
                "{} for {}",
                output::printable(&node.agent_version),
                output::printable(&node.target)
            ),
        ),
        (
            "Agent's memory",
            node.resident_bytes
                .map_or_else(|| "not reported".into(), output::bytes),
        ),
        (
            "Written today",
            node.flash
                .map_or_else(|| "not reported".into(), written_today),
        ),
        (
            "Database",
            node.store
                .as_ref()
                .map_or_else(|| "well".into(), |store| database(store, now)),
        ),
        (
            "Gives",
            format!(
                "{} of memory{}, {} of cpu, {} of storage, for at most {} microservices",
                node.budget.memory,
                detail
                    .memory_source
                    .as_ref()
                    .map_or_else(String::new, |source| format!(
                        " ({})",
                        output::printable(source)
                    )),
                bounded(node.budget.cpu_percent < u32::MAX, || {
                    format!("{}%", node.budget.cpu_percent)
                }),
                bounded(node.budget.storage.0 < u64::MAX, || {
                    output::bytes(node.budget.storage.0)
                }),
                node.budget.microservices
            ),
        ),
        ("Assignment", get::assignment(node)),
        (
            "Status",
            detail.status_sequence.map_or_else(
                || "none yet".into(),
                |sequence| format!("number {sequence}, {} missed", detail.statuses_missed),
            ),
        ),
    ];
    if let Some(counted) = &detail.counted {
        let since = output::timestamp(counted.since_ms);
        let age = output::age(now, counted.since_ms);
        let text = format!("since {since}, for {age}: from its agent's start on");
        pairs.push(("Counts", text));
    }
    if let Some(engine) = &detail.engine {
        let compiled = match (engine.precompiled, engine.compiler) {
            (true, _) => "compiled by the controller",
            (false, true) => "compiled there",
            (false, false) => "nobody compiles for it",
        };
        let fingerprint = engine.fingerprint.get(..12).unwrap_or_default();
        pairs.push((
            "Engine",
            format!(
                "{fingerprint}, {}: {compiled}",
                output::printable(&engine.target)
            ),
        ));
    }
    if let Some(policy) = &detail.policy {
        pairs.extend(self::policy(policy));
    }
    if let Some(refused) = &node.refused {
        let number = refused
            .number
            .map_or_else(String::new, |number| format!(" {number}"));
        pairs.push((
            "Refused",
            format!("assignment{number}: {}", output::printable(&refused.reason)),
        ));
    }
    if let Some(skew) = node.clock_skew_ms {
        pairs.push(("Clock", format!("{skew} ms from the controller's")));
    }
    for seen in &node.observations {
        let text = format!(
            "{}; first {}, last {} ago",
            output::printable(&seen.message),
            output::timestamp(seen.since_ms),
            output::age(now, seen.last_ms)
        );
        pairs.push(("Noticed", text));
    }
    for status in &detail.relays {
        let state = relay::state(status, now);
        pairs.push(("Relay", format!("{}: {state}", status.name)));
    }
    for status in &detail.brokers {
        let state = relay::state(status, now);
        pairs.push(("Devices at", format!("{}: {state}", status.name)));
    }
    for relay in &detail.serves {
        let state = relay.reason.as_ref().map_or_else(
            || "runs".to_owned(),
            |reason| format!("does not run: {}", output::printable(reason)),
        );
        pairs.push(("Runs a relay", format!("{}: {state}", relay.name)));
    }
    for log in &detail.backlogs {
        let (refused, dropped) = (log.refused.messages, log.dropped.messages);
        let text = format!(
            "{}.{}: {} of {} wait, {refused} refused, {dropped} dropped",
            log.name,
            log.outlet,
            output::bytes(log.bytes),
            output::bytes(log.bytes_max),
        );
        pairs.push(("Backlog", text));
    }
    if let Some(omitted) = &detail.omitted {
        pairs.push(("Not reported", format!("{}: no room", omitted.described())));
    }
    if detail.frames_refused > 0 {
        let text = format!("{} frames of other nodes", detail.frames_refused);
        pairs.push(("Refused", text));
    }
    if detail.device_messages_dropped > 0 {
        let count = detail.device_messages_dropped;
        let text = format!("{count} messages of devices: no route takes them");
        pairs.push(("Dropped", text));
    }
    if detail.device_properties_dropped > 0 {
        let count = detail.device_properties_dropped;
        let text = format!(
            "{count} user properties of devices' messages: names with `mqtt-` are the agent's own"
        );
        pairs.push(("Dropped", text));
    }
    let mut table = output::Table::new(&[
        "MICROSERVICE",
        "STATE",
        "SINCE",
        "MODULE",
        "CALLS",
        "FAILURES",
        "RESTARTS",
        "DISCARDED",
    ]);
    for microservice in &detail.microservices {
        table.row([
            microservice.name.to_string(),
            microservice.state.to_string(),
            output::age(now, microservice.since_ms),
            output::printable(&microservice.module_label),
            microservice.calls.to_string(),
            microservice.failures.to_string(),
            microservice.restarts.to_string(),
            microservice.discarded.to_string(),
        ]);
    }
    format!(
        "{}\n{}",
        facts(&pairs),
        table.render("It reports no microservices.")
    )
}

/// What the owner of the device allows the site.
fn policy(policy: &PolicyStatus) -> Vec<(&'static str, String)> {
    let publishers = match policy.publishers.as_deref() {
        None => "modules of every publisher that the site trusts".to_owned(),
        Some([]) => "no module at all".to_owned(),
        Some(keys) => {
            let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
            format!("modules that {} has signed too", keys.join(" or "))
        }
    };
    let mut pairs = vec![("Allows", publishers)];
    if policy.directories.is_empty() {
        pairs.push(("Allows", "no directory".to_owned()));
    }
    for directory in &policy.directories {
        let access = match directory.access {
            Access::ReadOnly => "to be read",
            Access::ReadWrite => "to be read and written",
        };
        let path = output::printable(&directory.path);
        pairs.push(("Allows", format!("{path} {access}")));
    }
    if policy.left_out > 0 {
        pairs.push(("Allows", format!("{} more", policy.left_out)));
    }
    pairs
}

/// What its flash had to take today, beside what it should take.
fn written_today(flash: FlashStatus) -> String {
    let today = output::bytes(flash.today_bytes);
    match flash.budget_bytes {
        None => today,
        Some(budget) if flash.is_over_budget() => {
            format!("{today}, more than the {} of a day", output::bytes(budget))
        }
        Some(budget) => format!("{today} of {} a day", output::bytes(budget)),
    }
}

/// What is wrong with the agent's database, and what was.
fn database(store: &StoreStatus, now_ms: u64) -> String {
    let problem = store.problem.as_ref().map(|problem| {
        let what = match store.free_bytes {
            Some(free) => format!("the disk is full, {} are free", output::bytes(free)),
            None => "can't be used".to_owned(),
        };
        format!("{what}: {}", output::printable(problem))
    });
    let damage = store.damage.as_ref().map(|damage| {
        let missing = match damage.missing.is_empty() {
            true => "everything was copied".to_owned(),
            false => format!("missing: {}", damage.missing.join(", ")),
        };
        format!(
            "replaced {} ago: {}; {}",
            output::age(now_ms, damage.found_ms),
            output::printable(&damage.reason),
            output::printable(&missing)
        )
    });
    [problem, damage]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("; ")
}

/// An amount that an agent of an earlier release does not bound.
fn bounded(is_bounded: bool, amount: impl Fn() -> String) -> String {
    if is_bounded {
        amount()
    } else {
        "any amount".to_owned()
    }
}
