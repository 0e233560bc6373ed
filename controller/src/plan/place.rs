//! Where instances run. What is in place and still may be stays where it is; what is new goes to
//! matching nodes with room. A node is never given more than its budget.
//!
//! The candidate, the application that somebody applies, is placed last, so that it never pushes
//! another one out. Everything else was accepted before: what no longer fits is left out and told.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::demand::Demand;
use haar_protocol::ids::{Name, NodeId};
use haar_protocol::manifest::{Delivery, Microservice, Place, Route, meant};

use super::{Fleet, Node, Placements, Problem};

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Where instances run.
    pub(crate) placements: Placements,
    /// What found no place.
    pub(crate) unplaced: Vec<Unplaced>,
}

/// An instance, or several, that found no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unplaced {
    /// The microservice.
    pub(crate) name: MicroserviceName,
    /// The node that has no room, when it is about one.
    pub(crate) node: Option<NodeId>,
    /// How many instances it is about.
    pub(crate) instances: u32,
    /// Why.
    pub(crate) problem: Problem,
}

struct Placer<'f> {
    fleet: &'f Fleet,
    used: BTreeMap<&'f NodeId, Demand>,
    placements: Placements,
    unplaced: Vec<Unplaced>,
}

/// Places every microservice of the fleet. `candidate` is the application that is applied now.
pub(crate) fn place(fleet: &Fleet, candidate: Option<&Name>) -> Placed {
    let order = || {
        let others = fleet
            .applications
            .iter()
            .filter(move |(name, _)| Some(*name) != candidate);
        let last = fleet
            .applications
            .iter()
            .filter(move |(name, _)| Some(*name) == candidate);
        others.chain(last).flat_map(|(name, application)| {
            application
                .manifest
                .microservices
                .iter()
                .map(move |microservice| {
                    let full = MicroserviceName {
                        application: name.clone(),
                        microservice: microservice.name.clone(),
                    };
                    (full, microservice)
                })
        })
    };
    let mut placer = Placer {
        fleet,
        used: fleet
            .nodes
            .keys()
            .map(|id| (id, Demand::default()))
            .collect(),
        placements: Placements::new(),
        unplaced: Vec::new(),
    };
    for (name, microservice) in order() {
        placer.keep(&name, microservice);
    }
    for (name, microservice) in order() {
        placer.add(&name, microservice);
    }
    Placed {
        placements: placer.placements,
        unplaced: placer.unplaced,
    }
}

impl<'f> Placer<'f> {
    /// Keeps the instances of a microservice that are in place and still may be.
    fn keep(&mut self, name: &MicroserviceName, microservice: &Microservice) {
        let Some(present) = self.fleet.placements.get(name) else {
            return;
        };
        let matching = self.matching(&microservice.place);
        let wanted = microservice
            .place
            .count
            .map_or(usize::MAX, |count| count as usize);
        let mut kept = 0;
        for id in matching.into_iter().filter(|id| present.contains(*id)) {
            if kept < wanted && self.shortage(id, name, microservice).is_none() {
                self.give(id, name, microservice);
                kept += 1;
            }
        }
    }

    /// Adds the instances of a microservice that are missing.
    fn add(&mut self, name: &MicroserviceName, microservice: &Microservice) {
        let place = &microservice.place;
        let matching = self.matching(place);
        let asked = place.count.map_or(1, |count| count as usize);
        if asked > matching.len() {
            let problem = self.too_few(name, place, matching.len());
            self.unplaced.push(Unplaced {
                name: name.clone(),
                node: None,
                instances: u32::try_from(asked - matching.len()).unwrap_or(u32::MAX),
                problem,
            });
        }
        let present = self.placements.get(name).cloned().unwrap_or_default();
        let mut open: Vec<&NodeId> = matching
            .into_iter()
            .filter(|id| !present.contains(*id))
            .collect();
        let wanted = match place.count {
            Some(count) => (count as usize)
                .saturating_sub(present.len())
                .min(open.len()),
            None => open.len(),
        };
        open.sort_by_key(|id| (self.used(id).microservices, &self.fleet.nodes[*id].name));
        let mut given = 0;
        let mut short = Vec::new();
        for id in open {
            if given == wanted {
                break;
            }
            match self.shortage(id, name, microservice) {
                None => {
                    self.give(id, name, microservice);
                    given += 1;
                }
                Some(shortage) => short.push((id, shortage)),
            }
        }
        for (id, (shortage, options)) in short.into_iter().take(wanted - given) {
            let options: Vec<_> = options.into_iter().collect();
            let problem = Problem {
                code: "over_budget",
                message: format!(
                    "microservice `{}` does not fit on node `{}`: {shortage}",
                    name.microservice, self.fleet.nodes[id].name
                ),
                hint: Some(format!(
                    "lower its limits, place it elsewhere, or give the node more: stop its agent, make a token with `haar node token`, there `haar-agent enrol TOKEN` with a larger {} (everything else stays as it is), and start it again",
                    options.join(" and ")
                )),
            };
            self.unplaced.push(Unplaced {
                name: name.clone(),
                node: Some(id.clone()),
                instances: 1,
                problem,
            });
        }
    }

