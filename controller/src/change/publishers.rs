//! Trusting and distrusting publishers. The list stands in every assignment, so each change signs
//! them all anew.

use haar_protocol::ids::Name;
use haar_protocol::keys::PublicKey;
use haar_protocol::rest::TrustedPublisher;

use super::replan;
use crate::db::publishers::PUBLISHERS_MAX;
use crate::db::{self, Write};
use crate::failure::{Failure, Kind};
use crate::site::Site;

/// Trusts `key` under `name`; a key that the name had before is no longer trusted.
///
/// # Errors
/// When the key is trusted under another name, or there are too many.
pub(crate) fn trust(
    write: &Write<'_>,
    site: &Site,
    name: &Name,
    key: PublicKey,
) -> Result<TrustedPublisher, Failure> {
    let publishers = db::publishers::list(&write.sql)?;
    let before = publishers.iter().find(|publisher| &publisher.name == name);
    if let Some(before) = before.filter(|before| before.key == key) {
        return Ok(before.clone());
    }
    if before.is_none() && publishers.len() >= PUBLISHERS_MAX {
        return Err(Failure::new(
            Kind::Overloaded,
            "too_many_publishers",
            format!("the site trusts {PUBLISHERS_MAX} publishers already"),
        ));
    }
    let publisher = TrustedPublisher {
        name: name.clone(),
        key,
        added_ms: write.now_ms,
    };
    db::publishers::put(&write.sql, &publisher)?;
    replan(write, site, None)?;
    write.event(
        "publisher_trusted",
        name.as_str(),
        &format!("key {}", key.fingerprint()),
    )?;
    Ok(publisher)
}

/// No longer trusts the publisher called `name`. Nodes stop what only it has signed.
///
/// # Errors
/// When there is none of this name.
pub(crate) fn distrust(write: &Write<'_>, site: &Site, name: &Name) -> Result<(), Failure> {
    if !db::publishers::delete(&write.sql, name.as_str())? {
        return Err(Failure::new(
            Kind::NotFound,
            "unknown_publisher",
            format!("no publisher `{name}` is trusted"),
        )
        .hint("see them with `haar get publishers`"));
    }
    db::lives::forget_publisher(&write.sql, name)?;
    replan(write, site, None)?;
    write.event(
        "publisher_distrusted",
        name.as_str(),
        "modules that only it has signed no longer run",
    )
}
