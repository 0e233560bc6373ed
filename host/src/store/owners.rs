//! The microservices that something is stored for.

use haar_protocol::assignment::MicroserviceName;
use rusqlite::{Connection, OptionalExtension as _};

/// The owner's number, if anything was ever stored for it.
pub(super) fn find(
    connection: &Connection,
    owner: &MicroserviceName,
) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT id FROM owner WHERE application = ?1 AND microservice = ?2")?
        .query_row(
            (owner.application.as_str(), owner.microservice.as_str()),
            |row| row.get(0),
        )
        .optional()
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
