//! A route as people see it: each pair of its ends, over which relays its messages can pass there, what
//! the nodes have counted, and how it does. Pure.

mod pairs;

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{Name, RouteId};
use haar_protocol::manifest::{Delivery, RouteEnd};
use haar_protocol::rest::{
    Counted, Microservice, Route, RouteDetail, RoutePair, RouteReceiver, RouteRelay, RouteReport,
    Unplaced,
};
use haar_protocol::status::{BacklogStatus, RelayStatus, RouteStatus};

use crate::db::nodes::NodeRow;
use crate::db::statuses::StatusRow;
use crate::health::{self, PairFacts};
use crate::overview::{self, View};
use crate::plan;
use pairs::Pairs;

/// Everything about a route; none when there is none with this id. Takes long where it has very many
/// pairs.
pub(crate) fn route(view: &View, id: RouteId) -> Option<RouteDetail> {
    let route = view.routes(None).into_iter().find(|route| route.id == id)?;
    let manifest = &view.fleet.applications.get(&route.application)?.manifest;
    let planned = manifest.routes.iter().find(|planned| {
        let content_type = planned.content_type(manifest);
        content_type.is_some_and(|its| view.fleet.route_id(&manifest.name, planned, its) == id)
    })?;
    let instances = view.microservices(Some(&route.application));
    let scene = Scene {
        view,
        ends: [&planned.from, &planned.to],
        nodes: view
            .nodes
            .iter()
            .map(|row| (&row.name, At::new(view, row)))
            .collect(),
        reported: reported(view, id),
        instances: instances
            .iter()
            .filter(|one| one.wanted)
            .map(|one| ((&one.name.microservice, &one.node), one))
            .collect(),
    };
    let at = |end: &RouteEnd, nodes: &[Name]| match end.port() {
        Some(_) => nodes.to_vec(),
        None => route.relay.iter().cloned().collect(),
    };
    let to = at(&planned.to, &route.to_nodes);
    let mut pairs = Pairs::default();
    for from in &at(&planned.from, &route.from_nodes) {
        for to in &to {
            pairs.add(scene.pair([from, to]));
        }
    }
    let unplaced = view.unplaced(&route.application);
    let of_ends: Vec<&Unplaced> = unplaced.iter().filter(|one| scene.has(one)).collect();
    let health = pairs.health.clone().of_route(&of_ends);
    let (pairs, pairs_omitted) = pairs.told();
    Some(RouteDetail {
        health,
        backlogs: scene.backlogs(&route),
        receivers: scene.receivers(&route),
        pairs,
        pairs_omitted,
        route,
    })
}

/// What nodes last reported of a route, by node and far end.
fn reported(view: &View, id: RouteId) -> BTreeMap<(&Name, &Name), &RouteStatus> {
    let mut found = BTreeMap::new();
    for node in &view.nodes {
        let status = view.statuses.get(&node.id);
        let routes = status.into_iter().flat_map(|row| &row.status.routes);
        for route in routes.filter(|route| route.id == id) {
            found.insert((&node.name, &route.peer), route);
        }
    }
    found
}

/// A node, with what all of its pairs have in common.
struct At<'v> {
    row: &'v NodeRow,
    status: Option<&'v StatusRow>,
    /// The relays to which it attaches, the most preferred first.
    relays: Vec<&'v Name>,
}

impl<'v> At<'v> {
    fn new(view: &'v View, row: &'v NodeRow) -> Self {
        let relays = plan::attached_relays(&view.fleet.relays, &row.name, &row.labels);
        Self {
            row,
            status: view.statuses.get(&row.id),
            relays: relays.into_iter().map(|relay| &relay.name).collect(),
        }
    }
}

/// A route with everything that its pairs are looked up in.
struct Scene<'v> {
    view: &'v View,
    /// Where it begins and ends.
    ends: [&'v RouteEnd; 2],
    nodes: BTreeMap<&'v Name, At<'v>>,
    reported: BTreeMap<(&'v Name, &'v Name), &'v RouteStatus>,
    instances: BTreeMap<(&'v Name, &'v Name), &'v Microservice>,
}

