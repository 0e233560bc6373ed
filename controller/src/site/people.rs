//! People's access: bearer tokens, of which the database keeps the SHA-256, and the context files
//! that tell a person's `haar` where the site is.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use haar_protocol::context::Context;
use haar_protocol::ids::Name;
use rusqlite::Connection;
use sha2::{Digest as _, Sha256};

use super::{Site, directory, random};
use crate::{clock, db};

/// Whoever holds the context file beside the database.
const ADMIN: &str = "admin";

/// A bearer token in clear. It is shown once.
pub(crate) struct AccessToken(pub(crate) String);

impl AccessToken {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(hex::encode(random()?)))
    }
}

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Writes the administrator's `context.toml`, with the token that it has already or a new one.
/// Returns its path.
///
/// # Errors
/// When files or the database fail.
pub(crate) fn admin_context(
    site: &Site,
    connection: &Connection,
    url: &str,
) -> anyhow::Result<PathBuf> {
    let path = site.directory.join("context.toml");
    let old = if path.exists() {
        Some(directory::read(&path)?)
    } else {
        None
    };
    let old = old.and_then(|text| toml::from_str::<Context>(&text).ok());
    let token = match old {
        Some(context) if is_valid(connection, &context.token)? => AccessToken(context.token),
        _ => issue(connection, ADMIN)?,
    };
    let context = Context {
        site: site.id.clone(),
        name: site.name.clone(),
        url: url.to_owned(),
        token: token.0,
        ca_pem: site.ca_pem.clone(),
    };
    directory::write_private(&path, &toml::to_string(&context)?)?;
    Ok(path)
}

/// Makes a token for a further person and returns their context file as text. The controller may
/// be running: it sees the token at once.
///
/// # Errors
/// When there is no site in `data`, or files or the database fail.
pub(crate) fn further_context(data: &std::path::Path, name: &Name) -> anyhow::Result<String> {
    let path = data.join("context.toml");
    if !path.exists() || !data.join("controller.db").exists() {
        bail!(
            "there is no site in {}: start it once with `haar controller run --data {}`",
            data.display(),
            data.display()
        );
    }
    if name.as_str() == ADMIN {
        bail!(
            "`{ADMIN}` has its token in {}: choose another name",
            path.display()
        );
    }
    let mut context: Context = toml::from_str(&directory::read(&path)?).with_context(|| {
        format!(
            "{} is damaged: restart the controller, which writes it anew",
            path.display()
        )
    })?;
    let connection = db::open_connection(&data.join("controller.db"))?;
    context.token = issue(&connection, name.as_str())?.0;
    Ok(toml::to_string(&context)?)
}

fn issue(connection: &Connection, name: &str) -> anyhow::Result<AccessToken> {
    let token = AccessToken::new()?;
    db::access_tokens::put(
        connection,
        name,
        &sha256(token.0.as_bytes()),
        clock::now_ms(),
    )?;
    Ok(token)
}

fn is_valid(connection: &Connection, token: &str) -> anyhow::Result<bool> {
    Ok(db::access_tokens::owner(connection, &sha256(token.as_bytes()))?.is_some())
}
