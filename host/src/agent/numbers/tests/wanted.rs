//! Assignments of one microservice with two outlets, whose routes and lives vary.

use std::collections::BTreeMap;

use haar_protocol::assignment::{Assignment, Microservice, MicroserviceName, Port, Route};
use haar_protocol::ids::{NodeId, RouteId, SiteId};
use haar_protocol::keys::SecretKey;
use haar_protocol::manifest::Delivery;
use proptest::prelude::*;

pub(super) const OUTLETS: [&str; 2] = ["a", "b"];

fn node(seed: u8) -> NodeId {
    NodeId::of(&SecretKey::from_seed([seed; 32]).public())
}

pub(super) fn name() -> MicroserviceName {
    MicroserviceName {
        application: "app".parse().unwrap(),
        microservice: "it".parse().unwrap(),
    }
}

fn port(node: NodeId, port: &str) -> Port {
    Port {
        node,
        microservice: name(),
        port: port.parse().unwrap(),
    }
}

fn microservice(life: u64) -> Microservice {
    let types = |names: [&'static str; 2]| names.map(|name| (name, "text/plain"));
    let json = serde_json::json!({
        "application": "app",
        "microservice": "it",
        "module": haar_protocol::ids::Digest::of(b"it"),
        "module_bytes": 1,
        "module_label": "it@1",
        "limits": {},
        "grants": {},
        "configuration": {},
        "outlets": BTreeMap::from(types(OUTLETS)),
        "inlets": {},
    });
    let mut it: Microservice = serde_json::from_value(json).unwrap();
    it.life = Some(life);
    it
}

fn route(outlet: &str, delivery: Delivery) -> Route {
    Route {
        id: RouteId::from_u64(u64::from(outlet.as_bytes()[0])),
        from: port(node(1), outlet),
        // It is not there, so everything waits.
        to: Port {
            microservice: MicroserviceName {
                microservice: "sink".parse().unwrap(),
                ..name()
            },
            ..port(node(1), "in")
        },
        content_type: "text/plain".parse().unwrap(),
        delivery,
        backlog: Default::default(),
    }
}

/// What is wanted: the microservice with its life, and a route from each outlet, or not.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) life: Option<u64>,
    pub(super) routes: [Option<Delivery>; 2],
}

impl Wanted {
    pub(super) fn assignment(&self) -> Assignment {
        let routes = OUTLETS.iter().zip(self.routes);
        let routes = routes.filter_map(|(outlet, delivery)| Some(route(outlet, delivery?)));
        let routes = routes.filter(|_| self.life.is_some());
        Assignment {
            site: SiteId::of(&SecretKey::from_seed([9; 32]).public()),
            node: node(1),
            node_name: "one".parse().unwrap(),
            labels: BTreeMap::new(),
            number: 1,
            issued_ms: 0,
            publishers: vec![],
            signatures: BTreeMap::new(),
            relays: vec![],
            serves: vec![],
            link_key_generation: 0,
            peers: vec![],
            microservices: self.life.map(microservice).into_iter().collect(),
            routes: routes.collect(),
            topics: vec![],
            brokers: vec![],
            lives: None,
            ended: vec![],
        }
    }
}

pub(super) fn wanted() -> impl Strategy<Value = Wanted> {
    let route = || {
        prop_oneof![
            Just(None),
            Just(Some(Delivery::Live)),
            Just(Some(Delivery::Durable))
        ]
    };
    let life = prop_oneof![Just(None), Just(Some(0)), Just(Some(17))];
    (life, route(), route()).prop_map(|(life, a, b)| Wanted {
        life,
        routes: [a, b],
    })
}
