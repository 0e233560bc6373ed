//! When a microservice begins another life, in which it sees nothing of what was stored for the one
//! before: after somebody has deleted it, and when no publisher of its module has signed the one before
//! ([decision 023](../../../docs/decisions/023-what-is-deleted-is-gone.md)).

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::assignment::{MicroserviceName, Publisher};
use haar_protocol::ids::{Digest, Name};
use rusqlite::Connection;

use super::load_publishers;
use crate::db::applications::ApplicationRow;
use crate::db::lives::{self, Life, Tenant};
use crate::db::{self, Write};
use crate::failure::Failure;
use crate::site::random;

/// Lives for what an application has from now on. `before` is the application as it was.
///
/// # Errors
/// When the database fails.
pub(super) fn follow(
    write: &Write<'_>,
    before: Option<&ApplicationRow>,
    application: &Name,
    modules: &BTreeMap<Name, Digest>,
    keeps_data: bool,
) -> Result<(), Failure> {
    let publishers = load_publishers(&write.sql)?;
    for (microservice, module) in modules {
        let name = named(application, microservice);
        let tenant = tenant(&write.sql, &publishers, module)?;
        let number = match known(&write.sql, &publishers, before, &name)? {
            Some(life) if life.is_over => another()?,
            Some(life) if life.publishers.shares(&tenant) => life.number,
            Some(_) => {
                lives::end_on_nodes(&write.sql, &name, write.now_ms)?;
                another()?
            }
            None if lives::has_forgotten(&write.sql)? => another()?,
            None => 0,
        };
        lives::put(&write.sql, &name, number, &tenant)?;
    }
    let had = before.iter().flat_map(|row| row.modules.keys());
    let gone = had.filter(|one| !modules.contains_key(*one)).cloned();
    leave(write, before, application, gone.collect(), keeps_data)
}

/// Ends the lives of an application that goes, those too of which data were kept before.
///
/// # Errors
/// When the database fails.
pub(super) fn end(
    write: &Write<'_>,
    before: &ApplicationRow,
    keeps_data: bool,
) -> Result<(), Failure> {
    let name = &before.manifest.name;
    let mut gone: BTreeSet<Name> = before.modules.keys().cloned().collect();
    gone.extend(lives::of_application(&write.sql, name)?);
    leave(write, Some(before), name, gone, keeps_data)
}

/// Notes whose the data of microservices are that an earlier release has applied, while those keys are
/// still trusted that were then.
///
/// # Errors
/// When the database fails.
pub(crate) fn begin_first(connection: &Connection) -> Result<(), Failure> {
    let publishers = load_publishers(connection)?;
    for row in db::applications::list(connection)? {
        for (microservice, module) in &row.modules {
            let name = named(&row.manifest.name, microservice);
            if lives::get(connection, &name)?.is_none() {
                lives::put(
                    connection,
                    &name,
                    0,
                    &tenant(connection, &publishers, module)?,
                )?;
            }
        }
    }
    Ok(())
}

/// Has microservices of an application leave.
fn leave(
    write: &Write<'_>,
    before: Option<&ApplicationRow>,
    application: &Name,
    gone: BTreeSet<Name>,
    keeps_data: bool,
) -> Result<(), Failure> {
    let publishers = load_publishers(&write.sql)?;
    for microservice in gone {
        let name = named(application, &microservice);
        let life = known(&write.sql, &publishers, before, &name)?.unwrap_or_default();
        lives::leave(&write.sql, &name, &life, keeps_data, write.now_ms)?;
        if !keeps_data {
            lives::end_on_nodes(&write.sql, &name, write.now_ms)?;
        }
    }
    Ok(())
}

/// The life of a microservice. Without a row it is the first one, of the publishers of its module.
fn known(
    connection: &Connection,
    publishers: &[Publisher],
    before: Option<&ApplicationRow>,
    name: &MicroserviceName,
) -> Result<Option<Life>, Failure> {
    if let Some(life) = lives::get(connection, name)? {
        return Ok(Some(life));
    }
    let module = before.and_then(|row| row.modules.get(&name.microservice));
    module
        .map(|module| {
            Ok(Life {
                number: 0,
                publishers: tenant(connection, publishers, module)?,
                is_over: false,
            })
        })
        .transpose()
}

/// Whose a module is: of those who have signed it, all keys, and the names of those that are trusted.
fn tenant(
    connection: &Connection,
    publishers: &[Publisher],
    module: &Digest,
) -> Result<Tenant, Failure> {
    let module = db::modules::get(connection, module)?;
    let keys = module.map(|module| module.signers).unwrap_or_default();
    let names = publishers
        .iter()
        .filter(|publisher| keys.contains(&publisher.key))
        .map(|publisher| publisher.name.clone());
    Ok(Tenant {
        names: names.collect(),
        keys,
    })
}

fn named(application: &Name, microservice: &Name) -> MicroserviceName {
    MicroserviceName {
        application: application.clone(),
        microservice: microservice.clone(),
    }
}

/// Random: a site that is restored from a backup must not count the same numbers again.
fn another() -> Result<u64, Failure> {
    let random = random().map_err(Failure::internal)?;
    let mut first = [0; 8];
    first.copy_from_slice(&random[..8]);
    Ok((u64::from_be_bytes(first) >> 12) | 1) // below 2^53
}
