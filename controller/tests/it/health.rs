//! What people are told is what is known: after a node has died, was deleted, has no room, or is
//! refused; and a node without room refuses no application that runs elsewhere.

use haar_protocol::ids::Digest;
use haar_protocol::keys::SecretKey;
use haar_protocol::limits::Budget;
use haar_protocol::proof::{self, Audience, Claims};
use haar_protocol::quantity::ByteSize;
use haar_protocol::rest::{
    Application, ApplicationDetail, Cause, HealthState, List, NodeDetail, SiteHealth,
};
use haar_protocol::status::{MicroserviceStatus, State};
use haar_relay::{Credentials, Endpoint, Identity, Session, SessionOptions};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::device::{self, Device, Link, now_ms};
use crate::support::modules::recipe;
use crate::support::site::TestSite;
use crate::support::wait::until;

const HEAD: &str = "api_version: haar/v1\nkind: Application\nname: app\nmicroservices:\n";

/// A site with a module, and the module's digest.
fn site() -> (TestSite, Digest) {
    let site = TestSite::with_publisher();
    let module = Digest::of(&site.push(&recipe("sampler", "1.0.0")));
    (site, module)
}

fn one(name: &str, rest: &str) -> String {
    format!("- {{name: {name}, module: sampler@1.0.0, {rest}}}\n")
}

fn running(name: &str, module: Digest) -> MicroserviceStatus {
    serde_json::from_value(serde_json::json!({
        "application": "app", "microservice": name, "module": module, "module_label": "sampler@1.0.0",
        "state": State::Running, "reason": null, "since_ms": now_ms(), "restarts": 0, "calls": 0,
        "failures": 0, "fuel": 0, "memory_bytes": 0, "log_lines_dropped": 0
    }))
    .unwrap()
}

/// Connects a device that reports these as running, with assignment `number` applied.
fn report(site: &TestSite, device: &Device, number: u64, names: &[&str], module: Digest) -> Link {
    let link = device.connect(site);
    link.publish(device.alive("online"));
    let microservices = names.iter().map(|name| running(name, module)).collect();
    let mut status = device.status(now_ms(), number, microservices);
    status.interval_ms = Some(10_000);
    link.publish(device.sealed(&status, &device.key));
    link
}

fn application(site: &TestSite) -> ApplicationDetail {
    site.client.get("/applications/app").ok()
}

fn events(site: &TestSite, kind: &str) -> Vec<String> {
    let events = site.client.get("/events").json();
    let events = events["items"].as_array().unwrap().iter();
    events
        .filter(|event| event["kind"] == kind)
        .map(|event| event["message"].as_str().unwrap().to_owned())
        .collect()
}

fn number(site: &TestSite, node: &str) -> u64 {
    let node: NodeDetail = site.client.get(&format!("/nodes/{node}")).ok();
    node.node.assignment
}

#[test]
fn what_ran_on_a_node_that_died_is_unknown_since_then_and_runs_elsewhere_once_the_node_is_deleted()
{
    let (site, module) = site();
    let first = Device::join(&site, 1, "gw-1", &[]);
    let second = Device::join(&site, 2, "gw-2", &[]);
    let yaml = format!("{HEAD}{}", one("one", "place: {labels: {}, count: 1}"));
    let placed = site.apply("app", &yaml).placements[0].node.clone();
    assert_eq!(placed.as_str(), "gw-1");
    let link = report(&site, &first, number(&site, "gw-1"), &["one"], module);
    let healthy = until("it runs", || {
        Some(application(&site).application).filter(|app| app.health.is_healthy())
    });
    assert_eq!((healthy.running, healthy.instances), (1, 1));
    assert!(healthy.health.age_ms.is_some());

    drop(link);
    let detail = until("its death is noticed", || {
        Some(application(&site)).filter(|detail| detail.application.running == 0)
    });
    let health = &detail.microservices[0].health;
    assert_eq!(
        (health.state, health.cause),
        (HealthState::Unknown, Some(Cause::NotReached))
    );
    assert!(
        health
            .hint
            .as_ref()
            .unwrap()
            .contains("haar delete node gw-1")
    );
    assert_eq!(detail.application.health.state, HealthState::Unknown);
    assert_eq!(detail.application.count.unknown, 1);
    let again = site.apply("app", &yaml);
    assert!(!again.changed);
    assert_eq!(application(&site).application.running, 0);
    let whole: SiteHealth = site.client.get("/health").ok();
    assert_eq!(whole.health.state, HealthState::Degraded);
    assert_eq!((whole.instances.unknown, whole.instances.all()), (1, 1));

    site.client.delete("/nodes/gw-1").done();
    let _link = report(&site, &second, number(&site, "gw-2"), &["one"], module);
    until("it runs elsewhere", || {
        Some(application(&site)).filter(|detail| detail.application.health.is_healthy())
    });
}

