//! Applying and deleting applications, and deleting modules that none of them uses.

use haar_protocol::ids::{Digest, Name};
use haar_protocol::manifest::{self, Manifest};
use haar_protocol::rest::{ApplyResult, Placement};
use rusqlite::Connection;

use super::relays::load_relays;
use super::{load_publishers, planned_module, refuse, replan};
use crate::db::applications::ApplicationRow;
use crate::db::{self, Write};
use crate::failure::{Failure, Kind};
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
) -> Result<ApplyResult, Failure> {
    let name = manifest.name.clone();
    let modules: Vec<Module> = db::modules::list(&write.sql)?
        .into_iter()
        .map(planned_module)
        .collect();
    let resolved = plan::resolve(&manifest, &modules, &load_publishers(&write.sql)?)
        .or_else(|problems| refuse(problems).map(|()| std::collections::BTreeMap::new()))?;
    refuse(plan::relay_problems(
        &manifest,
        &load_relays(&write.sql, site)?,
    ))?;
    let before = db::applications::get(&write.sql, name.as_str())?;
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
    db::applications::put(&write.sql, &row)?;
    let replanned = replan(write, site, Some(&name))?;
    let changed = !is_same || replanned.moved;
    if changed {
        row.revision += 1;
        db::applications::put(&write.sql, &row)?;
        let message = format!(
            "revision {}, {} instances",
            row.revision,
            instances(&replanned.placements, &name)
        );
        write.event("application_applied", name.as_str(), &message)?;
    }
    let mut warnings = manifest::warnings(&row.manifest);
    warnings.extend(plan::notices(&row.manifest, &modules));
    Ok(ApplyResult {
        placements: placements_of(write, &replanned.placements, &name)?,
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

fn placements_of(
    write: &Write<'_>,
    placements: &plan::Placements,
    application: &Name,
) -> Result<Vec<Placement>, Failure> {
    let nodes = db::nodes::list(&write.sql)?;
    let mut result = Vec::new();
    for (name, ids) in placements
        .iter()
        .filter(|(name, _)| &name.application == application)
    {
        let placed = nodes.iter().filter(|node| ids.contains(&node.id));
        result.extend(placed.map(|node| Placement {
            microservice: name.microservice.clone(),
            node: node.name.clone(),
        }));
    }
    Ok(result)
}

/// Deletes an application: its instances stop, its routes end.
///
/// # Errors
/// When there is none of this name.
pub(crate) fn delete_application(
    write: &Write<'_>,
    site: &Site,
    name: &Name,
) -> Result<(), Failure> {
    if !db::applications::delete(&write.sql, name.as_str())? {
        return Err(unknown_application(&write.sql, name));
    }
    replan(write, site, None)?;
    write.event("application_deleted", name.as_str(), "its instances stop")
}

/// There is no such application; the hint names one that is called alike.
pub(crate) fn unknown_application(connection: &Connection, name: &Name) -> Failure {
    let failure = Failure::new(
        Kind::NotFound,
        "unknown_application",
        format!("there is no application `{name}`"),
    );
    let applications = db::applications::list(connection).unwrap_or_default();
    let names = applications.iter().map(|row| row.manifest.name.as_str());
    match plan::nearest(name.as_str(), names) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint("see them with `haar get applications`"),
    }
}

/// Forgets a module; its file is the caller's.
///
/// # Errors
/// When there is none, or an application uses it.
pub(crate) fn delete_module(write: &Write<'_>, digest: &Digest) -> Result<(), Failure> {
    let module = db::modules::get(&write.sql, digest)?.ok_or_else(|| {
        Failure::new(
            Kind::NotFound,
            "unknown_module",
            format!("there is no module {digest}"),
        )
    })?;
    let users: Vec<String> = db::applications::list(&write.sql)?
        .into_iter()
        .filter(|row| row.modules.values().any(|used| used == digest))
        .map(|row| format!("`{}`", row.manifest.name))
        .collect();
    if !users.is_empty() {
        return Err(Failure::new(
            Kind::Conflict,
            "module_in_use",
            format!(
                "module {}@{} is used by {}",
                module.name,
                module.version,
                users.join(", ")
            ),
        )
        .hint("change or delete these applications first"));
    }
    db::modules::delete(&write.sql, digest)?;
    write.event(
        "module_deleted",
        &format!("{}@{}", module.name, module.version),
        &digest.to_string(),
    )
}
