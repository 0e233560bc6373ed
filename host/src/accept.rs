//! Decides whether an assignment comes into force: a pure check of everything that can be checked
//! before anything is stored or started.

use std::collections::BTreeSet;

use haar_protocol::assignment::{Assignment, Microservice};
use haar_protocol::demand::{Demand, Shortage};
use haar_protocol::ids::{Digest, NodeId, SiteId};
use haar_protocol::keys::PublicKey;
use haar_protocol::limits::Budget;
use haar_protocol::module::MODULE_BYTES_MAX;
use haar_protocol::number::NUMBER_MAX;
use haar_protocol::signed::{self, EnvelopeError};

use crate::runtime::mappings;

/// Who this node is, and whose assignments it follows.
#[derive(Debug, Clone)]
pub struct Allegiance {
    /// The site.
    pub site: SiteId,
    /// The site's key, pinned at enrolment.
    pub site_key: PublicKey,
    /// This node.
    pub node: NodeId,
    /// What it has to give.
    pub budget: Budget,
    /// How many mappings of memory its kernel allows; none where that is not known.
    pub mappings: Option<u64>,
}

/// The assignment in force, as far as the next one is compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    /// Its number.
    pub number: u64,
    /// Digest of its envelope.
    pub envelope: Digest,
}

/// What becomes of an envelope.
#[derive(Debug)]
pub enum Verdict {
    /// It is new and good.
    Accept(Box<Assignment>),
    /// It is the one in force: relays deliver retained messages again and again.
    Same,
}

/// Why an assignment is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not an envelope of the site.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Another site's.
    #[error("the assignment is of site {found}, this node belongs to {own}")]
    OtherSite {
        /// The site in it.
        found: SiteId,
        /// This node's site.
        own: SiteId,
    },
    /// Another node's.
    #[error("the assignment is for node {found}, this node is {own}")]
    OtherNode {
        /// The node in it.
        found: NodeId,
        /// This node.
        own: NodeId,
    },
    /// Older than the one in force.
    #[error("assignment {found} is older than {applied}, which is in force")]
    Older {
        /// Its number.
        found: u64,
        /// The number in force.
        applied: u64,
    },
    /// Of the same number with other content: the controller lost its memory, or is not one.
    #[error(
        "assignment {0} is in force with other content: the controller must count on, not start again"
    )]
    Conflicting(u64),
    /// More than the node has.
    #[error("the assignment is more than this node has: {0}")]
    OverBudget(Shortage),
    /// More instances than the kernel lets one process have.
    #[error(
        "this kernel allows {allowed} mappings of memory to a process, which is enough for {most} instances, and {wanted} are assigned: raise vm.max_map_count or run no more than {most} microservices on this node"
    )]
    TooManyMappings {
        /// `vm.max_map_count`.
        allowed: u64,
        /// Instances for which that is enough.
        most: u64,
        /// Instances of the assignment.
        wanted: u64,
    },
    /// It contradicts itself.
    #[error("the assignment contradicts itself: {0}")]
    Inconsistent(String),
}

/// Checks an envelope that came over a relay, or from the node's own store.
///
/// # Errors
/// See [`Refusal`].
pub fn accept(
    envelope: &[u8],
    own: &Allegiance,
    in_force: Option<InForce>,
) -> Result<Verdict, Refusal> {
    if in_force.is_some_and(|in_force| in_force.envelope == Digest::of(envelope)) {
        return Ok(Verdict::Same);
    }
    let assignment: Assignment = signed::open(envelope, &own.site_key)?;
    if assignment.site != own.site {
        return Err(Refusal::OtherSite {
            found: assignment.site,
            own: own.site.clone(),
        });
    }
    if assignment.node != own.node {
        return Err(Refusal::OtherNode {
            found: assignment.node,
            own: own.node.clone(),
        });
    }
    // A number out of range, which an earlier release may have stored, would outlast every other.
    if let Some(in_force) = in_force.filter(|in_force| in_force.number <= NUMBER_MAX) {
        if assignment.number < in_force.number {
            return Err(Refusal::Older {
                found: assignment.number,
                applied: in_force.number,
            });
        }
        if assignment.number == in_force.number {
            return Err(Refusal::Conflicting(assignment.number));
        }
    }
    check_budget(&assignment, &own.budget)?;
    check_mappings(&assignment, own.mappings)?;
    check_consistency(&assignment)?;
    Ok(Verdict::Accept(Box::new(assignment)))
}

