//! The JSON Schema of the manifest, for editors and for other programs. What it can't say (routes
//! whose ends exist, ranges of sizes) the parser checks.

use serde_json::{Value, json};

use super::{CONFIGURATION_CHOICES_MAX, CONFIGURATION_KEY_BYTES_MAX, Manifest, Relay};

/// The JSON Schema (draft 2020-12) of a manifest.
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(Manifest);
    schema.insert(
        "$id".to_owned(),
        json!("https://example.invalid/haar/schemas/application.json"),
    );
    schema.insert("title".to_owned(), json!("Haar application manifest"));
    schema.into()
}

/// The JSON Schema (draft 2020-12) of a relay's manifest.
pub fn relay_json_schema() -> Value {
    let mut schema = schemars::schema_for!(Relay);
    schema.insert(
        "$id".to_owned(),
        json!("https://example.invalid/haar/schemas/relay.json"),
    );
    schema.insert("title".to_owned(), json!("Haar relay manifest"));
    schema.into()
}

/// What may stand in `configuration`: more than the type says, because the parser takes numbers
/// and booleans as their texts.
pub(super) fn configuration(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "propertyNames": {"minLength": 1, "maxLength": CONFIGURATION_KEY_BYTES_MAX},
        "additionalProperties": {"type": ["string", "number", "boolean"]},
        "default": {}
    })
}

/// A single value, as the parser takes it: a text, or a number or boolean as its text.
pub(super) fn scalar(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": ["string", "number", "boolean"]})
}

/// A number, or the text of one: numbers are kept as their texts.
pub(super) fn number(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": ["number", "string"], "pattern": "^-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?$"})
}

/// A list of single values.
pub(super) fn list_of_scalars(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "items": {"type": ["string", "number", "boolean"]},
        "minItems": 1,
        "maxItems": CONFIGURATION_CHOICES_MAX
    })
}
