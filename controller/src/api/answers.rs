//! What handlers have in common: failures as HTTP, and requests read so that every mistake is
//! answered with an `ErrorBody`.

use std::fmt::Display;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::path::ErrorKind;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use haar_protocol::number;
use haar_protocol::rest::{ErrorBody, List};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::{Failure, Kind};

/// What handlers answer.
pub(super) type Answer<T> = Result<T, Failure>;

/// All entries of a collection.
pub(super) fn list<T>(items: Vec<T>) -> Json<List<T>> {
    Json(List { items })
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.kind {
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::RangeNotSatisfiable(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Kind::Refused => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::Timeout => StatusCode::REQUEST_TIMEOUT,
            Kind::TooOften => StatusCode::TOO_MANY_REQUESTS,
            Kind::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Kind::NodeTimeout => StatusCode::GATEWAY_TIMEOUT,
            Kind::NodeFailed => StatusCode::BAD_GATEWAY,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let kind = self.kind;
        let body = ErrorBody {
            code: self.code.to_owned(),
            message: self.message,
            hint: self.hint,
        };
        let mut response = (status, Json(body)).into_response();
        if kind == Kind::Unauthenticated {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Kind::RangeNotSatisfiable(bytes) = kind
            && let Ok(value) = HeaderValue::from_str(&format!("bytes */{bytes}"))
        {
            response.headers_mut().insert(header::CONTENT_RANGE, value);
        }
        response
    }
}

/// The body of a request, read as JSON whatever its content type says.
pub(super) struct JsonBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Serialize> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = read(request, state).await?;
        let refused = |error: &dyn Display| {
            let message = format!("the body is not what is expected here: {error}");
            Failure::new(Kind::Invalid, "bad_json", message)
                .hint("the bodies are described at /api/v1/openapi.json")
        };
        let written: Value = number::from_slice(&bytes).map_err(|error| refused(&error))?;
        let read: T = number::from_slice(&bytes).map_err(|error| refused(&error))?;
        let understood = serde_json::to_value(&read)?;
        match list_for_object(&written, &understood, "the body") {
            Some(what) => Err(refused(&format!("{what} is a list, and must be an object"))),
            None => Ok(JsonBody(read)),
        }
    }
}

/// What was written as a list and understood as an object: the parser takes the fields in their order,
/// and a list without any as an object that says nothing.
fn list_for_object(written: &Value, understood: &Value, what: &str) -> Option<String> {
    match (written, understood) {
        (Value::Array(_), Value::Object(_)) => Some(what.to_owned()),
        (Value::Object(written), Value::Object(understood)) => {
            written.iter().find_map(|(key, value)| {
                list_for_object(value, understood.get(key)?, &format!("`{key}`"))
            })
        }
        (Value::Array(written), Value::Array(understood)) => {
            let mut pairs = written.iter().zip(understood);
            pairs.find_map(|(value, other)| list_for_object(value, other, what))
        }
        _ => None,
    }
}

/// The body of a request as text.
pub(super) struct Text(pub(super) String);

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = read(request, state).await?;
        String::from_utf8(bytes.into())
            .map(Text)
            .map_err(|_| Failure::new(Kind::Invalid, "bad_text", "the body is not UTF-8 text"))
    }
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Failure> {
    let reading = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state));
    let bytes = reading.await.map_err(|_| too_slow())?;
    bytes.map_err(|rejection: BytesRejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Failure::new(
            Kind::TooLarge,
            "too_large",
            format!("the body is larger than {} bytes", super::BODY_BYTES_MAX),
        ),
        _ => Failure::new(Kind::Invalid, "bad_body", rejection.body_text()),
    })
}

const BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// The client did not send what it announced in time.
pub(super) fn too_slow() -> Failure {
    Failure::new(
        Kind::Timeout,
        "too_slow",
        "the body of the request did not arrive in time",
    )
}

