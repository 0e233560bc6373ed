//! What people see of applications: what should be, joined with what nodes last reported. Pure;
//! `api` loads both and calls it.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{Name, NodeId, RouteId};
use haar_protocol::manifest::{self, RouteEnd};
use haar_protocol::rest::{
    Application, Counted, Microservice, Node, Observation, Route, RouteProblem, Unplaced,
};
use haar_protocol::status::MicroserviceStatus;

use crate::db::applications::{ApplicationRow, Placed};
use crate::db::nodes::NodeRow;
use crate::db::statuses::StatusRow;
use crate::db::unplaced::{self, UnplacedRows};
use crate::health::{self, Instance, NodeFacts, Wanted};
use crate::plan::Fleet;

/// A node as lists show it.
pub(crate) fn node(facts: &NodeFacts<'_>) -> Node {
    let (row, status) = (facts.row, facts.status);
    Node {
        name: row.name.clone(),
        id: row.id.clone(),
        labels: row.labels.clone(),
        online: row.online,
        last_seen_ms: row.last_seen_ms,
        health: health::node(facts),
        reported_ms: status.map(|row| row.received_ms),
        observations: facts.observations.to_vec(),
        assignment: facts.assignment,
        applied: status.map_or(0, |row| row.status.applied),
        refused: status.and_then(|row| row.status.refused.clone()),
        agent_version: row.agent_version.clone(),
        target: row.target.clone(),
        budget: row.budget.clone(),
        resident_bytes: status.map(|row| row.status.resident_bytes),
        flash: status.and_then(|row| row.status.flash),
        store: status.and_then(|row| row.status.store.clone()),
        clock_skew_ms: status.and_then(|row| row.clock_skew_ms),
    }
}

/// Over which time counters of a status have counted that began `after_s` seconds after the agent. How
/// long that has run, and how far the node's clock is ahead, make it the controller's time.
pub(crate) fn counted(row: &StatusRow, after_s: u64) -> Counted {
    let status = &row.status;
    let skew_ms = row.clock_skew_ms.unwrap_or(0);
    let until_ms = i128::from(status.sent_ms) - i128::from(skew_ms);
    let until_ms = u64::try_from(until_ms).unwrap_or(status.sent_ms);
    let told_ms = status.sent_ms.saturating_sub(status.started_ms);
    let counted_ms = status
        .uptime_ms
        .unwrap_or(told_ms)
        .saturating_sub(after_s.saturating_mul(1_000));
    Counted {
        since_ms: until_ms.saturating_sub(counted_ms),
        until_ms,
    }
}

/// The counters of one route, over all nodes.
#[derive(Clone, Default)]
struct Sums {
    /// Sent, delivered, handled, dropped, waiting.
    counts: [u64; 5],
    counted: BTreeMap<Name, Counted>,
    /// What nodes say of a route that does not do all that its manifest says, one each.
    problems: Vec<RouteProblem>,
}

/// The site as it should be and as it was last reported.
pub(crate) struct View {
    /// What should be.
    pub(crate) fleet: Fleet,
    /// The nodes, by name.
    pub(crate) nodes: Vec<NodeRow>,
    /// What they last reported.
    pub(crate) statuses: BTreeMap<NodeId, StatusRow>,
    /// The numbers of their newest assignments.
    pub(crate) assignments: BTreeMap<NodeId, u64>,
    /// What the site has noticed of them.
    pub(crate) observations: BTreeMap<NodeId, Vec<Observation>>,
    /// The assignment in which each instance was last changed.
    pub(crate) changed_in: Placed,
    /// What has no place.
    pub(crate) unplaced: UnplacedRows,
    /// The time.
    pub(crate) now_ms: u64,
}

impl View {
    /// What is known of a node.
    pub(crate) fn facts<'v>(&'v self, row: &'v NodeRow) -> NodeFacts<'v> {
        NodeFacts {
            row,
            status: self.statuses.get(&row.id),
            assignment: self.assignments.get(&row.id).copied().unwrap_or(0),
            observations: self.observations.get(&row.id).map_or(&[], Vec::as_slice),
            now_ms: self.now_ms,
        }
    }

