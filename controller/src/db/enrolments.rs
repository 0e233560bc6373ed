//! Enrolment tokens: one use each, kept as SHA-256 of their secret.

use std::collections::BTreeMap;

use haar_protocol::ids::{Name, NodeId};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::parse;
use crate::failure::{Failure, Kind};

/// Tokens that may exist at one time, used and expired ones included until they are forgotten.
const TOKENS_MAX: i64 = 20_000;
/// How long an expired token is remembered, so that its holder is told what is wrong with it.
const REMEMBERED_MS: u64 = 7 * 86_400_000;

/// A token as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EnrolmentToken {
    /// The name that its node gets.
    pub(crate) name: Option<Name>,
    /// Labels that its node gets.
    pub(crate) labels: BTreeMap<String, String>,
    /// When it stops working.
    pub(crate) expires_ms: u64,
    /// Who used it.
    pub(crate) used_by: Option<NodeId>,
}

/// Keeps a new token, and forgets those that expired long ago.
pub(crate) fn insert(
    connection: &Connection,
    hash: &[u8; 32],
    token: &EnrolmentToken,
    now_ms: u64,
) -> Result<(), Failure> {
    connection.execute(
        "DELETE FROM enrolment_tokens WHERE expires_ms < ?1",
        [now_ms.saturating_sub(REMEMBERED_MS)],
    )?;
    let count: i64 = connection.query_row("SELECT count(*) FROM enrolment_tokens", [], |row| {
        row.get(0)
    })?;
    if count >= TOKENS_MAX {
        return Err(Failure::new(
            Kind::Overloaded,
            "too_many_tokens",
            format!("there are {TOKENS_MAX} enrolment tokens already"),
        )
        .hint("wait until some have expired for a week"));
    }
    connection.execute(
        "INSERT INTO enrolment_tokens (hash, name, labels, expires_ms) VALUES (?1, ?2, ?3, ?4)",
        params![
            hash,
            token.name.as_ref().map(Name::as_str),
            serde_json::to_string(&token.labels)?,
            token.expires_ms
        ],
    )?;
    Ok(())
}

/// The token whose secret has this hash.
pub(crate) fn get(
    connection: &Connection,
    hash: &[u8; 32],
) -> Result<Option<EnrolmentToken>, Failure> {
    let row = connection
        .query_row(
            "SELECT name, labels, expires_ms, used_by FROM enrolment_tokens WHERE hash = ?1",
            [hash],
            |row| {
                Ok((
                    row.get::<_, Option<String>>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, u64>(2)?,
                    row.get::<_, Option<String>>(3)?,
                ))
            },
        )
        .optional()?;
    let Some((name, labels, expires_ms, used_by)) = row else {
        return Ok(None);
    };
    Ok(Some(EnrolmentToken {
        name: name.as_deref().map(parse).transpose()?,
        labels: serde_json::from_str(&labels)?,
        expires_ms,
        used_by: used_by.as_deref().map(parse).transpose()?,
    }))
}

/// Uses a token up.
pub(crate) fn mark_used(
    connection: &Connection,
    hash: &[u8; 32],
    node: &NodeId,
) -> Result<(), Failure> {
    connection.execute(
        "UPDATE enrolment_tokens SET used_by = ?2 WHERE hash = ?1",
        params![hash, node.as_str()],
    )?;
    Ok(())
}
