//! A route as a whole: its pairs of nodes with what each has counted, what waits, and what is wrong.

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{Digest, Name, RouteId};
use haar_protocol::rest::{Cause, HealthState, RouteDetail};
use haar_protocol::status::{BacklogStatus, MicroserviceStatus, Overflow, RouteStatus, State};

use crate::support::device::{Device, Link, now_ms};
use crate::support::modules::recipe;
use crate::support::site::TestSite;
use crate::support::wait::until;

const APPLICATION: &str = "api_version: haar/v1
kind: Application
name: app
microservices:
- {name: one, module: sampler@1.0.0, place: {node: left}, outlets: {out: text/plain}}
- {name: two, module: sampler@1.0.0, place: {labels: {}}, inlets: {in: text/plain}}
routes:
- {from: one.out, to: two.in}
";

fn running(name: &str, module: Digest) -> MicroserviceStatus {
    serde_json::from_value(serde_json::json!({
        "application": "app", "microservice": name, "module": module, "module_label": "sampler@1.0.0",
        "state": State::Running, "reason": null, "since_ms": now_ms(), "restarts": 0, "calls": 0,
        "failures": 0, "fuel": 0, "memory_bytes": 0, "log_lines_dropped": 0, "discarded": 3,
        "dead_letters": 2,
    }))
    .unwrap()
}

fn counters(id: RouteId, peer: &str, sent: u64, delivered: u64, waiting: u64) -> RouteStatus {
    RouteStatus {
        id,
        peer: peer.parse().unwrap(),
        topic: None,
        counted_after_s: 0,
        sent,
        delivered,
        handled: delivered,
        dropped: 0,
        waiting,
        problem: None,
        problem_after_s: None,
    }
}

/// What a node reports: these microservices run, and these counters.
fn report(
    site: &TestSite,
    device: &Device,
    module: Digest,
    names: &[&str],
    routes: Vec<RouteStatus>,
    log: Option<BacklogStatus>,
) -> Link {
    let link = device.connect(site);
    link.publish(device.alive("online"));
    let microservices = names.iter().map(|name| running(name, module)).collect();
    let mut status = device.status(now_ms(), 1_000, microservices);
    status.interval_ms = Some(10_000);
    status.uptime_ms = Some(60_000);
    status.routes = routes;
    status.backlogs = log.into_iter().collect();
    link.publish(device.sealed(&status, &device.key));
    link
}

#[test]
fn a_route_is_described_pair_by_pair_with_what_waits_and_why() {
    let site = TestSite::with_publisher();
    let module = Digest::of(&site.push(&recipe("sampler", "1.0.0")));
    let (left, right) = (
        Device::join(&site, 1, "left", &[]),
        Device::join(&site, 2, "right", &[]),
    );
    site.apply("app", APPLICATION);
    let id = site.client.get("/routes").json()["items"][0]["id"].clone();
    let id: RouteId = serde_json::from_value(id).unwrap();
    let described = || -> RouteDetail { site.client.get(&format!("/routes/{id}")).ok() };
    let healths = |detail: &RouteDetail| -> Vec<HealthState> {
        let pairs = detail.pairs.iter();
        pairs.map(|pair| pair.health.state).collect()
    };

    let nothing = described();
    assert_eq!(healths(&nothing), [HealthState::Unknown; 2]);
    assert!(nothing.pairs.iter().all(|pair| pair.reports.is_empty()));

    let log = BacklogStatus {
        name: MicroserviceName {
            application: "app".parse().unwrap(),
            microservice: "one".parse().unwrap(),
        },
        outlet: "out".parse().unwrap(),
        bytes: 4_096,
        bytes_max: 16 << 20,
        refused: Overflow::default(),
        dropped: Overflow::default(),
    };
    let mut to_right = counters(id, "right", 9, 0, 4);
    let routes = vec![counters(id, "left", 9, 9, 0), to_right.clone()];
    let to_left = report(&site, &left, module, &["one", "two"], routes, Some(log));
    let routes = vec![counters(id, "left", 0, 5, 0)];
    let link = report(&site, &right, module, &["two"], routes, None);
    let detail = until("all is well", || {
        Some(described()).filter(|detail| detail.health.is_healthy())
    });
    let [local, remote] = &detail.pairs[..] else {
        panic!("{detail:?}")
    };
    assert!(local.relays.is_empty());
    assert_eq!(
        (remote.from.as_str(), remote.to.as_str()),
        ("left", "right")
    );
    assert_eq!(remote.relays[0].name.as_str(), "controller");
    let counts = |node: &str| {
        let report = &remote.reports[&node.parse::<Name>().unwrap()];
        (report.sent, report.delivered, report.waiting)
    };
    assert_eq!((counts("left"), counts("right")), ((9, 0, 4), (0, 5, 0)));
    assert_eq!((detail.route.sent, detail.route.waiting), (18, 4));
    let left_name: Name = "left".parse().unwrap();
    assert_eq!(local.reports[&left_name].sent, 9);
    assert_eq!(detail.backlogs[&left_name].bytes, 4_096);
    let receiver = &detail.receivers[&left_name];
    assert_eq!((receiver.discarded, receiver.dead_letters), (3, 2));

    // What a node says that it does not do stands there with since when.
    to_right.problem = Some("nothing passes".into());
    to_right.problem_after_s = Some(20);
    let mut status = left.status(
        now_ms(),
        1_000,
        vec![running("one", module), running("two", module)],
    );
    status.interval_ms = Some(10_000);
    status.uptime_ms = Some(60_000);
    status.routes = vec![to_right];
    to_left.publish(left.sealed(&status, &left.key));
    let detail = until("it is degraded", || {
        Some(described()).filter(|detail| detail.health.state == HealthState::Degraded)
    });
    let report = &detail.pairs[1].reports[&left_name];
    assert_eq!(
        report.problem_since_ms,
        Some(report.counted.until_ms - 40_000)
    );
    assert_eq!(detail.health.since_ms, report.problem_since_ms);
    assert_eq!(
        detail.health.reason.as_deref(),
        Some("`left`: nothing passes")
    );

    drop(link);
    let detail = until("one is away", || {
        Some(described()).filter(|detail| healths(detail)[1] == HealthState::Unknown)
    });
    let health = &detail.pairs[1].health;
    assert_eq!(health.cause, Some(Cause::NotReached));
    let reason = health.reason.as_deref().unwrap();
    assert!(
        reason.starts_with("`two` on `right`: no relay has"),
        "{reason}"
    );
    assert_eq!(detail.pairs[0].health.state, HealthState::Healthy);
    assert!(health.since_ms.is_some());

    site.client
        .get("/routes/0123456789abcdef")
        .refused(404, "unknown_route");
    site.client.get("/routes/first").refused(400, "bad_name");
}
