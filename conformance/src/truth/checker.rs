//! Compares what the site claims with what is true. Pure. The invariants, each a false word when broken:
//!
//! | | |
//! | --- | --- |
//! | gone | what runs on a node that is killed, stopped, cut or refused is not healthy once that can be known ([`NOTICED_MS`]) |
//! | age | before that, it is healthy only with the age of the report, which is no younger than the last one can be |
//! | alive | what serves for long enough ([`SETTLED_MS`]) is healthy, and so is its node |
//! | wanted | an application has as many instances as its manifest wants, with those that have no place |
//! | sums | counts of lists, details and the site agree with the instances that they list |
//! | reason | what is not healthy has a cause and a reason; what is unknown has since when |
//! | since | since when something is unknown lies where it was last heard; nothing is in the future |
//! | cause | a node with a wrong clock or a full disk says so |
//! | apply | exit code 0 says that every placed instance runs; its count is that of those that do |

use std::collections::BTreeMap;

use haar_protocol::rest::{Cause, Health, HealthState, Microservice};

use super::claims::{Applied, Claims};

/// How long the site may take to notice that a node is gone: an agent of this suite reports five times
/// a second, and its silence is noticed after three reports and ten seconds.
pub(super) const NOTICED_MS: u64 = 14_000;
/// How long a node may take to serve again after it was started.
pub(super) const SETTLED_MS: u64 = 20_000;
/// How far the site's age of a report may exceed the true age.
const REPORT_MS: u64 = 2_000;

/// What is true of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    /// It has served since then.
    Serves { since_ms: u64 },
    /// It has been unreachable since then, with the cause where the site can know it.
    Gone { since_ms: u64, cause: Option<Cause> },
    /// It serves, and its disk has been full since then.
    Full { since_ms: u64 },
}

/// What is true.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    /// The nodes of the site, by name.
    pub(super) nodes: BTreeMap<String, Truth>,
    /// How many instances the application should have.
    pub(super) instances: u32,
    /// How many of them can't be placed.
    pub(super) unplaced: u32,
}

/// Everything false in what was claimed.
pub(super) fn check(world: &World, claims: &Claims) -> Vec<String> {
    let mut found = Vec::new();
    for microservice in claims
        .microservices
        .iter()
        .chain(&claims.detail.microservices)
    {
        instance(world, claims, microservice, &mut found);
    }
    nodes(world, claims, &mut found);
    sums(world, claims, &mut found);
    let healths = claims
        .nodes
        .iter()
        .map(|node| (node.name.as_str(), &node.health));
    let healths = healths.chain(
        claims
            .applications
            .iter()
            .map(|one| (one.name.as_str(), &one.health)),
    );
    let healths = healths.chain([("the site", &claims.site.health)]);
    for (what, health) in healths {
        has_reason(what, health, claims.until_ms, &mut found);
    }
    found
}

fn instance(world: &World, claims: &Claims, one: &Microservice, found: &mut Vec<String>) {
    let what = format!("{} on {}", one.name.microservice, one.node);
    has_reason(&what, &one.health, claims.until_ms, found);
    match world.nodes.get(one.node.as_str()) {
        None => found.push(format!(
            "wanted: {what} is listed, and there is no such node"
        )),
        Some(Truth::Serves { since_ms } | Truth::Full { since_ms }) => {
            let is_settled = claims.from_ms > since_ms + SETTLED_MS;
            if is_settled && one.wanted && !one.health.is_healthy() {
                found.push(format!(
                    "alive: {what} runs, and is said to be {}",
                    told(&one.health)
                ));
            }
        }
        Some(Truth::Gone { since_ms, .. }) => gone(&what, &one.health, *since_ms, claims, found),
    }
}

