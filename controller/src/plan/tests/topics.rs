//! Routes between microservices and topics of brokers.

use haar_protocol::assignment::TopicEnd;
use haar_protocol::manifest::{Credentials, Delivery, Route};
use haar_protocol::relay::RelayRole;

use super::super::{RelayPlace, relay_problems, topic_rights};
use super::*;

fn everywhere() -> Place {
    Place {
        node: None,
        labels: Some(BTreeMap::new()),
        count: None,
    }
}

fn external(text: &str) -> Relay {
    Relay {
        name: name(text),
        place: RelayPlace::External {
            url: "mqtt://127.0.0.1:1".parse().unwrap(),
            ca_pem: None,
            credentials: Credentials::Generated,
            session_expiry_s: None,
            client: None,
            issued_until_ms: None,
        },
        role: RelayRole::Links,
        ..Relay::embedded()
    }
}

fn route(from: &str, to: &str, relay: &str) -> Route {
    Route {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        relay: Some(name(relay)),
        retain: false,
        retained: None,
        will: None,
        delivery: Delivery::Durable,
        backlog: None,
    }
}

/// Microservice `m0` on both nodes, `m1` on `gw-1`.
fn planned() -> (Fleet, Placements) {
    let on_one = Place {
        node: Some(name("gw-1")),
        labels: None,
        count: None,
    };
    let microservices = vec![microservice(0, everywhere(), 1), microservice(1, on_one, 1)];
    let (name, mut application) = application("app", microservices, &[]);
    application.manifest.routes = vec![
        route("mqtt:$share/all/plant/+/t", "m0.in", "plant"),
        route("m1.out", "mqtt:plant/alerts", "plant"),
        route("mqtt:hall/#", "m1.in", "hall"),
    ];
    let nodes = vec![node(0, "a", 64, 8), node(1, "a", 64, 8)];
    let mut fleet = fleet(nodes, vec![(name, application)]);
    fleet.relays.extend([external("plant"), external("hall")]);
    let placed = place(&fleet, None);
    assert_eq!(placed.unplaced, []);
    (fleet, placed.placements)
}

#[test]
fn each_node_with_an_instance_talks_to_the_broker_itself() {
    let (fleet, placements) = planned();
    let assignments = compiled(&fleet, &placements);
    let of = |node: &str| {
        let mut all = assignments.iter();
        all.find(|one| one.node_name.as_str() == node).unwrap()
    };
    let ends = |node: &str| {
        let mut ends: Vec<String> = of(node)
            .topics
            .iter()
            .map(|route| format!("{} {} {}", route.topic, route.relay, route.port))
            .collect();
        ends.sort();
        ends
    };
    let shared = "mqtt:$share/all/plant/+/t plant in";
    assert_eq!(ends("gw-0"), [shared]);
    let all = [shared, "mqtt:hall/# hall in", "mqtt:plant/alerts plant out"];
    assert_eq!(ends("gw-1"), all);
    let brokers = |node: &str| {
        let brokers = of(node).brokers.iter();
        brokers.map(|one| one.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(brokers("gw-0"), ["plant"]);
    assert_eq!(brokers("gw-1"), ["hall", "plant"]);
    let of_one = &of("gw-1").topics;
    assert!(of_one.iter().any(|route| !route.topic.is_source()));
    let two = of("gw-0").topics.iter().find(|one| one.topic.is_source());
    assert!(matches!(&two.unwrap().topic, TopicEnd::From(filter) if filter.group() == Some("all")));
}

#[test]
fn a_node_may_do_at_a_broker_what_its_routes_need_and_nothing_else() {
    let (fleet, placements) = planned();
    let shown = |relay: &str| {
        let rights = topic_rights(&fleet, &placements, &name(relay));
        let mut shown: Vec<String> = rights
            .into_iter()
            .map(|(id, rights)| {
                let texts = |all: Vec<String>| all.join(",");
                let reads = texts(rights.reads.iter().map(ToString::to_string).collect());
                let writes = texts(rights.writes.iter().map(ToString::to_string).collect());
                format!("{} reads {reads} writes {writes}", fleet.nodes[&id].name)
            })
            .collect();
        shown.sort();
        shown
    };
    let both = [
        "gw-0 reads plant/+/t writes ",
        "gw-1 reads plant/+/t writes plant/alerts",
    ];
    assert_eq!(shown("plant"), both);
    assert_eq!(shown("hall"), ["gw-1 reads hall/# writes "]);
    assert!(shown("controller").is_empty());
}

#[test]
fn a_route_names_a_relay_that_devices_can_reach() {
    let (fleet, _) = planned();
    let mut manifest = fleet.applications[&name("app")].manifest.clone();
    assert_eq!(relay_problems(&manifest, &fleet.relays), []);
    manifest.routes[0].relay = Some(name("plnat"));
    let problems = relay_problems(&manifest, &fleet.relays);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].code, "unknown_relay");
    assert_eq!(problems[0].hint.as_deref(), Some("did you mean `plant`?"));
    manifest.routes[0].relay = Some(name("controller"));
    let problems = relay_problems(&manifest, &fleet.relays);
    assert_eq!(problems[0].code, "relay_without_devices");
}

#[test]
fn filters_of_every_name_are_for_brokers_over_which_nothing_of_haar_passes() {
    let (fleet, _) = planned();
    let mut manifest = fleet.applications[&name("app")].manifest.clone();
    manifest.routes[0].from = "mqtt:+/events/rpc".parse().unwrap();
    manifest.routes[1].to = "mqtt:$aws/things/7/shadow/update".parse().unwrap();
    let at = |role: RelayRole, others: &[Relay]| {
        let plant = Relay {
            role,
            ..external("plant")
        };
        let relays = [&[plant, Relay::embedded()], others].concat();
        let problems = relay_problems(&manifest, &relays).into_iter();
        problems.map(|problem| problem.code).collect::<Vec<_>>()
    };
    let elsewhere = |role: RelayRole| {
        let mut hall = Relay {
            role,
            ..external("hall")
        };
        if let RelayPlace::External { url, .. } = &mut hall.place {
            url.address.host = "Hall.example".to_owned();
        }
        hall
    };
    let hall = elsewhere(RelayRole::Everything);
    assert!(at(RelayRole::Topics, std::slice::from_ref(&hall)).is_empty());
    for role in [RelayRole::Everything, RelayRole::Links] {
        let problems = at(role, std::slice::from_ref(&hall));
        assert_eq!(problems, ["takes_own_topics"]);
        let same_broker = Relay {
            role,
            ..external("hall")
        };
        assert_eq!(at(RelayRole::Topics, &[same_broker]), ["takes_own_topics"]);
    }
}
