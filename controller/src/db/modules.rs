//! What is known of each module in the store. The files themselves are `module_store`'s.

use std::collections::BTreeSet;

use haar_engine::inspect::inspect;
use haar_protocol::ids::{Digest, Name};
use haar_protocol::keys::PublicKey;
use haar_protocol::module::Signatures;
use haar_protocol::rest::{Module, TrustedPublisher};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::parse;
use crate::failure::Failure;
use crate::module_store::ModuleStore;

/// A module that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModuleRow {
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its name.
    pub(crate) name: Name,
    /// Its version.
    pub(crate) version: String,
    /// Its size.
    pub(crate) bytes: u64,
    /// The keys that were trusted when it was pushed, and had signed it.
    pub(crate) signers: Vec<PublicKey>,
    /// Interfaces that it imports.
    pub(crate) imports: Vec<String>,
    /// Interfaces that it exports.
    pub(crate) exports: Vec<String>,
    /// When it was pushed.
    pub(crate) pushed_ms: u64,
    /// All its signatures, in its file or brought by a later push. None until somebody has looked into
    /// the file that an earlier release took.
    pub(crate) signatures: Option<Signatures>,
    /// Digests of the files that brought signatures later.
    pub(crate) resigned: Vec<Digest>,
    /// Bytes that its memories have when it starts. None as with `signatures`.
    pub(crate) memory_bytes: Option<u64>,
}

impl ModuleRow {
    /// Its name and version, for people.
    pub(crate) fn label(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// As the API shows it, with those of `publishers` that signed it.
    pub(crate) fn to_rest(&self, publishers: &[TrustedPublisher]) -> Module {
        Module {
            digest: self.digest,
            name: self.name.clone(),
            version: self.version.clone(),
            bytes: self.bytes,
            publishers: self.publishers(publishers),
            imports: self.imports.clone(),
            exports: self.exports.clone(),
            pushed_ms: self.pushed_ms,
        }
    }

    /// Those of `publishers` that signed it, each once.
    fn publishers(&self, publishers: &[TrustedPublisher]) -> Vec<Name> {
        let signed = publishers
            .iter()
            .filter(|publisher| self.signers.contains(&publisher.key));
        let mut names: Vec<Name> = signed.map(|publisher| publisher.name.clone()).collect();
        names.dedup(); // they are sorted
        names
    }
}

const COLUMNS: &str = "digest, name, version, bytes, signers, imports, exports, pushed_ms, signatures, resigned, \
     memory_bytes";

fn read(row: &Row<'_>) -> rusqlite::Result<Result<ModuleRow, Failure>> {
    let (digest, name): (String, String) = (row.get(0)?, row.get(1)?);
    let version = row.get(2)?;
    let (bytes, pushed_ms): (u64, u64) = (row.get(3)?, row.get(7)?);
    let (signers, imports, exports): (String, String, String) =
        (row.get(4)?, row.get(5)?, row.get(6)?);
    let signatures: Option<Vec<u8>> = row.get(8)?;
    let resigned: String = row.get(9)?;
    let memory_bytes = row.get(10)?;
    let parsed = || {
        Ok(ModuleRow {
            digest: parse(&digest)?,
            name: parse(&name)?,
            version,
            bytes,
            signers: serde_json::from_str(&signers)?,
            imports: serde_json::from_str(&imports)?,
            exports: serde_json::from_str(&exports)?,
            pushed_ms,
            signatures: signatures.and_then(|bytes| Signatures::from_bytes(&bytes)),
            resigned: serde_json::from_str(&resigned)?,
            memory_bytes,
        })
    };
    Ok(parsed())
}

/// All modules, by name, the newest version first.
pub(crate) fn list(connection: &Connection) -> Result<Vec<ModuleRow>, Failure> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM modules ORDER BY name, pushed_ms DESC, digest"
    ))?;
    statement.query_map([], read)?.map(|row| row?).collect()
}

/// The module with this digest.
pub(crate) fn get(connection: &Connection, digest: &Digest) -> Result<Option<ModuleRow>, Failure> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM modules WHERE digest = ?1"))?
        .query_row([digest.to_string()], read)
        .optional()?
        .transpose()
}

