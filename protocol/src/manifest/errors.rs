//! What is wrong with a manifest, told so that a person can go there and mend it, and in fields
//! for programs. Made by the parser only; never holds the text of the manifest beyond short
//! quotations, and never a control character that would reach somebody's terminal.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many errors are told at one time; whoever has more begins with these.
const ERRORS_MAX: usize = 50;
/// After so many errors the parser looks for no more in long lists and maps: whoever sends a text
/// full of errors gets no work done with it.
pub(super) const PROBLEMS_MAX: usize = 200;

/// One thing that is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ManifestError {
    /// The file, as the caller named it.
    pub file: String,
    /// Line in the file, from 1 up.
    pub line: usize,
    /// Column in characters, from 1 up.
    pub column: usize,
    /// What it is about, such as `microservices[1].limits.memory`; empty for the whole file.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(formatter, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a manifest, in the order of the file. Never empty. Printed as one
/// line for each error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ManifestErrors {
    /// The errors, at most 50.
    pub errors: Vec<ManifestError>,
    /// How many more were found.
    pub more: usize,
}

impl ManifestErrors {
    pub(super) fn new(mut errors: Vec<ManifestError>) -> Self {
        errors.sort_by_key(|error| (error.line, error.column));
        let more = errors.len().saturating_sub(ERRORS_MAX);
        errors.truncate(ERRORS_MAX);
        Self { errors, more }
    }
}

impl fmt::Display for ManifestErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(formatter, "{end}{error}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(formatter, "\nand {more} more"),
        }
    }
}

impl std::error::Error for ManifestErrors {}

/// Something wrong at a key, before it is known where in the file that key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) at: KeyPath,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Problem {
    pub(super) fn new(at: &KeyPath, message: impl Into<String>) -> Self {
        Self {
            at: at.clone(),
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn with_hint(
        at: &KeyPath,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            at: at.clone(),
            message: message.into(),
            hint: Some(hint.into()),
        }
    }
}

/// The way to a value from the top of the document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeyPath(pub(super) Vec<Step>);

/// One step of the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl KeyPath {
    pub(super) fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(number) => write!(formatter, "[{number}]")?,
                Step::Key(key) if is_plain(key) && index == 0 => formatter.write_str(key)?,
                Step::Key(key) if is_plain(key) => write!(formatter, ".{key}")?,
                Step::Key(key) => write!(formatter, "[\"{}\"]", quotable(key))?,
            }
        }
        Ok(())
    }
}

fn is_plain(key: &str) -> bool {
    (1..=64).contains(&key.len())
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// Longest quotation of what somebody wrote, in characters.
const QUOTED_CHARACTERS_MAX: usize = 80;

/// `text` as an error may quote it: cut when it is long, control characters written as escapes.
pub(super) fn quotable(text: &str) -> String {
    let mut quoted = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == QUOTED_CHARACTERS_MAX {
            quoted.push('…');
            break;
        }
        if character.is_control() {
            quoted.extend(character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    quoted
}
