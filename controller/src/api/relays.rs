//! `/relays`: the brokers between the site and its nodes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use haar_protocol::ids::Name;
use haar_protocol::manifest::{self, Document, Relay};
use haar_protocol::relay::{IssuedCertificate, RelayApplied, RelayCredentials, RelayInfo};
use haar_protocol::rest::{List, RelayDetail, RelayTrial};
use rusqlite::Connection;
use serde::Deserialize;

use super::App;
use super::answers::{self, Answer, Named, Parameters, Text};
use super::changing::{self, ChangeQuery};
use crate::change::{self, Care};
use crate::failure::{Failure, Kind};
use crate::site::Site;
use crate::{db, relay_view};

/// `GET /relays`
pub(super) async fn list(State(app): State<App>) -> Answer<Json<List<RelayInfo>>> {
    let relays = load(&app).await?.into_iter();
    Ok(answers::list(relays.map(|detail| detail.relay).collect()))
}

/// `GET /relays/{name}`
pub(super) async fn show(
    State(app): State<App>,
    Named(name): Named<Name>,
) -> Answer<Json<RelayDetail>> {
    let found = load(&app).await?;
    match found.into_iter().find(|detail| detail.relay.name == name) {
        Some(detail) => Ok(Json(detail)),
        None => Err(unknown(&app, name).await?),
    }
}

async fn load(app: &App) -> Answer<Vec<RelayDetail>> {
    let site = Arc::clone(&app.site);
    let (own, presence) = (app.relay.problems(), app.relay.presence());
    app.database
        .read(move |sql| {
            let view = change::load_view(sql, &site)?;
            Ok(relay_view::relays(&view, &own, &presence))
        })
        .await
}

async fn unknown(app: &App, name: Name) -> Answer<Failure> {
    app.database
        .read(move |sql| Ok(change::unknown_relay(sql, &name)))
        .await
}

/// `PUT /relays/{name}`
pub(super) async fn apply(
    State(app): State<App>,
    Named(name): Named<Name>,
    Parameters(query): Parameters<ChangeQuery>,
    Text(yaml): Text,
) -> Answer<Json<RelayApplied>> {
    let relay = read(&yaml, &name)?;
    let site = Arc::clone(&app.site);
    let work = move |write: &db::Write<'_>| {
        let care = query.care(Care::LoseNothing);
        let apply = || change::apply_relay(write, &site, relay);
        change::careful(write, &site, care, apply)
    };
    if !query.dry_run {
        let (result, _) = app.database.write(work).await?;
        return Ok(Json(result));
    }
    let (result, losses) = app.database.rehearse(work).await?;
    Ok(Json(RelayApplied {
        dry_run: true,
        assignments: Default::default(),
        losses,
        ..result
    }))
}

fn read(yaml: &str, name: &Name) -> Answer<Relay> {
    let invalid = |message: String| {
        Failure::new(Kind::Invalid, "bad_manifest", message).hint(
            "check it: `haar apply --dry-run -f FILE`; its schema is at /api/v1/schemas/relay.json",
        )
    };
    let document = manifest::parse_document(yaml, "manifest");
    let relay = match document.map_err(|errors| invalid(errors.to_string()))? {
        Document::Relay(relay) => *relay,
        Document::Application(_) => {
            return Err(invalid(
                "this is an application, and a relay is wanted here".into(),
            ));
        }
    };
    if &relay.name != name {
        return Err(Failure::new(
            Kind::Invalid,
            "name_mismatch",
            format!(
                "the manifest is that of `{}`, the path says `{name}`",
                relay.name
            ),
        ));
    }
    Ok(relay)
}

/// `DELETE /relays/{name}`
pub(super) async fn remove(
    State(app): State<App>,
    Named(name): Named<Name>,
    Parameters(query): Parameters<ChangeQuery>,
) -> Answer<Response> {
    changing::take_away(&app, query, move |write, site| {
        change::delete_relay(write, site, &name)
    })
    .await
}

/// The query for credentials.
#[derive(Deserialize)]
pub(super) struct CredentialsQuery {
    #[serde(default)]
    certificate: bool,
}

/// `GET /relays/{name}/credentials`
pub(super) async fn credentials(
    State(app): State<App>,
    Named(name): Named<Name>,
    Parameters(query): Parameters<CredentialsQuery>,
) -> Answer<Json<RelayCredentials>> {
    let site = Arc::clone(&app.site);
    let read = |sql: &Connection, site: &Site, name: &Name| {
        let fleet = change::load_fleet(sql, site)?;
        match fleet.relays.iter().find(|relay| &relay.name == name) {
            Some(relay) => relay_view::credentials(site, &fleet, relay),
            None => Err(change::unknown_relay(sql, name)),
        }
    };
    if !query.certificate {
        let found = app.database.read(move |sql| read(sql, &site, &name));
        return found.await.map(Json);
    }
    let issue = move |write: &db::Write<'_>| {
        let mut found = read(&write.sql, &site, &name)?;
        let issued = change::issue_for_broker(write, &site, &name, &found.url.address.host)?;
        found.certificate = Some(IssuedCertificate {
            certificate_pem: issued.certificate.certificate_pem,
            key_pem: issued.certificate.key_pem,
            until_ms: issued.until_ms,
        });
        Ok(found)
    };
    app.database.write(issue).await.map(Json)
}

/// `GET /relays/{name}/trial`
pub(super) async fn trial(
    State(app): State<App>,
    Named(name): Named<Name>,
) -> Answer<Json<RelayTrial>> {
    let site = Arc::clone(&app.site);
    let found = app.database.read(move |sql| {
        let relays = change::load_relays(sql, &site)?;
        match relays.iter().find(|relay| relay.name == name) {
            Some(relay) => relay_view::trial(&site, relay),
            None => Err(change::unknown_relay(sql, &name)),
        }
    });
    found.await.map(Json)
}
