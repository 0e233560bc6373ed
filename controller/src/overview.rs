//! What people see of applications: what should be, joined with what nodes last reported. Pure;
//! `api` loads both and calls it.

use std::collections::BTreeMap;

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{Name, NodeId, RouteId};
use haar_protocol::manifest::{self, RouteEnd};
use haar_protocol::rest::{Application, Microservice, Node, Observation, Route, Unplaced};
use haar_protocol::status::MicroserviceStatus;

use crate::db::applications::ApplicationRow;
use crate::db::nodes::NodeRow;
use crate::db::statuses::StatusRow;
use crate::db::unplaced::UnplacedRows;
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
    pub(crate) changed_in: BTreeMap<(MicroserviceName, NodeId), u64>,
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
            let last = self.statuses.get(&node.id).map(|row| &row.status);
            let reported = last.map_or(&[][..], |status| &status.microservices[..]);
            for (name, nodes) in self
                .fleet
                .placements
                .iter()
                .filter(|(name, _)| admits(name))
            {
                if nodes.contains(&node.id) {
                    let status = reported.iter().find(|status| &status.name == name);
                    found.extend(self.wanted(name, node, status));
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
            found.extend(left_over.map(|status| self.left_over(node, status)));
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
            health,
            reported_ms: facts.status.map(|row| row.received_ms),
            omitted: is_omitted,
            status: status.cloned(),
        })
    }

    /// What of an application has no place.
    pub(crate) fn unplaced(&self, application: &Name) -> Vec<Unplaced> {
        let its = self.unplaced.iter();
        let its = its.filter(|((name, _), _)| &name.application == application);
        its.map(|(_, one)| one.clone()).collect()
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
        let mut sums: BTreeMap<RouteId, [u64; 4]> = BTreeMap::new();
        for route in self.statuses.values().flat_map(|row| &row.status.routes) {
            let sum = sums.entry(route.id).or_default();
            let counted = [route.sent, route.delivered, route.handled, route.dropped];
            for (sum, count) in sum.iter_mut().zip(counted) {
                *sum = sum.saturating_add(count);
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
        sums: &BTreeMap<RouteId, [u64; 4]>,
    ) -> Option<Route> {
        let content_type = route.content_type(manifest)?.clone();
        let id = route.id(&manifest.name, &content_type);
        let [sent, delivered, handled, dropped] = sums.get(&id).copied().unwrap_or_default();
        Some(Route {
            id,
            application: manifest.name.clone(),
            from: route.from.to_string(),
            to: route.to.to_string(),
            relay: route.relay.clone(),
            content_type,
            delivery: route.delivery,
            from_nodes: self.nodes_of(&manifest.name, &route.from),
            to_nodes: self.nodes_of(&manifest.name, &route.to),
            sent,
            delivered,
            handled,
            dropped,
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
