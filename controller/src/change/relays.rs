//! Applying and deleting relays. Every assignment of a node that uses one is signed anew.

use haar_protocol::ids::Name;
use haar_protocol::manifest::{ClientCertificate, Credentials, Relay};
use haar_protocol::relay::{EMBEDDED, RelayApplied};
use haar_protocol::rest::Difference;
use haar_protocol::secret::SharedSecret;
use haar_relay::Endpoint;
use rusqlite::Connection;

use super::{refuse, replan, unknown_node, unknown_relay};
use crate::db::relays::{RELAYS_MAX, RelayRow};
use crate::db::{self, Write};
use crate::differences;
use crate::failure::{Failure, Kind};
use crate::plan::{self, RelayPlace};
use crate::site::{HANDED_OUT_LIFE_MS, Issued, NEIGHBOURHOOD_LIFE_MS, Site};

/// The purposes for which the site seals secrets for itself.
const OWN_PASSWORD: &str = "password of a relay in the database";
const OWN_CLIENT_KEY: &str = "client key of a relay in the database";
const OWN_CERTIFICATE: &str = "certificate of a relay in the database";

fn own_secret(site: &Site) -> SharedSecret {
    site.key.shared_with(&site.key.public())
}

/// Applies what `manifest` says of a relay.
///
/// # Errors
/// Everything that makes it impossible; nothing has changed then.
pub(crate) fn apply_relay(
    write: &Write<'_>,
    site: &Site,
    manifest: Relay,
) -> Result<RelayApplied, Failure> {
    let name = manifest.name.clone();
    check(write, site, &manifest)?;
    let before = db::relays::get(&write.sql, &name)?;
    if before.is_none() && db::relays::list(&write.sql)?.len() >= RELAYS_MAX {
        return Err(Failure::new(
            Kind::Overloaded,
            "too_many_relays",
            format!("the site has {RELAYS_MAX} relays already"),
        ));
    }
    let row = sealed_row(write, site, manifest, before.as_ref())?;
    let differences = differences(before.as_ref(), &row);
    let is_same = before.is_some_and(|before| {
        RelayRow {
            applied_ms: row.applied_ms,
            ..before
        } == row
    });
    if !is_same {
        db::relays::put(write, &row)?;
        check_routes(write, site)?;
    }
    let replanned = replan(write, site, None)?;
    if !is_same {
        write.event("relay_applied", name.as_str(), &describe(&row.manifest))?;
    }
    Ok(RelayApplied {
        name,
        changed: !is_same,
        dry_run: false,
        differences,
        losses: Vec::new(),
        assignments: replanned.assignments,
    })
}

/// In what a relay differs from what it was before; secrets are sealed in both.
fn differences(before: Option<&RelayRow>, after: &RelayRow) -> Vec<Difference> {
    let key = |row: &RelayRow| Some(row.manifest.client_certificate.as_ref()?.key.clone());
    let mut other = Vec::new();
    if let Some(before) = before {
        if before.password != after.password {
            other.push(differences::PASSWORD);
        }
        if key(before) != key(after) {
            other.push(differences::CLIENT_KEY);
        }
    }
    differences::of_relay(before.map(|row| &row.manifest), &after.manifest, &other)
}

fn check(write: &Write<'_>, site: &Site, manifest: &Relay) -> Result<(), Failure> {
    if let Some(url) = &manifest.url {
        let ca = manifest.ca.as_deref().unwrap_or(&site.ca_pem);
        let client = manifest.client_certificate.as_ref().map(shown);
        Endpoint::new(url, Some(ca))
            .and_then(|endpoint| endpoint.showing(client))
            .map_err(|error| Failure::new(Kind::Invalid, "bad_relay", error.0))?;
    }
    let named = [&manifest.node, &manifest.nodes.node];
    for node in named.into_iter().flatten() {
        if db::nodes::by_name(&write.sql, node.as_str())?.is_none() {
            return Err(unknown_node(&write.sql, node));
        }
    }
    Ok(())
}

/// No route of an application may take in what Haar itself sends over a relay from now on.
fn check_routes(write: &Write<'_>, site: &Site) -> Result<(), Failure> {
    let relays = load_relays(&write.sql, site)?;
    let applications = db::applications::list(&write.sql)?;
    let problems = applications
        .iter()
        .flat_map(|row| plan::relay_problems(&row.manifest, &relays));
    refuse(problems.collect())
}

