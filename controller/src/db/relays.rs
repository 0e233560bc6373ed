//! The relays of the site, as people described them. Secrets stand here sealed.

use haar_protocol::ids::Name;
use haar_protocol::manifest::Relay;
use haar_protocol::secret::SealedText;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::Write;
use crate::failure::Failure;

/// How many there may be: each assignment names those of its node.
pub(crate) const RELAYS_MAX: usize = 1_000;

/// A relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelayRow {
    /// What was said of it; a password is empty here, and the key of a client certificate sealed.
    pub(crate) manifest: Relay,
    /// The password, sealed.
    pub(crate) password: Option<SealedText>,
    /// The certificate that the node shows which runs it, and the certificate's key, sealed.
    pub(crate) certificate: Option<(String, SealedText)>,
    /// When that certificate ends; none where an earlier release issued it.
    pub(crate) certificate_until_ms: Option<u64>,
    /// When the last certificate ends that was handed out for the broker, if any was.
    pub(crate) issued_until_ms: Option<u64>,
    /// When it was applied.
    pub(crate) applied_ms: u64,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Result<RelayRow, Failure>> {
    let manifest: String = row.get(0)?;
    let password: Option<String> = row.get(1)?;
    let certificate: Option<String> = row.get(2)?;
    let key: Option<String> = row.get(3)?;
    let applied_ms: u64 = row.get(4)?;
    let (certificate_until_ms, issued_until_ms) = (row.get(5)?, row.get(6)?);
    let parsed = || {
        let sealed = |text: &str| serde_json::from_str::<SealedText>(text);
        let key = key.as_deref().map(sealed).transpose()?;
        Ok(RelayRow {
            manifest: serde_json::from_str(&manifest)?,
            password: password.as_deref().map(sealed).transpose()?,
            certificate: certificate.zip(key),
            certificate_until_ms,
            issued_until_ms,
            applied_ms,
        })
    };
    Ok(parsed())
}

const COLUMNS: &str =
    "manifest, password, certificate_pem, key, applied_ms, certificate_until_ms, issued_until_ms";

/// All of them, by name.
pub(crate) fn list(connection: &Connection) -> Result<Vec<RelayRow>, Failure> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM relays ORDER BY name"))?;
    statement.query_map([], read)?.map(|row| row?).collect()
}

/// One of them.
pub(crate) fn get(connection: &Connection, name: &Name) -> Result<Option<RelayRow>, Failure> {
    let query = format!("SELECT {COLUMNS} FROM relays WHERE name = ?1");
    let row = connection
        .query_row(&query, [name.as_str()], read)
        .optional()?;
    row.transpose()
}

/// Adds a relay, or changes the one with its name.
pub(crate) fn put(write: &Write<'_>, row: &RelayRow) -> Result<(), Failure> {
    let sealed = |text: &SealedText| serde_json::to_string(text);
    let (certificate, key) = row
        .certificate
        .as_ref()
        .map_or((None, None), |(pem, key)| (Some(pem.as_str()), Some(key)));
    write.sql.execute(
        "INSERT INTO relays (name, manifest, password, certificate_pem, key, applied_ms,
             certificate_until_ms, issued_until_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (name) DO UPDATE SET manifest = excluded.manifest,
             password = excluded.password, certificate_pem = excluded.certificate_pem,
             key = excluded.key, applied_ms = excluded.applied_ms,
             certificate_until_ms = excluded.certificate_until_ms,
             issued_until_ms = excluded.issued_until_ms",
        params![
            row.manifest.name.as_str(),
            serde_json::to_string(&row.manifest)?,
            row.password.as_ref().map(sealed).transpose()?,
            certificate,
            key.map(sealed).transpose()?,
            row.applied_ms,
            row.certificate_until_ms,
            row.issued_until_ms
        ],
    )?;
    write.relays_changed();
    Ok(())
}

/// Removes a relay; false when there was none.
pub(crate) fn delete(write: &Write<'_>, name: &Name) -> Result<bool, Failure> {
    let deleted = write
        .sql
        .execute("DELETE FROM relays WHERE name = ?1", [name.as_str()])?;
    write.relays_changed();
    Ok(deleted == 1)
}