/// Checks the health of something that has been unreachable since then.
fn gone(what: &str, health: &Health, since_ms: u64, claims: &Claims, found: &mut Vec<String>) {
    let is_healthy = health.is_healthy();
    if is_healthy && claims.from_ms > since_ms + NOTICED_MS {
        found.push(format!("gone: {what} is said to be healthy"));
    }
    let least_ms = claims.from_ms.saturating_sub(since_ms + 500);
    if is_healthy && health.age_ms.is_none_or(|age_ms| age_ms < least_ms) {
        found.push(format!(
            "age: {what} is said to be healthy by a report that is {:?} ms old, and there was none for {least_ms} ms",
            health.age_ms
        ));
    }
    if health.state == HealthState::Unknown
        && let Some(said_ms) = health.since_ms
    {
        let earliest_ms = since_ms.saturating_sub(REPORT_MS);
        if said_ms < earliest_ms || said_ms > since_ms + REPORT_MS {
            found.push(format!(
                "since: {what} is unknown since {said_ms}, and was last heard at about {since_ms}"
            ));
        }
    }
}

fn nodes(world: &World, claims: &Claims, found: &mut Vec<String>) {
    let listed: Vec<&str> = claims.nodes.iter().map(|node| node.name.as_str()).collect();
    let there: Vec<&str> = world.nodes.keys().map(String::as_str).collect();
    if listed != there {
        found.push(format!(
            "wanted: the nodes are {there:?}, and {listed:?} are listed"
        ));
    }
    let described = claims.described_nodes.iter().map(|detail| &detail.node);
    for node in claims.nodes.iter().chain(described) {
        let name = node.name.as_str();
        let health = &node.health;
        if node.last_seen_ms.is_some_and(|seen| seen > claims.until_ms) {
            found.push(format!("since: {name} was seen in the future"));
        }
        match world.nodes.get(name) {
            None => {}
            Some(Truth::Serves { since_ms })
                if claims.from_ms > since_ms + SETTLED_MS && !health.is_healthy() =>
            {
                found.push(format!(
                    "alive: {name} serves, and is said to be {}",
                    told(health)
                ));
            }
            Some(Truth::Serves { .. }) => {}
            Some(Truth::Full { since_ms }) => {
                let is_told = health.cause == Some(Cause::DiskFull);
                let free = node.store.as_ref().and_then(|store| store.free_bytes);
                if claims.from_ms > since_ms + SETTLED_MS && !(is_told && free.is_some()) {
                    found.push(format!(
                        "cause: the disk of {name} is full, and it is said to be {}",
                        told(health)
                    ));
                }
            }
            Some(Truth::Gone { since_ms, cause }) => {
                gone(name, health, *since_ms, claims, found);
                let is_late = claims.from_ms > since_ms + SETTLED_MS;
                if is_late && cause.is_some() && health.cause != *cause {
                    found.push(format!(
                        "cause: {name} is away for {cause:?}, and is said to be {}",
                        told(health)
                    ));
                }
            }
        }
    }
}

fn sums(world: &World, claims: &Claims, found: &mut Vec<String>) {
    let mut differ = |what: &str, said: u32, counted: u32| {
        if said != counted {
            found.push(format!(
                "sums: {what}: {said} is said, and {counted} is right"
            ));
        }
    };
    let app = &claims.detail.application;
    let wanted = claims.detail.microservices.iter().filter(|one| one.wanted);
    let placed = u32::try_from(wanted.clone().count()).unwrap_or(u32::MAX);
    let running = wanted.filter(|one| one.health.is_healthy()).count();
    let running = u32::try_from(running).unwrap_or(u32::MAX);
    let unplaced = claims.detail.unplaced.iter().map(|one| one.instances).sum();
    differ("instances", app.instances, world.instances);
    differ(
        "instances without a place",
        app.without_place,
        world.unplaced,
    );
    differ("entries without a place", unplaced, world.unplaced);
    differ("instances and placements", placed + unplaced, app.instances);
    differ("running", app.running, running);
    differ("healthy", app.count.healthy, running);
    differ("counts", app.count.all(), app.instances);
    for listed in &claims.applications {
        differ("instances in the list", listed.instances, world.instances);
    }
    differ(
        "instances of the site",
        claims.site.instances.all(),
        world.instances,
    );
    let nodes = u32::try_from(world.nodes.len()).unwrap_or(u32::MAX);
    differ("nodes of the site", claims.site.nodes.all(), nodes);
    if app.health.is_healthy() && app.running < app.instances {
        found.push("sums: the application is said to be healthy, and not all of it runs".into());
    }
}

