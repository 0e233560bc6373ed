//! What one node is told: its microservices, the routes that touch it, and the nodes at their other
//! ends. One node at a time, so that a large site never stands in memory as a whole.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::assignment::{
    Assignment, Microservice, MicroserviceName, Peer, Port, Route, TopicRoute,
};
use haar_protocol::ids::{MediaType, Name, NodeId, PortName};
use haar_protocol::limits::Retention;
use haar_protocol::manifest;

use super::{Application, Fleet, Placements, relays, topics};

/// The assignment of `node` without number and date (both 0), or none when it is no node of the
/// fleet. What it says depends on nothing but the arguments.
pub(crate) fn compile(fleet: &Fleet, placements: &Placements, id: &NodeId) -> Option<Assignment> {
    let node = fleet.nodes.get(id)?;
    let mut microservices = Vec::new();
    let mut routes = Vec::new();
    let mut topics = Vec::new();
    for application in fleet.applications.values() {
        microservices.extend(microservices_on(fleet, application, placements, id));
        for route in &application.manifest.routes {
            routes.extend(routes_at(fleet, application, route, placements, id));
            topics.extend(topics::route_at(fleet, application, route, placements, id));
        }
    }
    microservices.sort_by(|left, right| left.name.cmp(&right.name));
    routes.sort_by(|left, right| {
        (left.id, &left.from, &left.to).cmp(&(right.id, &right.from, &right.to))
    });
    routes.dedup();
    topics.sort_by_key(|route: &TopicRoute| route.id);
    topics.dedup();
    let ends: BTreeSet<&NodeId> = routes
        .iter()
        .flat_map(|route| [&route.from.node, &route.to.node])
        .filter(|end| *end != id)
        .collect();
    let peers = ends
        .into_iter()
        .filter_map(|end| {
            let peer = fleet.nodes.get(end)?;
            Some(Peer {
                id: end.clone(),
                name: peer.name.clone(),
                link_key: peer.link_key,
                relays: Vec::new(),
            })
        })
        .collect();
    let lives = microservices.iter().filter_map(|one| {
        let life = fleet.life(&one.name);
        (life > 0).then(|| (one.name.to_string(), life))
    });
    let mut assignment = Assignment {
        lives: Some(lives.collect()),
        ended: fleet.ended.get(id).cloned().unwrap_or_default(),
        site: fleet.site.clone(),
        node: id.clone(),
        node_name: node.name.clone(),
        labels: node.labels.clone(),
        number: 0,
        issued_ms: 0,
        publishers: fleet.publishers.clone(),
        signatures: later_signatures(fleet, &microservices),
        relays: Vec::new(),
        serves: Vec::new(),
        link_key_generation: node.link_key_generation,
        peers,
        microservices,
        routes,
        topics,
        brokers: Vec::new(),
    };
    relays::tell(fleet, id, node, &mut assignment);
    topics::tell(fleet, node, &mut assignment);
    Some(assignment)
}

pub(super) fn full_name(application: &Application, microservice: &Name) -> MicroserviceName {
    MicroserviceName {
        application: application.manifest.name.clone(),
        microservice: microservice.clone(),
    }
}

fn microservices_on(
    fleet: &Fleet,
    application: &Application,
    placements: &Placements,
    id: &NodeId,
) -> Vec<Microservice> {
    let on_node = |microservice: &&manifest::Microservice| {
        placements
            .get(&full_name(application, &microservice.name))
            .is_some_and(|nodes| nodes.contains(id))
    };
    application
        .manifest
        .microservices
        .iter()
        .filter(on_node)
        .filter_map(|microservice| {
            let module = fleet
                .modules
                .get(application.modules.get(&microservice.name)?)?;
            let name = full_name(application, &microservice.name);
            Some(Microservice {
                life: Some(fleet.life(&name)),
                name,
                module: module.digest,
                module_bytes: module.bytes,
                module_label: module.label(),
                limits: microservice.limits.clone(),
                grants: microservice.grants.clone(),
                configuration: microservice.effective_configuration(),
                outlets: media_types(&microservice.outlets),
                inlets: media_types(&microservice.inlets),
                log_level: microservice.log_level,
                restart: microservice.restart.clone(),
                retry: microservice.retry.clone(),
                inlet_history: histories(&microservice.inlets),
                outlet_history: histories(&microservice.outlets),
                unknown: Vec::new(),
            })
        })
        .collect()
}

/// Of those of the node's modules that somebody signed after they were pushed.
fn later_signatures(fleet: &Fleet, microservices: &[Microservice]) -> BTreeMap<String, String> {
    let later = microservices.iter().filter_map(|microservice| {
        let module = fleet.modules.get(&microservice.module)?;
        Some((module.digest.to_string(), module.later.clone()?))
    });
    later.collect()
}

fn media_types(ports: &BTreeMap<Name, manifest::Port>) -> BTreeMap<Name, MediaType> {
    let types = ports.iter();
    types
        .map(|(name, port)| (name.clone(), port.media_type.clone()))
        .collect()
}

fn histories(ports: &BTreeMap<Name, manifest::Port>) -> BTreeMap<Name, Retention> {
    let kept = ports.iter();
    kept.filter_map(|(name, port)| Some((name.clone(), port.history.clone()?)))
        .collect()
}

/// The pairs of instances that `route` connects, with one end or both on the node.
fn routes_at(
    fleet: &Fleet,
    application: &Application,
    route: &manifest::Route,
    placements: &Placements,
    id: &NodeId,
) -> Vec<Route> {
    let none = BTreeSet::new();
    let nodes = |port: &PortName| {
        placements
            .get(&full_name(application, &port.microservice))
            .unwrap_or(&none)
    };
    let (Some(source), Some(target)) = (route.from.port(), route.to.port()) else {
        return Vec::new(); // one end is a topic
    };
    let Some(content_type) = route.content_type(&application.manifest) else {
        return Vec::new();
    }; // the parser refuses such routes
    let (from, to) = (nodes(source), nodes(target));
    let route_id = fleet.route_id(&application.manifest.name, route, content_type);
    let pair = |from: &NodeId, to: &NodeId| Route {
        id: route_id,
        from: port(application, from, source),
        to: port(application, to, target),
        content_type: content_type.clone(),
        delivery: route.delivery,
        backlog: route.backlog.clone().unwrap_or_default(),
    };
    let mut pairs = Vec::new();
    if from.contains(id) {
        pairs.extend(to.iter().map(|to| pair(id, to)));
    }
    if to.contains(id) {
        pairs.extend(
            from.iter()
                .filter(|from| *from != id)
                .map(|from| pair(from, id)),
        );
    }
    pairs
}

fn port(application: &Application, node: &NodeId, port: &PortName) -> Port {
    Port {
        node: node.clone(),
        microservice: full_name(application, &port.microservice),
        port: port.port.clone(),
    }
}