    /// The instances of `application`, or of all: those that should be, and those that a node still
    /// reports. Sorted by name and node.
    pub(crate) fn microservices(&self, application: Option<&Name>) -> Vec<Microservice> {
        let admits =
            |name: &MicroserviceName| application.is_none_or(|wanted| wanted == &name.application);
        let mut found = Vec::new();
        for node in &self.nodes {
            let row = self.statuses.get(&node.id);
            let last = row.map(|row| &row.status);
            let counted = |status: &MicroserviceStatus| {
                row.map(|row| self::counted(row, status.counted_after_s))
            };
            let reported = last.map_or(&[][..], |status| &status.microservices[..]);
            for (name, nodes) in self
                .fleet
                .placements
                .iter()
                .filter(|(name, _)| admits(name))
            {
                if nodes.contains(&node.id) {
                    let status = reported.iter().find(|status| &status.name == name);
                    let counted = status.and_then(counted);
                    let wanted = self.wanted(name, node, status);
                    found.extend(wanted.map(|wanted| Microservice { counted, ..wanted }));
                }
            }
            let is_wanted = |name: &MicroserviceName| {
                self.fleet
                    .placements
                    .get(name)
                    .is_some_and(|nodes| nodes.contains(&node.id))
            };
            let left_over = reported
                .iter()
                .filter(|status| admits(&status.name) && !is_wanted(&status.name));
            found.extend(left_over.map(|status| Microservice {
                counted: counted(status),
                ..self.left_over(node, status)
            }));
        }
        found.sort_by(|left, right| (&left.name, &left.node).cmp(&(&right.name, &right.node)));
        found
    }

    fn left_over(&self, node: &NodeRow, status: &MicroserviceStatus) -> Microservice {
        let facts = self.facts(node);
        Microservice {
            name: status.name.clone(),
            node: node.name.clone(),
            node_online: node.online,
            module: status.module,
            module_label: status.module_label.clone(),
            wanted: false,
            health: health::instance(&Instance {
                node: facts,
                status: Some(status),
                wanted: None,
                is_omitted: false,
            }),
            reported_ms: facts.status.map(|row| row.received_ms),
            counted: None,
            status: Some(status.clone()),
            omitted: false,
        }
    }

    fn wanted(
        &self,
        name: &MicroserviceName,
        node: &NodeRow,
        status: Option<&MicroserviceStatus>,
    ) -> Option<Microservice> {
        let application = self.fleet.applications.get(&name.application)?;
        let module = application.modules.get(&name.microservice)?;
        let mut planned = application.manifest.microservices.iter();
        let planned = planned.find(|one| one.name == name.microservice)?;
        let facts = self.facts(node);
        let last = facts.status.and_then(|row| row.status.omitted.as_ref());
        let is_omitted =
            status.is_none() && last.is_some_and(|omitted| !omitted.microservices.is_empty());
        let changed_in = self.changed_in.get(&(name.clone(), node.id.clone()));
        let health = health::instance(&Instance {
            node: facts,
            status,
            wanted: Some(Wanted {
                module: *module,
                assignment: changed_in.copied().unwrap_or(0),
                place: &planned.place,
            }),
            is_omitted,
        });
        Some(Microservice {
            name: name.clone(),
            node: node.name.clone(),
            node_online: node.online,
            module: *module,
            module_label: self
                .fleet
                .modules
                .get(module)
                .map(crate::plan::Module::label)
                .unwrap_or_default(),
            wanted: true,
            counted: None,
            health,
            reported_ms: facts.status.map(|row| row.received_ms),
            omitted: is_omitted,
            status: status.cloned(),
        })
    }

    /// What of an application has no place.
    pub(crate) fn unplaced(&self, application: &Name) -> Vec<Unplaced> {
        unplaced::of(&self.unplaced, application)
    }

