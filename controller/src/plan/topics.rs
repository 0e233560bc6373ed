//! Routes between microservices and topics of brokers: which node reads and writes what. A node talks
//! to the broker itself, so that every node with an instance of the microservice has such a route.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::assignment::{TopicEnd, TopicRoute, TopicTarget};
use haar_protocol::ids::{Name, NodeId, PortName};
use haar_protocol::manifest::{Route, RouteEnd};
use haar_protocol::mqtt::{TopicFilter, TopicName};

use super::compile::full_name;
use super::{Application, Fleet, Placements};

/// What a node does at a broker for topic routes: what its devices' session needs rights for.
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "generated ACL files ask for it")
)]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TopicRights {
    /// What it subscribes to, without the groups of shared subscriptions.
    pub(crate) reads: BTreeSet<TopicFilter>,
    /// What it publishes to.
    pub(crate) writes: BTreeSet<TopicName>,
}

/// What every node does at `relay` for topic routes. Nodes that do nothing there are not among them.
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "generated ACL files ask for it")
)]
pub(crate) fn topic_rights(
    fleet: &Fleet,
    placements: &Placements,
    relay: &Name,
) -> BTreeMap<NodeId, TopicRights> {
    let mut rights: BTreeMap<NodeId, TopicRights> = BTreeMap::new();
    for application in fleet.applications.values() {
        let routes = application.manifest.routes.iter();
        for route in routes.filter(|route| route.relay.as_ref() == Some(relay)) {
            let Some((end, port)) = ends(route) else {
                continue;
            };
            let name = full_name(application, &port.microservice);
            for node in placements.get(&name).into_iter().flatten() {
                let rights = rights.entry(node.clone()).or_default();
                match &end {
                    TopicEnd::From(filter) => drop(rights.reads.insert(filter.unshared())),
                    TopicEnd::To(target) => drop(rights.writes.insert(target.topic.clone())),
                }
            }
        }
    }
    rights
}

/// The route as the node is told it, when one end is a topic and the other an instance there.
pub(super) fn route_at(
    application: &Application,
    route: &Route,
    placements: &Placements,
    node: &NodeId,
) -> Option<TopicRoute> {
    let (topic, port) = ends(route)?;
    let microservice = full_name(application, &port.microservice);
    let is_here = placements.get(&microservice)?.contains(node);
    let content_type = route.content_type(&application.manifest)?;
    let relay = route.relay.clone()?;
    is_here.then(|| TopicRoute {
        id: route.id(&application.manifest.name, content_type),
        relay,
        topic,
        microservice,
        port: port.port.clone(),
        content_type: content_type.clone(),
        delivery: route.delivery,
        backlog: route.backlog.clone().unwrap_or_default(),
    })
}

/// The topic of a route that has one, and the port at its other end.
fn ends(route: &Route) -> Option<(TopicEnd, &PortName)> {
    match (&route.from, &route.to) {
        (RouteEnd::Topic(filter), RouteEnd::Port(port)) => {
            Some((TopicEnd::From(filter.clone()), port))
        }
        (RouteEnd::Port(port), RouteEnd::Topic(topic)) => {
            let target = TopicTarget {
                topic: topic.as_name()?,
                retain: route.retain,
            };
            Some((TopicEnd::To(target), port))
        }
        _ => None,
    }
}
