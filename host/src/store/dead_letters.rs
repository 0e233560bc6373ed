//! Messages that were not handled, put aside for people to look at. Bounded for each microservice
//! by number and by bytes: the oldest make room.

use std::collections::BTreeMap;

use anyhow::Context as _;
use haar_protocol::assignment::MicroserviceName;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::{Store, integer, natural, owners};
use crate::bus::message::Source;

/// Bytes of dead letters that are kept for one microservice at most.
const BYTES_MAX: u64 = 4 << 20;
/// Bytes that a letter costs beside its body, headers and reason.
const LETTER_BYTES: usize = 256;
/// Letters in one answer at most.
const PAGE_LETTERS_MAX: u32 = 1_000;

/// A message that was not handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Who should have handled it.
    pub owner: MicroserviceName,
    /// The inlet that it entered.
    pub inlet: String,
    /// Who published it.
    pub source: Source,
    /// Its number among the messages of its outlet.
    pub sequence: u64,
    /// When it was published: milliseconds since the Unix epoch by the publishing node's clock.
    pub published_ms: u64,
    /// Its media type.
    pub content_type: String,
    /// Headers that the publisher set.
    pub headers: Vec<(String, String)>,
    /// The message itself.
    pub body: Vec<u8>,
    /// How often it was delivered.
    pub attempts: u32,
    /// Why it was given up, for people.
    pub reason: String,
    /// When: milliseconds since the Unix epoch.
    pub died_ms: u64,
}

/// A dead letter as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDeadLetter {
    /// Counts up on the node; never used twice.
    pub id: u64,
    /// The letter. In lists its body is left out.
    pub letter: DeadLetter,
    /// Bytes of its body, also where the body is left out.
    pub body_bytes: u64,
}

/// Columns of a letter, for [`read`].
const COLUMNS: &str = "dead_letter.id, application, microservice, inlet, source, sequence, \
    published_ms, content_type, headers, attempts, reason, died_ms, length(body)";

impl Store {
    /// Puts a message aside; the oldest letters of the same microservice make room. Returns how
    /// many were dropped: with `most_letters` 0, this one too.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn add_dead_letter(
        &self,
        letter: DeadLetter,
        most_letters: u32,
    ) -> anyhow::Result<u64> {
        self.run(move |connection| {
            let owner = owners::ensure(connection, &letter.owner)?;
            insert(connection, owner, &letter)?;
            trim(connection, owner, most_letters)
        })
        .await
    }

    /// Letters of one microservice, one application or all, in the order of their ids, those after
    /// `after_id`, without their bodies: `limit` of them and no more than 1,000.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn dead_letters(
        &self,
        owner: Option<MicroserviceName>,
        application: Option<String>,
        after_id: u64,
        limit: u32,
    ) -> anyhow::Result<Vec<StoredDeadLetter>> {
        self.run(move |connection| {
            let (of_owner, microservice) = owner
                .map(|owner| {
                    (
                        owner.application.to_string(),
                        owner.microservice.to_string(),
                    )
                })
                .unzip();
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM dead_letter JOIN owner ON owner.id = owner
                 WHERE dead_letter.id > ?1 AND (?2 IS NULL OR application = ?2)
                 AND (?3 IS NULL OR application = ?3) AND (?4 IS NULL OR microservice = ?4)
                 ORDER BY dead_letter.id LIMIT ?5"
            ))?;
            let letters = statement.query_map(
                (
                    integer(after_id),
                    application,
                    of_owner,
                    microservice,
                    limit.min(PAGE_LETTERS_MAX),
                ),
                read,
            )?;
            Ok(letters.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// A whole letter.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn dead_letter(&self, id: u64) -> anyhow::Result<Option<StoredDeadLetter>> {
        self.run(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, body FROM dead_letter JOIN owner ON owner.id = owner
                 WHERE dead_letter.id = ?1"
            ))?;
            let letter = statement
                .query_row([integer(id)], |row| {
                    let mut stored = read(row)?;
                    stored.letter.body = row.get("body")?;
                    Ok(stored)
                })
                .optional()?;
            Ok(letter)
        })
        .await
    }

    /// Drops a letter. False when there is none with this id.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn drop_dead_letter(&self, id: u64) -> anyhow::Result<bool> {
        self.run(move |connection| {
            let dropped =
                connection.execute("DELETE FROM dead_letter WHERE id = ?1", [integer(id)])?;
            Ok(dropped > 0)
        })
        .await
    }

    /// Drops all letters of a microservice. Returns how many there were.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn drop_dead_letters(&self, owner: MicroserviceName) -> anyhow::Result<u64> {
        self.run(move |connection| {
            let Some(owner) = owners::find(connection, &owner)? else {
                return Ok(0);
            };
            let dropped =
                connection.execute("DELETE FROM dead_letter WHERE owner = ?1", [owner])?;
            Ok(dropped as u64)
        })
        .await
    }

    /// How many letters each microservice has; those without any are left out.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn count_dead_letters(&self) -> anyhow::Result<BTreeMap<MicroserviceName, u64>> {
        self.run(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT application, microservice, count(*)
                 FROM dead_letter JOIN owner ON owner.id = owner GROUP BY owner",
            )?;
            let counts = statement.query_map([], |row| {
                Ok((owners::name(row, 0, 1)?, natural(row.get(2)?)))
            })?;
            Ok(counts.collect::<Result<_, _>>()?)
        })
        .await
    }
}