/// A client certificate as sessions show it.
pub(crate) fn shown(client: &ClientCertificate) -> haar_relay::ClientCertificate {
    haar_relay::ClientCertificate {
        certificate_pem: client.certificate.clone(),
        key_pem: client.key.clone(),
    }
}

/// The row of a relay: secrets sealed, a certificate made where there is none that fits.
fn sealed_row(
    write: &Write<'_>,
    site: &Site,
    mut manifest: Relay,
    before: Option<&RelayRow>,
) -> Result<RelayRow, Failure> {
    let own = own_secret(site);
    let mut password = None;
    if let Some(Credentials::Given {
        password: clear, ..
    }) = &mut manifest.credentials
    {
        let clear = std::mem::take(clear);
        password = Some(own.seal(OWN_PASSWORD, &clear).map_err(Failure::internal)?);
    }
    if let Some(client) = &mut manifest.client_certificate {
        let sealed = own.seal(OWN_CLIENT_KEY, &client.key);
        client.key = serde_json::to_string(&sealed.map_err(Failure::internal)?)?;
    }
    let mut row = RelayRow {
        manifest,
        password,
        certificate: None,
        certificate_until_ms: None,
        issued_until_ms: before.and_then(|before| before.issued_until_ms),
        applied_ms: write.now_ms,
    };
    let kept = before.filter(|before| {
        let is_same_place = before.manifest.address == row.manifest.address;
        is_same_place && !needs_renewal(before, write.now_ms)
    });
    match kept {
        Some(kept) => {
            row.certificate.clone_from(&kept.certificate);
            row.certificate_until_ms = kept.certificate_until_ms;
        }
        None => renew(write, site, &mut row)?,
    }
    Ok(row)
}

/// Issues a certificate for a relay that a node runs; nothing for any other.
fn renew(write: &Write<'_>, site: &Site, row: &mut RelayRow) -> Result<(), Failure> {
    let Some(address) = &row.manifest.address else {
        return Ok(());
    };
    let until_ms = write.now_ms.saturating_add(NEIGHBOURHOOD_LIFE_MS);
    let issued = issue(write, site, &row.manifest.name, &address.host, until_ms)?;
    let key = own_secret(site)
        .seal(OWN_CERTIFICATE, &issued.certificate.key_pem)
        .map_err(Failure::internal)?;
    row.certificate = Some((issued.certificate.certificate_pem, key));
    row.certificate_until_ms = Some(issued.until_ms);
    Ok(())
}

fn issue(
    write: &Write<'_>,
    site: &Site,
    relay: &Name,
    host: &str,
    until_ms: u64,
) -> Result<Issued, Failure> {
    let issued = site.certificate_for(host, until_ms)?;
    write.event("certificate_issued", relay.as_str(), &issued.description)?;
    Ok(issued)
}

/// True when a relay that a node runs has no certificate, one with less than a third of its life
/// left, or one of an earlier release.
fn needs_renewal(row: &RelayRow, now_ms: u64) -> bool {
    let end_ms = row.certificate_until_ms.unwrap_or(0);
    row.manifest.address.is_some() && end_ms < now_ms.saturating_add(NEIGHBOURHOOD_LIFE_MS / 3)
}

/// Renews the certificates of relays that nodes run, where it is time.
///
/// # Errors
/// When the database fails.
pub(crate) fn renew_certificates(write: &Write<'_>, site: &Site) -> Result<(), Failure> {
    let mut is_any = false;
    for mut row in db::relays::list(&write.sql)? {
        if !needs_renewal(&row, write.now_ms) {
            continue;
        }
        match renew(write, site, &mut row) {
            Ok(()) => {
                db::relays::put(write, &row)?;
                is_any = true;
            }
            Err(failure) => {
                tracing::error!(relay = %row.manifest.name, %failure, "the certificate of a relay is not renewed");
            }
        }
    }
    if is_any {
        replan(write, site, None)?;
    }
    Ok(())
}

/// Issues a certificate for a broker that is not ours, to be handed out.
///
/// # Errors
/// When there is no such relay, or its host is the controller's.
pub(crate) fn issue_for_broker(
    write: &Write<'_>,
    site: &Site,
    relay: &Name,
    host: &str,
) -> Result<Issued, Failure> {
    let mut row =
        db::relays::get(&write.sql, relay)?.ok_or_else(|| unknown_relay(&write.sql, relay))?;
    let until_ms = write.now_ms.saturating_add(HANDED_OUT_LIFE_MS);
    let issued = issue(write, site, relay, host, until_ms)?;
    row.issued_until_ms = Some(issued.until_ms);
    db::relays::put(write, &row)?;
    Ok(issued)
}

