//! Trusting and distrusting publishers. The list stands in every assignment, so each change signs
//! them all anew.

use haar_protocol::ids::Name;
use haar_protocol::keys::PublicKey;
use haar_protocol::rest::TrustedPublisher;

use super::{replan, unknown_publisher};
use crate::db::publishers::KEYS_MAX;
use crate::db::{self, Write};
use crate::failure::{Failure, Kind};
use crate::site::Site;

/// What becomes of the other keys of a publisher when one is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtherKeys {
    /// They stay trusted.
    Keep,
    /// They are no longer trusted.
    Remove,
}

/// Trusts `key` under `name`.
///
/// # Errors
/// When the key is trusted under another name, or there are too many.
pub(crate) fn trust(
    write: &Write<'_>,
    site: &Site,
    name: &Name,
    key: PublicKey,
    others: OtherKeys,
) -> Result<TrustedPublisher, Failure> {
    let all = db::publishers::list(&write.sql)?;
    let of_name: Vec<_> = all.iter().filter(|one| &one.name == name).collect();
    let before = of_name.iter().find(|one| one.key == key);
    let mut removed = Vec::new();
    if others == OtherKeys::Remove {
        for other in of_name.iter().filter(|one| one.key != key) {
            db::publishers::delete(&write.sql, name.as_str(), Some(other.key))?;
            removed.push(other.key.fingerprint());
        }
    }
    if let Some(before) = before
        && removed.is_empty()
    {
        return Ok((*before).clone());
    }
    if before.is_none() && all.len() - removed.len() >= KEYS_MAX {
        return Err(Failure::new(
            Kind::Overloaded,
            "too_many_publishers",
            format!("the site trusts {KEYS_MAX} keys of publishers already"),
        )
        .hint("take away those that nobody signs with any more: `haar publisher delete NAME --key KEY`"));
    }
    let publisher = match before {
        Some(before) => (*before).clone(),
        None => {
            let publisher = TrustedPublisher {
                name: name.clone(),
                key,
                added_ms: write.now_ms,
            };
            db::publishers::add(&write.sql, &publisher)?;
            db::modules::add_signer(&write.sql, key)?;
            publisher
        }
    };
    replan(write, site, None)?;
    let mut message = format!("key {}", key.fingerprint());
    if !removed.is_empty() {
        message += &format!(" in the place of {}", removed.join(" and "));
    }
    write.event("publisher_trusted", name.as_str(), &message)?;
    Ok(publisher)
}

/// No longer trusts the publisher called `name`, or one `key` of it. Nodes stop what nobody else has
/// signed.
///
/// # Errors
/// When there is none.
pub(crate) fn distrust(
    write: &Write<'_>,
    site: &Site,
    name: &Name,
    key: Option<PublicKey>,
) -> Result<(), Failure> {
    if db::publishers::delete(&write.sql, name.as_str(), key)? == 0 {
        let is_there = db::publishers::list(&write.sql)?
            .iter()
            .any(|one| &one.name == name);
        return Err(match key {
            Some(key) if is_there => Failure::new(
                Kind::NotFound,
                "unknown_publisher",
                format!("publisher `{name}` has no key {}", key.fingerprint()),
            )
            .hint("see its keys with `haar get publishers`"),
            _ => unknown_publisher(&write.sql, name),
        });
    }
    let keys_left = db::publishers::list(&write.sql)?;
    if !keys_left.iter().any(|one| &one.name == name) {
        db::lives::forget_publisher(&write.sql, name)?;
    }
    replan(write, site, None)?;
    let message = match key {
        None => "modules that only it has signed no longer run".to_owned(),
        Some(key) => format!(
            "key {}: modules that were signed with it alone no longer run",
            key.fingerprint()
        ),
    };
    write.event("publisher_distrusted", name.as_str(), &message)
}