/// The module with this digest, or the one that a file with this digest brought signatures for.
pub(crate) fn find(connection: &Connection, digest: &Digest) -> Result<Option<ModuleRow>, Failure> {
    if let Some(module) = get(connection, digest)? {
        return Ok(Some(module));
    }
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM modules
             WHERE EXISTS (SELECT 1 FROM json_each(resigned) WHERE value = ?1)"
        ))?
        .query_row([digest.to_string()], read)
        .optional()?
        .transpose()
}

/// The module with this name and version.
pub(crate) fn by_version(
    connection: &Connection,
    name: &Name,
    version: &str,
) -> Result<Option<ModuleRow>, Failure> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM modules WHERE name = ?1 AND version = ?2"
        ))?
        .query_row([name.as_str(), version], read)
        .optional()?
        .transpose()
}

/// Adds a module; its name and version must be free.
pub(crate) fn insert(connection: &Connection, module: &ModuleRow) -> Result<(), Failure> {
    connection.execute(
        &format!(
            "INSERT INTO modules ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
        ),
        params![
            module.digest.to_string(),
            module.name.as_str(),
            module.version,
            module.bytes,
            serde_json::to_string(&module.signers)?,
            serde_json::to_string(&module.imports)?,
            serde_json::to_string(&module.exports)?,
            module.pushed_ms,
            module.signatures.as_ref().map(Signatures::to_bytes),
            serde_json::to_string(&module.resigned)?,
            module.memory_bytes.map(stored),
        ],
    )?;
    Ok(())
}

/// As numbers are stored.
fn stored(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Keeps what was learnt of a module and its signers.
pub(crate) fn update(connection: &Connection, module: &ModuleRow) -> Result<(), Failure> {
    connection.execute(
        "UPDATE modules SET signers = ?2, signatures = ?3, resigned = ?4, memory_bytes = ?5 WHERE digest = ?1",
        params![
            module.digest.to_string(),
            serde_json::to_string(&module.signers)?,
            module.signatures.as_ref().map(Signatures::to_bytes),
            serde_json::to_string(&module.resigned)?,
            module.memory_bytes.map(stored),
        ],
    )?;
    Ok(())
}

/// Looks into the files of modules that an earlier release took, for what it did not keep of them.
pub(crate) fn complete(connection: &Connection, store: &ModuleStore) -> Result<(), Failure> {
    for mut module in list(connection)? {
        if module.signatures.is_some() {
            continue;
        }
        let file = std::fs::read(store.path(module.digest)).unwrap_or_default();
        if Digest::of(&file) != module.digest {
            tracing::warn!("the file of {} is missing or damaged", module.label());
            continue;
        }
        match Signatures::of(&file) {
            Ok(signatures) => {
                module.signatures = Some(signatures);
                module.memory_bytes = inspect(&file).ok().map(|inspected| inspected.memory_bytes);
            }
            Err(error) => {
                tracing::warn!("the file of {} can't be read: {error}", module.label());
                continue;
            }
        }
        update(connection, &module)?;
    }
    Ok(())
}

/// Notes at all modules that `key` has signed that it is trusted now.
pub(crate) fn add_signer(connection: &Connection, key: PublicKey) -> Result<(), Failure> {
    for mut module in list(connection)? {
        let signed = module.signatures.as_ref();
        if signed.is_some_and(|signatures| signatures.verify(&[key]).is_ok())
            && !module.signers.contains(&key)
        {
            module.signers.push(key);
            update(connection, &module)?;
        }
    }
    Ok(())
}

/// Removes a module.
pub(crate) fn delete(connection: &Connection, digest: &Digest) -> Result<(), Failure> {
    connection.execute(
        "DELETE FROM modules WHERE digest = ?1",
        [digest.to_string()],
    )?;
    Ok(())
}

/// How many bytes all modules have together.
pub(crate) fn bytes_total(connection: &Connection) -> Result<u64, Failure> {
    let bytes: u64 =
        connection.query_row("SELECT coalesce(sum(bytes), 0) FROM modules", [], |row| {
            row.get(0)
        })?;
    Ok(bytes)
}

/// The digests of all modules.
pub(crate) fn digests(connection: &Connection) -> Result<BTreeSet<Digest>, Failure> {
    let mut statement = connection.prepare_cached("SELECT digest FROM modules")?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    rows.map(|row| parse(&row?)).collect()
}