fn describe(manifest: &Relay) -> String {
    match (&manifest.url, &manifest.node, &manifest.address) {
        (Some(url), _, _) => format!("a broker at {url}"),
        (None, Some(node), Some(address)) => format!("run by node `{node}` at {address}"),
        _ => "the controller's own".to_owned(),
    }
}

/// Forgets a relay; nodes leave it. That of the controller goes back to what it is by itself.
///
/// # Errors
/// When there is none of this name.
pub(crate) fn delete_relay(write: &Write<'_>, site: &Site, name: &Name) -> Result<(), Failure> {
    let used: Vec<String> = db::applications::list(&write.sql)?
        .into_iter()
        .filter(|row| {
            let mut routes = row.manifest.routes.iter();
            routes.any(|route| route.relay.as_ref() == Some(name))
        })
        .map(|row| format!("`{}`", row.manifest.name))
        .collect();
    if !used.is_empty() {
        return Err(Failure::new(
            Kind::Conflict,
            "relay_in_use",
            format!(
                "routes of {} begin or end at topics of relay `{name}`",
                used.join(", ")
            ),
        )
        .hint("change or delete these applications first"));
    }
    if !db::relays::delete(write, name)? {
        return Err(unknown_relay(&write.sql, name));
    }
    replan(write, site, None)?;
    write.event("relay_deleted", name.as_str(), "nodes leave it")
}

/// The relays of the site, with their secrets in clear: for plans and for the site's own sessions.
///
/// # Errors
/// When the database fails, or holds what this site did not seal.
pub(crate) fn load_relays(
    connection: &Connection,
    site: &Site,
) -> Result<Vec<plan::Relay>, Failure> {
    let mut relays = Vec::new();
    for row in db::relays::list(connection)? {
        relays.push(planned_relay(site, row)?);
    }
    if !relays.iter().any(|relay| relay.name.as_str() == EMBEDDED) {
        relays.push(plan::Relay::embedded());
    }
    Ok(relays)
}

/// A client certificate with its key in clear.
fn opened(own: &SharedSecret, sealed: ClientCertificate) -> Result<ClientCertificate, Failure> {
    let key = own.open(OWN_CLIENT_KEY, &serde_json::from_str(&sealed.key)?);
    Ok(ClientCertificate {
        key: key.map_err(Failure::internal)?,
        ..sealed
    })
}

fn planned_relay(site: &Site, row: RelayRow) -> Result<plan::Relay, Failure> {
    let own = own_secret(site);
    let (preference, role) = (row.manifest.preference(), row.manifest.role());
    let listen = row.manifest.listening();
    let manifest = row.manifest;
    let expiry = manifest.session_expiry;
    let place = match (manifest.url, manifest.node, manifest.address, listen) {
        (Some(url), _, _, _) => {
            let mut credentials = manifest.credentials.unwrap_or_default();
            if let (Credentials::Given { password, .. }, Some(sealed)) =
                (&mut credentials, &row.password)
            {
                *password = own.open(OWN_PASSWORD, sealed).map_err(Failure::internal)?;
            }
            RelayPlace::External {
                url,
                ca_pem: manifest.ca,
                credentials,
                session_expiry_s: expiry.and_then(|expiry| u32::try_from(expiry.0 / 1_000).ok()),
                client: manifest
                    .client_certificate
                    .map(|sealed| opened(&own, sealed))
                    .transpose()?,
                issued_until_ms: row.issued_until_ms,
            }
        }
        (None, Some(node), Some(address), Some(listen)) => {
            let (certificate_pem, key) = row
                .certificate
                .ok_or_else(|| Failure::internal("a relay without its certificate"))?;
            RelayPlace::Neighbourhood {
                node,
                address,
                listen,
                certificate_pem,
                key_pem: own.open(OWN_CERTIFICATE, &key).map_err(Failure::internal)?,
            }
        }
        _ => RelayPlace::Embedded,
    };
    Ok(plan::Relay {
        name: manifest.name,
        preference,
        nodes: manifest.nodes,
        role,
        place,
    })
}
