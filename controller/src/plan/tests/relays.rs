//! Who attaches to which relay, and what assignments say of it.

use haar_protocol::manifest::Credentials;
use haar_protocol::relay::{NodeCredentials, PASSWORD_PURPOSE, RelayRole};

use super::super::{RelayPlace, relays_of};
use super::*;

fn with_labels(labels: &[(&str, &str)]) -> Place {
    let labels = labels.iter();
    Place {
        node: None,
        labels: Some(
            labels
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        ),
        count: None,
    }
}

fn broker(text: &str, preference: u16, nodes: Place) -> Relay {
    Relay {
        name: name(text),
        preference,
        nodes,
        role: RelayRole::Everything,
        place: RelayPlace::External {
            url: "mqtts://broker.example".parse().unwrap(),
            ca_pem: None,
            credentials: Credentials::Given {
                user: "haar".into(),
                password: "secret".into(),
            },
            session_expiry_s: None,
            client: None,
            issued_until_ms: None,
        },
    }
}

fn neighbourhood(text: &str, host: &str, nodes: Place) -> Relay {
    Relay {
        name: name(text),
        preference: 1,
        nodes,
        role: RelayRole::Links,
        place: RelayPlace::Neighbourhood {
            node: name(host),
            address: "192.0.2.1:7422".parse().unwrap(),
            listen: "0.0.0.0:7422".parse().unwrap(),
            certificate_pem: "certificate".into(),
            key_pem: "key".into(),
        },
    }
}

/// `m0` on the first node sends to `m1` on the second; there is a third.
fn planned(relays: Vec<Relay>) -> (Fleet, Placements) {
    let on = |node: &str| Place {
        node: Some(name(node)),
        labels: None,
        count: None,
    };
    let microservices = vec![
        microservice(0, on("gw-0"), 1),
        microservice(1, on("gw-1"), 1),
    ];
    let application = application("app", microservices, &[(0, 1, None)]);
    let nodes = vec![
        node(0, "a", 64, 8),
        node(1, "b", 64, 8),
        node(2, "c", 64, 8),
    ];
    let mut fleet = fleet(nodes, vec![application]);
    fleet.relays.extend(relays);
    let placed = place(&fleet, None);
    assert_eq!(placed.unplaced, []);
    (fleet, placed.placements)
}

fn id(index: u8) -> NodeId {
    NodeId::of(&SecretKey::from_seed([index + 1; 32]).public())
}

fn names(relays: &[&Relay]) -> Vec<String> {
    let relays = relays.iter();
    relays.map(|relay| relay.name.to_string()).collect()
}

#[test]
fn without_manifests_assignments_say_nothing_of_relays() {
    let (fleet, placements) = planned(Vec::new());
    let assignment = compile(&fleet, &placements, &id(0)).unwrap();
    assert!(assignment.relays.is_empty() && assignment.serves.is_empty());
    assert!(assignment.peers.iter().all(|peer| peer.relays.is_empty()));
}

#[test]
fn a_node_attaches_to_the_relays_that_are_meant_for_it_the_most_preferred_first() {
    let (fleet, _) = planned(vec![
        broker("late", 200, with_labels(&[])),
        broker("early", 50, with_labels(&[("role", "a")])),
        Relay {
            role: RelayRole::Topics,
            ..broker("devices", 1, with_labels(&[]))
        },
        neighbourhood("near", "gw-2", with_labels(&[("role", "b")])),
    ]);
    let of = |index| names(&relays_of(&fleet, &fleet.nodes[&id(index)]));
    assert_eq!(of(0), ["early", "late", "controller"]);
    assert_eq!(of(1), ["near", "late", "controller"]);
    assert_eq!(of(2), ["near", "late", "controller"], "it runs it");
}

#[test]
fn of_many_relays_the_most_preferred_four_count() {
    let relays = (0..8).map(|n| broker(&format!("r{n}"), 100 - n, with_labels(&[])));
    let (fleet, _) = planned(relays.collect());
    let own = names(&relays_of(&fleet, &fleet.nodes[&id(0)]));
    assert_eq!(own, ["r7", "r6", "r5", "r4"]);
}

#[test]
fn two_nodes_know_which_relays_they_share_and_in_which_order() {
    let (fleet, placements) = planned(vec![
        broker("one", 10, with_labels(&[("role", "a")])),
        broker("both", 20, with_labels(&[])),
    ]);
    for (own, other) in [(0, 1), (1, 0)] {
        let assignment = compile(&fleet, &placements, &id(own)).unwrap();
        let peer = &assignment.peers[0];
        assert_eq!(peer.id, id(other));
        let shared: Vec<&str> = peer.relays.iter().map(Name::as_str).collect();
        assert_eq!(shared, ["both", "controller"]);
    }
}

#[test]
fn the_node_that_runs_a_relay_is_told_who_may_connect_and_a_secret_only_it_can_open() {
    let (fleet, placements) = planned(vec![neighbourhood(
        "near",
        "gw-1",
        with_labels(&[("role", "a")]),
    )]);
    let host = compile(&fleet, &placements, &id(1)).unwrap();
    let [served] = host.serves.as_slice() else {
        panic!("{:?}", host.serves);
    };
    let mut members: Vec<&NodeId> = served.nodes.iter().map(|node| &node.id).collect();
    members.sort();
    let (guest_id, host_id) = (id(0), id(1));
    let mut expected = vec![&guest_id, &host_id];
    expected.sort();
    assert_eq!(members, expected);
    let opened = |index: u8| {
        let shared = SecretKey::from_seed([index + 1; 32]).shared_with(&fleet.site_key.public());
        shared.open(haar_protocol::relay::CERTIFICATE_PURPOSE, &served.key)
    };
    assert_eq!(opened(1).as_deref(), Ok("key"));
    assert!(opened(0).is_err());
    let guest = compile(&fleet, &placements, &id(0)).unwrap();
    assert!(guest.serves.is_empty());
    assert_eq!(guest.relays[0].name, name("near"));
    assert_eq!(guest.relays[0].credentials, NodeCredentials::Proof);
}

#[test]
fn a_password_that_people_give_is_sealed_for_each_node() {
    let (fleet, placements) = planned(vec![broker("plant", 10, with_labels(&[]))]);
    for index in 0..2 {
        let assignment = compile(&fleet, &placements, &id(index)).unwrap();
        let NodeCredentials::Given { user, password } = &assignment.relays[0].credentials else {
            panic!("{:?}", assignment.relays[0]);
        };
        assert_eq!(user, "haar");
        for other in 0..2 {
            let key = SecretKey::from_seed([other + 1; 32]);
            let opened = key
                .shared_with(&fleet.site_key.public())
                .open(PASSWORD_PURPOSE, password);
            assert_eq!(opened.is_ok(), other == index);
        }
        assert_eq!(compile(&fleet, &placements, &id(index)), Some(assignment));
    }
}
