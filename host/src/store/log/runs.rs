//! The rows of runs ([`haar_link::runs`]): those of a log beside its last one, which is in the log's own
//! row. They are written with the logs' heads, before the batches go that tell them.

use anyhow::Context as _;
use haar_link::runs::Run;
use rusqlite::Connection;

use super::LogId;
use super::index::{Index, Indexed};
use crate::store::{integer, natural};

/// Adds the runs of all logs to what the logs' rows say.
pub(super) fn load(connection: &Connection, index: &mut Index) -> anyhow::Result<()> {
    let mut runs = connection.prepare("SELECT log, epoch, upto FROM run ORDER BY log, epoch")?;
    let mut rows = runs.query([])?;
    while let Some(row) = rows.next()? {
        let log = index.logs.get_mut(&LogId(row.get(0)?));
        let log = log.context("a run of no log")?;
        let (epoch, upto) = (natural(row.get(1)?), natural(row.get(2)?));
        log.runs.reached(epoch, upto);
        log.stored_runs.push(Run { epoch, upto });
    }
    for log in index.logs.values_mut().filter(|log| log.head > 0) {
        log.runs.reached(log.epoch, log.sequence);
    }
    Ok(())
}

/// Writes what has changed of the runs of a log.
pub(super) fn store(connection: &Connection, id: LogId, log: &mut Indexed) -> anyhow::Result<()> {
    let wanted: Vec<Run> = log
        .runs
        .iter()
        .filter(|run| run.epoch != log.epoch)
        .collect();
    for gone in &log.stored_runs {
        if !wanted.iter().any(|run| run.epoch == gone.epoch) {
            connection
                .prepare_cached("DELETE FROM run WHERE log = ?1 AND epoch = ?2")?
                .execute((id.0, integer(gone.epoch)))?;
        }
    }
    for run in &wanted {
        if !log.stored_runs.contains(run) {
            connection
                .prepare_cached(
                    "INSERT INTO run (log, epoch, upto) VALUES (?1, ?2, ?3)
                     ON CONFLICT DO UPDATE SET upto = excluded.upto",
                )?
                .execute((id.0, integer(run.epoch), integer(run.upto)))?;
        }
    }
    log.stored_runs = wanted;
    Ok(())
}
