//! Pairs of key and value that outlive the instance: over restarts, updates and power cuts. Mirrors
//! `wasi:keyvalue`. The manifest must grant it, and says how much may be stored, and how often: each
//! call that writes is a commit on the node's flash, a batch as one. Calls that come faster wait.
//!
//! ```no_run
//! # fn count() -> Result<(), String> {
//! use haar_guest::{key_value, log};
//!
//! let counts = key_value::open("counts")?;
//! let starts = counts.increment("starts", 1)?;
//! log::info!("started for the {starts}. time");
//! # Ok(())
//! # }
//! ```

use crate::agent_key_value::Handle;

/// Opens a bucket of the microservice's own; `""` is a good name when one is enough.
pub fn open(name: &str) -> Result<Bucket, KeyValueError> {
    Handle::open(name).map(Bucket)
}

/// A collection of pairs. Keys have 1 to 512 bytes. What a call has stored is on the disk when it
/// returns.
#[derive(Debug)]
pub struct Bucket(Handle);

impl Bucket {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.0.get(key)
    }

    /// The value of a key as text; none also where it is not UTF-8.
    pub fn get_text(&self, key: &str) -> Result<Option<String>, KeyValueError> {
        let value = self.get(key)?;
        Ok(value.and_then(|value| String::from_utf8(value).ok()))
    }

    /// Stores a pair, in the place of one with the same key.
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), KeyValueError> {
        self.0.set(key, value.as_ref())
    }

    /// Removes a pair, if it is there.
    pub fn delete(&self, key: &str) -> Result<(), KeyValueError> {
        self.0.delete(key)
    }

    /// Whether there is a pair with this key.
    pub fn exists(&self, key: &str) -> Result<bool, KeyValueError> {
        self.0.exists(key)
    }

    /// All keys of the bucket.
    pub fn keys(&self) -> Result<Vec<String>, KeyValueError> {
        let (mut keys, mut next) = self.0.keys(None)?;
        while let Some(cursor) = next {
            let (more, following) = self.0.keys(Some(&cursor))?;
            keys.extend(more);
            next = following;
        }
        Ok(keys)
    }

    /// Adds to the number that a key holds, as decimal text or as 8 little-endian bytes; a key that
    /// is not there counts as 0. Returns the sum. Nobody can come between.
    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, KeyValueError> {
        self.0.increment(key, delta)
    }

    /// Stores a value if the one there is `expected` (none: if there is none). False when it is not.
    /// Nobody can come between.
    pub fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<&[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<bool, KeyValueError> {
        self.0.compare_and_swap(key, expected, value.as_ref())
    }

    /// The values of at most 1,000 keys, in the order given.
    pub fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, KeyValueError> {
        self.0.get_many(keys)
    }

    /// Stores at most 1,000 pairs: all of them or, on an error, none.
    pub fn set_many(&self, pairs: &[(&str, &[u8])]) -> Result<(), KeyValueError> {
        self.0.set_many(pairs)
    }

    /// Removes at most 1,000 pairs; keys that are not there are passed over.
    pub fn delete_many(&self, keys: &[&str]) -> Result<(), KeyValueError> {
        self.0.delete_many(keys)
    }
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyValueError {
    /// There can't be a bucket of this name.
    NoSuchStore,
    /// The microservice may not use the bucket.
    AccessDenied,
    /// Anything else, such as a limit that is reached; the text says what.
    Other(String),
}

impl std::fmt::Display for KeyValueError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the key-value store: ")?;
        match self {
            KeyValueError::NoSuchStore => formatter.write_str("there is no such bucket"),
            KeyValueError::AccessDenied => formatter.write_str("the bucket may not be used"),
            KeyValueError::Other(reason) => formatter.write_str(reason),
        }
    }
}

impl std::error::Error for KeyValueError {}

/// For `?` in the functions of a microservice whose errors are texts.
impl From<KeyValueError> for String {
    fn from(error: KeyValueError) -> String {
        error.to_string()
    }
}

/// A handler that can't store because of the moment wants its message again.
impl From<KeyValueError> for crate::Rejection {
    fn from(error: KeyValueError) -> Self {
        crate::Rejection::Retry(error.to_string())
    }
}
