//! Applying and deleting applications.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::ids::Name;
use haar_protocol::manifest::{self, Manifest};
use haar_protocol::rest::{ApplyResult, Placement};

use super::relays::load_relays;
use super::{lives, load_publishers, places, planned_module, refuse, replan, unknown_application};
use crate::db::applications::ApplicationRow;
use crate::db::nodes::NodeRow;
use crate::db::{self, Write};
use crate::differences::{self, Applied};
use crate::failure::{Failure, Kind};
use crate::losses;
use crate::plan::{self, Module};
use crate::site::Site;

const APPLICATIONS_MAX: usize = 1_000;

/// Applies `manifest`, which was read from `yaml`.
///
/// # Errors
/// Everything that makes it impossible; nothing has changed then.
pub(crate) fn apply(
    write: &Write<'_>,
    site: &Site,
    yaml: String,
    manifest: Manifest,
    keeps_data: bool,
) -> Result<ApplyResult, Failure> {
    let name = manifest.name.clone();
    let modules: Vec<Module> = db::modules::list(&write.sql)?
        .into_iter()
        .map(planned_module)
        .collect();
    let resolved = plan::resolve(&manifest, &modules, &load_publishers(&write.sql)?)
        .or_else(|problems| refuse(problems).map(|()| BTreeMap::new()))?;
    refuse(plan::relay_problems(
        &manifest,
        &load_relays(&write.sql, site)?,
    ))?;
    let before = db::applications::get(&write.sql, name.as_str())?;
    let placed_before = places(&db::applications::placements(&write.sql)?);
    if before.is_none() && db::applications::list(&write.sql)?.len() >= APPLICATIONS_MAX {
        return Err(Failure::new(
            Kind::Overloaded,
            "too_many_applications",
            format!("the site has {APPLICATIONS_MAX} applications already"),
        ));
    }
    let is_same = before
        .as_ref()
        .is_some_and(|before| before.manifest == manifest && before.modules == resolved);
    let revision = before.as_ref().map_or(0, |before| before.revision);
    let mut row = ApplicationRow {
        manifest,
        yaml,
        modules: resolved,
        revision,
        applied_ms: write.now_ms,
    };
    lives::follow(write, before.as_ref(), &name, &row.modules, keeps_data)?;
    db::applications::put(&write.sql, &row)?;
    let replanned = replan(write, site, Some(&name))?;
    let missing = db::unplaced::of(&db::unplaced::all(&write.sql)?, &name);
    let changed = !is_same || replanned.moved;
    if changed {
        row.revision += 1;
        db::applications::put(&write.sql, &row)?;
        let missing: u32 = missing
            .iter()
            .fold(0, |sum, one| sum.saturating_add(one.instances));
        let without = match missing {
            0 => String::new(),
            missing => format!(", and {missing} without a place"),
        };
        let message = format!(
            "revision {}, {} instances{without}",
            row.revision,
            instances(&replanned.placements, &name)
        );
        write.event("application_applied", name.as_str(), &message)?;
    }
    let nodes = db::nodes::list(&write.sql)?;
    let [were, are] = [&placed_before, &replanned.placements]
        .map(|placements| node_names(&nodes, placements, &name));
    let differences = differences::of_application(
        before.as_ref().map(|before| applied(before, &were)),
        applied(&row, &are),
    );
    let mut warnings = manifest::warnings(&row.manifest);
    warnings.extend(plan::notices(&row.manifest, &modules));
    if let Some(before) = before.filter(|one| losses::lowers(&one.manifest, &row.manifest)) {
        let statuses = db::statuses::all(&write.sql)?;
        warnings.extend(losses::outgrown(
            &before.manifest,
            &row.manifest,
            &nodes,
            &statuses,
        ));
    }
    Ok(ApplyResult {
        placements: placements(&are),
        differences,
        losses: Vec::new(),
        unplaced: missing,
        warnings,
        name,
        revision: row.revision,
        changed,
        dry_run: false,
        assignments: replanned.assignments,
    })
}

fn instances(placements: &plan::Placements, application: &Name) -> usize {
    placements
        .iter()
        .filter(|(name, _)| &name.application == application)
        .map(|(_, nodes)| nodes.len())
        .sum()
}

fn placements(nodes: &BTreeMap<Name, BTreeSet<Name>>) -> Vec<Placement> {
    let pairs = nodes
        .iter()
        .flat_map(|(microservice, nodes)| nodes.iter().map(move |node| (microservice, node)));
    pairs
        .map(|(microservice, node)| Placement {
            microservice: microservice.clone(),
            node: node.clone(),
        })
        .collect()
}

/// An application to compare with.
fn applied<'a>(row: &'a ApplicationRow, nodes: &'a BTreeMap<Name, BTreeSet<Name>>) -> Applied<'a> {
    Applied {
        manifest: &row.manifest,
        modules: &row.modules,
        nodes,
    }
}

/// The names of the nodes on which each microservice of an application is.
fn node_names(
    nodes: &[NodeRow],
    placements: &plan::Placements,
    application: &Name,
) -> BTreeMap<Name, BTreeSet<Name>> {
    let its = placements.iter();
    let its = its.filter(|(name, _)| &name.application == application);
    its.map(|(name, ids)| {
        let placed = nodes.iter().filter(|node| ids.contains(&node.id));
        let names = placed.map(|node| node.name.clone()).collect();
        (name.microservice.clone(), names)
    })
    .collect()
}

/// Deletes an application: its instances stop, its routes end, and what is stored for it is deleted
/// unless it is kept.
///
/// # Errors
/// When there is none of this name.
pub(crate) fn delete_application(
    write: &Write<'_>,
    site: &Site,
    name: &Name,
    keeps_data: bool,
) -> Result<(), Failure> {
    let Some(row) = db::applications::get(&write.sql, name.as_str())? else {
        return Err(unknown_application(&write.sql, name));
    };
    lives::end(write, &row, keeps_data)?;
    db::applications::delete(&write.sql, name.as_str())?;
    replan(write, site, None)?;
    let data = match keeps_data {
        true => "its instances stop; its data are kept for a day",
        false => "its instances stop, and its data are deleted",
    };
    write.event("application_deleted", name.as_str(), data)
}