impl Scene<'_> {
    /// True when the microservice without a place is at one of the ends.
    fn has(&self, unplaced: &Unplaced) -> bool {
        let mut ports = self.ends.iter().filter_map(|end| end.port());
        ports.any(|port| port.microservice == unplaced.microservice)
    }

    fn pair(&self, places: [&Name; 2]) -> RoutePair {
        let [from, to] = places;
        let at_nodes: Vec<(&RouteEnd, &Name)> = std::iter::zip(self.ends, places)
            .filter(|(end, _)| end.port().is_some())
            .collect();
        let nodes: BTreeSet<&Name> = at_nodes.iter().map(|(_, node)| *node).collect();
        let instances = at_nodes.iter().filter_map(|(end, node)| {
            let microservice = &end.port()?.microservice;
            let instance = self.instances.get(&(microservice, *node))?;
            Some((format!("`{microservice}` on `{node}`"), &instance.health))
        });
        let is_local = at_nodes.len() == 2 && from == to;
        let (relays, away) = match is_local {
            true => (Vec::new(), None),
            false => self.relays(&nodes, places),
        };
        let mut reports = BTreeMap::new();
        let mut problem = None;
        for node in &nodes {
            let other = if *node == from { to } else { from };
            if let Some(report) = self.report(node, other) {
                let told = report.problem.as_ref();
                let told = told.map(|why| (format!("`{node}`: {why}"), report.problem_since_ms));
                problem = problem.or(told);
                reports.insert((*node).clone(), report);
            }
        }
        let words: Vec<String> = places.iter().map(|place| format!("`{place}`")).collect();
        let health = health::pair(&PairFacts {
            ends: instances.collect(),
            between: (!is_local).then(|| (&relays[..], words.join(" and "))),
            away,
            problem,
        });
        RoutePair {
            from: from.clone(),
            to: to.clone(),
            relays,
            health,
            reports,
        }
    }

    fn report(&self, node: &Name, other: &Name) -> Option<RouteReport> {
        let route = self.reported.get(&(node, other))?;
        let row = self.nodes.get(node)?.status?;
        let since_ms = |after_s| overview::counted(row, after_s).since_ms;
        Some(RouteReport {
            counted: overview::counted(row, route.counted_after_s),
            sent: route.sent,
            delivered: route.delivered,
            handled: route.handled,
            dropped: route.dropped,
            waiting: route.waiting,
            problem: route.problem.clone(),
            problem_since_ms: route.problem_after_s.map(since_ms),
        })
    }

    /// The relays between two places, and why a node is not connected to the first that it misses.
    fn relays(
        &self,
        nodes: &BTreeSet<&Name>,
        places: [&Name; 2],
    ) -> (Vec<RouteRelay>, Option<(String, Option<u64>)>) {
        let topic_at = std::iter::zip(self.ends, places).find(|(end, _)| end.port().is_none());
        let names: Vec<&Name> = match topic_at {
            Some((_, relay)) => vec![relay],
            None => self.shared(nodes),
        };
        let mut away = None;
        let relays = names.into_iter().map(|name| {
            let said = nodes.iter().map(|node| {
                let status = self.session(node, name, topic_at.is_some())?;
                if !status.connected {
                    let told = self.told_away(node, status);
                    away = away.take().or(Some(told));
                }
                Some(status.connected)
            });
            let said: Vec<Option<bool>> = said.collect();
            RouteRelay {
                name: name.clone(),
                connected: match said.contains(&Some(false)) {
                    true => Some(false),
                    false => (!said.contains(&None)).then_some(true),
                },
            }
        });
        (relays.collect(), away)
    }

    /// The relays to which all these nodes attach, the most preferred first.
    fn shared(&self, nodes: &BTreeSet<&Name>) -> Vec<&Name> {
        let mut lists = nodes
            .iter()
            .filter_map(|node| Some(&self.nodes.get(node)?.relays));
        let first: Vec<&Name> = lists.next().cloned().unwrap_or_default();
        lists.fold(first, |mut shared, theirs| {
            shared.retain(|name| theirs.contains(name));
            shared
        })
    }

    /// What a node last said of a session with a relay.
    fn session(&self, node: &Name, relay: &Name, for_devices: bool) -> Option<&RelayStatus> {
        let status = &self.nodes.get(node)?.status?.status;
        let said = match for_devices {
            true => &status.brokers,
            false => &status.relays,
        };
        said.iter().find(|one| &one.name == relay)
    }

    fn told_away(&self, node: &Name, status: &RelayStatus) -> (String, Option<u64>) {
        let why = status.reason.as_ref();
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        let row = self.nodes.get(node).map(|at| self.view.facts(at.row));
        let since_ms = row
            .zip(status.since_ms)
            .and_then(|(facts, since_ms)| facts.by_our_clock(since_ms));
        let relay = &status.name;
        let told = format!("`{node}` is not connected to relay `{relay}`{why}");
        (told, since_ms)
    }

    /// The logs of its outlet, if it is durable.
    fn backlogs(&self, route: &Route) -> BTreeMap<Name, BacklogStatus> {
        let port = self.ends[0].port();
        let Some(port) = port.filter(|_| route.delivery == Delivery::Durable) else {
            return BTreeMap::new();
        };
        let name = MicroserviceName {
            application: route.application.clone(),
            microservice: port.microservice.clone(),
        };
        let nodes = route.from_nodes.iter();
        let found = nodes.filter_map(|node| {
            let status = &self.nodes.get(node)?.status?.status;
            let mut logs = status.backlogs.iter();
            let log = logs.find(|log| log.name == name && log.outlet == port.port)?;
            Some((node.clone(), log.clone()))
        });
        found.collect()
    }

    /// What became of messages at the microservice where it ends.
    fn receivers(&self, route: &Route) -> BTreeMap<Name, RouteReceiver> {
        let Some(port) = self.ends[1].port() else {
            return BTreeMap::new();
        };
        let nodes = route.to_nodes.iter();
        let found = nodes.filter_map(|node| {
            let instance = self.instances.get(&(&port.microservice, node))?;
            let counted: Counted = instance.counted?;
            let status = instance.status.as_ref()?;
            let receiver = RouteReceiver {
                counted,
                discarded: status.discarded,
                dead_letters: status.dead_letters,
            };
            Some((node.clone(), receiver))
        });
        found.collect()
    }
}
