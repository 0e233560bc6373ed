//! The microservices that something is stored for, and the end of what is stored: data of one that
//! is no longer assigned is kept for a while, so that a label that moves to and fro destroys none.
//!
//! ```text
//! wanted ─ no longer ─► gone for 0 … a day ─► without a name ─ a part at a time ─► deleted
//!    ▲  │                     │                    ▲
//!    │  └─ deleted by somebody, or another life ───┤
//!    └──── wanted again ──────┘                    │
//!                             └────────────────────┘
//! ```
//!
//! What is stored belongs to one *life* of a microservice: the site begins another one when somebody
//! has deleted it, or when a module of another publisher takes its name
//! ([decision 023](../../../docs/decisions/023-what-is-deleted-is-gone.md)).

use haar_protocol::assignment::{Assignment, MicroserviceName};
use rusqlite::{Connection, OptionalExtension as _};

use super::log::batches::Batches;
use super::{Store, integer, natural};

/// How long data of a microservice is kept that is no longer assigned, in milliseconds.
const KEPT_MS: u64 = 86_400_000;
/// Between two looks no more time passes than this: while the agent is down it can't hear that a
/// microservice is assigned again.
const STEP_MS_MAX: u64 = 2 * 3_600_000;
/// Rows that are deleted in one request at most, so that others get their turn.
const DELETED_ROWS: u32 = 1_000;

/// What an assignment says of whose data are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lives {
    /// What is assigned, with the life that its data belong to; nothing where the site does not tell.
    pub assigned: Vec<(MicroserviceName, u64)>,
    /// What somebody has deleted, as `APPLICATION/MICROSERVICE`.
    pub ended: Vec<String>,
}

impl Lives {
    /// As the assignment has it.
    pub fn of(assignment: &Assignment) -> Self {
        let microservices = assignment.microservices.iter();
        let assigned = microservices.filter_map(|one| Some((one.name.clone(), one.life?)));
        Self {
            assigned: assigned.collect(),
            ended: assignment.ended.clone(),
        }
    }
}

impl Store {
    /// Ends what is stored of the microservices in `over`: nobody finds it any more, and the next look
    /// deletes it. Then notes the lives of microservices that nothing is stored of, and returns those of
    /// which there are data of another life than their own, or that were deleted: these must be ended
    /// before they run.
    ///
    /// # Errors
    /// When the database can't be read or written.
    pub async fn follow_lives(
        &self,
        lives: Lives,
        over: Vec<MicroserviceName>,
    ) -> anyhow::Result<Vec<MicroserviceName>> {
        self.run_logs(move |connection, batches| {
            for name in &over {
                end(connection, batches, name)?;
            }
            let mut over = Vec::new();
            for (name, life) in lives.assigned {
                match self::life(connection, &name)? {
                    None => begin(connection, &name, life)?,
                    Some((_, known)) if known == life => {}
                    Some(_) => over.push(name),
                }
            }
            let mut ended = connection.prepare_cached(
                "SELECT application, microservice FROM owner
                 WHERE application || '/' || microservice = ?1",
            )?;
            for text in lives.ended {
                over.extend(ended.query_row([text], |row| name(row, 0, 1)).optional()?);
            }
            Ok(over)
        })
        .await
    }

    /// The microservices of which [`follow_lives`](Self::follow_lives) would end or begin a life. As long as
    /// it fails they must not run: what they find is not theirs, or what they store would not be. Writes
    /// nothing.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn strangers(&self, lives: Lives) -> anyhow::Result<Vec<MicroserviceName>> {
        self.run(move |connection| {
            let mut strangers = Vec::new();
            for (name, life) in lives.assigned {
                // A row that is made later says life 0.
                let known = self::life(connection, &name)?.map_or(0, |(_, known)| known);
                if known != life {
                    strangers.push(name);
                }
            }
            Ok(strangers)
        })
        .await
    }

    /// Takes note of which microservices are assigned: of others the data is deleted when they have
    /// been gone for a day. That is time in which the agent looked, at least every two hours.
    /// Returns those whose data was deleted.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn follow_owners(
        &self,
        wanted: Vec<MicroserviceName>,
    ) -> anyhow::Result<Vec<MicroserviceName>> {
        let ages = self.ages.clone();
        let ended = self
            .run_logs(move |connection, batches| {
                for owner in &wanted {
                    ensure(connection, owner)?;
                }
                let passed_ms = passed(connection, ages.now_ms())?;
                ages.keep(connection)?;
                age(connection, batches, &wanted, passed_ms)
            })
            .await?;
        // Also what a power cut left of an earlier time.
        while self.run_logs(delete_part).await? {}
        Ok(ended)
    }
}

/// The time since the last look.
fn passed(connection: &Connection, now_ms: u64) -> anyhow::Result<u64> {
    let now = integer(now_ms);
    let last: Option<i64> = connection
        .query_row(
            "SELECT value FROM counter WHERE name = 'owners_looked_at_age_ms'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    connection.execute(
        "INSERT INTO counter (name, value) VALUES ('owners_looked_at_age_ms', ?1)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [now],
    )?;
    let passed = now.saturating_sub(last.unwrap_or(now));
    Ok(u64::try_from(passed).unwrap_or(0).min(STEP_MS_MAX))
}

