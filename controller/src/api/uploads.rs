//! `PUT /modules/{digest}/content`: a module arrives, at once or in parts, and is checked.
//!
//! ```text
//! claim ─► stream to uploads/…part ─► whole? ─► digest ─► signatures ─► component ─► modules/…
//!               └ cut: kept, 202          └ refused: removed
//! ```

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt as _;
use haar_protocol::grants;
use haar_protocol::ids::Digest;
use haar_protocol::keys::PublicKey;
use haar_protocol::module::MODULE_BYTES_MAX;
use haar_protocol::rest::UploadState;
use tokio::io::AsyncWriteExt as _;

use super::App;
use super::answers::{Answer, Named, json, linger, too_slow};
use super::module_check;
use super::modules::find;
use crate::db::modules::ModuleRow;
use crate::failure::{Failure, Kind};
use crate::module_store::Claim;
use crate::{change, db};

/// How long a client may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Where the body of an upload belongs in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    start: u64,
    /// The size of the whole file; unknown when the body is the file.
    total: Option<u64>,
}

/// `GET /modules/{digest}/upload`
pub(super) async fn state(
    State(app): State<App>,
    Named(digest): Named<Digest>,
) -> Answer<Json<UploadState>> {
    if let Some(module) = find(&app, digest).await? {
        return Ok(Json(UploadState {
            offset: module.bytes,
            complete: true,
        }));
    }
    Ok(Json(UploadState {
        offset: app.modules.part_bytes(digest).await,
        complete: false,
    }))
}

/// `PUT /modules/{digest}/content`
pub(super) async fn upload(
    State(app): State<App>,
    Named(digest): Named<Digest>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Response> {
    let part = match announced(&headers) {
        Ok(part) => part,
        Err(failure) => {
            linger(&headers, body).await;
            return Err(failure);
        }
    };
    let mut body = body.into_data_stream();
    let result = receive_and_check(&app, digest, part, &mut body).await;
    if result.is_err() {
        // Whoever is still sending must get to read why. What is left is no more than a module.
        let _ = tokio::time::timeout(SILENCE_MAX, drain(&mut body)).await;
    }
    result
}

/// What the headers say, before a byte is read.
fn announced(headers: &HeaderMap) -> Result<Part, Failure> {
    let text = |name| {
        headers
            .get(name)
            .map(|value: &axum::http::HeaderValue| value.to_str().unwrap_or_default())
    };
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    let part = match text(header::CONTENT_RANGE) {
        None => Part {
            start: 0,
            total: None,
        },
        Some(range) => parse_content_range(range).ok_or_else(|| {
            Failure::new(
                Kind::Invalid,
                "bad_range",
                "Content-Range is not understood",
            )
            .hint("write `bytes FIRST-LAST/TOTAL`")
        })?,
    };
    let largest = part
        .total
        .unwrap_or(0)
        .max(length.unwrap_or(0))
        .max(part.start);
    if largest > MODULE_BYTES_MAX {
        return Err(too_large(largest));
    }
    Ok(part)
}

/// `bytes FIRST-LAST/TOTAL` (RFC 9110 section 14.4).
fn parse_content_range(text: &str) -> Option<Part> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (start, last, total): (u64, u64, u64) =
        (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (start <= last && last < total).then_some(Part {
        start,
        total: Some(total),
    })
}

fn too_large(bytes: u64) -> Failure {
    Failure::new(
        Kind::TooLarge,
        "too_large",
        format!("a module of {bytes} bytes is larger than the limit of {MODULE_BYTES_MAX} bytes"),
    )
    .hint("build it for release and without debug information: `haar build` does")
}

async fn receive_and_check(
    app: &App,
    digest: Digest,
    part: Part,
    body: &mut BodyDataStream,
) -> Answer<Response> {
    let claim = app.modules.claim(digest)?;
    if let Some(module) = find(app, digest).await? {
        drain(body).await;
        return Ok(json(StatusCode::OK, module));
    }
    let present = app.modules.part_bytes(digest).await;
    if part.start != 0 && part.start != present {
        return Err(Failure::new(
            Kind::Conflict,
            "wrong_offset",
            format!(
                "{present} bytes have arrived, and this part begins at {}",
                part.start
            ),
        )
        .hint("ask `GET …/upload` where to go on"));
    }
    let received = match receive(app, &claim, part, body).await {
        Ok(received) => received,
        Err(failure) => {
            let may_go_on = matches!(failure.code, "cut" | "too_slow" | "disk_full");
            if !may_go_on {
                app.modules.discard_part(&claim).await;
            }
            return Err(failure);
        }
    };
    if part.total.is_some_and(|total| received < total) {
        return Ok(json(
            StatusCode::ACCEPTED,
            UploadState {
                offset: received,
                complete: false,
            },
        ));
    }
    match check_and_keep(app, &claim, digest).await {
        Ok(row) => {
            // Nodes that will want it find it compiled. What no grant lets run is compiled for nobody.
            let can_run = !row.imports.iter().any(|one| grants::is_beyond_all(one));
            let fleet = app
                .database
                .read(|sql| db::statuses::platforms(sql))
                .await?;
            if can_run {
                app.compilation.prepare(row.digest, fleet);
            }
            let publishers = app.database.read(|sql| db::publishers::list(sql)).await?;
            Ok(json(StatusCode::CREATED, row.to_rest(&publishers)))
        }
        Err(failure) => {
            app.modules.discard_part(&claim).await;
            Err(failure)
        }
    }
}

/// Writes the body to the disk. Returns how many bytes of the file are there now.
async fn receive(app: &App, claim: &Claim, part: Part, body: &mut BodyDataStream) -> Answer<u64> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull => Failure::new(
            Kind::Overloaded,
            "disk_full",
            "the controller's disk is full",
        )
        .hint("free some space on the disk of its data directory"),
        _ => Failure::internal(format_args!("writing an upload: {error}")),
    };
    let limit = part.total.unwrap_or(MODULE_BYTES_MAX);
    let mut file = app
        .modules
        .open_part(claim, part.start)
        .await
        .map_err(failed)?;
    let mut bytes = part.start;
    let cut = loop {
        match tokio::time::timeout(SILENCE_MAX, body.next()).await {
            Err(_) => break Some(too_slow()),
            Ok(None) => break None,
            Ok(Some(Err(_))) => {
                break Some(Failure::new(Kind::Invalid, "cut", "the upload was cut off"));
            }
            Ok(Some(Ok(chunk))) => {
                bytes += chunk.len() as u64;
                if bytes > limit {
                    return Err(match part.total {
                        Some(total) => Failure::new(
                            Kind::Invalid,
                            "bad_range",
                            format!("more bytes than the announced {total}"),
                        ),
                        None => too_large(bytes),
                    });
                }
                file.write_all(&chunk).await.map_err(failed)?;
            }
        }
    };
    file.flush().await.map_err(failed)?;
    file.sync_all().await.map_err(failed)?;
    cut.map_or(Ok(bytes), Err)
}

