//! `/tokens`: enrolment tokens.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use haar_protocol::rest::{Token, TokenRequest};
use haar_protocol::token::EnrolmentToken;

use super::App;
use super::answers::{Answer, JsonBody};
use crate::failure::{Failure, Kind};
use crate::site::{random, sha256};
use crate::{change, db};

const LIFE_S: u64 = 3_600;
const LIFE_MAX_S: u64 = 365 * 86_400;

/// `POST /tokens`
pub(super) async fn create(
    State(app): State<App>,
    JsonBody(request): JsonBody<TokenRequest>,
) -> Answer<(StatusCode, Json<Token>)> {
    let life_s = request.expires_in_s.unwrap_or(LIFE_S);
    if !(1..=LIFE_MAX_S).contains(&life_s) {
        return Err(Failure::new(
            Kind::Invalid,
            "bad_expiry",
            format!("a token may be good for 1 to {LIFE_MAX_S} seconds, not {life_s}"),
        ));
    }
    change::check_labels(&request.labels)?;
    let secret = hex::encode(random().map_err(Failure::internal)?);
    let hash = sha256(secret.as_bytes());
    let expires_ms = app
        .database
        .write(move |write| {
            let expires_ms = write.now_ms + life_s * 1_000;
            let TokenRequest { name, labels, .. } = request;
            let token = db::enrolments::EnrolmentToken {
                name,
                labels,
                expires_ms,
                used_by: None,
            };
            db::enrolments::insert(&write.sql, &hash, &token, write.now_ms)?;
            Ok(expires_ms)
        })
        .await?;
    let token = EnrolmentToken {
        url: app.url.clone(),
        site: app.site.id.clone(),
        ca_sha256: app.site.ca_sha256.clone(),
        secret,
        expires_ms,
    };
    Ok((
        StatusCode::CREATED,
        Json(Token {
            token: token.to_string(),
            expires_ms,
        }),
    ))
}
