//! The site's REST API (`haar_protocol::rest`) from the person's side: one request after the
//! other, blocking. The CA in the context is the only one that is trusted. Tells the ways apart in
//! which a site can't be reached, because each wants another remedy.

mod failure;
pub(crate) mod upload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use haar_protocol::context::Context;
use haar_protocol::ids::Name;
use haar_protocol::quantity::Millis;
use haar_protocol::rest::{ErrorBody, List, SiteInfo};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http;

use crate::config::Options;
use crate::error::{CommandError, Result};

/// The most of one answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may be silent before it counts as cut. Event streams have signs of life.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// A site and who asks it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
    context: Context,
    context_file: PathBuf,
}

/// What goes with a request.
#[derive(Debug, Clone, Copy)]
enum Body<'a> {
    None,
    /// None; a stream goes on behind this event.
    Stream(Option<u64>),
    Json(&'a str),
    Yaml(&'a str),
    /// Bytes of a file of `total` bytes, from `offset` on.
    Part {
        bytes: &'a [u8],
        offset: u64,
        total: u64,
    },
}

/// A success: its status and its text.
struct Answer {
    status: u16,
    text: String,
}

impl Client {
    /// The client for the context that the command works in.
    pub(crate) fn of(options: &Options) -> Result<Self> {
        let (context, file) = options.load_context()?;
        Self::new(context, &file)
    }

    /// The same for someone who does not wait: a request takes `time` at most.
    pub(crate) fn within(time: Duration, options: &Options) -> Result<Self> {
        let (context, file) = options.load_context()?;
        Self::bounded(context, &file, Some(time))
    }

    pub(crate) fn new(context: Context, context_file: &Path) -> Result<Self> {
        Self::bounded(context, context_file, None)
    }

    fn bounded(context: Context, context_file: &Path, time: Option<Duration>) -> Result<Self> {
        check_url(&context.url, context_file)?;
        let certificates = certificates(&context.ca_pem, context_file)?;
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::new_with_certs(&certificates))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .proxy(None) // controllers are reached directly, as agents and relays are
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("haar/", env!("CARGO_PKG_VERSION")))
            .timeout_global(time)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_per_read(Some(SILENCE_TIMEOUT))
            .timeout_per_write(Some(SILENCE_TIMEOUT))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            context,
            context_file: context_file.to_owned(),
        })
    }

    /// The context that is worked in.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Where the context came from.
    pub(crate) fn context_file(&self) -> &Path {
        &self.context_file
    }

    /// The text that the API answers; `path` is below `/api/v1/`.
    pub(crate) fn get_text(&self, path: &str) -> Result<String> {
        self.call("GET", path, Body::None).map(|answer| answer.text)
    }

    /// The value that the API answers.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.parse(&self.get_text(path)?)
    }

    /// The entries of a collection.
    pub(crate) fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        self.get::<List<T>>(path).map(|list| list.items)
    }

    /// Posts a value; the text that the API answers.
    pub(crate) fn post_text(&self, path: &str, value: &impl Serialize) -> Result<String> {
        self.call("POST", path, Body::Json(&to_json(value)?))
            .map(|answer| answer.text)
    }

    /// Fails when the site has no such application, microservice or node, and suggests the nearest name.
    pub(crate) fn check_names(
        &self,
        application: Option<&Name>,
        microservice: Option<&Name>,
        node: Option<&Name>,
    ) -> Result<()> {
        let parts = [
            ("application", application),
            ("microservice", microservice),
            ("node", node),
        ];
        // Names need no escapes in a URL.
        let query: String = parts
            .iter()
            .filter_map(|(key, name)| name.map(|name| format!("{key}={name}&")))
            .collect();
        // A query that finds nothing reports which of its names does not exist.
        self.get_text(&format!("logs?{query}tail=0")).map(drop)
    }

    /// Puts a value. Returns the text of the answer.
    pub(crate) fn put_text(&self, path: &str, value: &impl Serialize) -> Result<String> {
        self.call("PUT", path, Body::Json(&to_json(value)?))
            .map(|answer| answer.text)
    }

    /// Puts a manifest. Returns the text of the answer.
    pub(crate) fn put_manifest(&self, path: &str, yaml: &str) -> Result<String> {
        self.call("PUT", path, Body::Yaml(yaml))
            .map(|answer| answer.text)
    }

    /// Deletes something. Returns the text of the answer.
    pub(crate) fn delete(&self, path: &str) -> Result<String> {
        self.call("DELETE", path, Body::None)
            .map(|answer| answer.text)
    }

    /// Opens a stream of server-sent events, behind the event `last` when there is one.
    pub(crate) fn open_stream(
        &self,
        path: &str,
        last: Option<u64>,
    ) -> Result<ureq::BodyReader<'static>> {
        let response = self.send("GET", path, Body::Stream(last), "text/event-stream")?;
        Ok(response
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader())
    }

    /// The part of a query that asks for what is no older than `since`, by the controller's clock.
    pub(crate) fn since(&self, since: Option<Millis>) -> Result<String> {
        let Some(Millis(since_ms)) = since else {
            return Ok(String::new());
        };
        let now_ms = self.get::<SiteInfo>("site")?.time_ms;
        Ok(format!("since_ms={}&", now_ms.saturating_sub(since_ms)))
    }

    /// Reads a value from an answer.
    pub(crate) fn parse<T: DeserializeOwned>(&self, text: &str) -> Result<T> {
        serde_json::from_str(text).map_err(|error| {
            CommandError::failure(format!("the answer of the site `{}` is not understood: {error}", self.context.name))
                .hinted("Are `haar` and the controller of about the same release? See `haar version --site`.")
        })
    }

    fn call(&self, method: &str, path: &str, body: Body<'_>) -> Result<Answer> {
        let mut response = self.send(method, path, body, "application/json")?;
        let status = response.status().as_u16();
        let text = self.read(response.body_mut())?;
        Ok(Answer { status, text })
    }

    /// Sends a request and turns whatever is not a success into an error.
    fn send(
        &self,
        method: &str,
        path: &str,
        body: Body<'_>,
        accept: &str,
    ) -> Result<http::Response<ureq::Body>> {
        let uri = format!("{}/api/v1/{path}", self.context.url.trim_end_matches('/'));
        let mut request = http::Request::builder()
            .method(method)
            .uri(uri)
            .header("Accept", accept)
            .header("Authorization", format!("Bearer {}", self.context.token));
        let content = match body {
            Body::None | Body::Stream(None) => None,
            Body::Stream(Some(last)) => {
                request = request.header("Last-Event-ID", last.to_string());
                None
            }
            Body::Json(text) => Some(("application/json", text.as_bytes())),
            Body::Yaml(text) => Some(("application/yaml", text.as_bytes())),
            Body::Part {
                bytes,
                offset,
                total,
            } => {
                let last = (offset + bytes.len() as u64).saturating_sub(1);
                request = request.header("Content-Range", format!("bytes {offset}-{last}/{total}"));
                Some(("application/wasm", bytes))
            }
        };
        let unusable = |error: http::Error| {
            CommandError::failure(format!("{}: {error}", self.context_file.display()))
        };
        let sent = match content {
            None => self.agent.run(request.body(()).map_err(unusable)?),
            Some((kind, bytes)) => self.agent.run(
                request
                    .header("Content-Type", kind)
                    .body(bytes)
                    .map_err(unusable)?,
            ),
        };
        let mut response = sent.map_err(|error| self.unreachable(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let text = self.read(response.body_mut()).unwrap_or_default();
        Err(self.refusal(status, &text))
    }

    fn read(&self, body: &mut ureq::Body) -> Result<String> {
        body.with_config()
            .limit(ANSWER_BYTES_MAX)
            .lossy_utf8(true)
            .read_to_string()
            .map_err(|error| self.unreachable(error))
    }

    /// An answer that is not a success.
    fn refusal(&self, status: u16, text: &str) -> CommandError {
        match serde_json::from_str::<ErrorBody>(text) {
            Ok(body) => {
                let mut error = CommandError::from_site(status, body);
                if status == 401 && error.hint.is_none() {
                    error = error.hinted(format!(
                        "The token in {} is not valid: copy the context file again.",
                        self.context_file.display()
                    ));
                }
                error
            }
            Err(_) => {
                let body = ErrorBody {
                    code: "unexpected_answer".into(),
                    message: format!(
                        "{} answers with the HTTP status {status} only",
                        self.context.url
                    ),
                    hint: None,
                };
                CommandError::from_site(status, body)
                    .hinted("Is this Haar's controller, with nothing in between?")
            }
        }
    }

    fn unreachable(&self, error: ureq::Error) -> CommandError {
        failure::explain(error, &self.context, &self.context_file)
    }
}

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| CommandError::failure(format!("can't write the request: {error}")))
}

/// The token never crosses a network in clear.
fn check_url(url: &str, file: &Path) -> Result<()> {
    let loopback = ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"];
    if url.starts_with("https://") || loopback.iter().any(|start| url.starts_with(start)) {
        return Ok(());
    }
    let message = format!(
        "{}: the url `{url}` is not one to send a token to",
        file.display()
    );
    Err(CommandError::refused("bad_context", message).hinted("It must begin with https://."))
}

fn certificates(pem: &str, file: &Path) -> Result<Vec<ureq::tls::Certificate<'static>>> {
    let unusable = |why: String| {
        CommandError::refused(
            "bad_context",
            format!("{}: ca_pem holds no certificate{why}", file.display()),
        )
        .hinted("Copy the context file again from the machine that runs the controller.")
    };
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(pem.as_bytes()) {
        if let ureq::tls::PemItem::Certificate(certificate) =
            item.map_err(|error| unusable(format!(": {error}")))?
        {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        Err(unusable(String::new()))
    } else {
        Ok(certificates)
    }
}
