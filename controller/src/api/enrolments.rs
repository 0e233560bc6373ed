//! `/enrolments`: devices join.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use haar_protocol::rest::{Enrolment, EnrolmentRequest};

use super::App;
use super::answers::{Answer, JsonBody};
use crate::change;
use crate::server::Visitor;

/// `POST /enrolments`
pub(super) async fn create(
    State(app): State<App>,
    Extension(visitor): Extension<Visitor>,
    JsonBody(request): JsonBody<EnrolmentRequest>,
) -> Answer<(StatusCode, Json<Enrolment>)> {
    visitor.turn().await?;
    let site = Arc::clone(&app.site);
    let joining = app
        .database
        .write(move |write| change::enrol(write, &site, &request))
        .await
        .inspect_err(|_| visitor.failed())?;
    let enrolment = Enrolment {
        site: app.site.id.clone(),
        site_key: app.site.key.public(),
        node: joining.node,
        name: joining.name,
        relays: app.relays.clone(),
        ca_pem: app.site.ca_pem.clone(),
    };
    Ok((StatusCode::CREATED, Json(enrolment)))
}