    /// An application as lists show it.
    pub(crate) fn application(&self, row: &ApplicationRow) -> Application {
        let name = &row.manifest.name;
        let unplaced = self.unplaced(name);
        let (count, health) = health::application(&self.microservices(Some(name)), &unplaced);
        Application {
            name: name.clone(),
            revision: row.revision,
            applied_ms: row.applied_ms,
            instances: count.all(),
            running: count.healthy,
            without_place: unplaced
                .iter()
                .map(|one| one.instances)
                .fold(0, u32::saturating_add),
            count,
            health,
        }
    }

    /// The routes of `application`, or of all, with their counters. Sorted by application and ends.
    pub(crate) fn routes(&self, application: Option<&Name>) -> Vec<Route> {
        let mut sums: BTreeMap<RouteId, Sums> = BTreeMap::new();
        for node in &self.nodes {
            let Some(row) = self.statuses.get(&node.id) else {
                continue;
            };
            for route in &row.status.routes {
                let sums = sums.entry(route.id).or_default();
                let counts = [
                    route.sent,
                    route.delivered,
                    route.handled,
                    route.dropped,
                    route.waiting,
                ];
                for (sum, count) in sums.counts.iter_mut().zip(counts) {
                    *sum = sum.saturating_add(count);
                }
                // One for each far end: the first of them has counted the longest.
                let counted = counted(row, route.counted_after_s);
                let longest = sums.counted.entry(node.name.clone()).or_insert(counted);
                longest.since_ms = longest.since_ms.min(counted.since_ms);
                let is_told = sums
                    .problems
                    .last()
                    .is_some_and(|one| one.node == node.name);
                if let Some(problem) = route.problem.clone().filter(|_| !is_told) {
                    sums.problems.push(RouteProblem {
                        node: node.name.clone(),
                        problem,
                    });
                }
            }
        }
        let applications = self
            .fleet
            .applications
            .iter()
            .filter(|(name, _)| application.is_none_or(|wanted| wanted == *name));
        applications
            .flat_map(|(_, planned)| {
                let routes = planned.manifest.routes.iter();
                routes.filter_map(|route| self.route(&planned.manifest, route, &sums))
            })
            .collect()
    }

    fn route(
        &self,
        manifest: &manifest::Manifest,
        route: &manifest::Route,
        sums: &BTreeMap<RouteId, Sums>,
    ) -> Option<Route> {
        let content_type = route.content_type(manifest)?.clone();
        let id = self.fleet.route_id(&manifest.name, route, &content_type);
        let Sums {
            counts,
            counted,
            problems,
        } = sums.get(&id).cloned().unwrap_or_default();
        let [sent, delivered, handled, dropped, waiting] = counts;
        let from_nodes = self.nodes_of(&manifest.name, &route.from);
        let to_nodes = self.nodes_of(&manifest.name, &route.to);
        let has_ends = [(&route.from, &from_nodes), (&route.to, &to_nodes)]
            .iter()
            .all(|(end, nodes)| end.port().is_none() || !nodes.is_empty());
        let ends: BTreeSet<&Name> = from_nodes.iter().chain(&to_nodes).collect();
        let uncounted = ends
            .into_iter()
            .filter(|node| has_ends && !counted.contains_key(*node))
            .cloned()
            .collect();
        Some(Route {
            id,
            application: manifest.name.clone(),
            from: route.from.to_string(),
            to: route.to.to_string(),
            relay: route.relay.clone(),
            content_type,
            delivery: route.delivery,
            from_nodes,
            to_nodes,
            sent,
            delivered,
            handled,
            dropped,
            counted,
            uncounted,
            waiting,
            problems,
        })
    }

    /// The nodes with an instance of a port's microservice.
    fn nodes_of(&self, application: &Name, end: &RouteEnd) -> Vec<Name> {
        let Some(port) = end.port() else {
            return Vec::new();
        };
        let name = MicroserviceName {
            application: application.clone(),
            microservice: port.microservice.clone(),
        };
        let Some(ids) = self.fleet.placements.get(&name) else {
            return Vec::new();
        };
        self.nodes
            .iter()
            .filter(|node| ids.contains(&node.id))
            .map(|node| node.name.clone())
            .collect()
    }
}
