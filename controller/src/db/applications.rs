//! Applications, and where their instances are placed.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{Digest, Name, NodeId};
use haar_protocol::manifest::Manifest;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::parse;
use crate::failure::Failure;
use crate::plan::Placements;

/// Where instances are placed, each with the number of the assignment in which it was last changed.
pub(crate) type Placed = BTreeMap<(MicroserviceName, NodeId), u64>;

/// An application as it was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApplicationRow {
    /// What was applied.
    pub(crate) manifest: Manifest,
    /// The manifest as it was written.
    pub(crate) yaml: String,
    /// The module of each microservice.
    pub(crate) modules: BTreeMap<Name, Digest>,
    /// Counts the changes.
    pub(crate) revision: u64,
    /// When it was last applied.
    pub(crate) applied_ms: u64,
}

const COLUMNS: &str = "manifest, yaml, modules, revision, applied_ms";

fn read(row: &Row<'_>) -> rusqlite::Result<Result<ApplicationRow, Failure>> {
    let (manifest, yaml, modules): (String, String, String) =
        (row.get(0)?, row.get(1)?, row.get(2)?);
    let (revision, applied_ms): (u64, u64) = (row.get(3)?, row.get(4)?);
    let parsed = || {
        Ok(ApplicationRow {
            manifest: serde_json::from_str(&manifest)?,
            yaml,
            modules: serde_json::from_str(&modules)?,
            revision,
            applied_ms,
        })
    };
    Ok(parsed())
}

/// All applications, by name.
pub(crate) fn list(connection: &Connection) -> Result<Vec<ApplicationRow>, Failure> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM applications ORDER BY name"))?;
    statement.query_map([], read)?.map(|row| row?).collect()
}

/// The application called `name`.
pub(crate) fn get(connection: &Connection, name: &str) -> Result<Option<ApplicationRow>, Failure> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM applications WHERE name = ?1"
        ))?
        .query_row([name], read)
        .optional()?
        .transpose()
}

/// Adds an application, or replaces the one with its name.
pub(crate) fn put(connection: &Connection, application: &ApplicationRow) -> Result<(), Failure> {
    connection.execute(
        "INSERT INTO applications (name, manifest, yaml, modules, revision, applied_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (name) DO UPDATE SET manifest = excluded.manifest, yaml = excluded.yaml, modules = excluded.modules,
           revision = excluded.revision, applied_ms = excluded.applied_ms",
        params![
            application.manifest.name.as_str(),
            serde_json::to_string(&application.manifest)?,
            application.yaml,
            serde_json::to_string(&application.modules)?,
            application.revision,
            application.applied_ms,
        ],
    )?;
    Ok(())
}

/// Removes an application and its placements; false when there was none.
pub(crate) fn delete(connection: &Connection, name: &str) -> Result<bool, Failure> {
    Ok(connection.execute("DELETE FROM applications WHERE name = ?1", [name])? == 1)
}

/// Where all instances are placed.
pub(crate) fn placements(connection: &Connection) -> Result<Placed, Failure> {
    let mut statement = connection
        .prepare_cached("SELECT application, microservice, node, assignment FROM placements")?;
    let rows = statement.query_map([], |row| {
        let texts: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
        Ok((texts, row.get::<_, u64>(3)?))
    })?;
    rows.map(|row| {
        let ([application, microservice, node], number) = row?;
        let name = MicroserviceName {
            application: parse(&application)?,
            microservice: parse(&microservice)?,
        };
        Ok(((name, parse(&node)?), number))
    })
    .collect()
}

/// Notes that an instance was changed in the assignment `number` of its node.
pub(crate) fn set_placement_number(
    connection: &Connection,
    node: &NodeId,
    name: &MicroserviceName,
    number: u64,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "UPDATE placements SET assignment = ?4 WHERE application = ?1 AND microservice = ?2 AND node = ?3",
        )?
        .execute(params![
            name.application.as_str(),
            name.microservice.as_str(),
            node.as_str(),
            number
        ])?;
    Ok(())
}

/// The microservices that are placed on `node`, as people are told.
pub(crate) fn placed_on(connection: &Connection, node: &NodeId) -> Result<Vec<String>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT application || '/' || microservice FROM placements WHERE node = ?1 ORDER BY 1",
    )?;
    let names = statement.query_map([node.as_str()], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// The microservices that are placed on `node`, and those that were within the last day.
pub(crate) fn placed_lately(
    connection: &Connection,
    node: &NodeId,
) -> Result<BTreeSet<MicroserviceName>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT application, microservice FROM placements WHERE node = ?1
         UNION SELECT application, microservice FROM ended_placements WHERE node = ?1",
    )?;
    let rows = statement.query_map([node.as_str()], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    rows.map(|row| {
        let (application, microservice) = row?;
        Ok(MicroserviceName {
            application: parse(&application)?,
            microservice: parse(&microservice)?,
        })
    })
    .collect()
}

/// Turns the placements `before` into those `after`.
pub(crate) fn put_placements(
    connection: &Connection,
    before: &Placements,
    after: &Placements,
) -> Result<(), Failure> {
    let mut remove = connection.prepare_cached(
        "DELETE FROM placements WHERE application = ?1 AND microservice = ?2 AND node = ?3",
    )?;
    let mut add = connection.prepare_cached(
        "INSERT OR IGNORE INTO placements (application, microservice, node) VALUES (?1, ?2, ?3)",
    )?;
    for (left, right, statement) in [(before, after, &mut remove), (after, before, &mut add)] {
        for (name, nodes) in left {
            for node in nodes {
                if !right.get(name).is_some_and(|others| others.contains(node)) {
                    statement.execute([
                        name.application.as_str(),
                        name.microservice.as_str(),
                        node.as_str(),
                    ])?;
                }
            }
        }
    }
    Ok(())
}