    /// The nodes that a place names, by name.
    fn matching(&self, place: &Place) -> Vec<&'f NodeId> {
        let matches = |node: &Node| {
            place.node.as_ref().is_none_or(|name| name == &node.name)
                && place
                    .labels
                    .iter()
                    .flatten()
                    .all(|(key, value)| node.labels.get(key) == Some(value))
        };
        let mut ids: Vec<(&Name, &NodeId)> = self
            .fleet
            .nodes
            .iter()
            .filter(|(_, node)| matches(node))
            .map(|(id, node)| (&node.name, id))
            .collect();
        ids.sort();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    fn used(&self, id: &NodeId) -> Demand {
        self.used.get(id).copied().unwrap_or_default()
    }

    /// What is lacking for one more instance on a node, for a person; and the options of
    /// `haar-agent enrol` that give more of it.
    fn shortage(
        &self,
        id: &'f NodeId,
        name: &MicroserviceName,
        microservice: &Microservice,
    ) -> Option<(String, BTreeSet<String>)> {
        let (mut texts, mut options) = (Vec::new(), BTreeSet::new());
        for (at, more) in self.demands(id, name, microservice) {
            let node = &self.fleet.nodes[at];
            let shortages = node.budget.shortages(&self.used(at), &more);
            // Each resource has the name of its option of `haar-agent enrol`.
            options.extend(shortages.iter().map(|one| format!("`--{}`", one.what)));
            texts.extend(shortages.iter().map(|shortage| match at == id {
                true => shortage.to_string(),
                false => format!("{shortage} on node `{}`, where its messages go", node.name),
            }));
        }
        (!texts.is_empty()).then(|| (texts.join("; "), options))
    }

    fn give(&mut self, id: &'f NodeId, name: &MicroserviceName, microservice: &Microservice) {
        for (at, more) in self.demands(id, name, microservice) {
            let used = self.used.entry(at).or_default();
            *used = used.plus(more);
        }
        self.placements
            .entry(name.clone())
            .or_default()
            .insert(id.clone());
    }

    /// What one more instance on a node sets aside: there, and on the other nodes with which it
    /// exchanges durable messages.
    fn demands(
        &self,
        id: &'f NodeId,
        name: &MicroserviceName,
        microservice: &Microservice,
    ) -> BTreeMap<&'f NodeId, Demand> {
        let manifest = &self.fleet.applications[&name.application].manifest;
        let mut demands = BTreeMap::from([(id, manifest.demand(microservice))]);
        let mut arrive = |at: &'f NodeId| {
            let demand = demands.entry(at).or_default();
            *demand = demand.plus(Demand::of_arrivals());
        };
        let is_durable = |route: &&Route| route.delivery == Delivery::Durable;
        for route in manifest.routes.iter().filter(is_durable) {
            // What comes of devices, or goes to them, arrives from no other node.
            let (Some(from), Some(to)) = (route.from.port(), route.to.port()) else {
                continue;
            };
            if from.microservice == name.microservice {
                let others = self.others(id, name, &to.microservice);
                others.for_each(&mut arrive);
            }
            if to.microservice == name.microservice {
                let others = self.others(id, name, &from.microservice);
                others.for_each(|_| arrive(id));
            }
        }
        demands
    }

    /// The other nodes on which a microservice of the same application has been placed.
    fn others(
        &self,
        id: &NodeId,
        name: &MicroserviceName,
        microservice: &Name,
    ) -> impl Iterator<Item = &'f NodeId> {
        let full = MicroserviceName {
            application: name.application.clone(),
            microservice: microservice.clone(),
        };
        let placed = self.placements.get(&full).into_iter().flatten();
        let nodes = placed.filter(move |other| *other != id);
        nodes
            .filter_map(|other| self.fleet.nodes.get_key_value(other))
            .map(|(other, _)| other)
    }

    fn too_few(&self, name: &MicroserviceName, place: &Place, matching: usize) -> Problem {
        let microservice = &name.microservice;
        if let Some(node) = &place.node {
            let names = self.fleet.nodes.values().map(|node| node.name.as_str());
            return Problem {
                code: "unknown_node",
                message: format!("microservice `{microservice}`: the site has no node `{node}`"),
                hint: meant(node.as_str(), names)
                    .or_else(|| Some("enrol it first: `haar node token`".to_owned())),
            };
        }
        let labels: Vec<String> = place
            .labels
            .iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let labels = if labels.is_empty() {
            "any labels".to_owned()
        } else {
            labels.join(",")
        };
        match place.count {
            Some(count) if matching > 0 => Problem {
                code: "too_few_nodes",
                message: format!("microservice `{microservice}` wants {count} nodes with {labels}, and only {matching} match"),
                hint: Some("lower `count`, or enrol more nodes with these labels".into()),
            },
            _ => Problem {
                code: "no_node",
                message: format!("microservice `{microservice}`: no node of the site has {labels}"),
                hint: Some("see the labels with `haar get nodes`; enrol nodes with these labels, or change `place`".into()),
            },
        }
    }
}
