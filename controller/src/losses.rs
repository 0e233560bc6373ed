//! What a change takes away from people: instances that stop, messages that wait for what is no longer
//! there, and data. Pure: compares the site as it was, with what nodes last reported, with what would
//! be. `change` tells it before it changes anything.

mod brokers;
mod outgrown;

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::assignment::{Assignment, MicroserviceName};
use haar_protocol::ids::{Digest, Name, NodeId, RouteId};
use haar_protocol::manifest::Delivery;
use haar_protocol::quantity::ByteSize;
use haar_protocol::rest::{Loss, LossKind};
use haar_protocol::status::{MicroserviceStatus, RouteStatus};
use haar_protocol::text::duration;

use crate::overview::View;
use crate::plan::{self, Fleet};

pub(crate) use outgrown::{lowers, outgrown};

/// Losses of one kind that are told.
const TOLD_MAX: usize = 100;

/// What is lost from `before` to `after`.
pub(crate) fn between(before: &View, after: &Fleet, now_ms: u64) -> Vec<Loss> {
    let change = Change {
        before,
        after,
        now_ms,
    };
    let losses = [
        change.stops(),
        change.messages(),
        change.left_at_brokers(),
        change.data(),
    ];
    losses.into_iter().flat_map(cut).collect()
}

/// The first of them; the last one says how many more there are.
fn cut(mut losses: Vec<Loss>) -> Vec<Loss> {
    let more = losses.len().saturating_sub(TOLD_MAX);
    losses.truncate(TOLD_MAX);
    if let Some(last) = losses.last_mut().filter(|_| more > 0) {
        last.message += &format!("; and {more} more like this");
    }
    losses
}

struct Change<'a> {
    before: &'a View,
    after: &'a Fleet,
    now_ms: u64,
}