fn has_reason(what: &str, health: &Health, now_ms: u64, found: &mut Vec<String>) {
    if !health.is_healthy() && (health.cause.is_none() || health.reason.is_none()) {
        found.push(format!("reason: {what} is {} for no reason", health.state));
    }
    if health.since_ms.is_some_and(|since_ms| since_ms > now_ms) {
        found.push(format!("since: {what} is so since a time to come"));
    }
}

/// Compares the answer of `apply` with what has been true for a while.
pub(super) fn check_applied(world: &World, applied: &Applied, runs: u32) -> Vec<String> {
    let mut found = Vec::new();
    let all_run = runs + world.unplaced == world.instances;
    if (applied.code == 0) != (all_run && runs > 0) {
        found.push(format!(
            "apply: it ended with {}, and {runs} of {} run",
            applied.code, world.instances
        ));
    }
    let app = &applied.application;
    if (app.running, app.instances) != (runs, world.instances) {
        found.push(format!(
            "apply: it says {} of {}, and {runs} of {} run",
            app.running, app.instances, world.instances
        ));
    }
    if applied.unplaced != world.unplaced {
        found.push(format!(
            "apply: it says that {} have no place, and {} have none",
            applied.unplaced, world.unplaced
        ));
    }
    found
}

fn told(health: &Health) -> String {
    let reason = health.reason.as_deref().unwrap_or("no reason");
    format!("{} ({reason})", health.state)
}

#[cfg(test)]
mod tests {
    use haar_protocol::rest::HealthCount;
    use serde_json::{Value, json};

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    /// What a site says of one application with one instance on `gw-1`.
    fn claims(instance: &Value, node: &Value, running: u32) -> Claims {
        let application = json!({
            "name": "app", "revision": 1, "applied_ms": 1, "instances": 1, "running": running,
            "count": HealthCount { healthy: running, unknown: 1 - running, ..HealthCount::default() },
            "health": instance
        });
        let mut detail = application.clone();
        let microservices = json!([{
            "application": "app", "microservice": "one", "node": "gw-1", "node_online": true,
            "module": format!("sha256:{}", "a".repeat(64)), "module_label": "m@1", "wanted": true,
            "health": instance, "status": null
        }]);
        detail["microservices"] = microservices.clone();
        detail["routes"] = json!([]);
        detail["manifest"] = json!({"api_version": "haar/v1", "kind": "Application", "name": "app", "microservices": []});
        let node = json!([{
            "name": "gw-1", "id": format!("n{}", "a".repeat(26)), "labels": {}, "online": true,
            "last_seen_ms": NOW_MS - 60_000, "health": node, "assignment": 1, "applied": 1, "refused": null,
            "agent_version": "1", "target": "t", "budget": {"memory": "1MiB", "microservices": 1},
            "resident_bytes": null, "clock_skew_ms": null
        }]);
        Claims {
            nodes: serde_json::from_value(node).unwrap(),
            described_nodes: Vec::new(),
            applications: vec![serde_json::from_value(application).unwrap()],
            detail: serde_json::from_value(detail).unwrap(),
            microservices: serde_json::from_value(microservices).unwrap(),
            site: serde_json::from_value(json!({
                "name": "s", "health": instance, "nodes": {"healthy": 1}, "applications": {"healthy": 1},
                "instances": {"healthy": 1}, "relays": {"healthy": 1}, "time_ms": NOW_MS
            }))
            .unwrap(),
            from_ms: NOW_MS,
            until_ms: NOW_MS + 100,
        }
    }

