//! Properties of plans over made-up sites: the same answer every time, nothing moves without need,
//! no node is ever given more than it has, and every route ends at something that runs.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::assignment::{Assignment, MicroserviceName, Publisher};
use haar_protocol::ids::{Digest, MediaType, Name, NodeId, SiteId};
use haar_protocol::keys::SecretKey;
use haar_protocol::limits::{Budget, Limits};
use haar_protocol::manifest::{
    ApiVersion, Delivery, Kind, Manifest, Microservice, ModuleReference, Place, Port, Route,
};
use haar_protocol::quantity::ByteSize;
use proptest::prelude::*;

use super::*;

const MEBIBYTE: u64 = 1 << 20;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn module() -> Module {
    Module {
        digest: Digest::of(b"module"),
        name: name("module"),
        version: "1.0.0".into(),
        bytes: 10,
        signers: vec![SecretKey::from_seed([1; 32]).public()],
        imports: Vec::new(),
        exports: vec!["haar:local/handler@0.1.0".into()],
    }
}

fn text_port() -> Port {
    Port::from("text/plain".parse::<MediaType>().unwrap())
}

fn microservice(index: usize, place: Place, mebibytes: u64) -> Microservice {
    Microservice {
        name: name(&format!("m{index}")),
        module: ModuleReference::Version {
            name: name("module"),
            version: "1.0.0".into(),
        },
        place,
        limits: Limits {
            memory: ByteSize(mebibytes * MEBIBYTE),
            ..Limits::default()
        },
        grants: Default::default(),
        configuration: BTreeMap::new(),
        configuration_schema: None,
        log_level: Default::default(),
        restart: Default::default(),
        retry: Default::default(),
        outlets: BTreeMap::from([(name("out"), text_port())]),
        inlets: BTreeMap::from([(name("in"), text_port())]),
    }
}

fn node(index: u8, role: &str, mebibytes: u64, microservices: u32) -> (NodeId, Node) {
    let id = NodeId::of(&SecretKey::from_seed([index + 1; 32]).public());
    let budget = Budget::new(ByteSize(mebibytes * MEBIBYTE), microservices);
    let labels = BTreeMap::from([("role".to_owned(), role.to_owned())]);
    (
        id,
        Node {
            name: name(&format!("gw-{index}")),
            labels,
            budget,
        },
    )
}

fn application(
    text: &str,
    microservices: Vec<Microservice>,
    routes: &[(usize, usize)],
) -> (Name, Application) {
    let routes: BTreeSet<(usize, usize)> = routes
        .iter()
        .map(|(from, to)| (from % microservices.len(), to % microservices.len()))
        .collect();
    let modules = microservices
        .iter()
        .map(|one| (one.name.clone(), Digest::of(b"module")))
        .collect();
    let manifest = Manifest {
        api_version: ApiVersion::V1,
        kind: Kind::Application,
        name: name(text),
        routes: routes
            .into_iter()
            .map(|(from, to)| Route {
                from: format!("m{from}.out").parse().unwrap(),
                to: format!("m{to}.in").parse().unwrap(),
                delivery: Delivery::Live,
            })
            .collect(),
        microservices,
    };
    (name(text), Application { manifest, modules })
}

fn fleet(nodes: Vec<(NodeId, Node)>, applications: Vec<(Name, Application)>) -> Fleet {
    let key = SecretKey::from_seed([1; 32]).public();
    Fleet {
        site: SiteId::of(&key),
        nodes: nodes.into_iter().collect(),
        publishers: vec![Publisher {
            name: name("acme"),
            key,
        }],
        modules: BTreeMap::from([(Digest::of(b"module"), module())]),
        applications: applications.into_iter().collect(),
        placements: Placements::new(),
    }
}

fn any_place() -> impl Strategy<Value = Place> {
    let role = |role: &str| Some(BTreeMap::from([("role".to_owned(), role.to_owned())]));
    prop_oneof![
        (0u8..8).prop_map(|index| Place {
            node: Some(name(&format!("gw-{index}"))),
            labels: None,
            count: None
        }),
        prop::option::of(1u32..5).prop_map(|count| Place {
            node: None,
            labels: Some(BTreeMap::new()),
            count
        }),
        prop::option::of(1u32..5).prop_map(move |count| Place {
            node: None,
            labels: role("edge"),
            count
        }),
    ]
}

