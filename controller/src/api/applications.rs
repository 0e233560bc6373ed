//! `/applications`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use haar_protocol::ids::Name;
use haar_protocol::manifest::{self, Manifest};
use haar_protocol::rest::{Application, ApplicationDetail, ApplyResult, List};

use super::App;
use super::answers::{self, Answer, Named, Parameters, Text};
use super::changing::{self, ChangeQuery};
use crate::change::Care;
use crate::failure::{Failure, Kind};
use crate::{change, db};

/// `GET /applications`
pub(super) async fn list(State(app): State<App>) -> Answer<Json<List<Application>>> {
    let site = Arc::clone(&app.site);
    let applications = app
        .database
        .read(move |sql| {
            let view = change::load_view(sql, &site)?;
            Ok(db::applications::list(sql)?
                .iter()
                .map(|row| view.application(row))
                .collect())
        })
        .await?;
    Ok(answers::list(applications))
}

/// `GET /applications/{name}`
pub(super) async fn show(
    State(app): State<App>,
    Named(name): Named<Name>,
) -> Answer<Json<ApplicationDetail>> {
    let site = Arc::clone(&app.site);
    let detail = app
        .database
        .read(move |sql| {
            let row = db::applications::get(sql, name.as_str())?
                .ok_or_else(|| change::unknown_application(sql, &name))?;
            let view = change::load_view(sql, &site)?;
            Ok(ApplicationDetail {
                application: view.application(&row),
                microservices: view.microservices(Some(&name)),
                unplaced: view.unplaced(&name),
                routes: view.routes(Some(&name)),
                manifest: row.manifest,
            })
        })
        .await?;
    Ok(Json(detail))
}

/// `PUT /applications/{name}`
pub(super) async fn apply(
    State(app): State<App>,
    Named(name): Named<Name>,
    Parameters(query): Parameters<ChangeQuery>,
    Text(yaml): Text,
) -> Answer<Json<ApplyResult>> {
    let manifest = read(&yaml, &name)?;
    let site = Arc::clone(&app.site);
    let work = move |write: &db::Write<'_>| {
        // One of a name that nothing was ever kept for takes nothing from anybody.
        let is_new = db::applications::get(&write.sql, manifest.name.as_str())?.is_none()
            && db::lives::of_application(&write.sql, &manifest.name)?.is_empty();
        let care = match is_new {
            true => Care::None,
            false => query.care(Care::MayStop),
        };
        let apply = || change::apply(write, &site, yaml, manifest, query.keep_data);
        change::careful(write, &site, care, apply)
    };
    if !query.dry_run {
        let (result, _) = app.database.write(work).await?;
        return Ok(Json(result));
    }
    let (result, losses) = app.database.rehearse(work).await?;
    Ok(Json(ApplyResult {
        dry_run: true,
        assignments: Default::default(),
        losses,
        ..result
    }))
}

fn read(yaml: &str, name: &Name) -> Answer<Manifest> {
    let manifest = manifest::parse(yaml, "manifest").map_err(|errors| {
        Failure::new(Kind::Invalid, "bad_manifest", errors.to_string())
            .hint("check the manifest: `haar apply --dry-run -f FILE`; its schema is at /api/v1/schemas/application.json")
    })?;
    if &manifest.name != name {
        return Err(Failure::new(
            Kind::Invalid,
            "name_mismatch",
            format!(
                "the manifest is that of `{}`, the path says `{name}`",
                manifest.name
            ),
        ));
    }
    Ok(manifest)
}

/// `DELETE /applications/{name}`
pub(super) async fn remove(
    State(app): State<App>,
    Named(name): Named<Name>,
    Parameters(query): Parameters<ChangeQuery>,
) -> Answer<Response> {
    let keeps_data = query.keep_data;
    changing::take_away(&app, query, move |write, site| {
        change::delete_application(write, site, &name, keeps_data)
    })
    .await
}
