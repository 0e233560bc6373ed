//! Routes between microservices and topics of brokers: which node reads and writes what. A node talks
//! to the broker itself, so that every node with an instance of the microservice has such a route.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::assignment::{Assignment, TopicEnd, TopicRoute, TopicTarget};
use haar_protocol::ids::{Name, NodeId, PortName};
use haar_protocol::manifest::{Manifest, Route, RouteEnd, meant};
use haar_protocol::mqtt::{TopicFilter, TopicName};
use haar_protocol::relay::RelayRole;

use super::compile::full_name;
use super::relays::{Relay, RelayPlace, access};
use super::{Application, Fleet, Node, Placements, Problem};

/// What a node does at a broker for topic routes: what its devices' session needs rights for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TopicRights {
    /// What it subscribes to, without the groups of shared subscriptions.
    pub(crate) reads: BTreeSet<TopicFilter>,
    /// What it publishes to.
    pub(crate) writes: BTreeSet<TopicName>,
}

/// What every node does at `relay` for topic routes. Nodes that do nothing there are not among them.
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

/// What is wrong with the relays that the routes of `manifest` name.
pub(crate) fn relay_problems(manifest: &Manifest, relays: &[Relay]) -> Vec<Problem> {
    let named: BTreeSet<&Name> = manifest
        .routes
        .iter()
        .filter_map(|route| route.relay.as_ref())
        .collect();
    let problem = |name: &Name| match relays.iter().find(|relay| &relay.name == name) {
        Some(relay) if is_external(relay) => {
            let filter = open_filter(manifest, name)?;
            let other = other_use(relay, relays)?;
            Some(Problem {
                code: "takes_own_topics",
                message: format!(
                    "the topic `{filter}` would take in what Haar itself sends over relay `{}`, at the same broker",
                    other.name
                ),
                hint: Some(
                    "write a name at its first level, such as `plant/#`, or use a broker whose relays all say `carries: topics`"
                        .to_owned(),
                ),
            })
        }
        Some(_) => Some(Problem {
            code: "relay_without_devices",
            message: format!("a route names relay `{name}`, which serves nodes only"),
            hint: Some("name a relay with a `url`, to which the devices connect".to_owned()),
        }),
        None => {
            let names = relays.iter().filter(|relay| is_external(relay));
            let near = meant(name.as_str(), names.map(|relay| relay.name.as_str()));
            Some(Problem {
                code: "unknown_relay",
                message: format!(
                    "a route names relay `{name}`, and the site has none of that name"
                ),
                hint: near.or_else(|| {
                    Some("apply it first: a document of `kind: Relay` with a `url`".to_owned())
                }),
            })
        }
    };
    named.into_iter().filter_map(problem).collect()
}

/// The first filter at `relay` that takes in topics of every name.
fn open_filter<'m>(manifest: &'m Manifest, relay: &Name) -> Option<&'m TopicFilter> {
    let routes = manifest.routes.iter();
    let here = routes.filter(|route| route.relay.as_ref() == Some(relay));
    let mut filters = here.filter_map(|route| route.from.topic());
    filters.find(|filter| filter.takes_everything())
}

/// A relay by which more than topics passes over the broker of `relay`: this one, or another one at
/// the same host, since all listeners of a broker share their topics.
fn other_use<'r>(relay: &Relay, relays: &'r [Relay]) -> Option<&'r Relay> {
    let host = |relay: &Relay| match &relay.place {
        RelayPlace::External { url, .. } => Some(url.address.host.to_ascii_lowercase()),
        _ => None,
    };
    let (there, more) = (host(relay), |other: &&Relay| {
        other.role != RelayRole::Topics
    });
    relays
        .iter()
        .filter(more)
        .find(|other| host(other) == there)
}

fn is_external(relay: &Relay) -> bool {
    matches!(relay.place, RelayPlace::External { .. })
}

/// Says in the assignment of a node how it gets to the brokers of its topic routes. Whether it also
/// attaches to them for the site's own messages is another matter.
pub(super) fn tell(fleet: &Fleet, node: &Node, assignment: &mut Assignment) {
    let named: BTreeSet<&Name> = assignment.topics.iter().map(|route| &route.relay).collect();
    let relays = fleet.relays.iter();
    let brokers = relays
        .filter(|relay| is_external(relay) && named.contains(&relay.name))
        .filter_map(|relay| access(fleet, node, relay));
    let mut brokers: Vec<_> = brokers.collect();
    brokers.sort_by(|one, other| one.name.cmp(&other.name));
    assignment.brokers = brokers;
}

/// The route as the node is told it, when one end is a topic and the other an instance there.
pub(super) fn route_at(
    fleet: &Fleet,
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
        id: fleet.route_id(&application.manifest.name, route, content_type),
        relay,
        topic,
        microservice,
        port: port.port.clone(),
        content_type: content_type.clone(),
        delivery: route.delivery,
        backlog: route.backlog.clone().unwrap_or_default(),
        retained: route.retained,
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
                will: route.will.clone(),
            };
            Some((TopicEnd::To(target), port))
        }
        _ => None,
    }
}
