//! `GET /modules/{digest}/content`: the file of a module, or a range of it. People may have any;
//! a node only those of its assignment.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use haar_protocol::ids::Digest;

use super::App;
use super::answers::{Answer, Named};
use super::authentication::Caller;
use super::files;
use super::modules::{find, unknown_module};
use crate::db;
use crate::failure::{Failure, Kind};

/// `GET /modules/{digest}/content`
pub(super) async fn download(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Named(digest): Named<Digest>,
    headers: HeaderMap,
) -> Answer<Response> {
    check_assigned(&app, caller, digest).await?;
    find(&app, digest)
        .await?
        .filter(|module| module.digest == digest)
        .ok_or_else(|| unknown_module(digest))?;
    let mut answer = files::send(&app.modules.path(digest), "application/wasm", &headers).await?;
    let etag = HeaderValue::from_str(&format!("\"{digest}\"")).map_err(Failure::internal)?;
    answer.headers_mut().insert(header::ETAG, etag);
    Ok(answer)
}

/// People may have any module; a node only those of its assignment.
pub(super) async fn check_assigned(app: &App, caller: Caller, digest: Digest) -> Answer<()> {
    if let Caller::Node(node) = caller {
        let is_assigned = app
            .database
            .read(move |sql| db::assignments::names_module(sql, &node, &digest))
            .await?;
        if !is_assigned {
            return Err(Failure::new(
                Kind::Forbidden,
                "not_assigned",
                format!("module {digest} is not in this node's assignment"),
            ));
        }
    }
    Ok(())
}
