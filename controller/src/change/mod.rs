//! What requests and reports do to the site, each in one transaction: the change itself, the new
//! plan, and new assignments for the nodes whose content changed. `api` and `relay_link` call it on
//! the database thread; publishing is left to `relay_link`, which follows the commits.

mod applications;
mod careful;
mod enrolments;
mod lives;
mod modules;
mod named;
mod nodes;
mod publishers;
mod relays;
mod reports;
mod unplaced;

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::assignment::{self, Assignment, MicroserviceName, Publisher};
use haar_protocol::ids::{Digest, Name, NodeId};
use haar_protocol::number::NUMBER_MAX;
use haar_protocol::signed::{self, EnvelopeError};
use rusqlite::Connection;

pub(crate) use applications::{apply, delete_application};
pub(crate) use careful::{Care, careful};
pub(crate) use enrolments::{check_labels, clipped, enrol, proof_failure};
pub(crate) use lives::begin_first as begin_first_lives;
pub(crate) use modules::{delete_module, keep_module};
pub(crate) use named::{
    check_names, unknown_application, unknown_node, unknown_publisher, unknown_relay,
};
pub(crate) use nodes::{clear_revoked, revoke, rotate_link_key};
pub(crate) use publishers::{OtherKeys, distrust, trust};
pub(crate) use relays::{
    apply_relay, delete_relay, issue_for_broker, load_relays, renew_certificates, shown,
};
pub(crate) use reports::adopt;

use crate::clock;
use crate::db::applications::Placed;
use crate::db::modules::ModuleRow;
use crate::db::observations::{self, UNASSIGNED};
use crate::db::{self, Write};
use crate::failure::{Failure, Kind};
use crate::overview::View;
use crate::plan::{self, Fleet, Placements, Problem};
use crate::site::{Site, sha256};

/// What a new plan changed.
pub(crate) struct Replanned {
    /// The plan.
    pub(crate) placements: Placements,
    /// Numbers of the new assignments.
    pub(crate) assignments: BTreeMap<Name, u64>,
    /// Whether any instance has another node now.
    pub(crate) moved: bool,
}

/// Everything that plans depend on, as the database has it.
pub(crate) fn load_fleet(connection: &Connection, site: &Site) -> Result<Fleet, Failure> {
    fleet(connection, site, &db::applications::placements(connection)?)
}

/// Where instances are placed, without the assignments in which they changed.
fn places(placed: &Placed) -> Placements {
    let mut placements = Placements::new();
    for (name, node) in placed.keys().cloned() {
        placements.entry(name).or_default().insert(node);
    }
    placements
}

fn fleet(connection: &Connection, site: &Site, placed: &Placed) -> Result<Fleet, Failure> {
    let nodes = db::nodes::list(connection)?.into_iter().map(|row| {
        (
            row.id,
            plan::Node {
                name: row.name,
                labels: row.labels,
                budget: row.budget,
                key: row.key,
                link_key: row.link_key,
                link_key_generation: row.link_key_generation,
            },
        )
    });
    let applications: BTreeMap<Name, plan::Application> = db::applications::list(connection)?
        .into_iter()
        .map(|row| {
            let application = plan::Application {
                manifest: row.manifest,
                modules: row.modules,
            };
            (application.manifest.name.clone(), application)
        })
        .collect();
    let used: BTreeSet<Digest> = applications
        .values()
        .flat_map(|application| application.modules.values().copied())
        .collect();
    let mut modules = BTreeMap::new();
    for digest in used {
        if let Some(row) = db::modules::get(connection, &digest)? {
            modules.insert(digest, planned_module(row));
        }
    }
    Ok(Fleet {
        site: site.id.clone(),
        site_key: site.key.clone(),
        relays: load_relays(connection, site)?,
        nodes: nodes.collect(),
        publishers: load_publishers(connection)?,
        modules,
        applications,
        placements: places(placed),
        lives: db::lives::list(connection)?,
        ended: db::lives::ended(connection)?,
    })
}