/// Lets owners that are not wanted grow older by `passed_ms`. One that is too old loses its name, and with
/// it all data at once: what comes back under this name has none. Returns those.
fn age(
    connection: &Connection,
    batches: &mut Batches,
    wanted: &[MicroserviceName],
    passed_ms: u64,
) -> anyhow::Result<Vec<MicroserviceName>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, application, microservice, gone_ms FROM owner WHERE application <> ''",
    )?;
    let known = statement
        .query_map([], |row| {
            let gone_ms: Option<i64> = row.get(3)?;
            Ok((row.get::<_, i64>(0)?, name(row, 1, 2)?, gone_ms))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let mut ended = Vec::new();
    for (id, name, gone_ms) in known {
        let now_gone_ms = match gone_ms {
            _ if wanted.contains(&name) => None,
            None => Some(0),
            Some(gone_ms) => Some(gone_ms.saturating_add(integer(passed_ms))),
        };
        if now_gone_ms.is_some_and(|gone_ms| gone_ms >= integer(KEPT_MS)) {
            end(connection, batches, &name)?;
            ended.push(name);
        } else if now_gone_ms != gone_ms {
            connection.execute(
                "UPDATE owner SET gone_ms = ?2 WHERE id = ?1",
                (id, now_gone_ms),
            )?;
        }
    }
    Ok(ended)
}

/// Takes the name of an owner away. What waits in its logs is counted, and their numbers are not given again.
fn end(
    connection: &Connection,
    batches: &mut Batches,
    name: &MicroserviceName,
) -> anyhow::Result<()> {
    let Some(id) = find(connection, name)? else {
        return Ok(());
    };
    let mut logs = connection.prepare_cached("SELECT id FROM log WHERE owner = ?1")?;
    for log in logs.query_map([id], |row| row.get(0))? {
        batches.retire(connection, log?)?;
    }
    let sql = "UPDATE owner SET application = '', microservice = id WHERE id = ?1";
    connection.execute(sql, [id])?;
    Ok(())
}

fn begin(connection: &Connection, name: &MicroserviceName, life: u64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO owner (application, microservice, life) VALUES (?1, ?2, ?3)";
    let (application, microservice) = (name.application.as_str(), name.microservice.as_str());
    let mut statement = connection.prepare_cached(sql)?;
    statement.execute((application, microservice, integer(life)))?;
    Ok(())
}

/// The owner's number and its life, if anything is stored for it.
pub(super) fn life(
    connection: &Connection,
    owner: &MicroserviceName,
) -> rusqlite::Result<Option<(i64, u64)>> {
    connection
        .prepare_cached("SELECT id, life FROM owner WHERE application = ?1 AND microservice = ?2")?
        .query_row(
            (owner.application.as_str(), owner.microservice.as_str()),
            |row| Ok((row.get(0)?, natural(row.get(1)?))),
        )
        .optional()
}

/// Deletes a part of what belongs to owners without a name. False when nothing is left.
fn delete_part(connection: &Connection, batches: &mut Batches) -> anyhow::Result<bool> {
    const LARGE: [&str; 4] = [
        "DELETE FROM pair WHERE rowid IN (SELECT pair.rowid FROM pair
         JOIN bucket ON bucket.id = pair.bucket WHERE bucket.owner = ?1 LIMIT ?2)",
        "DELETE FROM remembered WHERE id IN (SELECT remembered.id FROM remembered
         JOIN history ON history.id = remembered.history WHERE history.owner = ?1 LIMIT ?2)",
        "DELETE FROM dead_letter WHERE id IN
         (SELECT id FROM dead_letter WHERE owner = ?1 LIMIT ?2)",
        "DELETE FROM logged WHERE key IN (SELECT logged.key FROM log
         JOIN logged ON logged.key > log.id << 43 AND logged.key < (log.id + 1) << 43
         WHERE log.owner = ?1 LIMIT ?2)",
    ];
    let nameless: Option<i64> = connection
        .prepare_cached("SELECT id FROM owner WHERE application = '' LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let Some(owner) = nameless else {
        return Ok(false);
    };
    for sql in LARGE {
        if connection.execute(sql, (owner, DELETED_ROWS))? > 0 {
            return Ok(true);
        }
    }
    // What is left is small, and goes with the owner.
    connection.execute("DELETE FROM owner WHERE id = ?1", [owner])?;
    batches.forget(); // its logs are gone
    Ok(true)
}

/// The owner's number, if anything was ever stored for it.
pub(super) fn find(
    connection: &Connection,
    owner: &MicroserviceName,
) -> rusqlite::Result<Option<i64>> {
    Ok(life(connection, owner)?.map(|(id, _)| id))
}

/// The owner's number; made when it has none yet.
pub(super) fn ensure(connection: &Connection, owner: &MicroserviceName) -> rusqlite::Result<i64> {
    if let Some(id) = find(connection, owner)? {
        return Ok(id);
    }
    connection.execute(
        "INSERT INTO owner (application, microservice) VALUES (?1, ?2)",
        (owner.application.as_str(), owner.microservice.as_str()),
    )?;
    Ok(connection.last_insert_rowid())
}

/// An owner's name as two columns of a row have it.
pub(super) fn name(
    row: &rusqlite::Row<'_>,
    application: usize,
    microservice: usize,
) -> rusqlite::Result<MicroserviceName> {
    let read = |column: usize| {
        let text: String = row.get(column)?;
        text.parse().map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(
                column,
                rusqlite::types::Type::Text,
                Box::new(error),
            )
        })
    };
    Ok(MicroserviceName {
        application: read(application)?,
        microservice: read(microservice)?,
    })
}