impl Change<'_> {
    /// Instances that end and do not begin again on the same node.
    fn stops(&self) -> Vec<Loss> {
        let mut losses = Vec::new();
        for (name, nodes) in &self.before.fleet.placements {
            let untrusted = self.becomes_untrusted(name);
            let stopped: BTreeSet<&NodeId> = nodes
                .iter()
                .filter(|node| untrusted || !self.stays(name, node))
                .collect();
            if stopped.is_empty() {
                continue;
            }
            let goes_on = self.after.placements.get(name).filter(|_| !untrusted);
            let others = goes_on.into_iter().flatten();
            let others = self.names(others.filter(|node| !nodes.contains(*node)));
            let why = match (untrusted, others.is_empty()) {
                (true, _) => ": no publisher of its module is trusted any more".to_owned(),
                (false, true) => String::new(),
                (false, false) => format!(", and starts on {}", others.join(", ")),
            };
            let nodes = self.before_names(&stopped);
            losses.push(Loss {
                kind: LossKind::Stop,
                subject: name.to_string(),
                count: stopped.len() as u64,
                known_ms: None,
                message: format!("{name} stops on {}{why}", listed(&nodes)),
                nodes,
            });
        }
        losses
    }

    fn stays(&self, name: &MicroserviceName, node: &NodeId) -> bool {
        let nodes = self.after.placements.get(name);
        nodes.is_some_and(|nodes| nodes.contains(node)) && self.after.nodes.contains_key(node)
    }

    fn becomes_untrusted(&self, name: &MicroserviceName) -> bool {
        let is_trusted = |fleet: &Fleet, module: &Digest| {
            fleet.modules.get(module).is_some_and(|module| {
                let mut publishers = fleet.publishers.iter();
                publishers.any(|publisher| module.signers.contains(&publisher.key))
            })
        };
        let module = module_of(&self.before.fleet, name).zip(module_of(self.after, name));
        module.is_some_and(|(before, after)| {
            is_trusted(&self.before.fleet, before) && !is_trusted(self.after, after)
        })
    }

    /// Messages that wait on routes that will not be there.
    fn messages(&self) -> Vec<Loss> {
        let mut lost: BTreeMap<RouteId, (u64, BTreeSet<&NodeId>)> = BTreeMap::new();
        for (node, row) in &self.before.statuses {
            let routes = row.status.routes.iter();
            let waiting: Vec<&RouteStatus> = routes.filter(|route| route.waiting > 0).collect();
            if waiting.is_empty() {
                continue;
            }
            let assignment = plan::compile(self.after, &self.after.placements, node);
            let before = plan::compile(&self.before.fleet, &self.before.fleet.placements, node);
            for route in waiting {
                let stays = assignment.as_ref().is_some_and(|one| has(one, route));
                if !stays && !self.is_kept(before.as_ref(), route, node) {
                    let (messages, nodes) = lost.entry(route.id).or_default();
                    *messages = messages.saturating_add(route.waiting);
                    nodes.insert(node);
                }
            }
        }
        if lost.is_empty() {
            return Vec::new();
        }
        let names: BTreeMap<RouteId, String> = self
            .before
            .routes(None)
            .into_iter()
            .map(|route| (route.id, format!("{} -> {}", route.from, route.to)))
            .collect();
        let told = lost.into_iter().filter_map(|(id, (count, nodes))| {
            // What is of no route of the site is lost already, and the node has not said so yet.
            let subject = names.get(&id)?.clone();
            let (known_ms, age) = self.known(&nodes);
            let messages = if count == 1 { "message" } else { "messages" };
            let (from, to) = subject.split_once(" -> ")?;
            Some(Loss {
                kind: LossKind::Messages,
                nodes: self.before_names(&nodes),
                count,
                known_ms,
                message: format!(
                    "{count} {messages} waiting on `{from}` -> `{to}` will be lost{age}"
                ),
                subject,
            })
        });
        told.collect()
    }

    /// True when what waits on a route is in a log of a microservice that goes while its data are kept.
    fn is_kept(&self, before: Option<&Assignment>, route: &RouteStatus, node: &NodeId) -> bool {
        let routes = before.iter().flat_map(|one| &one.routes);
        let owners =
            routes
                .filter(|one| one.id == route.id)
                .map(|one| match one.from.node == *node {
                    true => &one.from.microservice,
                    false => &one.to.microservice,
                });
        let topics = before.iter().flat_map(|one| &one.topics);
        let topics = topics.filter(|one| one.id == route.id);
        let mut owners = owners.chain(topics.map(|one| &one.microservice));
        owners.any(|owner| module_of(self.after, owner).is_none() && !self.ends(owner, node))
    }

    /// What is stored for microservices whose life ends, or whose node goes.
    fn data(&self) -> Vec<Loss> {
        let mut losses = Vec::new();
        for (name, nodes) in &self.before.fleet.placements {
            for (what, is_deleted) in [("is deleted", true), ("is left behind", false)] {
                let has_more = |node: &&NodeId| self.after.nodes.contains_key(*node) == is_deleted;
                let ends = nodes.iter().filter(has_more).filter_map(|node| {
                    let status = self.reported(name, node)?;
                    let is_lost = !stored(status).is_empty() && self.ends(name, node);
                    is_lost.then_some((node, status))
                });
                let ends: Vec<_> = ends.collect();
                if ends.is_empty() {
                    continue;
                }
                let sum = |count: fn(&MicroserviceStatus) -> u64| {
                    ends.iter()
                        .fold(0, |sum: u64, (_, status)| sum.saturating_add(count(status)))
                };
                let together = MicroserviceStatus {
                    key_value_bytes: sum(|status| status.key_value_bytes),
                    files_bytes: sum(|status| status.files_bytes),
                    dead_letters: sum(|status| status.dead_letters),
                    ..ends[0].1.clone()
                };
                let nodes: BTreeSet<&NodeId> = ends.iter().map(|(node, _)| *node).collect();
                let (known_ms, age) = self.known(&nodes);
                let nodes = self.before_names(&nodes);
                losses.push(Loss {
                    kind: LossKind::Data,
                    subject: name.to_string(),
                    count: together
                        .key_value_bytes
                        .saturating_add(together.files_bytes),
                    known_ms,
                    message: format!(
                        "what {name} has stored on {} {what}: {}{age}",
                        listed(&nodes),
                        stored(&together).join(", ")
                    ),
                    nodes,
                });
            }
        }
        losses.extend(self.kept());
        losses
    }

    /// What was kept for microservices that are not there, and is deleted: a module of another publisher
    /// takes the name.
    fn kept(&self) -> Vec<Loss> {
        let mut kept: BTreeMap<&String, BTreeSet<&NodeId>> = BTreeMap::new();
        for (node, names) in &self.after.ended {
            let known = self.before.fleet.ended.get(node);
            let is_new = |name: &&String| known.is_none_or(|known| !known.contains(*name));
            for name in names.iter().filter(is_new) {
                kept.entry(name).or_default().insert(node);
            }
        }
        let placements = self.before.fleet.placements.keys();
        let placed: BTreeSet<String> = placements.map(ToString::to_string).collect();
        let kept = kept.into_iter().filter(|(name, _)| !placed.contains(*name));
        kept.map(|(name, nodes)| {
            let nodes = self.before_names(&nodes);
            Loss {
                kind: LossKind::Data,
                subject: name.clone(),
                count: 0,
                known_ms: None,
                message: format!(
                    "what was kept for {name} on {} is deleted: it is of another publisher",
                    listed(&nodes)
                ),
                nodes,
            }
        })
        .collect()
    }

    /// True when what a microservice has stored on a node is nobody's any more.
    fn ends(&self, name: &MicroserviceName, node: &NodeId) -> bool {
        if !self.after.nodes.contains_key(node) {
            return true;
        }
        let ended = self.after.ended.get(node);
        let is_told = ended.is_some_and(|ended| ended.contains(&name.to_string()));
        is_told || (self.stays(name, node) && self.before.fleet.life(name) != self.after.life(name))
    }

    fn reported(&self, name: &MicroserviceName, node: &NodeId) -> Option<&MicroserviceStatus> {
        let status = &self.before.statuses.get(node)?.status;
        status.microservices.iter().find(|one| &one.name == name)
    }

    /// When the oldest of the nodes' reports came, and the same for people.
    fn known(&self, nodes: &BTreeSet<&NodeId>) -> (Option<u64>, String) {
        let reports = nodes
            .iter()
            .filter_map(|node| self.before.statuses.get(*node));
        let known_ms = reports.map(|row| row.received_ms).min();
        let age = known_ms.map_or_else(String::new, |known_ms| {
            let age = duration(self.now_ms.saturating_sub(known_ms));
            format!(" (as of {age} ago)")
        });
        (known_ms, age)
    }

    fn before_names(&self, nodes: &BTreeSet<&NodeId>) -> Vec<Name> {
        let rows = self.before.nodes.iter();
        let rows = rows.filter(|row| nodes.contains(&row.id));
        rows.map(|row| row.name.clone()).collect()
    }

    fn names<'b>(&self, nodes: impl Iterator<Item = &'b NodeId>) -> Vec<String> {
        let found = nodes.filter_map(|node| self.after.nodes.get(node));
        found.map(|node| node.name.to_string()).collect()
    }
}

