//! Made-up fleets: a few nodes and applications with what a test says of them, or any at all.

use std::collections::BTreeMap;

use haar_protocol::assignment::Publisher;
use haar_protocol::ids::{Digest, MediaType, Name, NodeId, SiteId};
use haar_protocol::keys::SecretKey;
use haar_protocol::limits::{Backlog, Budget, Limits, Retention};
use haar_protocol::manifest::{
    ApiVersion, Delivery, Kind, Manifest, Microservice, ModuleReference, Place, Port, Route,
};
use haar_protocol::quantity::{ByteSize, Millis, Percent};
use proptest::prelude::*;

use super::super::{Application, Fleet, Module, Node, Placements, Relay};

pub(super) const MEBIBYTE: u64 = 1 << 20;

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn module() -> Module {
    Module {
        digest: Digest::of(b"module"),
        name: name("module"),
        version: "1.0.0".into(),
        resigned: Vec::new(),
        later: None,
        bytes: 10,
        memory_bytes: None,
        signers: vec![SecretKey::from_seed([1; 32]).public()],
        imports: Vec::new(),
        exports: vec!["haar:local/handler@0.1.0".into()],
    }
}

fn text_port() -> Port {
    Port::from("text/plain".parse::<MediaType>().unwrap())
}

pub(super) fn microservice(index: usize, place: Place, mebibytes: u64) -> Microservice {
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

pub(super) fn node(index: u8, role: &str, mebibytes: u64, microservices: u32) -> (NodeId, Node) {
    let id = NodeId::of(&SecretKey::from_seed([index + 1; 32]).public());
    let budget = Budget::new(ByteSize(mebibytes * MEBIBYTE), microservices);
    let labels = BTreeMap::from([("role".to_owned(), role.to_owned())]);
    (
        id,
        Node {
            name: name(&format!("gw-{index}")),
            labels,
            budget,
            key: SecretKey::from_seed([index + 1; 32]).public(),
            link_key: None,
            link_key_generation: 0,
        },
    )
}

/// An application with routes between its microservices; those with a backlog in MiB are durable.
pub(super) fn application(
    text: &str,
    microservices: Vec<Microservice>,
    routes: &[(usize, usize, Option<u64>)],
) -> (Name, Application) {
    let routes: BTreeMap<(usize, usize), Option<u64>> = routes
        .iter()
        .map(|(from, to, backlog)| {
            let ends = (from % microservices.len(), to % microservices.len());
            (ends, *backlog)
        })
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
            .map(|((from, to), backlog)| Route {
                from: format!("m{from}.out").parse().unwrap(),
                to: format!("m{to}.in").parse().unwrap(),
                relay: None,
                retain: false,
                retained: None,
                will: None,
                delivery: match backlog {
                    Some(_) => Delivery::Durable,
                    None => Delivery::Live,
                },
                backlog: backlog.map(|mebibytes| Backlog {
                    size: ByteSize(mebibytes * MEBIBYTE),
                    ..Backlog::default()
                }),
            })
            .collect(),
        microservices,
    };
    (name(text), Application { manifest, modules })
}

pub(super) fn fleet(nodes: Vec<(NodeId, Node)>, applications: Vec<(Name, Application)>) -> Fleet {
    let key = SecretKey::from_seed([1; 32]).public();
    Fleet {
        site: SiteId::of(&key),
        site_key: SecretKey::from_seed([1; 32]),
        relays: vec![Relay::embedded()],
        nodes: nodes.into_iter().collect(),
        publishers: vec![Publisher {
            name: name("acme"),
            key,
        }],
        modules: BTreeMap::from([(Digest::of(b"module"), module())]),
        applications: applications.into_iter().collect(),
        placements: Placements::new(),
        lives: BTreeMap::new(),
        ended: BTreeMap::new(),
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

/// Limits and grants of a microservice that sets aside some of everything.
pub(super) fn demanding(
    mut one: Microservice,
    cpu: u32,
    key_value: u64,
    history: u64,
) -> Microservice {
    one.limits.cpu = (cpu > 0).then_some(Percent(cpu));
    one.grants.key_value = key_value > 0;
    one.limits.key_value_size = ByteSize(key_value * MEBIBYTE);
    let kept = (history > 0).then_some(Retention {
        size: ByteSize(history * MEBIBYTE),
        age: Millis(1),
    });
    for port in one.inlets.values_mut() {
        port.history = kept.clone();
    }
    one
}

pub(super) fn any_application(text: &'static str) -> impl Strategy<Value = (Name, Application)> {
    let demands = (1u64..40, 0u32..80, 0u64..20, 0u64..20);
    let microservices = prop::collection::vec((any_place(), demands), 1..5);
    let routes = prop::collection::vec((0usize..8, 0usize..8, prop::option::of(1u64..20)), 0..5);
    (microservices, routes).prop_map(move |(microservices, routes)| {
        let microservices = microservices
            .into_iter()
            .enumerate()
            .map(|(index, (place, (memory, cpu, key_value, history)))| {
                demanding(microservice(index, place, memory), cpu, key_value, history)
            })
            .collect();
        application(text, microservices, &routes)
    })
}

fn any_nodes() -> impl Strategy<Value = Vec<(NodeId, Node)>> {
    let one = (any::<bool>(), 0u64..100, 0u32..6, 0u32..200, 0u64..60);
    prop::collection::vec(one, 0..7).prop_map(|nodes| {
        nodes
            .into_iter()
            .zip(0u8..)
            .map(|((edge, mebibytes, most, cpu_percent, storage), index)| {
                let role = if edge { "edge" } else { "core" };
                let (id, mut node) = node(index, role, mebibytes, most);
                node.budget.cpu_percent = cpu_percent;
                node.budget.storage = ByteSize(storage * MEBIBYTE);
                (id, node)
            })
            .collect()
    })
}

pub(super) fn any_fleet() -> impl Strategy<Value = Fleet> {
    (any_nodes(), any_application("a"), any_application("b"))
        .prop_map(|(nodes, one, other)| fleet(nodes, vec![one, other]))
}