/// The site as it should be and as it was last reported.
pub(crate) fn load_view(connection: &Connection, site: &Site) -> Result<View, Failure> {
    let changed_in = db::applications::placements(connection)?;
    Ok(View {
        fleet: fleet(connection, site, &changed_in)?,
        nodes: db::nodes::list(connection)?,
        statuses: db::statuses::all(connection)?,
        assignments: db::assignments::numbers(connection)?,
        observations: db::observations::all(connection)?,
        changed_in,
        unplaced: db::unplaced::all(connection)?,
        now_ms: clock::now_ms(),
    })
}

fn load_publishers(connection: &Connection) -> Result<Vec<Publisher>, Failure> {
    let publishers = db::publishers::list(connection)?;
    Ok(publishers
        .into_iter()
        .map(|publisher| Publisher {
            name: publisher.name,
            key: publisher.key,
        })
        .collect())
}

fn planned_module(row: ModuleRow) -> plan::Module {
    let later = row.signatures.filter(|_| !row.resigned.is_empty());
    plan::Module {
        digest: row.digest,
        resigned: row.resigned,
        later: later.map(|signatures| signatures.to_text()),
        name: row.name,
        version: row.version,
        bytes: row.bytes,
        memory_bytes: row.memory_bytes,
        signers: row.signers,
        imports: row.imports,
        exports: row.exports,
    }
}

/// Makes a new plan and the assignments that it changes. `candidate` is the application that is
/// applied now: when one of its microservices would run nowhere, everything is refused.
fn replan(write: &Write<'_>, site: &Site, candidate: Option<&Name>) -> Result<Replanned, Failure> {
    replan_above(write, site, candidate, &BTreeMap::new())
}

/// As [`replan`]. The nodes in `above` get an assignment in any case, with a number above the one
/// that is given there.
fn replan_above(
    write: &Write<'_>,
    site: &Site,
    candidate: Option<&Name>,
    above: &BTreeMap<NodeId, u64>,
) -> Result<Replanned, Failure> {
    let mut fleet = load_fleet(&write.sql, site)?;
    let placed = plan::place(&fleet, candidate);
    let known = db::unplaced::all(&write.sql)?;
    if let Some(name) = candidate {
        let mut problems = unplaced::refusals(&fleet, &placed, name, &known);
        let pairs = plan::route_pairs_problem(&fleet, name, &placed.placements);
        problems.extend(pairs);
        refuse(problems)?;
    }
    unplaced::record(write, &fleet, &placed, &known)?;
    let placements = placed.placements;
    db::applications::put_placements(&write.sql, &fleet.placements, &placements)?;
    if !fleet.ended.is_empty() {
        db::lives::forget_placed(&write.sql)?;
        fleet.ended = db::lives::ended(&write.sql)?;
    }
    let (mut assignments, mut unassigned) = (BTreeMap::new(), BTreeSet::new());
    for (id, node) in &fleet.nodes {
        let hosts_candidate = placements
            .iter()
            .any(|(name, nodes)| Some(&name.application) == candidate && nodes.contains(id));
        match assign(write, site, &fleet, &placements, id, above.get(id).copied()) {
            Ok(Some(number)) => drop(assignments.insert(node.name.clone(), number)),
            Ok(None) => {}
            Err(failure)
                if failure.code == NUMBERS_USED_UP
                    || (failure.code == TOO_LARGE && !hosts_candidate) =>
            {
                let (code, message) = (failure.code, failure.to_string());
                if observations::note(write, id, UNASSIGNED, code, &message)? {
                    write.node_event(code, node.name.as_str(), &message)?;
                }
                unassigned.insert(id.clone());
            }
            Err(failure) => return Err(failure),
        }
    }
    observations::forget_others(&write.sql, UNASSIGNED, &unassigned)?;
    write.planned();
    Ok(Replanned {
        moved: placements != fleet.placements,
        placements,
        assignments,
    })
}

/// Fails with all of `problems` together, unless there are none.
fn refuse(problems: Vec<Problem>) -> Result<(), Failure> {
    let Some(first) = problems.first() else {
        return Ok(());
    };
    let code = first.code;
    let messages: Vec<&str> = problems
        .iter()
        .map(|problem| problem.message.as_str())
        .collect();
    let hints: BTreeSet<&str> = problems
        .iter()
        .filter_map(|problem| problem.hint.as_deref())
        .collect();
    let mut failure = Failure::new(Kind::Refused, code, messages.join("\n"));
    if !hints.is_empty() {
        failure = failure.hint(hints.into_iter().collect::<Vec<_>>().join("; "));
    }
    Err(failure)
}

