//! Why a request was refused, for programs (a stable code) and for people (what failed, what to do
//! next). Made wherever something is refused; only `api` turns it into HTTP.

use std::fmt;

/// What kind of failure it is: decides the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request makes no sense.
    Invalid,
    /// Nobody known asks.
    Unauthenticated,
    /// Somebody known asks for what is not theirs.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The path is known, the method is not.
    WrongMethod,
    /// It does not go together with what is there.
    Conflict,
    /// More bytes than anybody takes.
    TooLarge,
    /// A part of a file that does not exist was asked for; the file's size in bytes.
    RangeNotSatisfiable(u64),
    /// Understood, and refused for what it says.
    Refused,
    /// The client was too slow.
    Timeout,
    /// The caller asks too often.
    TooOften,
    /// There is no room, or too much to do.
    Overloaded,
    /// A node did not answer in time.
    NodeTimeout,
    /// A node failed.
    NodeFailed,
    /// We failed.
    Internal,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Decides the HTTP status.
    pub(crate) kind: Kind,
    /// For programs: stable, in snake case.
    pub(crate) code: &'static str,
    /// For people: what failed, and which one.
    pub(crate) message: String,
    /// For people: what to do next.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A refusal without a hint.
    pub(crate) fn new(kind: Kind, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// The same refusal, saying what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// We failed: the cause goes to the log, the caller learns only that.
    pub(crate) fn internal(cause: impl fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed inside the controller");
        Self::new(Kind::Internal, "internal", "the controller failed inside")
            .hint("look into the controller's log")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(formatter, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
            tracing::error!(%error, "the disk is full");
            return Self::new(
                Kind::Overloaded,
                "disk_full",
                "the controller's disk is full",
            )
            .hint("free some space on the disk of its data directory");
        }
        Self::internal(format_args!("database: {error}"))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(format_args!("a stored document does not parse: {error}"))
    }
}
