//! What the configuration of a microservice may say: the schema in its manifest, and whether a
//! value fits it. Pure; works on the texts that microservices see behind `wasi:config`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::InvalidId;

use super::Microservice;
use super::errors::quotable;

/// What may stand behind one key of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct ConfigurationKey {
    /// What kind of value it is.
    #[serde(rename = "type")]
    pub value_type: ConfigurationType,
    /// Whether the configuration must have it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// The value when the configuration does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "super::schema::scalar"))]
    pub default: Option<String>,
    /// The least that an integer or number may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "super::schema::number"))]
    pub minimum: Option<Number>,
    /// The most that an integer or number may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "super::schema::number"))]
    pub maximum: Option<Number>,
    /// The only values that it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "schema",
        schemars(schema_with = "super::schema::list_of_scalars")
    )]
    pub one_of: Option<Vec<String>>,
    /// Characters that a string may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "u32"))]
    pub max_length: Option<u32>,
    /// What it is for, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub description: Option<String>,
}

/// The kinds of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ConfigurationType {
    /// Any text.
    String,
    /// A whole number of 64 bits, in decimal digits.
    Integer,
    /// A number as JSON writes it.
    Number,
    /// `true` or `false`.
    Boolean,
}

impl fmt::Display for ConfigurationType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            ConfigurationType::String => "a string",
            ConfigurationType::Integer => "an integer",
            ConfigurationType::Number => "a number",
            ConfigurationType::Boolean => "a boolean",
        })
    }
}

/// A number as JSON writes it (RFC 8259 section 6), kept as its text: nothing is rounded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Number(String);

impl FromStr for Number {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        // JSON's grammar, and no number so large that it reads as infinity.
        match serde_json::from_str::<f64>(text) {
            Ok(_) if text.trim() == text => Ok(Self(text.to_owned())),
            _ => Err(InvalidId(format!("`{}` is not a number", quotable(text)))),
        }
    }
}

impl TryFrom<String> for Number {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<Number> for String {
    fn from(number: Number) -> String {
        number.0
    }
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Number {
    /// Whether it is written as a whole number of 64 bits.
    pub(super) fn is_integer(&self) -> bool {
        self.0.parse::<i64>().is_ok()
    }

    /// Compares by value: whole numbers exactly, others as 64-bit floating point.
    fn compared(&self, other: &Number) -> Ordering {
        match (self.0.parse::<i64>(), other.0.parse::<i64>()) {
            (Ok(one), Ok(other)) => one.cmp(&other),
            _ => self.float().total_cmp(&other.float()),
        }
    }

    fn float(&self) -> f64 {
        let float: f64 = self
            .0
            .parse()
            .expect("was read as a number when it was made");
        float + 0.0 // makes -0 the same as 0
    }
}

impl ConfigurationKey {
    /// Whether `value` may stand behind the key.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub(super) fn check(&self, value: &str) -> Result<(), String> {
        let number = || value.parse::<Number>().ok();
        let (is_typed, number) = match self.value_type {
            ConfigurationType::String => (true, None),
            ConfigurationType::Boolean => (matches!(value, "true" | "false"), None),
            ConfigurationType::Integer => {
                (value.parse::<i64>().is_ok() && number().is_some(), number())
            }
            ConfigurationType::Number => (number().is_some(), number()),
        };
        if !is_typed {
            return Err(format!("`{}` is not {}", quotable(value), self.value_type));
        }
        if let Some(number) = &number {
            self.check_range(number)?;
        }
        let characters = value.chars().count();
        if let Some(most) = self.max_length
            && characters > most as usize
        {
            return Err(format!(
                "{characters} characters are more than the limit of {most}"
            ));
        }
        match &self.one_of {
            Some(choices) if !choices.iter().any(|choice| choice == value) => {
                let choices: Vec<String> = choices
                    .iter()
                    .take(12)
                    .map(|choice| format!("`{}`", quotable(choice)))
                    .collect();
                Err(format!(
                    "`{}` is none of {}",
                    quotable(value),
                    choices.join(", ")
                ))
            }
            _ => Ok(()),
        }
    }

    fn check_range(&self, number: &Number) -> Result<(), String> {
        match (&self.minimum, &self.maximum) {
            (Some(least), _) if number.compared(least) == Ordering::Less => {
                Err(format!("{number} is below the minimum of {least}"))
            }
            (_, Some(most)) if number.compared(most) == Ordering::Greater => {
                Err(format!("{number} is above the maximum of {most}"))
            }
            _ => Ok(()),
        }
    }

    /// True when no value could be in its range.
    pub(super) fn is_range_empty(&self) -> bool {
        match (&self.minimum, &self.maximum) {
            (Some(least), Some(most)) => least.compared(most) == Ordering::Greater,
            _ => false,
        }
    }
}

impl Microservice {
    /// What the microservice finds behind `wasi:config`: what the manifest says, and the defaults
    /// of the schema for what it does not say.
    pub fn effective_configuration(&self) -> BTreeMap<String, String> {
        let defaults = self
            .configuration_schema
            .iter()
            .flatten()
            .filter_map(|(key, schema)| Some((key.clone(), schema.default.clone()?)));
        let mut configuration: BTreeMap<String, String> = defaults.collect();
        configuration.extend(self.configuration.clone());
        configuration
    }
}
