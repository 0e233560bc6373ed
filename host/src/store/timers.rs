//! Timers that outlive their instance. Only their owners' instances set and drop them; how many
//! there may be and how long names are is checked there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use haar_protocol::assignment::MicroserviceName;
use rusqlite::Connection;

use super::{Store, integer, natural, owners};

/// A timer as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptTimer {
    /// Its name, unique for its microservice.
    pub name: String,
    /// When the next tick is due: milliseconds since the Unix epoch.
    pub scheduled_ms: u64,
    /// The time between two ticks; none when it ticks once.
    pub period_ms: Option<u64>,
}

/// Whose timers are kept, or were since the start: the others need not be looked for, which is most
/// of what starting an instance would ask of the disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Owners(Arc<Mutex<BTreeSet<MicroserviceName>>>);

impl Owners {
    /// Those in the database.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare(
            "SELECT DISTINCT application, microservice FROM timer JOIN owner ON owner.id = timer.owner",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut owners = BTreeSet::new();
        for row in rows {
            let (application, microservice): (String, String) = row?;
            // Who has lost its name will never ask.
            if let (Ok(application), Ok(microservice)) = (application.parse(), microservice.parse())
            {
                owners.insert(MicroserviceName {
                    application,
                    microservice,
                });
            }
        }
        Ok(Self(Arc::new(Mutex::new(owners))))
    }

    fn have(&self, owner: &MicroserviceName) -> bool {
        let owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owners.contains(owner)
    }

    fn add(&self, owner: &MicroserviceName) {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !owners.contains(owner) {
            owners.insert(owner.clone());
        }
    }
}

impl Store {
    /// The kept timers of a microservice, by name.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn kept_timers(&self, owner: &MicroserviceName) -> anyhow::Result<Vec<KeptTimer>> {
        if !self.timed.have(owner) {
            return Ok(Vec::new());
        }
        let owner = owner.clone();
        self.run(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT name, scheduled_ms, period_ms FROM timer WHERE owner =
                 (SELECT id FROM owner WHERE application = ?1 AND microservice = ?2)
                 ORDER BY name",
            )?;
            let timers = statement.query_map(
                (owner.application.as_str(), owner.microservice.as_str()),
                |row| {
                    Ok(KeptTimer {
                        name: row.get(0)?,
                        scheduled_ms: natural(row.get(1)?),
                        period_ms: row.get::<_, Option<i64>>(2)?.map(natural),
                    })
                },
            )?;
            Ok(timers.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Keeps a timer, in the place of one of the same name.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn keep_timer(
        &self,
        owner: &MicroserviceName,
        timer: KeptTimer,
    ) -> anyhow::Result<()> {
        self.timed.add(owner);
        let owner = owner.clone();
        self.run(move |connection| {
            let owner = owners::ensure(connection, &owner)?;
            connection
                .prepare_cached(
                    "INSERT INTO timer (owner, name, scheduled_ms, period_ms)
                     VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (owner, name) DO UPDATE SET
                     scheduled_ms = excluded.scheduled_ms, period_ms = excluded.period_ms",
                )?
                .execute((
                    owner,
                    timer.name,
                    integer(timer.scheduled_ms),
                    timer.period_ms.map(integer),
                ))?;
            Ok(())
        })
        .await
    }

    /// Forgets a timer, if there is one of this name.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn drop_timer(&self, owner: &MicroserviceName, name: &str) -> anyhow::Result<()> {
        let (owner, name) = (owner.clone(), name.to_owned());
        self.run(move |connection| {
            connection
                .prepare_cached(
                    "DELETE FROM timer WHERE name = ?3 AND owner =
                     (SELECT id FROM owner WHERE application = ?1 AND microservice = ?2)",
                )?
                .execute((
                    owner.application.as_str(),
                    owner.microservice.as_str(),
                    name,
                ))?;
            Ok(())
        })
        .await
    }
}
