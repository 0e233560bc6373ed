//! The lives of microservices, and the nodes that have data of lives that are over.

use std::collections::BTreeMap;

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{Name, NodeId};
use haar_protocol::keys::PublicKey;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use super::parse;
use crate::failure::Failure;

/// Rows of microservices that are gone; the oldest are forgotten when there are more.
const GONE_MAX: u32 = 10_000;
/// How long a node that was away is told what has ended, and of how many microservices: the newest, and
/// no fewer than it may have.
const ENDED_MS_MAX: u64 = 30 * 86_400_000;
const ENDED_MAX: u32 = 256;

/// The life of a microservice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Life {
    /// Tells it from others of the same name.
    pub(crate) number: u64,
    /// Whose module it is.
    pub(crate) publishers: Tenant,
    /// It is not there any more, and neither are its data.
    pub(crate) is_over: bool,
}

/// Whose a module is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tenant {
    /// The trusted keys that have signed it.
    pub(crate) keys: Vec<PublicKey>,
    /// The names of their publishers: a publisher may have had another key before.
    pub(crate) names: Vec<Name>,
}

impl Tenant {
    /// True when a publisher has signed both.
    pub(crate) fn shares(&self, other: &Tenant) -> bool {
        self.keys.iter().any(|key| other.keys.contains(key))
            || self.names.iter().any(|name| other.names.contains(name))
    }
}

/// The life of a microservice, when something is known of it.
pub(crate) fn get(
    connection: &Connection,
    name: &MicroserviceName,
) -> Result<Option<Life>, Failure> {
    let found = connection
        .prepare_cached(
            "SELECT life, publishers, is_over FROM lives WHERE application = ?1 AND microservice = ?2",
        )?
        .query_row(
            [name.application.as_str(), name.microservice.as_str()],
            |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?)),
        )
        .optional()?;
    found
        .map(|(number, publishers, is_over)| {
            Ok(Life {
                number,
                publishers: serde_json::from_str(&publishers)?,
                is_over,
            })
        })
        .transpose()
}

/// Lives that are not first ones.
pub(crate) fn list(connection: &Connection) -> Result<BTreeMap<MicroserviceName, u64>, Failure> {
    let mut statement = connection
        .prepare_cached("SELECT application, microservice, life FROM lives WHERE life > 0")?;
    let rows = statement.query_map([], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, u64>(2)?,
        ))
    })?;
    rows.map(|row| {
        let (application, microservice, life) = row?;
        let name = MicroserviceName {
            application: parse(&application)?,
            microservice: parse(&microservice)?,
        };
        Ok((name, life))
    })
    .collect()
}

/// The microservices of an application that are there, or of which data were kept.
pub(crate) fn of_application(
    connection: &Connection,
    application: &Name,
) -> Result<Vec<Name>, Failure> {
    let mut statement = connection
        .prepare_cached("SELECT microservice FROM lives WHERE application = ?1 AND is_over = 0")?;
    let rows = statement.query_map([application.as_str()], |row| row.get::<_, String>(0))?;
    rows.map(|row| parse(&row?)).collect()
}

/// Notes the life of a microservice that is there.
pub(crate) fn put(
    connection: &Connection,
    name: &MicroserviceName,
    number: u64,
    publishers: &Tenant,
) -> Result<(), Failure> {
    connection.execute(
        "INSERT INTO lives (application, microservice, life, publishers) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET life = excluded.life, publishers = excluded.publishers, gone_ms = NULL, is_over = 0",
        params![
            name.application.as_str(),
            name.microservice.as_str(),
            number,
            serde_json::to_string(publishers)?
        ],
    )?;
    Ok(())
}

/// A microservice goes; its data go too, unless they are kept.
pub(crate) fn leave(
    connection: &Connection,
    name: &MicroserviceName,
    life: &Life,
    keeps_data: bool,
    now_ms: u64,
) -> Result<(), Failure> {
    put(connection, name, life.number, &life.publishers)?;
    connection.execute(
        "UPDATE lives SET gone_ms = ?3, is_over = ?4 WHERE application = ?1 AND microservice = ?2",
        params![
            name.application.as_str(),
            name.microservice.as_str(),
            now_ms,
            !keeps_data
        ],
    )?;
    connection.execute(
        "DELETE FROM lives WHERE gone_ms < (SELECT gone_ms FROM lives WHERE gone_ms IS NOT NULL ORDER BY gone_ms DESC LIMIT 1 OFFSET ?1)",
        [GONE_MAX],
    )?;
    Ok(())
}

/// True when microservices that are gone were forgotten, so that one of an unknown name may have been
/// there before.
pub(crate) fn has_forgotten(connection: &Connection) -> Result<bool, Failure> {
    let gone: u32 = connection.query_row(
        "SELECT count(*) FROM lives WHERE gone_ms IS NOT NULL",
        [],
        |row| row.get(0),
    )?;
    Ok(gone >= GONE_MAX)
}

/// Notes that nodes have data of a life that is over.
pub(crate) fn end_on_nodes(
    connection: &Connection,
    name: &MicroserviceName,
    now_ms: u64,
) -> Result<(), Failure> {
    connection.execute(
        "INSERT INTO ended_lives (node, application, microservice, ended_ms)
         SELECT node, application, microservice, ?3 FROM
             (SELECT node, application, microservice FROM placements
              UNION SELECT node, application, microservice FROM ended_placements)
         WHERE application = ?1 AND microservice = ?2 AND node IN (SELECT id FROM nodes)
         ON CONFLICT DO UPDATE SET ended_ms = excluded.ended_ms",
        params![
            name.application.as_str(),
            name.microservice.as_str(),
            now_ms
        ],
    )?;
    connection.execute(
        "DELETE FROM ended_lives WHERE ended_ms < ?1",
        [now_ms.saturating_sub(ENDED_MS_MAX)],
    )?;
    connection.execute(
        "DELETE FROM ended_lives WHERE (node, application, microservice) IN
             (SELECT node, application, microservice FROM
                 (SELECT *, row_number() OVER (PARTITION BY node ORDER BY ended_ms DESC) AS place FROM ended_lives)
              WHERE place > ?1)",
        [ENDED_MAX],
    )?;
    Ok(())
}

/// What is placed on a node has a life there: its assignment says which.
pub(crate) fn forget_placed(connection: &Connection) -> Result<(), Failure> {
    connection.execute(
        "DELETE FROM ended_lives WHERE EXISTS (SELECT 1 FROM placements
             WHERE placements.node = ended_lives.node AND placements.application = ended_lives.application
               AND placements.microservice = ended_lives.microservice)",
        [],
    )?;
    Ok(())
}

/// What each node is told to delete, as `APPLICATION/MICROSERVICE`.
pub(crate) fn ended(connection: &Connection) -> Result<BTreeMap<NodeId, Vec<String>>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT node, application || '/' || microservice FROM ended_lives ORDER BY 1, 2",
    )?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    let mut ended: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
    for row in rows {
        let (node, name) = row?;
        ended.entry(parse(&node)?).or_default().push(name);
    }
    Ok(ended)
}

/// A publisher is trusted no more: its name may be another's from now on.
pub(crate) fn forget_publisher(connection: &Connection, name: &Name) -> Result<(), Failure> {
    connection.execute(
        "UPDATE lives SET publishers = json_set(publishers, '$.names',
             json((SELECT json_group_array(value) FROM json_each(publishers, '$.names') WHERE value <> ?1)))
         WHERE EXISTS (SELECT 1 FROM json_each(publishers, '$.names') WHERE value = ?1)",
        [name.as_str()],
    )?;
    Ok(())
}