#[test]
fn what_a_change_does_not_touch_stays_healthy_before_its_node_has_taken_the_change() {
    let (site, module) = site();
    let device = Device::join(&site, 1, "gw-1", &[]);
    let yaml = |more: &str| {
        let one_and_two = [one("one", "place: {node: gw-1}"), one("two", more)];
        format!("{HEAD}{}", one_and_two.concat())
    };
    site.apply("app", &yaml("place: {node: gw-1}"));
    site.apply("app", &yaml("place: {node: gw-1}, limits: {memory: 4MiB}"));
    let taken = number(&site, "gw-1");
    let _link = report(&site, &device, taken, &["one", "two"], module);
    until("both run", || {
        Some(application(&site)).filter(|detail| detail.application.running == 2)
    });
    site.apply("app", &yaml("place: {node: gw-1}, limits: {memory: 2MiB}"));
    assert!(number(&site, "gw-1") > taken);
    let causes: Vec<_> = application(&site)
        .microservices
        .iter()
        .map(|one| one.health.cause)
        .collect();
    assert_eq!(causes, [None, Some(Cause::AssignmentPending)]);
}

#[test]
fn after_a_node_is_deleted_what_was_to_run_there_is_missing_and_named() {
    let (site, module) = site();
    let first = Device::join(&site, 1, "gw-1", &[]);
    Device::join(&site, 2, "gw-2", &[]);
    let yaml = format!(
        "{HEAD}{}{}{}",
        one("one", "place: {node: gw-1}"),
        one("two", "place: {node: gw-2}"),
        one("three", "place: {node: gw-2}"),
    );
    site.apply("app", &yaml);
    let _link = report(&site, &first, number(&site, "gw-1"), &["one"], module);
    site.client.delete("/nodes/gw-2").done();
    let detail = until("one of them runs", || {
        Some(application(&site)).filter(|detail| detail.application.running == 1)
    });
    let app = &detail.application;
    assert_eq!((app.running, app.instances, app.without_place), (1, 3, 2));
    assert_eq!(
        (app.health.state, app.health.cause),
        (HealthState::Degraded, Some(Cause::Unplaced))
    );
    let missing: Vec<&str> = detail
        .unplaced
        .iter()
        .map(|one| one.microservice.as_str())
        .collect();
    assert_eq!(missing, ["three", "two"]);
    assert!(
        detail.unplaced[0]
            .reason
            .contains("the site has no node `gw-2`")
    );
    assert!(detail.unplaced[0].since_ms > 0);
    assert_eq!(events(&site, "microservice_unplaced").len(), 2);
    // What is missing already refuses no change of the rest; a new mistake does.
    let changed = yaml.replace("{node: gw-1}", "{node: gw-1}, configuration: {a: b}");
    let applied = site.apply("app", &changed);
    assert_eq!((applied.changed, applied.unplaced.len()), (true, 2));
    let wrong = yaml.replace("gw-2", "gw-7");
    site.try_apply("app", &wrong).refused(422, "unknown_node");
    assert_eq!(events(&site, "microservice_unplaced").len(), 2, "once");
    let _second = Device::join(&site, 2, "gw-2", &[]);
    assert_eq!(application(&site).unplaced, vec![]);
    assert_eq!(events(&site, "microservice_placed").len(), 2);
}

#[test]
fn a_node_without_room_is_told_and_refuses_no_apply() {
    let (site, _) = site();
    let edge = [("role", "edge")];
    Device::join(&site, 1, "gw-1", &edge);
    let yaml = format!(
        "{HEAD}{}",
        one(
            "one",
            "place: {labels: {role: edge}}, limits: {memory: 60MiB}"
        )
    );
    site.apply("app", &yaml);
    let small = Device::new(&site, 2);
    let token = device::token(&site, Some("gw-2"), &edge);
    let mut request = small.request(&token, None);
    request.budget = Budget::new(ByteSize(16 << 20), 4);
    device::post(&site, &request).done();
    let told = events(&site, "microservice_unplaced");
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("does not fit on node `gw-2`"), "{told:?}");
    let detail = application(&site);
    assert_eq!(
        (
            detail.application.without_place,
            detail.application.instances
        ),
        (1, 2)
    );
    assert_eq!(detail.unplaced[0].node.as_ref().unwrap().as_str(), "gw-2");
    assert_eq!(detail.unplaced[0].code, "over_budget");

    let changed = yaml.replace("60MiB}", "60MiB}, configuration: {a: b}");
    let applied = site.apply("app", &changed);
    assert!(applied.changed);
    assert_eq!((applied.placements.len(), applied.unplaced.len()), (1, 1));
    assert_eq!(applied.unplaced[0].since_ms, detail.unplaced[0].since_ms);
    let smaller = site.apply("app", &yaml.replace("60MiB", "8MiB"));
    assert_eq!((smaller.placements.len(), smaller.unplaced.len()), (2, 0));
    // What fits nowhere is refused, and a count that only some nodes can give is not.
    let nowhere = yaml.replace("60MiB", "65MiB");
    site.try_apply("app", &nowhere).refused(422, "over_budget");
    let three = yaml
        .replace("{role: edge}}", "{role: edge}, count: 3}")
        .replace("60MiB", "8MiB");
    let applied = site.apply("app", &three);
    assert_eq!(
        (applied.placements.len(), applied.unplaced[0].instances),
        (2, 1)
    );
    assert_eq!(applied.unplaced[0].code, "too_few_nodes");
}

