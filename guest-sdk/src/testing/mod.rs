//! Tests of a microservice's logic on the development machine: a [`Harness`] stands in for the
//! agent. It serves configuration, key-value data and histories (of every port), records what is
//! published, logged and timed, and calls the microservice as the agent does: `start` first, one
//! call at a time. It enforces no limits.

mod harness;
pub(crate) mod history;
pub(crate) mod imports;
pub(crate) mod key_value;
pub(crate) mod system;
mod world;

use std::sync::Arc;

use crate::log::Level;
use crate::message::{Message, Source};

pub use harness::Harness;
pub use system::Measurements;
pub use world::Timer;

/// When tests begin: milliseconds since 1970-01-01T00:00:00Z.
const BEGINNING_MS: u64 = 1_700_000_000_000;

/// A message as it would enter `inlet`, from an outlet `out` of a microservice `sender` on a node
/// `node-1`. For other values: `Message { sequence: 7, ..message("in", "body") }`.
pub fn message(inlet: &str, body: impl AsRef<[u8]>) -> Message {
    Message {
        inlet: inlet.into(),
        source: Arc::new(Source {
            site: "s-test".to_owned(),
            node: "node-1".to_owned(),
            application: "application".to_owned(),
            microservice: "sender".to_owned(),
            outlet: "out".to_owned(),
        }),
        sequence: 1,
        published_ms: BEGINNING_MS,
        content_type: "application/octet-stream".into(),
        headers: Vec::new(),
        body: body.as_ref().to_vec(),
        attempt: 1,
    }
}

/// A message that the microservice published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Name of the outlet.
    pub outlet: String,
    /// Its number among the messages of this outlet, from 1 up.
    pub sequence: u64,
    /// Headers as they were set.
    pub headers: Vec<(String, String)>,
    /// The message itself.
    pub body: Vec<u8>,
}

impl Published {
    /// The body as text; bytes that are not UTF-8 show as replacement characters.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body read as JSON.
    ///
    /// # Panics
    /// When the body is not a `T`.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!(
                "what was published is not the JSON that was expected: {error}: {}",
                self.text()
            ),
        }
    }

    /// The same message as it enters `inlet` of another microservice, coming from `node`: for tests
    /// of several microservices in a row.
    pub fn into_message(self, node: &str, inlet: &str) -> Message {
        let mut entering = message(inlet, self.body);
        let source = Arc::make_mut(&mut entering.source);
        node.clone_into(&mut source.node);
        source.outlet = self.outlet;
        entering.sequence = self.sequence;
        entering.headers = self.headers;
        entering
    }
}

/// A line that the microservice logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How important it is.
    pub level: Level,
    /// The part of the microservice that speaks; may be empty.
    pub context: String,
    /// The line itself.
    pub text: String,
}
