//! Messages that no instance could handle, as nodes tell people of them. A node keeps them; they
//! travel in answers to requests ([`crate::request`]) and in bodies of the REST API.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::assignment::MicroserviceName;
use crate::ids::{InvalidId, Name};

/// Letters that may be named in one request.
pub const LETTERS_NAMED_MAX: usize = 1_000;
/// Letters of one page at most.
pub const PAGE_LETTERS_MAX: u32 = 500;
/// Refused replays that one answer tells of.
pub const REFUSED_REPLAYS_MAX: usize = 100;

/// A dead letter without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeadLetter {
    /// Counts up on its node; never used twice.
    pub id: u64,
    /// Who should have handled it.
    #[serde(flatten)]
    pub owner: MicroserviceName,
    /// The inlet that it entered.
    pub inlet: String,
    /// Who published it.
    pub source: Source,
    /// Its number among the messages of its outlet.
    pub sequence: u64,
    /// When it was published: milliseconds since the Unix epoch by the publishing node's clock.
    pub published_ms: u64,
    /// Its media type.
    pub content_type: String,
    /// Bytes of its body.
    pub body_bytes: u64,
    /// How often it was delivered.
    pub attempts: u32,
    /// Why it was given up.
    pub reason: String,
    /// When: milliseconds since the Unix epoch by the node's clock.
    pub died_ms: u64,
}

/// Who published a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Source {
    /// Name of the node.
    pub node: String,
    /// Name of the application.
    pub application: String,
    /// Name of the microservice.
    pub microservice: String,
    /// Name of the outlet.
    pub outlet: String,
}

/// A dead letter with its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WholeDeadLetter {
    /// Everything else.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// Headers that the publisher set, in their order.
    pub headers: Vec<Header>,
    /// The message itself.
    pub body: Base64,
}

/// A header of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Header {
    /// What it is called.
    pub name: String,
    /// What it says.
    pub value: String,
}

/// Bytes, written in base64 (RFC 4648 section 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String", extend("contentEncoding" = "base64")))]
#[serde(try_from = "String", into = "String")]
pub struct Base64(pub Vec<u8>);

impl TryFrom<String> for Base64 {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        let decoded = STANDARD.decode(text);
        decoded
            .map(Self)
            .map_err(|error| InvalidId(format!("not base64: {error}")))
    }
}

impl From<Base64> for String {
    fn from(bytes: Base64) -> String {
        STANDARD.encode(bytes.0)
    }
}

/// Some of the letters, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeadLetterPage {
    /// The letters.
    pub items: Vec<DeadLetter>,
    /// Where the next page begins: after this id. Nothing when this is the last page.
    pub next_after: Option<u64>,
}

/// Which letters are replayed or dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum DeadLetterSelection {
    /// These.
    Named(NamedLetters),
    /// All of one microservice.
    All(LettersOf),
}

/// Letters by their ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NamedLetters {
    /// Their ids, at most 1,000.
    #[cfg_attr(feature = "schema", schemars(length(max = 1000)))]
    pub ids: Vec<u64>,
}

/// Letters by their microservice.
// Not the flattened name: what says more than this is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LettersOf {
    /// The application.
    pub application: Name,
    /// The microservice in it.
    pub microservice: Name,
}

/// What became of letters that were to be replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Replayed {
    /// Letters that wait in an inbox again, and are dead letters no more.
    pub replayed: u64,
    /// Letters that stay where they are, the first 100 of them.
    pub refused: Vec<RefusedReplay>,
    /// Letters that were not tried: time was up, or too many were refused. Ask again.
    pub left: u64,
}

/// Why a letter is not replayed that is not there.
pub const NOT_THERE: &str = "the node keeps no such dead letter";

/// A letter that was not replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RefusedReplay {
    /// Its id.
    pub id: u64,
    /// Why, for people.
    pub reason: String,
}

/// What became of letters that were to be dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Dropped {
    /// How many there were, and are no more.
    pub dropped: u64,
}