fn any_application(text: &'static str) -> impl Strategy<Value = (Name, Application)> {
    let microservices = prop::collection::vec((any_place(), 1u64..40), 1..5);
    let routes = prop::collection::vec((0usize..8, 0usize..8), 0..5);
    (microservices, routes).prop_map(move |(microservices, routes)| {
        let microservices = microservices
            .into_iter()
            .enumerate()
            .map(|(index, (place, mebibytes))| microservice(index, place, mebibytes))
            .collect();
        application(text, microservices, &routes)
    })
}

fn any_nodes() -> impl Strategy<Value = Vec<(NodeId, Node)>> {
    prop::collection::vec((any::<bool>(), 0u64..100, 0u32..6), 0..7).prop_map(|nodes| {
        nodes
            .into_iter()
            .zip(0u8..)
            .map(|((edge, mebibytes, most), index)| {
                node(index, if edge { "edge" } else { "core" }, mebibytes, most)
            })
            .collect()
    })
}

fn any_fleet() -> impl Strategy<Value = Fleet> {
    (any_nodes(), any_application("a"), any_application("b"))
        .prop_map(|(nodes, one, other)| fleet(nodes, vec![one, other]))
}

fn compiled(fleet: &Fleet, placements: &Placements) -> Vec<Assignment> {
    fleet
        .nodes
        .keys()
        .map(|id| compile(fleet, placements, id).unwrap())
        .collect()
}

proptest! {
    #[test]
    fn a_plan_is_the_same_every_time_and_stays_when_made_again(fleet in any_fleet()) {
        let placed = place(&fleet, Some(&name("b")));
        prop_assert_eq!(&place(&fleet, Some(&name("b"))), &placed);
        let settled = Fleet { placements: placed.placements.clone(), ..fleet };
        prop_assert_eq!(&place(&settled, Some(&name("b"))).placements, &placed.placements);
        prop_assert_eq!(&place(&settled, None).placements, &placed.placements);
        prop_assert_eq!(
            compiled(&settled, &placed.placements),
            compiled(&settled, &placed.placements)
        );
    }

    #[test]
    fn no_node_is_given_more_than_it_has(fleet in any_fleet()) {
        let placed = place(&fleet, None);
        for assignment in compiled(&fleet, &placed.placements) {
            let budget = &fleet.nodes[&assignment.node].budget;
            let memory: u64 = assignment.microservices.iter().map(|one| one.limits.memory.0).sum();
            prop_assert!(memory <= budget.memory.0);
            prop_assert!(assignment.microservices.len() <= budget.microservices as usize);
        }
    }

    #[test]
    fn every_instance_is_where_it_may_be_and_what_is_missing_is_told(fleet in any_fleet()) {
        let placed = place(&fleet, None);
        for (name, application) in &fleet.applications {
            for one in &application.manifest.microservices {
                let full = MicroserviceName { application: name.clone(), microservice: one.name.clone() };
                let nodes = placed.placements.get(&full).cloned().unwrap_or_default();
                for id in &nodes {
                    let node = &fleet.nodes[id];
                    prop_assert!(one.place.node.as_ref().is_none_or(|wanted| wanted == &node.name));
                    for (key, value) in one.place.labels.iter().flatten() {
                        prop_assert_eq!(node.labels.get(key), Some(value));
                    }
                }
                let wanted = one.place.count.map_or(1, |count| count as usize);
                prop_assert!(one.place.count.is_none() || nodes.len() <= wanted);
                let is_told = placed.unplaced.iter().any(|unplaced| unplaced.name == full);
                prop_assert!(nodes.len() >= wanted || is_told);
            }
        }
    }

    #[test]
    fn a_candidate_never_moves_another_application(fleet in any_fleet(), newer in any_application("a")) {
        let before = place(&fleet, None).placements;
        let mut changed = Fleet { placements: before.clone(), ..fleet };
        changed.applications.insert(newer.0, newer.1);
        let after = place(&changed, Some(&name("a"))).placements;
        for (full, nodes) in before.iter().filter(|(full, _)| full.application == name("b")) {
            prop_assert!(after.get(full).is_some_and(|kept| kept.is_superset(nodes)));
        }
    }

    #[test]
    fn a_new_node_moves_nothing_that_is_in_place(fleet in any_fleet(), mebibytes in 0u64..100) {
        let before = place(&fleet, None).placements;
        let mut larger = Fleet { placements: before.clone(), ..fleet };
        let (id, node) = node(7, "edge", mebibytes, 3);
        larger.nodes.insert(id, node);
        let after = place(&larger, None).placements;
        for (full, nodes) in &before {
            prop_assert!(after[full].is_superset(nodes));
        }
    }

    #[test]
    fn every_route_has_two_ends_that_run_and_both_nodes_know_it(fleet in any_fleet()) {
        let placements = place(&fleet, None).placements;
        let assignments = compiled(&fleet, &placements);
        for assignment in &assignments {
            let peers: BTreeSet<&NodeId> = assignment.peers.iter().map(|peer| &peer.id).collect();
            let mut ends = BTreeSet::new();
            for route in &assignment.routes {
                prop_assert!(route.from.node == assignment.node || route.to.node == assignment.node);
                for end in [&route.from, &route.to] {
                    prop_assert!(placements[&end.microservice].contains(&end.node));
                    let there = assignments.iter().find(|other| other.node == end.node).unwrap();
                    prop_assert!(there.routes.contains(route));
                    ends.insert(&end.node);
                }
            }
            ends.remove(&assignment.node);
            prop_assert_eq!(peers, ends);
            prop_assert!(assignment.routes.is_sorted_by_key(|route| (route.id, route.from.clone(), route.to.clone())));
            prop_assert!(assignment.microservices.is_sorted_by_key(|one| one.name.clone()));
        }
    }
}

