//! What a strict decoder is made of: maps with fixed keys, maps with free keys, lists, texts,
//! numbers and choices. Each reports what is wrong where it stands and goes on. Used by the
//! manifest's decoder; knows nothing of manifests.

use std::collections::{BTreeMap, HashSet};
use std::str::FromStr;

use crate::ids::InvalidId;

use super::errors::{KeyPath, PROBLEMS_MAX, Problem, quotable};
use super::suggest;
use super::tree::{Key, Mark, Node, Value};

/// Longest text of a value that has a form, in bytes: more than any valid one.
const FORMED_TEXT_BYTES_MAX: usize = 512;

/// Collects what is wrong.
#[derive(Default)]
pub(super) struct Decoder {
    pub(super) problems: Vec<(Problem, Mark)>,
    /// The document is JSON, as the API writes manifests: then numbers and booleans of configurations are
    /// texts in quotes.
    pub(super) is_json: bool,
}

/// `None` always means that a problem was reported.
pub(super) type Decoded<T> = Option<T>;

/// A map with fixed keys, and where it stands.
pub(super) struct Fields<'n> {
    at: KeyPath,
    mark: Mark,
    entries: &'n [(Key, Node)],
}

impl Decoder {
    /// The value as a map that has no other keys than `known`, each at most once.
    pub(super) fn fields<'n>(
        &mut self,
        node: &'n Node,
        at: &KeyPath,
        known: &[&str],
    ) -> Decoded<Fields<'n>> {
        let entries = self.entries(node, at)?;
        for (key, _) in entries {
            if self.problems.len() >= PROBLEMS_MAX {
                break;
            }
            if !known.contains(&key.text.as_str()) {
                let problem = Problem {
                    at: at.key(&key.text),
                    message: format!("unknown key `{}`", quotable(&key.text)),
                    hint: match key.text.as_str() {
                        "<<" => Some("merge keys are not read: write the keys out".to_owned()),
                        text => suggest::hint(text, known.iter().copied(), "keys here"),
                    },
                };
                self.problems.push((problem, key.mark));
            }
        }
        Some(Fields {
            at: at.clone(),
            mark: node.mark,
            entries,
        })
    }

    /// The value of a key that must be there.
    pub(super) fn required<T>(
        &mut self,
        fields: &Fields<'_>,
        key: &str,
        decode: impl FnOnce(&mut Self, &Node, &KeyPath) -> Decoded<T>,
    ) -> Decoded<T> {
        let value = self.optional(fields, key, decode)?;
        if value.is_none() {
            self.problems.push((
                Problem::new(&fields.at, format!("the key `{key}` is missing")),
                fields.mark,
            ));
        }
        value
    }

    /// The value of a key that may be left out: `Some(None)` when it is.
    pub(super) fn optional<T>(
        &mut self,
        fields: &Fields<'_>,
        key: &str,
        decode: impl FnOnce(&mut Self, &Node, &KeyPath) -> Decoded<T>,
    ) -> Decoded<Option<T>> {
        match fields.entries.iter().find(|(known, _)| known.text == key) {
            Some((_, node)) => decode(self, node, &fields.at.key(key)).map(Some),
            None => Some(None),
        }
    }

    /// Puts the value of a key that may be left out into `slot`. What is wrong with it is reported
    /// as ever; then nobody looks at the slot.
    pub(super) fn set<T>(
        &mut self,
        fields: &Fields<'_>,
        key: &str,
        slot: &mut T,
        decode: impl FnOnce(&mut Self, &Node, &KeyPath) -> Decoded<T>,
    ) {
        if let Some(Some(value)) = self.optional(fields, key, decode) {
            *slot = value;
        }
    }

    /// The value as a list of at most `most` entries.
    pub(super) fn list<T>(
        &mut self,
        node: &Node,
        at: &KeyPath,
        most: usize,
        mut decode: impl FnMut(&mut Self, &Node, &KeyPath) -> Decoded<T>,
    ) -> Decoded<Vec<T>> {
        let Value::List(items) = &node.value else {
            return self.wrong_kind(
                node,
                at,
                "a list",
                "begin each entry with `- `, or write `[]` for an empty one",
            );
        };
        self.bound(node, at, items.len(), most)?;
        let decoded: Vec<Option<T>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| decode(self, item, &at.index(index)))
            .collect();
        decoded.into_iter().collect()
    }

    /// The value as a map with free keys, at most `most` of them.
    pub(super) fn map<T>(
        &mut self,
        node: &Node,
        at: &KeyPath,
        most: usize,
        mut decode: impl FnMut(&mut Self, &Node, &KeyPath) -> Decoded<T>,
    ) -> Decoded<BTreeMap<String, T>> {
        let entries = self.entries(node, at)?;
        self.bound(node, at, entries.len(), most)?;
        let decoded: Vec<Option<(String, T)>> = entries
            .iter()
            .map(|(key, value)| Some((key.text.clone(), decode(self, value, &at.key(&key.text))?)))
            .collect();
        decoded.into_iter().collect()
    }

    /// The value as a map whose keys have a form.
    pub(super) fn named_map<K, T>(
        &mut self,
        node: &Node,
        at: &KeyPath,
        most: usize,
        mut decode: impl FnMut(&mut Self, &Node, &KeyPath) -> Decoded<T>,
    ) -> Decoded<BTreeMap<K, T>>
    where
        K: FromStr<Err = InvalidId> + Ord,
    {
        let entries = self.entries(node, at)?;
        self.bound(node, at, entries.len(), most)?;
        let decoded: Vec<Option<(K, T)>> = entries
            .iter()
            .map(|(key, value)| {
                let at = at.key(&key.text);
                let name = self.form(&key.text, key.mark, &at);
                let value = decode(self, value, &at);
                Some((name?, value?))
            })
            .collect();
        decoded.into_iter().collect()
    }

    /// The value as a text, as it stands: numbers, `true` and `false` too.
    pub(super) fn text(&mut self, node: &Node, at: &KeyPath) -> Decoded<String> {
        self.scalar(
            node,
            at,
            Some("write `\"\"` for an empty text, and quote a text that reads `null`"),
        )
    }

    fn scalar(
        &mut self,
        node: &Node,
        at: &KeyPath,
        hint_when_null: Option<&str>,
    ) -> Decoded<String> {
        match &node.value {
            Value::Scalar { text, plain } if !(*plain && is_null(text)) => Some(text.clone()),
            Value::Scalar { .. } => self.wrong(node, at, "the value is missing", hint_when_null),
            _ => self.wrong_kind(node, at, "a single value", ""),
        }
    }

    /// The value as a text that has the form of a `T`.
    pub(super) fn formed<T: FromStr<Err = InvalidId>>(
        &mut self,
        node: &Node,
        at: &KeyPath,
    ) -> Decoded<T> {
        let text = self.scalar(node, at, None)?;
        self.form(&text, node.mark, at)
    }

    fn form<T: FromStr<Err = InvalidId>>(
        &mut self,
        text: &str,
        mark: Mark,
        at: &KeyPath,
    ) -> Decoded<T> {
        let problem = if text.len() > FORMED_TEXT_BYTES_MAX || text.chars().any(char::is_control) {
            Problem::new(
                at,
                format!(
                    "`{}` has no valid form: it is too long, or holds control characters",
                    quotable(text)
                ),
            )
        } else {
            match text.parse() {
                Ok(value) => return Some(value),
                Err(InvalidId(message)) => Problem::new(at, message),
            }
        };
        self.problems.push((problem, mark));
        None
    }

    /// The value as a whole number.
    pub(super) fn number<T: FromStr>(&mut self, node: &Node, at: &KeyPath) -> Decoded<T> {
        let text = self.scalar(node, at, None)?;
        let is_decimal = !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'));
        let is_plain = matches!(node.value, Value::Scalar { plain: true, .. });
        match text.parse() {
            Ok(number) if is_decimal && is_plain => Some(number),
            Ok(_) if is_decimal => self.wrong(
                node,
                at,
                "not a number but a text",
                Some("write it without quotes"),
            ),
            Err(_) if is_decimal => self.wrong(
                node,
                at,
                format!("`{}` is too large", quotable(&text)),
                None,
            ),
            _ => {
                let message = format!("`{}` is not a whole number", quotable(&text));
                self.wrong(
                    node,
                    at,
                    message,
                    Some("write decimal digits, such as `100`"),
                )
            }
        }
    }

    /// The value as `true` or `false`.
    pub(super) fn boolean(&mut self, node: &Node, at: &KeyPath) -> Decoded<bool> {
        self.one_of(node, at, &[("true", true), ("false", false)])
    }

    /// The value as one of a few words.
    pub(super) fn one_of<T: Copy>(
        &mut self,
        node: &Node,
        at: &KeyPath,
        words: &[(&str, T)],
    ) -> Decoded<T> {
        let text = self.scalar(node, at, None)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let hint = match words {
            [(word, _)] => Some(format!("write `{word}`")),
            _ => suggest::hint(&text, words.iter().map(|(word, _)| *word), "values here"),
        };
        let message = format!("unknown value `{}`", quotable(&text));
        self.problems.push((
            Problem {
                at: at.clone(),
                message,
                hint,
            },
            node.mark,
        ));
        None
    }

    /// The entries of a map; a key that stands twice is reported where it stands again.
    fn entries<'n>(&mut self, node: &'n Node, at: &KeyPath) -> Decoded<&'n [(Key, Node)]> {
        let Value::Map(entries) = &node.value else {
            return self.wrong_kind(
                node,
                at,
                "a map",
                "write `key: value` pairs, or `{}` for an empty one",
            );
        };
        let mut seen: HashSet<&str> = HashSet::new();
        for (key, _) in entries {
            if self.problems.len() >= PROBLEMS_MAX {
                break;
            }
            if !seen.insert(&key.text) {
                let message = format!("the key `{}` stands here twice", quotable(&key.text));
                self.problems
                    .push((Problem::new(&at.key(&key.text), message), key.mark));
            }
        }
        Some(entries)
    }

    fn bound(&mut self, node: &Node, at: &KeyPath, count: usize, most: usize) -> Decoded<()> {
        if count <= most {
            return Some(());
        }
        self.wrong(
            node,
            at,
            format!("{count} entries are more than the limit of {most}"),
            None,
        )
    }

    fn wrong_kind<T>(
        &mut self,
        node: &Node,
        at: &KeyPath,
        wanted: &str,
        hint: &'static str,
    ) -> Decoded<T> {
        let found = match &node.value {
            Value::Scalar { text, plain } if *plain && is_null(text) => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        };
        let hint = Some(hint).filter(|hint| !hint.is_empty());
        self.wrong(node, at, format!("must be {wanted}, and is {found}"), hint)
    }

    pub(super) fn wrong<T>(
        &mut self,
        node: &Node,
        at: &KeyPath,
        message: impl Into<String>,
        hint: Option<&str>,
    ) -> Decoded<T> {
        let problem = Problem {
            at: at.clone(),
            message: message.into(),
            hint: hint.map(str::to_owned),
        };
        self.problems.push((problem, node.mark));
        None
    }
}

/// The plain texts that mean "nothing" in YAML (YAML 1.2.2 section 10.3.2).
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}