fn check_budget(assignment: &Assignment, budget: &Budget) -> Result<(), Refusal> {
    let shortages = budget.shortages(&Demand::default(), &assignment.demand());
    match shortages.into_iter().next() {
        Some(shortage) => Err(Refusal::OverBudget(shortage)),
        None => Ok(()),
    }
}

fn check_mappings(assignment: &Assignment, allowed: Option<u64>) -> Result<(), Refusal> {
    let wanted = assignment.microservices.len() as u64;
    let Some(allowed) = allowed else {
        return Ok(());
    };
    let most = mappings::instances(allowed);
    if wanted > most {
        return Err(Refusal::TooManyMappings {
            allowed,
            most,
            wanted,
        });
    }
    Ok(())
}

fn check_consistency(assignment: &Assignment) -> Result<(), Refusal> {
    let mut names = BTreeSet::new();
    for microservice in &assignment.microservices {
        if !names.insert(&microservice.name) {
            return Err(Refusal::Inconsistent(format!(
                "{} appears twice",
                microservice.name
            )));
        }
        if microservice.module_bytes > MODULE_BYTES_MAX {
            return Err(Refusal::Inconsistent(format!(
                "the module of {} is too large",
                microservice.name
            )));
        }
    }
    for route in &assignment.routes {
        if route.from.node != assignment.node && route.to.node != assignment.node {
            return Err(Refusal::Inconsistent(format!(
                "route {} does not touch this node",
                route.id
            )));
        }
        for (end, ports) in [(&route.from, true), (&route.to, false)] {
            if end.node != assignment.node {
                continue;
            }
            let microservice = assignment
                .microservices
                .iter()
                .find(|one| one.name == end.microservice);
            if microservice.is_some_and(is_not_understood) {
                continue;
            }
            let ports = microservice.map(|one| if ports { &one.outlets } else { &one.inlets });
            if ports.and_then(|ports| ports.get(&end.port)) != Some(&route.content_type) {
                let text = format!(
                    "route {} ends in a port that {} does not have",
                    route.id, end.microservice
                );
                return Err(Refusal::Inconsistent(text));
            }
        }
    }
    check_topics(assignment)
}

fn check_topics(assignment: &Assignment) -> Result<(), Refusal> {
    for route in &assignment.topics {
        let microservices = &mut assignment.microservices.iter();
        let microservice = microservices.find(|one| one.name == route.microservice);
        if microservice.is_some_and(is_not_understood) {
            continue;
        }
        let ports = microservice.map(|one| match route.topic.is_source() {
            true => &one.inlets,
            false => &one.outlets,
        });
        if ports.and_then(|ports| ports.get(&route.port)) != Some(&route.content_type) {
            return Err(Refusal::Inconsistent(format!(
                "route {} joins a topic and a port that {} does not have",
                route.id, route.microservice
            )));
        }
    }
    Ok(())
}

/// True for what does not run: that its ports fit its routes can't be said.
fn is_not_understood(microservice: &Microservice) -> bool {
    !microservice.unknown.is_empty()
}

#[cfg(test)]
mod tests {
    use haar_protocol::keys::SecretKey;
    use haar_protocol::quantity::{ByteSize, Percent};

    use super::*;