fn insert(connection: &Connection, owner: i64, letter: &DeadLetter) -> anyhow::Result<()> {
    let source = &letter.source;
    let source = [
        &source.site,
        &source.node,
        &source.application,
        &source.microservice,
        &source.outlet,
    ];
    let headers = serde_json::to_string(&letter.headers)?;
    let bytes = letter.body.len() + headers.len() + letter.reason.len() + LETTER_BYTES;
    connection
        .prepare_cached(
            "INSERT INTO dead_letter (owner, bytes, inlet, source, sequence, published_ms,
             content_type, headers, attempts, reason, died_ms, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute((
            owner,
            i64::try_from(bytes)?,
            &letter.inlet,
            serde_json::to_string(&source)?,
            integer(letter.sequence),
            integer(letter.published_ms),
            &letter.content_type,
            headers,
            letter.attempts,
            &letter.reason,
            integer(letter.died_ms),
            &letter.body,
        ))?;
    Ok(())
}

/// Drops what is over, the oldest first. Returns how many.
fn trim(connection: &Connection, owner: i64, most_letters: u32) -> anyhow::Result<u64> {
    let mut statement = connection
        .prepare_cached("SELECT id, bytes FROM dead_letter WHERE owner = ?1 ORDER BY id DESC")?;
    let mut rows = statement.query([owner])?;
    let (mut letters, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        letters += 1;
        bytes += natural(row.get(1)?);
        if letters > most_letters || bytes > BYTES_MAX {
            let id: i64 = row.get(0)?;
            let dropped = connection
                .prepare_cached("DELETE FROM dead_letter WHERE owner = ?1 AND id <= ?2")?
                .execute([owner, id])?;
            return Ok(dropped as u64);
        }
    }
    Ok(0)
}

/// A letter without its body.
fn read(row: &Row<'_>) -> rusqlite::Result<StoredDeadLetter> {
    let broken = |column: usize, error: anyhow::Error| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, error.into())
    };
    let source: String = row.get(4)?;
    let source: [String; 5] = serde_json::from_str(&source)
        .context("the source of a dead letter")
        .map_err(|error| broken(4, error))?;
    let [site, node, application, microservice, outlet] = source;
    let headers: String = row.get(8)?;
    let headers = serde_json::from_str(&headers)
        .context("the headers of a dead letter")
        .map_err(|error| broken(8, error))?;
    Ok(StoredDeadLetter {
        id: natural(row.get(0)?),
        letter: DeadLetter {
            owner: owners::name(row, 1, 2)?,
            inlet: row.get(3)?,
            source: Source {
                site,
                node,
                application,
                microservice,
                outlet,
            },
            sequence: natural(row.get(5)?),
            published_ms: natural(row.get(6)?),
            content_type: row.get(7)?,
            headers,
            body: Vec::new(),
            attempts: row.get(9)?,
            reason: row.get(10)?,
            died_ms: natural(row.get(11)?),
        },
        body_bytes: natural(row.get(12)?),
    })
}