#[test]
fn a_node_with_a_wrong_clock_shows_why_it_is_away_and_since_when() {
    let (site, _) = site();
    let device = Device::join(&site, 1, "gw-1", &[]);
    let shown = || site.client.get("/nodes/gw-1").ok::<NodeDetail>().node;
    let before = shown();
    assert_eq!(
        (before.health.state, before.health.cause),
        (HealthState::Unknown, Some(Cause::NotReached))
    );
    for _ in 0..2 {
        refused_connection(&site, &device, &device.key, now_ms() - 7_200_000);
    }
    let node = until("the refusal is shown", || {
        Some(shown()).filter(|node| node.health.cause == Some(Cause::Clock))
    });
    let reason = node.health.reason.unwrap();
    assert!(
        reason.contains("its clock is 2 h behind the controller's"),
        "{reason}"
    );
    assert_eq!(node.observations.len(), 1);
    assert_eq!(node.observations[0].code, "clock");
    assert_eq!(
        events(&site, "relay_refused").len(),
        1,
        "once, not at each attempt"
    );
    let since_ms = node.observations[0].since_ms;
    assert!(since_ms <= node.observations[0].last_ms);
    // Somebody else says that they are the node: told apart, and not while the node is there.
    refused_connection(&site, &device, &SecretKey::from_seed([9; 32]), now_ms());
    until("it is another reason", || {
        Some(shown()).filter(|node| node.health.cause == Some(Cause::RelayRefuses))
    });
    let link = device.connect(&site);
    link.publish(device.alive("online"));
    until("it is there", || {
        Some(shown()).filter(|node| node.online && node.observations.is_empty())
    });
    let observed = || {
        let nodes: List<haar_protocol::rest::Node> = site.client.get("/nodes").ok();
        let observations = nodes.items[0].observations.iter();
        observations.map(|one| one.code.clone()).collect::<Vec<_>>()
    };
    refused_connection(&site, &device, &SecretKey::from_seed([9; 32]), now_ms());
    // Refusals are noted in their order, so the one before was passed over when this one is shown.
    refused_connection(&site, &device, &device.key, now_ms() - 7_200_000);
    until("the node itself is refused", || {
        let observed = observed();
        assert!(!observed.contains(&"bad_proof".to_owned()), "{observed:?}");
        (observed == ["clock"]).then_some(())
    });
    let applications: List<Application> = site.client.get("/applications").ok();
    assert!(applications.items.is_empty());
}

/// Connects as the node with a proof of `key`, made at `issued_ms`, and waits until it is refused.
fn refused_connection(site: &TestSite, device: &Device, key: &SecretKey, issued_ms: u64) {
    let claims = Claims {
        audience: Audience::Relay,
        site: device.site.clone(),
        subject: device.id.to_string(),
        issued_ms,
        nonce: format!("{:x}", now_ms()),
        relay: None,
    };
    let (events, mut received) = mpsc::channel(16);
    let stop = CancellationToken::new();
    let options = SessionOptions {
        endpoint: Endpoint::parse(&site.relay_url(), Some(&site.context.ca_pem)).unwrap(),
        identity: Identity {
            client_id: device.id.to_string(),
            credentials: Credentials::Password {
                user: device.id.to_string(),
                password: proof::make(&claims, key),
            },
        },
        will: None,
        subscriptions: Vec::new(),
        queue_messages: 4,
    };
    let (_session, task) = Session::start(options, events, stop.clone());
    site.runtime.spawn(task);
    let event = site.runtime.finish("it is refused", received.recv());
    assert!(
        matches!(event, Some(haar_relay::SessionEvent::Disconnected { .. })),
        "{event:?}"
    );
    stop.cancel();
}
