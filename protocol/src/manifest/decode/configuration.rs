//! The schema of a configuration.

use super::super::check::CONFIGURATION_CHOICES_MAX;
use super::super::configuration::{ConfigurationKey, ConfigurationType};
use super::super::errors::{KeyPath, Problem};
use super::super::tree::{Node, Value};
use super::super::values::{Decoded, Decoder};

const TYPES: [(&str, ConfigurationType); 4] = [
    ("string", ConfigurationType::String),
    ("integer", ConfigurationType::Integer),
    ("number", ConfigurationType::Number),
    ("boolean", ConfigurationType::Boolean),
];

impl Decoder {
    pub(super) fn configuration_key(
        &mut self,
        node: &Node,
        at: &KeyPath,
    ) -> Decoded<ConfigurationKey> {
        let known = [
            "type",
            "required",
            "default",
            "minimum",
            "maximum",
            "one_of",
            "max_length",
            "description",
        ];
        let fields = self.fields(node, at, &known)?;
        let value_type = self.required(&fields, "type", |this, node, at| {
            this.one_of(node, at, &TYPES)
        });
        let required = self.optional(&fields, "required", Self::boolean);
        let typed = |this: &mut Self, node: &Node, at: &KeyPath| this.typed(node, at, value_type);
        let default = self.optional(&fields, "default", typed);
        let minimum = self.optional(&fields, "minimum", |this, node, at| {
            typed(this, node, at)?;
            this.formed(node, at)
        });
        let maximum = self.optional(&fields, "maximum", |this, node, at| {
            typed(this, node, at)?;
            this.formed(node, at)
        });
        let one_of = self.optional(&fields, "one_of", |this, node, at| {
            this.list(node, at, CONFIGURATION_CHOICES_MAX, typed)
        });
        let max_length = self.optional(&fields, "max_length", Self::number);
        let description = self.optional(&fields, "description", Self::text);
        Some(ConfigurationKey {
            value_type: value_type?,
            required: required?.unwrap_or_default(),
            default: default?,
            minimum: minimum?,
            maximum: maximum?,
            one_of: one_of?,
            max_length: max_length?,
            description: description?,
        })
    }

    /// A value of the kind that the schema names: quotes make it a text.
    fn typed(
        &mut self,
        node: &Node,
        at: &KeyPath,
        value_type: Option<ConfigurationType>,
    ) -> Decoded<String> {
        let text = self.text(node, at)?;
        let is_quoted = !self.is_json && matches!(node.value, Value::Scalar { plain: false, .. });
        match value_type {
            Some(kind) if is_quoted && kind != ConfigurationType::String => {
                let message = format!("is a text in quotes, and not {kind}");
                let hint = "write it without quotes, or `type: string`";
                self.problems
                    .push((Problem::with_hint(at, message, hint), node.mark));
                None
            }
            _ => Some(text),
        }
    }
}
