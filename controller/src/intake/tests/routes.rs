//! Events of routes from and to topics of brokers.

use haar_protocol::ids::RouteId;
use haar_protocol::status::RouteStatus;

use super::*;

fn route(problem: Option<&str>) -> RouteStatus {
    RouteStatus {
        id: RouteId::from_u64(7),
        peer: "plant".parse().unwrap(),
        topic: Some("mqtt:plant/mode".into()),
        counted_after_s: 0,
        sent: 0,
        delivered: 0,
        handled: 0,
        dropped: 0,
        waiting: 0,
        problem: problem.map(str::to_owned),
        problem_after_s: None,
    }
}

#[test]
fn a_route_that_does_less_than_its_manifest_says_is_an_event_and_so_is_its_end() {
    let less = Some("the broker of relay `plant` does not retain messages");
    // What an agent says that has just started means nothing.
    let steps = [
        (1, None),
        (1, less),
        (1, less),
        (2, None),
        (2, less),
        (2, None),
    ];
    let (mut last, mut told) = (None::<StatusRow>, Vec::new());
    for (sequence, (started_ms, problem)) in (1..).zip(steps) {
        let mut next = status(sequence, started_ms);
        next.routes = vec![route(problem)];
        let accepted = accept(last.as_ref(), next, &"one".parse().unwrap(), false, 1).unwrap();
        told.extend(accepted.events);
        last = Some(accepted.row);
    }
    let kinds: Vec<_> = told.iter().map(|told| told.kind).collect();
    assert_eq!(kinds, ["route_limited", "route_limited", "route_restored"]);
    assert_eq!(
        told[0].message,
        "route `mqtt:plant/mode` on node `one`: the broker of relay `plant` does not retain messages"
    );
}
