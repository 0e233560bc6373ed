//! What a plan leaves without a place: when that refuses an apply, and how people hear of it. One
//! node without room never refuses an application that runs elsewhere, and what has no place already
//! never refuses a later change.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::Name;
use haar_protocol::rest::Unplaced;

use crate::db::unplaced::UnplacedRows;
use crate::db::{self, Write};
use crate::failure::Failure;
use crate::plan::{self, Fleet, Placed, Problem};

/// The problems for which `candidate` is refused: of its microservices that would run nowhere, unless
/// they run nowhere already, for the same reason.
pub(super) fn refusals(
    fleet: &Fleet,
    placed: &Placed,
    candidate: &Name,
    known: &UnplacedRows,
) -> Vec<Problem> {
    placed
        .unplaced
        .iter()
        .filter(|one| &one.name.application == candidate)
        .filter(|one| !placed.placements.contains_key(&one.name))
        .filter(|one| !is_known(&row(fleet, one, 0), known.get(&key(fleet, one))))
        .map(|one| one.problem.clone())
        .collect()
}

/// Sizes in the reason of a node that has no room may change; other reasons name what is missing.
fn is_known(now: &Unplaced, known: Option<&Unplaced>) -> bool {
    known.is_some_and(|known| {
        known.code == now.code && (now.node.is_some() || known.reason == now.reason)
    })
}

/// Stores what has no place, and since when; what is new, or has a place again, is an event.
pub(super) fn record(
    write: &Write<'_>,
    fleet: &Fleet,
    placed: &Placed,
    known: &UnplacedRows,
) -> Result<(), Failure> {
    let mut rows = UnplacedRows::new();
    let mut news: BTreeMap<&MicroserviceName, Vec<&plan::Unplaced>> = BTreeMap::new();
    for one in &placed.unplaced {
        let key = key(fleet, one);
        let mut row = row(fleet, one, write.now_ms);
        match known.get(&key) {
            Some(known) if is_known(&row, Some(known)) => row.since_ms = known.since_ms,
            _ => news.entry(&one.name).or_default().push(one),
        }
        rows.insert(key, row);
    }
    db::unplaced::put(&write.sql, known, &rows)?;
    for (name, unplaced) in news {
        let instances: u64 = unplaced.iter().map(|one| u64::from(one.instances)).sum();
        let more = match unplaced.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more reasons)"),
        };
        let instances = match instances {
            1 => "an instance has".to_owned(),
            more => format!("{more} instances have"),
        };
        let message = format!(
            "{instances} no place: {}{more}",
            unplaced[0].problem.message
        );
        write.node_event("microservice_unplaced", &name.to_string(), &message)?;
    }
    let before: BTreeSet<&MicroserviceName> = known.keys().map(|(name, _)| name).collect();
    let after: BTreeSet<&MicroserviceName> = rows.keys().map(|(name, _)| name).collect();
    for name in before.difference(&after) {
        if placed.placements.contains_key(*name) {
            let message = "all its instances have a place again";
            write.node_event("microservice_placed", &name.to_string(), message)?;
        }
    }
    Ok(())
}

fn key(fleet: &Fleet, one: &plan::Unplaced) -> (MicroserviceName, String) {
    let node = node_name(fleet, one);
    (
        one.name.clone(),
        node.map_or_else(String::new, |node| node.to_string()),
    )
}

fn node_name<'f>(fleet: &'f Fleet, one: &plan::Unplaced) -> Option<&'f Name> {
    let node = fleet.nodes.get(one.node.as_ref()?)?;
    Some(&node.name)
}

fn row(fleet: &Fleet, one: &plan::Unplaced, since_ms: u64) -> Unplaced {
    Unplaced {
        microservice: one.name.microservice.clone(),
        node: node_name(fleet, one).cloned(),
        instances: one.instances,
        code: one.problem.code.to_owned(),
        reason: one.problem.message.clone(),
        hint: one.problem.hint.clone(),
        since_ms,
    }
}