fn module_of<'a>(fleet: &'a Fleet, name: &MicroserviceName) -> Option<&'a Digest> {
    let application = fleet.applications.get(&name.application)?;
    application.modules.get(&name.microservice)
}

/// Nodes for people, the first of many.
fn listed(nodes: &[Name]) -> String {
    const SHOWN: usize = 5;
    let mut shown: Vec<String> = nodes.iter().take(SHOWN).map(Name::to_string).collect();
    if nodes.len() > SHOWN {
        shown.push(format!("{} more nodes", nodes.len() - SHOWN));
    }
    shown.join(", ")
}

/// What a microservice has stored, for people.
fn stored(status: &MicroserviceStatus) -> Vec<String> {
    let bytes = |bytes, what| (bytes > 0).then(|| format!("{} of {what}", ByteSize(bytes)));
    let letters = match status.dead_letters {
        0 => None,
        1 => Some("1 dead letter".to_owned()),
        letters => Some(format!("{letters} dead letters")),
    };
    let all = [
        bytes(status.key_value_bytes, "pairs"),
        bytes(status.files_bytes, "files"),
        letters,
    ];
    all.into_iter().flatten().collect()
}

/// True when what waits on a route of its node still waits for something.
fn has(assignment: &Assignment, waiting: &RouteStatus) -> bool {
    let name = |node: &NodeId| match *node == assignment.node {
        true => Some(&assignment.node_name),
        false => {
            let mut peers = assignment.peers.iter();
            peers.find(|peer| peer.id == *node).map(|peer| &peer.name)
        }
    };
    let mut routes = assignment.routes.iter();
    let mut topics = assignment.topics.iter();
    routes.any(|route| {
        let other = match route.from.node == assignment.node {
            true => &route.to.node,
            false => &route.from.node,
        };
        route.id == waiting.id
            && route.delivery == Delivery::Durable
            && name(other) == Some(&waiting.peer)
    }) || topics.any(|route| route.id == waiting.id && route.delivery == Delivery::Durable)
}
