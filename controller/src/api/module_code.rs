//! `/modules/{digest}/code`: what the controller has compiled of a module, for people to see and
//! for nodes to run. Nodes get only that of their assignment.

use axum::Extension;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use haar_protocol::ids::Digest;
use haar_protocol::rest::{List, ModuleCode};
use serde::Deserialize;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use super::App;
use super::answers::{self, Answer, Named, Parameters};
use super::authentication::Caller;
use super::module_content::check_assigned;
use super::modules::{find, unknown_module};
use crate::compilation::Platform;
use crate::failure::{Failure, Kind};

/// Which engine the code is for.
#[derive(Debug, Deserialize)]
pub(super) struct Engine {
    engine: String,
}

/// `GET /modules/{digest}/code`
pub(super) async fn list(
    State(app): State<App>,
    Named(digest): Named<Digest>,
) -> Answer<Json<List<ModuleCode>>> {
    find(&app, digest)
        .await?
        .ok_or_else(|| unknown_module(digest))?;
    Ok(answers::list(app.compilation.list(digest)))
}

/// `GET /modules/{digest}/code/{target}?engine=`
pub(super) async fn download(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Named((digest, target)): Named<(Digest, String)>,
    Parameters(Engine { engine }): Parameters<Engine>,
) -> Answer<Response> {
    check_assigned(&app, caller, digest).await?;
    find(&app, digest)
        .await?
        .ok_or_else(|| unknown_module(digest))?;
    let platform = Platform::new(&engine, &target).ok_or_else(|| {
        Failure::new(
            Kind::Invalid,
            "bad_platform",
            "an engine is 64 hexadecimal digits, a target a short word such as aarch64-linux",
        )
    })?;
    let path = app.compilation.code(digest, platform).await?;
    let unreadable =
        |error: std::io::Error| Failure::internal(format_args!("{}: {error}", path.display()));
    let file = File::open(&path).await.map_err(unreadable)?;
    let bytes = file.metadata().await.map_err(unreadable)?.len();
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, bytes.to_string()),
    ];
    Ok((headers, Body::from_stream(ReaderStream::new(file))).into_response())
}