/// Bytes of an unwanted body that are read all the same, and for how long.
const LINGER_BYTES_MAX: u64 = 2 << 20;
const LINGER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Reads what is left of a body that nobody wants, if it is small: a client that is still sending
/// when the connection closes never reads why it was refused. One that waits for `100 Continue`
/// has sent nothing, and large bodies are not worth it.
pub(super) async fn linger(headers: &HeaderMap, body: Body) {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if headers.contains_key(header::EXPECT)
        || announced.is_some_and(|bytes| bytes > LINGER_BYTES_MAX)
    {
        return;
    }
    let mut body = body.into_data_stream();
    let reading = async {
        let mut left = LINGER_BYTES_MAX;
        while let Some(Ok(chunk)) = body.next().await {
            match left.checked_sub(chunk.len() as u64) {
                Some(less) => left = less,
                None => break,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_TIMEOUT, reading).await; // too slow: then it is cut off
}

/// Characters of what was sent that an answer repeats.
const SHOWN_CHARACTERS_MAX: usize = 64;

/// The one parameter of a path.
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Named(value)),
            Err(rejection) => Err(bad_path(&rejection)),
        }
    }
}

fn bad_path(rejection: &PathRejection) -> Failure {
    let text = match rejection {
        PathRejection::FailedToDeserializePathParams(inner) => match inner.kind() {
            ErrorKind::ParseErrorAtKey { value, .. }
            | ErrorKind::ParseErrorAtIndex { value, .. }
            | ErrorKind::ParseError { value, .. } => not_a_number(value),
            ErrorKind::DeserializeError { message, .. } | ErrorKind::Message(message) => {
                message.clone()
            }
            _ => inner.body_text(),
        },
        other => other.body_text(),
    };
    Failure::new(Kind::Invalid, "bad_name", text)
}

fn not_a_number(value: &str) -> String {
    let shown: String = value.chars().take(SHOWN_CHARACTERS_MAX).collect();
    format!(
        "`{}` is not a whole number from 0 to {}",
        shown.escape_debug(),
        number::NUMBER_MAX
    )
}

/// The parameters of a query.
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let rejected = |rejection: QueryRejection| {
            Failure::new(
                Kind::Invalid,
                "bad_query",
                query_problem(&rejection.body_text()),
            )
            .hint("the parameters are described at /api/v1/openapi.json")
        };
        let Query(value) = Query::<T>::from_request_parts(parts, state)
            .await
            .map_err(rejected)?;
        Ok(Parameters(value))
    }
}

/// What is wrong with a parameter, in words that say what to write instead.
fn query_problem(text: &str) -> String {
    let text = text
        .strip_prefix("Failed to deserialize query string: ")
        .unwrap_or(text);
    let Some((name, why)) = text.split_once(": ") else {
        return text.to_owned();
    };
    let why = if why.starts_with("invalid digit found") {
        "write a whole number, 0 or more"
    } else if why.starts_with("cannot parse integer from empty") {
        "it is empty: write a whole number, or leave it out"
    } else if why.starts_with("number too large") {
        "the number is too large"
    } else if why.starts_with("provided string was not") {
        "write `true` or `false`"
    } else {
        why
    };
    format!("the parameter `{name}`: {why}")
}

/// JSON that is computed as a value.
pub(super) fn json<T: Serialize>(status: StatusCode, value: T) -> Response {
    (status, Json(value)).into_response()
}

/// No route has this path.
pub(super) async fn unknown_path(uri: Uri, request: Request) -> Failure {
    let path: String = uri.path().chars().take(200).collect();
    let (parts, body) = request.into_parts();
    linger(&parts.headers, body).await;
    Failure::new(
        Kind::NotFound,
        "unknown_path",
        format!("there is nothing at `{path}`"),
    )
    .hint("the routes are listed at /api/v1/openapi.json")
}

/// The path is there, the method is not.
pub(super) async fn wrong_method(method: Method, uri: Uri, request: Request) -> Failure {
    let path: String = uri.path().chars().take(200).collect();
    let (parts, body) = request.into_parts();
    linger(&parts.headers, body).await;
    Failure::new(
        Kind::WrongMethod,
        "wrong_method",
        format!("`{path}` does not answer to {method}"),
    )
    .hint("the routes are listed at /api/v1/openapi.json")
}
