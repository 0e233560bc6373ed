//! Properties of plans over made-up sites: the same answer every time, nothing moves without need,
//! no node is ever given more than it has, and every route ends at something that runs.

mod fleets;
mod relays;
mod topics;

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::assignment::{Assignment, MicroserviceName};
use haar_protocol::demand::Demand;
use haar_protocol::ids::NodeId;
use haar_protocol::keys::SecretKey;
use haar_protocol::log::Level;
use haar_protocol::manifest::Place;
use haar_protocol::quantity::{ByteSize, Millis};
use proptest::prelude::*;

use super::*;
use fleets::{
    MEBIBYTE, any_application, any_fleet, application, demanding, fleet, microservice, name, node,
};

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
            let shortages = budget.shortages(&Demand::default(), &assignment.demand());
            prop_assert_eq!(shortages, vec![]);
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
fn what_does_not_fit_says_of_what_and_by_how_much() {
    let everywhere = Place {
        node: None,
        labels: Some(BTreeMap::new()),
        count: None,
    };
    let first = demanding(microservice(0, everywhere.clone(), 1), 60, 8, 8);
    let second = demanding(microservice(1, everywhere, 32), 50, 4, 0);
    let (id, mut small) = node(0, "edge", 9, 1);
    small.budget.cpu_percent = 100;
    small.budget.storage = ByteSize(18 * MEBIBYTE);
    let application = application("a", vec![first, second], &[]);
    let placed = place(&fleet(vec![(id, small)], vec![application]), None);
    let [unplaced] = placed.unplaced.as_slice() else {
        panic!("{:?}", placed.unplaced);
    };
    assert_eq!(
        unplaced.problem.message,
        "microservice `m1` does not fit on node `gw-0`: \
         memory: 32MiB wanted, 8MiB of 9MiB free: over by 24MiB; \
         microservices: 1 wanted, 0 of 1 free: over by 1; \
         cpu: 50% wanted, 40% of 100% free: over by 10%; \
         storage: 4MiB wanted, 2MiB of 18MiB free: over by 2MiB"
    );
    let hint = unplaced.problem.hint.as_deref().unwrap();
    let options = "a larger `--cpu` and `--memory` and `--microservices` and `--storage`";
    assert!(hint.contains(options), "{hint}");
}

#[test]
fn logs_of_durable_routes_count_where_they_are() {
    let on = |node: &str| Place {
        node: Some(name(node)),
        labels: None,
        count: None,
    };
    let microservices = vec![
        microservice(0, on("gw-0"), 1),
        microservice(1, on("gw-1"), 1),
        microservice(2, on("gw-0"), 1),
    ];
    // The routes of one outlet share its log, and what arrives is bounded to 4 MiB.
    let routes = [(0, 1, Some(6)), (0, 2, Some(9)), (2, 1, None)];
    let application = application("a", microservices, &routes);
    let problems = |storage: [u64; 2]| {
        let nodes = storage.into_iter().zip(0u8..).map(|(mebibytes, index)| {
            let (id, mut node) = node(index, "edge", 64, 8);
            node.budget.storage = ByteSize(mebibytes * MEBIBYTE);
            (id, node)
        });
        let fleet = fleet(nodes.collect(), vec![application.clone()]);
        let placed = place(&fleet, None);
        let problems = placed.unplaced.into_iter().map(|one| one.problem.message);
        problems.collect::<Vec<_>>()
    };
    assert_eq!(problems([9, 4]), Vec::<String>::new());
    assert_eq!(
        problems([8, 4]),
        ["microservice `m0` does not fit on node `gw-0`: \
          storage: 9MiB wanted, 8MiB of 8MiB free: over by 1MiB"]
    );
    assert_eq!(
        problems([9, 3]),
        ["microservice `m1` does not fit on node `gw-1`: \
          storage: 4MiB wanted, 3MiB of 3MiB free: over by 1MiB"]
    );
}

#[test]
fn an_assignment_says_all_that_the_manifest_says_of_a_microservice() {
    let here = Place {
        node: Some(name("gw-0")),
        labels: None,
        count: None,
    };
    let mut one = demanding(microservice(0, here, 1), 10, 1, 2);
    one.configuration = BTreeMap::from([("said".to_owned(), "1".to_owned())]);
    one.configuration_schema = Some(
        serde_json::from_value(serde_json::json!({
            "said": {"type": "integer", "default": "9"},
            "left_out": {"type": "string", "default": "filled in"},
        }))
        .unwrap(),
    );
    one.log_level = Level::Warn;
    one.restart.pauses = vec![Millis(7)];
    one.retry.attempts = 9;
    let fleet = fleet(
        vec![node(0, "edge", 64, 8)],
        vec![application("a", vec![one.clone()], &[])],
    );
    let assignment = compiled(&fleet, &place(&fleet, None).placements).remove(0);
    let told = &assignment.microservices[0];
    assert_eq!(told.demand(), one.demand());
    assert_eq!((&told.limits, &told.grants), (&one.limits, &one.grants));
    assert_eq!((&told.restart, &told.retry), (&one.restart, &one.retry));
    assert_eq!(told.log_level, Level::Warn);
    let values: Vec<&str> = told.configuration.values().map(String::as_str).collect();
    assert_eq!(values, ["filled in", "1"]);
    assert_eq!(told.inlet_history[&name("in")].size, ByteSize(2 * MEBIBYTE));
    assert!(told.outlet_history.is_empty());
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
    let (name, application) = application("a", microservices, &[(0, 1, None)]);
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

#[test]
fn a_module_of_which_nothing_is_ever_called_is_refused_or_told() {
    let place = Place {
        node: Some(name("gw-1")),
        labels: None,
        count: None,
    };
    let fleet = fleet(
        vec![],
        vec![application("app", vec![microservice(0, place, 1)], &[])],
    );
    let manifest = &fleet.applications[&name("app")].manifest;
    let with = |exports: &[&str]| -> Vec<Module> {
        let mut modules: Vec<Module> = fleet.modules.values().cloned().collect();
        modules[0].exports = exports.iter().map(|export| (*export).to_owned()).collect();
        modules
    };
    let command = with(&["wasi:cli/run@0.2.6"]);
    let problems = resolve(manifest, &command, &fleet.publishers).unwrap_err();
    let codes: Vec<_> = problems.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["never_called"]);
    assert!(problems[0].message.contains("is a command"), "{problems:?}");
    let notices = notices(manifest, &with(&[]));
    assert!(
        notices.len() == 1 && notices[0].contains("exports nothing"),
        "{notices:?}"
    );
}
