//! Over which time the numbers of routes and microservices were counted.

use haar_protocol::rest::{List, NodeDetail, Route};
use haar_protocol::status::{RouteStatus, Status};

use crate::support::device::{Device, Link, now_ms};
use crate::support::modules::recipe;
use crate::support::site::TestSite;
use crate::support::wait::until;

const APPLICATION: &str = "api_version: haar/v1\nkind: Application\nname: app\nmicroservices:\n- {name: one, module: sampler@1.0.0, place: {node: left}, outlets: {out: text/plain}}\n- {name: two, module: sampler@1.0.0, place: {node: right}, inlets: {in: text/plain}}\nroutes:\n- {from: one.out, to: two.in, delivery: live}\n";

fn routes(site: &TestSite) -> Vec<Route> {
    site.client.get("/routes").ok::<List<Route>>().items
}

fn node(site: &TestSite, name: &str) -> NodeDetail {
    site.client.get(&format!("/nodes/{name}")).ok()
}

/// Sends a status, and waits until the site has it.
fn report(site: &TestSite, name: &str, device: &Device, link: &Link, status: &Status) {
    link.publish(device.sealed(status, &device.key));
    until("the status is there", || {
        (node(site, name).status_sequence == Some(status.sequence)).then_some(())
    });
}

#[test]
fn numbers_of_a_route_say_over_which_time_each_node_has_counted_whatever_its_clock_shows() {
    let site = TestSite::with_publisher();
    site.push(&recipe("sampler", "1.0.0"));
    let (left, right) = (
        Device::join(&site, 1, "left", &[]),
        Device::join(&site, 2, "right", &[]),
    );
    site.apply("app", APPLICATION);
    let (to_left, to_right) = (left.connect(&site), right.connect(&site));
    let names = |names: &[_]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&routes(&site)[0].uncounted), ["left", "right"]);
    let counters = |sent, delivered, counted_after_s| RouteStatus {
        id: routes(&site)[0].id,
        peer: "peer".parse().unwrap(),
        topic: None,
        counted_after_s,
        sent,
        delivered,
        handled: delivered,
        dropped: 0,
        waiting: 0,
        problem: None,
        problem_after_s: None,
    };

    // One has run for three days, and its clock is in 1970; the other one started a minute ago, and the
    // route came after it.
    let before_ms = now_ms();
    let mut status = left.status(1, 1, Vec::new());
    (status.sent_ms, status.started_ms) = (50_000, 1);
    status.uptime_ms = Some(3 * 86_400_000);
    status.routes = vec![counters(2_038, 0, 0)];
    report(&site, "left", &left, &to_left, &status);
    assert_eq!(names(&routes(&site)[0].uncounted), ["right"]);
    let mut status = right.status(1, 1, Vec::new());
    status.uptime_ms = Some(60_000);
    status.routes = vec![counters(0, 7, 20)];
    report(&site, "right", &right, &to_right, &status);
    let after_ms = now_ms();

    let route = &routes(&site)[0];
    assert_eq!((route.sent, route.delivered), (2_038, 7));
    assert!(route.uncounted.is_empty());
    for (name, ago_ms) in [("left", 3 * 86_400_000), ("right", 40_000)] {
        let counted = route.counted[&name.parse().unwrap()];
        assert!((before_ms..=after_ms).contains(&counted.until_ms), "{name}");
        assert_eq!(counted.since_ms, counted.until_ms - ago_ms, "{name}");
    }
    let counted = node(&site, "right").counted.unwrap();
    assert_eq!(counted.since_ms, counted.until_ms - 60_000);
    // An agent that does not tell how long it has run: its clock says it.
    let mut status = right.status(2, 1, Vec::new());
    status.started_ms = status.sent_ms - 9_000;
    report(&site, "right", &right, &to_right, &status);
    let counted = node(&site, "right").counted.unwrap();
    assert_eq!(counted.since_ms, counted.until_ms - 9_000);
    assert_eq!(
        names(&routes(&site)[0].uncounted),
        ["right"],
        "left out now"
    );
}
