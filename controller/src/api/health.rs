//! `/health`: how the site does as a whole.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use haar_protocol::rest::SiteHealth;

use super::App;
use super::answers::Answer;
use crate::{change, db, health, overview, relay_view};

/// `GET /health`
pub(super) async fn show(State(app): State<App>) -> Answer<Json<SiteHealth>> {
    let site = Arc::clone(&app.site);
    let (own, presence) = (app.relay.problems(), app.relay.presence());
    let found = app
        .database
        .read(move |sql| {
            let view = change::load_view(sql, &site)?;
            let nodes: Vec<_> = view
                .nodes
                .iter()
                .map(|row| overview::node(&view.facts(row)))
                .collect();
            let applications: Vec<_> = db::applications::list(sql)?
                .iter()
                .map(|row| view.application(row))
                .collect();
            let relays = relay_view::relays(&view, &own, &presence)
                .iter()
                .map(|detail| detail.relay.health.state)
                .collect();
            Ok(health::site(
                &site.name,
                &nodes,
                &applications,
                relays,
                view.now_ms,
            ))
        })
        .await?;
    Ok(Json(found))
}