    /// An assignment of one microservice that sets aside 60 % of a core and stores up to 8 MiB, with a
    /// durable route of 2 MiB to another node and one from there, for which 4 MiB are set aside.
    fn assignment(site: &SecretKey, node: &NodeId) -> Assignment {
        let other = NodeId::of(&SecretKey::from_seed([3; 32]).public());
        let port = |node: &NodeId, name: &str| {
            serde_json::json!({
                "node": node, "application": "app", "microservice": "one", "port": name,
            })
        };
        let route = |from: &NodeId, to: &NodeId| {
            serde_json::json!({
                "id": "0000000000000001", "from": port(from, "out"), "to": port(to, "in"),
                "content_type": "text/plain", "delivery": "durable",
                "backlog": {"size": ByteSize(2 << 20)},
            })
        };
        let json = serde_json::json!({
            "site": SiteId::of(&site.public()), "node": node, "node_name": "gw", "labels": {},
            "number": 1, "issued_ms": 0, "publishers": [], "peers": [],
            "routes": [route(node, &other), route(&other, node)],
            "microservices": [{
                "application": "app", "microservice": "one", "module": Digest::of(b""),
                "module_bytes": 1, "module_label": "one@1", "configuration": {},
                "limits": {"cpu": Percent(60), "key_value_size": ByteSize(8 << 20)},
                "grants": {"key_value": true},
                "outlets": {"out": "text/plain"}, "inlets": {"in": "text/plain"},
            }],
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_the_node_has_too_little_of_is_refused_saying_by_how_much() {
        let site = SecretKey::from_seed([1; 32]);
        let node = NodeId::of(&SecretKey::from_seed([2; 32]).public());
        let envelope = signed::seal(&assignment(&site, &node), &site).unwrap();
        let whole = Budget {
            memory: ByteSize(16 << 20),
            microservices: 1,
            cpu_percent: 60,
            storage: ByteSize(14 << 20),
        };
        let with = |change: fn(&mut Budget)| {
            let mut budget = whole.clone();
            change(&mut budget);
            let own = Allegiance {
                site: SiteId::of(&site.public()),
                site_key: site.public(),
                node: node.clone(),
                budget,
                mappings: None,
            };
            accept(&envelope, &own, None)
        };
        assert!(matches!(with(|_| {}), Ok(Verdict::Accept(_))));
        for (change, what, over) in [
            (
                (|budget| budget.memory.0 -= 1) as fn(&mut Budget),
                "memory",
                "1B",
            ),
            (|budget| budget.microservices = 0, "microservices", "1"),
            (|budget| budget.cpu_percent = 50, "cpu", "10%"),
            (|budget| budget.storage.0 = 3 << 20, "storage", "11MiB"),
        ] {
            let Err(Refusal::OverBudget(shortage)) = with(change) else {
                panic!("{what} was accepted");
            };
            assert_eq!((shortage.what, shortage.over.as_str()), (what, over));
        }
    }
    #[test]
    fn a_number_out_of_range_is_refused_and_one_in_force_does_not_outlast_the_others() {
        let site = SecretKey::from_seed([1; 32]);
        let node = NodeId::of(&SecretKey::from_seed([2; 32]).public());
        let own = Allegiance {
            site: SiteId::of(&site.public()),
            site_key: site.public(),
            node: node.clone(),
            budget: Budget::new(ByteSize(1 << 30), 100),
            mappings: None,
        };
        let mut document = serde_json::to_value(assignment(&site, &node)).unwrap();
        for number in [NUMBER_MAX + 1, (1 << 53) + 1, 1 << 63, u64::MAX] {
            document["number"] = number.into();
            let json = serde_json::to_vec(&document).unwrap();
            let covered = [b"haar signed document\n\x01\x01", json.as_slice()].concat();
            let envelope = [b"HAAR\x01\x01", site.sign(&covered).as_slice(), &json].concat();
            let refusal = accept(&envelope, &own, None).unwrap_err();
            let expected = format!("`number` is {number}");
            assert!(refusal.to_string().contains(&expected), "{refusal}");
        }
        let envelope = signed::seal(&assignment(&site, &node), &site).unwrap();
        let in_force = |number| InForce {
            number,
            envelope: Digest::of(b"another"),
        };
        for number in [NUMBER_MAX + 1, u64::MAX] {
            let verdict = accept(&envelope, &own, Some(in_force(number)));
            assert!(matches!(verdict, Ok(Verdict::Accept(_))), "{number}");
        }
        let refusal = accept(&envelope, &own, Some(in_force(NUMBER_MAX)));
        assert!(matches!(refusal, Err(Refusal::Older { .. })));
    }

    #[test]
    fn more_instances_than_the_kernel_has_mappings_for_are_refused_saying_what_to_do() {
        let site = SecretKey::from_seed([1; 32]);
        let node = NodeId::of(&SecretKey::from_seed([2; 32]).public());
        let envelope = signed::seal(&assignment(&site, &node), &site).unwrap();
        let with = |mappings| {
            let own = Allegiance {
                site: SiteId::of(&site.public()),
                site_key: site.public(),
                node: node.clone(),
                budget: Budget::new(ByteSize(1 << 30), 100),
                mappings,
            };
            accept(&envelope, &own, None)
        };
        assert!(matches!(with(None), Ok(Verdict::Accept(_))));
        assert!(matches!(with(Some(65_530)), Ok(Verdict::Accept(_))));
        let refusal = with(Some(1_024)).unwrap_err().to_string();
        let what_to_do = "raise vm.max_map_count or run no more than 0 microservices";
        assert!(
            refusal.contains("allows 1024 mappings") && refusal.contains(what_to_do),
            "{refusal}"
        );
    }
}