const TOO_LARGE: &str = "assignment_too_large";
const NUMBERS_USED_UP: &str = "assignment_numbers_used_up";

/// Makes the assignment of one node, if it says anything new. With `above`, it is made in any case,
/// and its number is above that one. Returns the new number.
fn assign(
    write: &Write<'_>,
    site: &Site,
    fleet: &Fleet,
    placements: &Placements,
    id: &NodeId,
    above: Option<u64>,
) -> Result<Option<u64>, Failure> {
    let Some(content) = plan::compile(fleet, placements, id) else {
        return Ok(None);
    };
    let hash = sha256(&serde_json::to_vec(&content)?);
    let made = db::assignments::made(&write.sql, id)?;
    let last = made.as_ref().map_or(0, |made| made.number);
    if above.is_none() && made.is_some_and(|made| made.content_hash == Some(hash)) {
        return Ok(None);
    }
    let number = last.max(above.unwrap_or(0)).saturating_add(1);
    let name = content.node_name.clone();
    if number > NUMBER_MAX {
        return Err(Failure::new(
            Kind::Refused,
            NUMBERS_USED_UP,
            format!("node `{name}` has seen assignment {last}: there is no higher number"),
        )
        .hint("delete the node, and let its device enrol with another key"));
    }
    let changed: Vec<MicroserviceName> = changed_in(write, site, id, &content)?
        .into_iter()
        .cloned()
        .collect();
    let modules: BTreeSet<Digest> = content
        .microservices
        .iter()
        .map(|microservice| microservice.module)
        .collect();
    let modules: Vec<Digest> = modules.into_iter().collect();
    let assignment = Assignment {
        number,
        issued_ms: write.now_ms,
        ..content
    };
    let envelope = signed::seal(&assignment, &site.key).map_err(|error| match error {
        EnvelopeError::TooLarge { .. } => Failure::new(
            Kind::Refused,
            TOO_LARGE,
            format!("the assignment of node `{name}` would be too large: {error}"),
        )
        .hint("give the node fewer microservices, routes or configuration"),
        other => Failure::internal(other),
    })?;
    let made = db::assignments::Made {
        number,
        content_hash: Some(hash),
    };
    db::assignments::put(write, id, &made, &modules, &envelope)?;
    for name in &changed {
        db::applications::set_placement_number(&write.sql, id, name, number)?;
    }
    Ok(Some(number))
}

/// The microservices of which `content` says something else than the node's assignment so far: of
/// themselves, or of their routes.
fn changed_in<'c>(
    write: &Write<'_>,
    site: &Site,
    id: &NodeId,
    content: &'c Assignment,
) -> Result<Vec<&'c MicroserviceName>, Failure> {
    let sealed = db::assignments::sealed(&write.sql, id)?.and_then(|sealed| sealed.envelope);
    let before: Option<Assignment> =
        sealed.and_then(|envelope| signed::open(&envelope, &site.key.public()).ok());
    let microservices = content.microservices.iter();
    let Some(before) = before else {
        return Ok(microservices.map(|one| &one.name).collect());
    };
    let is_same = |one: &&assignment::Microservice| {
        before.microservices.contains(one)
            && routes_of(&before, &one.name) == routes_of(content, &one.name)
    };
    Ok(microservices
        .filter(|one| !is_same(one))
        .map(|one| &one.name)
        .collect())
}

/// The routes that begin or end at a microservice.
fn routes_of<'a>(
    assignment: &'a Assignment,
    name: &MicroserviceName,
) -> (Vec<&'a assignment::Route>, Vec<&'a assignment::TopicRoute>) {
    let is_end = |route: &&assignment::Route| {
        &route.from.microservice == name || &route.to.microservice == name
    };
    let routes = assignment.routes.iter().filter(is_end);
    let topics = assignment.topics.iter();
    let topics = topics.filter(|route| &route.microservice == name);
    (routes.collect(), topics.collect())
}
