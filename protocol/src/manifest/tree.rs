//! YAML as a tree in which every key and value knows its line and column. Called by the manifest
//! parser only. It knows nothing of manifests, and bounds what it builds before building it:
//! nesting, nodes and text, counted with every alias written out, so that no short text becomes a
//! large tree.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

/// How deep lists and maps may be nested.
const DEPTH_MAX: usize = 32;
/// How many values and keys a document may have, aliases written out.
const NODES_MAX: usize = 250_000;
/// How many bytes of text all scalars together may have, aliases written out.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// Where something stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// From 1 up.
    pub(super) line: usize,
    /// In characters, from 1 up.
    pub(super) column: usize,
}

impl Mark {
    pub(super) const START: Mark = Mark { line: 1, column: 1 };

    fn of(marker: granit_parser::Marker) -> Self {
        Self {
            line: marker.line().max(1),
            column: marker.col() + 1,
        }
    }
}

/// A value and where it begins.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) mark: Mark,
    pub(super) value: Value,
}

/// A value of a document.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A text; `plain` when it stands without quotes and not as a block.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the text; a key may stand there twice.
    Map(Vec<(Key, Node)>),
}

/// A key and where it begins.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) mark: Mark,
    pub(super) text: String,
}

/// Why a text is not one bounded YAML document, and where.
#[derive(Debug)]
pub(super) struct TreeError {
    pub(super) mark: Mark,
    pub(super) message: String,
    pub(super) hint: Option<&'static str>,
}

impl TreeError {
    fn new(mark: Mark, message: impl Into<String>, hint: Option<&'static str>) -> Self {
        Self {
            mark,
            message: message.into(),
            hint,
        }
    }
}

impl From<ScanError> for TreeError {
    fn from(error: ScanError) -> Self {
        Self::new(
            Mark::of(*error.marker()),
            format!("not valid YAML: {}", error.kind()),
            None,
        )
    }
}

/// What a node and everything below it comes to.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    nodes: usize,
    text_bytes: usize,
    depth: usize,
}

/// A list or map that is still being read.
struct Open {
    node: Node,
    anchor: usize,
    weight: Weight,
    /// In a map: the key whose value comes next.
    key: Option<Key>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    /// Finished values that aliases may name. A list or map is entered when it ends, so that none
    /// holds itself.
    anchors: HashMap<usize, (Node, Weight)>,
    total: Weight,
    root: Option<Node>,
    documents: usize,
}

/// Reads the one document in `text`.
pub(super) fn read(text: &str) -> Result<Node, TreeError> {
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    let mut builder = Builder::default();
    for item in Parser::new_from_str_with_options(text, options) {
        let (event, span) = item?;
        builder.take(event, span)?;
    }
    builder
        .root
        .ok_or_else(|| TreeError::new(Mark::START, "the file is empty", None))
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), TreeError> {
        let mark = Mark::of(span.start);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(TreeError::new(
                        mark,
                        "a second document begins here",
                        Some("write one application in each file"),
                    ));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(mark, tag.is_some())?;
                let weight = Weight {
                    nodes: 1,
                    text_bytes: text.len(),
                    depth: 0,
                };
                self.count(mark, weight)?;
                let plain = matches!(style, ScalarStyle::Plain);
                let node = Node {
                    mark,
                    value: Value::Scalar {
                        text: text.into_owned(),
                        plain,
                    },
                };
                self.finish(node, weight, anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(mark, tag.is_some())?;
                self.begin(
                    Node {
                        mark,
                        value: Value::List(Vec::new()),
                    },
                    anchor,
                )?;
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(mark, tag.is_some())?;
                self.begin(
                    Node {
                        mark,
                        value: Value::Map(Vec::new()),
                    },
                    anchor,
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self
                    .open
                    .pop()
                    .expect("the parser closes only what it opened");
                self.finish(open.node, open.weight, open.anchor)?;
            }
            Event::Alias(anchor) => self.alias(mark, anchor)?,
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, node: Node, anchor: usize) -> Result<(), TreeError> {
        let weight = Weight {
            nodes: 1,
            text_bytes: 0,
            depth: 1,
        };
        self.count(node.mark, weight)?;
        self.open.push(Open {
            node,
            anchor,
            weight,
            key: None,
        });
        Ok(())
    }

    fn alias(&mut self, mark: Mark, anchor: usize) -> Result<(), TreeError> {
        let Some(weight) = self.anchors.get(&anchor).map(|(_, weight)| *weight) else {
            return Err(TreeError::new(
                mark,
                "this alias stands inside the value that it names",
                None,
            ));
        };
        self.count(mark, weight)?;
        let node = self.anchors[&anchor].0.clone();
        self.place(node, weight)
    }

    /// Bounds before nodes: called before anything of this weight is kept or copied.
    fn count(&mut self, mark: Mark, more: Weight) -> Result<(), TreeError> {
        self.total.nodes += more.nodes;
        self.total.text_bytes += more.text_bytes;
        let too_large = self.total.nodes > NODES_MAX
            || self.total.text_bytes > TEXT_BYTES_MAX
            || self.open.len() + more.depth > DEPTH_MAX;
        if too_large {
            let message =
                "the document is too large or too deeply nested, with its aliases written out";
            return Err(TreeError::new(mark, message, None));
        }
        Ok(())
    }

    /// Keeps a copy of a finished value when aliases may name it, then puts it where it belongs.
    fn finish(&mut self, node: Node, weight: Weight, anchor: usize) -> Result<(), TreeError> {
        if anchor != 0 {
            self.count(node.mark, weight)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        self.place(node, weight)
    }

    fn place(&mut self, node: Node, weight: Weight) -> Result<(), TreeError> {
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.weight.nodes += weight.nodes;
        parent.weight.text_bytes += weight.text_bytes;
        parent.weight.depth = parent.weight.depth.max(weight.depth + 1);
        match (&mut parent.node.value, parent.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(entries), Some(key)) => entries.push((key, node)),
            (Value::Map(_), None) => match node.value {
                Value::Scalar { text, .. } => {
                    parent.key = Some(Key {
                        mark: node.mark,
                        text,
                    })
                }
                Value::List(_) | Value::Map(_) => {
                    return Err(TreeError::new(
                        node.mark,
                        "a list or map can't be a key",
                        None,
                    ));
                }
            },
            (Value::Scalar { .. }, _) => unreachable!("only lists and maps are open"),
        }
        Ok(())
    }
}

fn refuse_tag(mark: Mark, tagged: bool) -> Result<(), TreeError> {
    if tagged {
        return Err(TreeError::new(
            mark,
            "tags (`!…`) are not read here",
            Some("write the value without it"),
        ));
    }
    Ok(())
}
