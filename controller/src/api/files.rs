//! Files as answers: whole, or the range that is asked for.

use std::path::Path;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::answers::Answer;
use crate::failure::{Failure, Kind};

/// The file at `path`, or what `headers` ask for of it.
///
/// # Errors
/// When it can't be read, or has nothing in that range.
pub(super) async fn send(path: &Path, content_type: &str, headers: &HeaderMap) -> Answer<Response> {
    let unreadable =
        |error: std::io::Error| Failure::internal(format_args!("{}: {error}", path.display()));
    let mut file = File::open(path).await.map_err(unreadable)?;
    let bytes = file.metadata().await.map_err(unreadable)?.len();
    let range = match headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok())
    {
        Some(text) => parse_range(text, bytes)?,
        None => None,
    };
    let common = [
        (header::CONTENT_TYPE, content_type.to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ];
    let Some((first, last)) = range else {
        let length = [(header::CONTENT_LENGTH, bytes.to_string())];
        return Ok((common, length, Body::from_stream(ReaderStream::new(file))).into_response());
    };
    file.seek(std::io::SeekFrom::Start(first))
        .await
        .map_err(unreadable)?;
    let count = last - first + 1;
    let part = [
        (header::CONTENT_LENGTH, count.to_string()),
        (
            header::CONTENT_RANGE,
            format!("bytes {first}-{last}/{bytes}"),
        ),
    ];
    let body = Body::from_stream(ReaderStream::new(file.take(count)));
    Ok((StatusCode::PARTIAL_CONTENT, common, part, body).into_response())
}

/// The first and last byte that a `Range` header asks for (RFC 9110 section 14.2), in a file of
/// `bytes` bytes. None when the header is to be ignored: another unit, several ranges, malformed.
///
/// # Errors
/// When no byte of the file is in the range.
fn parse_range(text: &str, bytes: u64) -> Result<Option<(u64, u64)>, Failure> {
    let Some((first, last)) = text
        .trim()
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Ok(None);
    };
    let number = |text: &str| text.parse::<u64>().ok();
    let (first, last) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.min(bytes.saturating_sub(1))),
        (Some(first), None) if last.is_empty() => (first, bytes.saturating_sub(1)),
        (None, Some(suffix)) if first.is_empty() => {
            (bytes.saturating_sub(suffix), bytes.saturating_sub(1))
        }
        _ => return Ok(None),
    };
    if first >= bytes {
        return Err(Failure::new(
            Kind::RangeNotSatisfiable(bytes),
            "range_not_satisfiable",
            format!("the file has {bytes} bytes; there is nothing in this range"),
        ));
    }
    Ok(Some((first, last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_has_them() {
        let cases: [(&str, Option<(u64, u64)>); 9] = [
            ("bytes=0-9", Some((0, 9))),
            ("bytes=90-", Some((90, 99))),
            ("bytes=-10", Some((90, 99))),
            ("bytes=-1000", Some((0, 99))),
            ("bytes=5-1000", Some((5, 99))),
            ("bytes=9-5", None),
            ("bytes=0-1,3-4", None),
            ("lines=0-1", None),
            ("bytes=a-b", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_range(text, 100).unwrap(), expected, "{text}");
        }
        for text in ["bytes=100-", "bytes=100-200", "bytes=-0"] {
            assert!(parse_range(text, 100).is_err(), "{text}");
        }
    }
}
