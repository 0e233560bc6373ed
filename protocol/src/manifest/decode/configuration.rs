//! The schema of a configuration.

use super::super::check::CONFIGURATION_CHOICES_MAX;
use super::super::configuration::{ConfigurationKey, ConfigurationType};
use super::super::errors::KeyPath;
use super::super::tree::Node;
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
        let default = self.optional(&fields, "default", Self::text);
        let minimum = self.optional(&fields, "minimum", Self::formed);
        let maximum = self.optional(&fields, "maximum", Self::formed);
        let one_of = self.optional(&fields, "one_of", |this, node, at| {
            this.list(node, at, CONFIGURATION_CHOICES_MAX, Self::text)
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
}
