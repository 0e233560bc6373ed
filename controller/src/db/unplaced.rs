//! Instances that have no place, since when, and why: as the last plan left them.

use std::collections::BTreeMap;

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::Name;
use haar_protocol::rest::Unplaced;
use rusqlite::{Connection, params};

use super::parse;
use crate::failure::Failure;

/// By microservice, and by the name of the node that has no room, which is empty for none.
pub(crate) type UnplacedRows = BTreeMap<(MicroserviceName, String), Unplaced>;

/// All instances without a place.
pub(crate) fn all(connection: &Connection) -> Result<UnplacedRows, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT application, microservice, node, instances, code, reason, hint, since_ms FROM unplaced",
    )?;
    let rows = statement.query_map([], |row| {
        let texts: [String; 5] = [
            row.get(0)?,
            row.get(1)?,
            row.get(2)?,
            row.get(4)?,
            row.get(5)?,
        ];
        Ok((texts, row.get::<_, u32>(3)?, row.get(6)?, row.get(7)?))
    })?;
    let mut found = UnplacedRows::new();
    for row in rows {
        let ([application, microservice, node, code, reason], instances, hint, since_ms) = row?;
        let name = MicroserviceName {
            application: parse(&application)?,
            microservice: parse(&microservice)?,
        };
        let at = match node.is_empty() {
            true => None,
            false => Some(parse::<Name>(&node)?),
        };
        let unplaced = Unplaced {
            microservice: name.microservice.clone(),
            node: at,
            instances,
            code,
            reason,
            hint,
            since_ms,
        };
        found.insert((name, node), unplaced);
    }
    Ok(found)
}

/// What of `application` has no place, as people see it.
pub(crate) fn of(rows: &UnplacedRows, application: &Name) -> Vec<Unplaced> {
    let its = rows
        .iter()
        .filter(|((name, _), _)| &name.application == application);
    its.map(|(_, one)| one.clone()).collect()
}

/// Turns the entries `before` into those `after`.
pub(crate) fn put(
    connection: &Connection,
    before: &UnplacedRows,
    after: &UnplacedRows,
) -> Result<(), Failure> {
    let mut remove = connection.prepare_cached(
        "DELETE FROM unplaced WHERE application = ?1 AND microservice = ?2 AND node = ?3",
    )?;
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    for (name, node) in gone {
        remove.execute([
            name.application.as_str(),
            name.microservice.as_str(),
            node.as_str(),
        ])?;
    }
    let mut add = connection.prepare_cached(
        "INSERT OR REPLACE INTO unplaced (application, microservice, node, instances, code, reason, hint, since_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let changed = after
        .iter()
        .filter(|(key, one)| before.get(*key) != Some(*one));
    for ((name, node), one) in changed {
        add.execute(params![
            name.application.as_str(),
            name.microservice.as_str(),
            node,
            one.instances,
            one.code,
            one.reason,
            one.hint,
            one.since_ms,
        ])?;
    }
    Ok(())
}
