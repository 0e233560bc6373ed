//! What people see of applications: what should be, joined with what nodes last reported. Pure;
//! `api` loads both and calls it.

use std::collections::BTreeMap;

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{Name, NodeId, RouteId};
use haar_protocol::manifest::{self, RouteEnd};
use haar_protocol::rest::{Application, Microservice, Node, Route, RouteProblem};

use crate::db::applications::ApplicationRow;
use crate::db::nodes::NodeRow;
use crate::db::statuses::StatusRow;
use crate::plan::Fleet;

/// The site as it should be and as it was last reported.
pub(crate) struct View {
    /// What should be.
    pub(crate) fleet: Fleet,
    /// The nodes, by name.
    pub(crate) nodes: Vec<NodeRow>,
    /// What they last reported.
    pub(crate) statuses: BTreeMap<NodeId, StatusRow>,
}

/// A node as lists show it. `number` is that of its newest assignment.
pub(crate) fn node(row: &NodeRow, status: Option<&StatusRow>, number: u64) -> Node {
    Node {
        name: row.name.clone(),
        id: row.id.clone(),
        labels: row.labels.clone(),
        online: row.online,
        last_seen_ms: row.last_seen_ms,
        assignment: number,
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

impl View {
    /// The instances of `application`, or of all: those that should be, and those that a node still
    /// reports. Sorted by name and node.
    pub(crate) fn microservices(&self, application: Option<&Name>) -> Vec<Microservice> {
        let admits =
            |name: &MicroserviceName| application.is_none_or(|wanted| wanted == &name.application);
        let mut found = Vec::new();
        for node in &self.nodes {
            let last = self.statuses.get(&node.id).map(|row| &row.status);
            let reported = last.map_or(&[][..], |status| &status.microservices[..]);
            let omitted = last.and_then(|status| status.omitted.as_ref());
            let leaves_out = omitted.is_some_and(|omitted| !omitted.microservices.is_empty());
            for (name, nodes) in self
                .fleet
                .placements
                .iter()
                .filter(|(name, _)| admits(name))
            {
                if nodes.contains(&node.id) {
                    let status = reported.iter().find(|status| &status.name == name).cloned();
                    found.extend(self.wanted(name, node, status, leaves_out));
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
                name: status.name.clone(),
                node: node.name.clone(),
                node_online: node.online,
                module: status.module,
                module_label: status.module_label.clone(),
                wanted: false,
                status: Some(status.clone()),
                omitted: false,
            }));
        }
        found.sort_by(|left, right| (&left.name, &left.node).cmp(&(&right.name, &right.node)));
        found
    }

    fn wanted(
        &self,
        name: &MicroserviceName,
        node: &NodeRow,
        status: Option<haar_protocol::status::MicroserviceStatus>,
        leaves_out: bool,
    ) -> Option<Microservice> {
        let application = self.fleet.applications.get(&name.application)?;
        let module = application.modules.get(&name.microservice)?;
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
            omitted: leaves_out && status.is_none(),
            status,
        })
    }

    /// An application as lists show it.
    pub(crate) fn application(&self, row: &ApplicationRow) -> Application {
        let microservices = self.microservices(Some(&row.manifest.name));
        let wanted = || {
            microservices
                .iter()
                .filter(|microservice| microservice.wanted)
        };
        let running = wanted()
            .filter(|microservice| microservice.status.is_some() && microservice.state().is_up());
        Application {
            name: row.manifest.name.clone(),
            revision: row.revision,
            applied_ms: row.applied_ms,
            instances: u32::try_from(wanted().count()).unwrap_or(u32::MAX),
            running: u32::try_from(running.count()).unwrap_or(u32::MAX),
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
            problems: self.problems_of(id),
        })
    }

    /// What nodes say of a route that does not do all that its manifest says.
    fn problems_of(&self, id: RouteId) -> Vec<RouteProblem> {
        let nodes = self.nodes.iter();
        let problems = nodes.filter_map(|node| {
            let status = &self.statuses.get(&node.id)?.status;
            let mut routes = status.routes.iter().filter(|route| route.id == id);
            Some(RouteProblem {
                node: node.name.clone(),
                problem: routes.find_map(|route| route.problem.clone())?,
            })
        });
        problems.collect()
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
