//! What a push does to the site, and taking a module away.

use haar_protocol::ids::Digest;
use haar_protocol::keys::PublicKey;

use super::replan;
use crate::db::modules::ModuleRow;
use crate::db::{self, Write};
use crate::failure::{Failure, Kind};
use crate::site::Site;

/// All modules of a site together.
const STORE_BYTES_MAX: u64 = 16 << 30;
/// How many files with other signatures are known by their digest for each module; the oldest go first.
const RESIGNED_MAX: usize = 16;

/// Keeps a module that was pushed. When it is the code of the version that the site has, signed by
/// others, they sign that one: its digest stays, and nothing of it is fetched, compiled or started again.
/// The digest of the answer says which file is to be kept.
///
/// # Errors
/// When the version was pushed before with other code, or there is no room.
pub(crate) fn keep_module(
    write: &Write<'_>,
    site: &Site,
    mut row: ModuleRow,
) -> Result<ModuleRow, Failure> {
    let publishers = db::publishers::list(&write.sql)?.into_iter();
    let trusted: Vec<PublicKey> = publishers.map(|one| one.key).collect();
    // A key that was trusted while the file was looked at counts, too.
    if let Some(signatures) = &row.signatures {
        let signers = trusted.iter().copied();
        row.signers = signers
            .filter(|key| signatures.verify(&[*key]).is_ok())
            .collect();
    }
    if let Some(before) = db::modules::by_version(&write.sql, &row.name, &row.version)? {
        return resign(write, site, before, &row, &trusted);
    }
    if db::modules::bytes_total(&write.sql)?.saturating_add(row.bytes) > STORE_BYTES_MAX {
        return Err(Failure::new(
            Kind::Overloaded,
            "store_full",
            format!("the site's modules take {STORE_BYTES_MAX} bytes already"),
        )
        .hint("delete modules that no application uses: `haar delete module DIGEST`"));
    }
    let row = ModuleRow {
        pushed_ms: write.now_ms,
        ..row
    };
    db::modules::insert(&write.sql, &row)?;
    write.event("module_pushed", &row.label(), &row.digest.to_string())?;
    Ok(row)
}

/// Adds the signatures of `pushed` to the module that the site has, if both are the same code. When they
/// are too many, those of keys that the site does not trust go first.
fn resign(
    write: &Write<'_>,
    site: &Site,
    mut module: ModuleRow,
    pushed: &ModuleRow,
    trusted: &[PublicKey],
) -> Result<ModuleRow, Failure> {
    let (Some(before), Some(brought)) = (&module.signatures, &pushed.signatures) else {
        return Err(other_content(&module));
    };
    if !before.is_of_same_content(brought) {
        return Err(other_content(&module));
    }
    let all = before.clone().with(brought).making_room(trusted);
    if !all.fit() {
        return Err(Failure::new(
            Kind::Refused,
            "too_many_signatures",
            format!("{} would have more than 16 signatures of trusted keys", module.label()),
        )
        .hint("no longer trust keys that nobody signs with any more: `haar publisher delete NAME --key KEY`; or raise the version of the module, build, sign and push it again"));
    }
    let is_new = all != *before;
    module.signatures = Some(all);
    module.resigned.retain(|digest| *digest != pushed.digest);
    module.resigned.push(pushed.digest);
    let too_many = module.resigned.len().saturating_sub(RESIGNED_MAX);
    module.resigned.drain(..too_many);
    for signer in &pushed.signers {
        if !module.signers.contains(signer) {
            module.signers.push(*signer);
        }
    }
    db::modules::update(&write.sql, &module)?;
    if is_new {
        // Nodes that run it must know before somebody stops trusting whoever signed it first.
        replan(write, site, None)?;
        let keys: Vec<String> = pushed.signers.iter().map(|key| key.fingerprint()).collect();
        let message = format!("signed with {}", keys.join(" and "));
        write.event("module_resigned", &module.label(), &message)?;
    }
    Ok(module)
}

fn other_content(module: &ModuleRow) -> Failure {
    Failure::new(
        Kind::Conflict,
        "version_exists",
        format!(
            "{} was pushed before with other content ({})",
            module.label(),
            module.digest
        ),
    )
    .hint("raise the version of the module, build, sign and push it again")
}

/// Forgets a module; its file is the caller's.
///
/// # Errors
/// When there is none, or an application uses it.
pub(crate) fn delete_module(write: &Write<'_>, digest: &Digest) -> Result<(), Failure> {
    let module = db::modules::get(&write.sql, digest)?.ok_or_else(|| {
        Failure::new(
            Kind::NotFound,
            "unknown_module",
            format!("there is no module {digest}"),
        )
    })?;
    let users: Vec<String> = db::applications::list(&write.sql)?
        .into_iter()
        .filter(|row| row.modules.values().any(|used| used == digest))
        .map(|row| format!("`{}`", row.manifest.name))
        .collect();
    if !users.is_empty() {
        return Err(Failure::new(
            Kind::Conflict,
            "module_in_use",
            format!("module {} is used by {}", module.label(), users.join(", ")),
        )
        .hint("change or delete these applications first"));
    }
    db::modules::delete(&write.sql, digest)?;
    write.event("module_deleted", &module.label(), &digest.to_string())
}