#[test]
fn a_count_goes_to_the_nodes_with_the_least_to_do() {
    let on = |node: &str| Place {
        node: Some(name(node)),
        labels: None,
        count: None,
    };
    let two = Place {
        node: None,
        labels: Some(BTreeMap::new()),
        count: Some(2),
    };
    let busy = application("a", vec![microservice(0, on("gw-0"), 1)], &[]);
    let counted = application("b", vec![microservice(0, two, 1)], &[]);
    let nodes = (0..3).map(|index| node(index, "edge", 64, 8)).collect();
    let fleet = fleet(nodes, vec![busy, counted]);
    let placed = place(&fleet, Some(&name("b"))).placements;
    let full = MicroserviceName {
        application: name("b"),
        microservice: name("m0"),
    };
    let names: BTreeSet<&str> = placed[&full]
        .iter()
        .map(|id| fleet.nodes[id].name.as_str())
        .collect();
    assert_eq!(names, BTreeSet::from(["gw-1", "gw-2"]));
}

#[test]
fn too_many_pairs_of_instances_are_a_problem() {
    let everywhere = Place {
        node: None,
        labels: Some(BTreeMap::new()),
        count: None,
    };
    let microservices = vec![
        microservice(0, everywhere.clone(), 1),
        microservice(1, everywhere, 1),
    ];
    let (name, application) = application("a", microservices, &[(0, 1)]);
    let fleet = fleet(Vec::new(), vec![(name.clone(), application)]);
    let nodes: BTreeSet<NodeId> = (0..400u16)
        .map(|index| {
            let mut seed = [9; 32];
            seed[..2].copy_from_slice(&index.to_be_bytes());
            NodeId::of(&SecretKey::from_seed(seed).public())
        })
        .collect();
    let on = |microservice: &str| MicroserviceName {
        application: name.clone(),
        microservice: microservice.parse().unwrap(),
    };
    let placements = Placements::from([(on("m0"), nodes.clone()), (on("m1"), nodes)]);
    let problem = route_pairs_problem(&fleet, &name, &placements).unwrap();
    assert!(problem.message.contains("160000"), "{}", problem.message);
}