    fn world(truth: Truth) -> World {
        World {
            nodes: BTreeMap::from([("gw-1".to_owned(), truth)]),
            instances: 1,
            unplaced: 0,
        }
    }

    fn broken(world: &World, claims: &Claims) -> Vec<String> {
        let mut words: Vec<String> = check(world, claims)
            .iter()
            .map(|text| text.split(':').next().unwrap_or_default().to_owned())
            .collect();
        words.dedup();
        words
    }

    #[test]
    fn a_site_that_says_what_is_true_says_nothing_false() {
        let healthy = json!({"state": "healthy", "age_ms": 100});
        let serves = world(Truth::Serves {
            since_ms: NOW_MS - 60_000,
        });
        assert_eq!(check(&serves, &claims(&healthy, &healthy, 1)), [""; 0]);
        let since_ms = NOW_MS - 60_000;
        let gone = world(Truth::Gone {
            since_ms,
            cause: None,
        });
        let unknown = json!({"state": "unknown", "cause": "not-reached", "reason": "away", "since_ms": since_ms});
        assert_eq!(check(&gone, &claims(&unknown, &unknown, 0)), [""; 0]);
    }

    #[test]
    fn each_false_word_is_found() {
        let healthy = json!({"state": "healthy", "age_ms": 100});
        let since_ms = NOW_MS - 60_000;
        let gone = world(Truth::Gone {
            since_ms,
            cause: Some(Cause::Clock),
        });
        assert_eq!(
            broken(&gone, &claims(&healthy, &healthy, 1)),
            ["gone", "age", "gone", "age", "gone", "age", "cause"]
        );
        let just_gone = world(Truth::Gone {
            since_ms: NOW_MS - 5_000,
            cause: None,
        });
        assert!(broken(&just_gone, &claims(&healthy, &healthy, 1)).contains(&"age".to_owned()));
        let serves = world(Truth::Serves { since_ms });
        let unknown =
            json!({"state": "unknown", "cause": "silent", "reason": "?", "since_ms": NOW_MS});
        assert!(broken(&serves, &claims(&unknown, &unknown, 0)).contains(&"alive".to_owned()));
        let silent = json!({"state": "unknown", "since_ms": since_ms});
        let gone = world(Truth::Gone {
            since_ms,
            cause: None,
        });
        assert!(broken(&gone, &claims(&silent, &silent, 0)).contains(&"reason".to_owned()));
        let wrong =
            json!({"state": "unknown", "cause": "silent", "reason": "?", "since_ms": NOW_MS});
        assert!(broken(&gone, &claims(&wrong, &wrong, 0)).contains(&"since".to_owned()));
        let full = world(Truth::Full { since_ms });
        assert_eq!(broken(&full, &claims(&healthy, &healthy, 1)), ["cause"]);
        let mut more = serves.clone();
        (more.instances, more.unplaced) = (3, 2);
        assert!(broken(&more, &claims(&healthy, &healthy, 1)).contains(&"sums".to_owned()));
    }

    #[test]
    fn an_apply_that_claims_too_much_or_too_little_is_found() {
        let gone = world(Truth::Gone {
            since_ms: 1,
            cause: None,
        });
        let healthy = json!({"state": "healthy", "age_ms": 100});
        let application = claims(&healthy, &healthy, 1).detail.application;
        let applied = Applied {
            code: 0,
            application,
            unplaced: 0,
        };
        assert_eq!(check_applied(&gone, &applied, 0).len(), 2);
        assert_eq!(check_applied(&gone, &applied, 1), [""; 0]);
        let failed = Applied { code: 1, ..applied };
        assert_eq!(check_applied(&gone, &failed, 1).len(), 1);
    }
}