/// Reads what is left of a body that nobody wants.
async fn drain(body: &mut BodyDataStream) {
    let mut left = MODULE_BYTES_MAX;
    while let Ok(Some(Ok(chunk))) = tokio::time::timeout(SILENCE_MAX, body.next()).await {
        match left.checked_sub(chunk.len() as u64) {
            Some(less) => left = less,
            None => break,
        }
    }
}

/// Checks a file that has arrived as a whole; it becomes a module, or a refusal.
async fn check_and_keep(app: &App, claim: &Claim, digest: Digest) -> Answer<ModuleRow> {
    let publishers = app.database.read(|sql| db::publishers::list(sql)).await?;
    let trusted: Vec<PublicKey> = publishers.iter().map(|publisher| publisher.key).collect();
    let permit = app.checks.0.acquire().await.map_err(Failure::internal)?;
    let file = app
        .modules
        .read_part(claim)
        .await
        .map_err(Failure::internal)?;
    let checking =
        tokio::task::spawn_blocking(move || module_check::check(&file, digest, &trusted));
    let checked = checking.await.unwrap_or_else(|error| {
        tracing::error!(%error, %digest, "checking a module panicked");
        Err(Failure::new(
            Kind::Refused,
            "invalid_component",
            "the file made the check fail inside",
        ))
    });
    drop(permit);
    let row = module_check::describe(checked?)?;
    app.modules.keep(claim).await.map_err(Failure::internal)?;
    let site = Arc::clone(&app.site);
    let kept = app
        .database
        .write(move |write| change::keep_module(write, &site, row))
        .await;
    // A file that only brought signatures is not needed.
    if kept.as_ref().map_or(true, |row| row.digest != digest) {
        app.modules.remove(digest).await;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_strictly() {
        let part = |start, total| {
            Some(Part {
                start,
                total: Some(total),
            })
        };
        assert_eq!(parse_content_range("bytes 0-9/10"), part(0, 10));
        assert_eq!(parse_content_range("bytes 5-9/20"), part(5, 20));
        for text in [
            "bytes 9-5/20",
            "bytes 0-10/10",
            "bytes 0-9/*",
            "bytes */10",
            "0-9/10",
            "",
        ] {
            assert_eq!(parse_content_range(text), None, "{text}");
        }
    }
}
