//! From the text of a manifest to the checked value: tree, then types, then the checks of the
//! whole. The only way in for text that people wrote; used by the CLI and the controller alike.

use super::check::check;
use super::decode::decode;
use super::errors::{KeyPath, ManifestError, ManifestErrors, Problem, Step};
use super::tree::{self, Mark, Node, TreeError, Value};
use super::{Manifest, Relay, relay};

/// The largest manifest that anybody reads, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 1 << 20;

/// What people write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// An application.
    Application(Manifest),
    /// A relay.
    Relay(Box<Relay>),
}

/// Reads and checks the manifest of an application in `text`. `file` is what errors call it.
///
/// # Errors
/// As those of [`parse_document`]; that it describes something else is one, too.
pub fn parse(text: &str, file: &str) -> Result<Manifest, ManifestErrors> {
    match parse_document(text, file)? {
        Document::Application(manifest) => Ok(manifest),
        Document::Relay(_) => Err(ManifestErrors::new(vec![ManifestError {
            file: file.to_owned(),
            line: Mark::START.line,
            column: Mark::START.column,
            key: "kind".to_owned(),
            message: "this is a relay, and an application is wanted here".to_owned(),
            hint: None,
        }])),
    }
}

/// Reads and checks the document in `text`. `file` is what errors call it.
///
/// # Errors
/// Everything that is wrong with it, each with its line and column. Errors of one kind hide those
/// of the next: YAML first, then keys and single values, then what does not fit together.
pub fn parse_document(text: &str, file: &str) -> Result<Document, ManifestErrors> {
    let at = |mark: Mark, key: String, message: String, hint: Option<String>| ManifestError {
        file: file.to_owned(),
        line: mark.line,
        column: mark.column,
        key,
        message,
        hint,
    };
    if text.len() > MANIFEST_BYTES_MAX {
        let message = format!(
            "{} bytes are more than the limit of {MANIFEST_BYTES_MAX}",
            text.len()
        );
        return Err(ManifestErrors::new(vec![at(
            Mark::START,
            String::new(),
            message,
            None,
        )]));
    }
    let root = tree::read(text).map_err(
        |TreeError {
             mark,
             message,
             hint,
         }| {
            ManifestErrors::new(vec![at(
                mark,
                String::new(),
                message,
                hint.map(str::to_owned),
            )])
        },
    )?;
    let located = |problem: Problem, mark: Mark| {
        at(mark, problem.at.to_string(), problem.message, problem.hint)
    };
    let document = decode(&root, text.trim_start().starts_with('{')).map_err(|problems| {
        ManifestErrors::new(
            problems
                .into_iter()
                .map(|(problem, mark)| located(problem, mark))
                .collect(),
        )
    })?;
    let problems = match &document {
        Document::Application(manifest) => check(manifest),
        Document::Relay(found) => relay::check(found),
    };
    if problems.is_empty() {
        return Ok(document);
    }
    let errors = problems.into_iter().map(|problem| {
        let mark = locate(&root, &problem.at);
        located(problem, mark)
    });
    Err(ManifestErrors::new(errors.collect()))
}

/// Where the value at `path` begins. For a key that was left out, and so has its default value:
/// where the map begins that it could stand in.
fn locate(root: &Node, path: &KeyPath) -> Mark {
    let mut node = root;
    for step in &path.0 {
        let next = match (step, &node.value) {
            (Step::Index(index), Value::List(items)) => items.get(*index),
            (Step::Key(key), Value::Map(entries)) => entries
                .iter()
                .find(|(known, _)| known.text == *key)
                .map(|(_, node)| node),
            _ => None,
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node.mark
}
