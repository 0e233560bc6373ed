//! Configurations: their size, their schema, and whether one fits the other.

use super::super::Microservice;
use super::super::configuration::{ConfigurationKey, ConfigurationType};
use super::super::errors::{KeyPath, PROBLEMS_MAX, Problem, quotable};
use super::super::suggest;
use super::{CONFIGURATION_BYTES_MAX, CONFIGURATION_KEY_BYTES_MAX, CONFIGURATION_VALUE_BYTES_MAX};

/// Longest description of a key, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 1_024;

/// Whether the schema of a configuration makes sense.
pub(super) fn check_schema(microservice: &Microservice, at: &KeyPath, problems: &mut Vec<Problem>) {
    for (key, schema) in microservice.configuration_schema.iter().flatten() {
        let at = at.key(key);
        if problems.len() >= PROBLEMS_MAX {
            return;
        }
        check_key_length(key, &at, problems);
        check_key(schema, &at, problems);
    }
}

fn check_key(schema: &ConfigurationKey, at: &KeyPath, problems: &mut Vec<Problem>) {
    let is_number = matches!(
        schema.value_type,
        ConfigurationType::Integer | ConfigurationType::Number
    );
    let only_for = |key: &str, kinds: &str| {
        let message = format!("goes with {kinds} only, and this is {}", schema.value_type);
        Problem::with_hint(&at.key(key), message, "leave it out")
    };
    for (key, bound) in [("minimum", &schema.minimum), ("maximum", &schema.maximum)] {
        let Some(bound) = bound else {
            continue;
        };
        if !is_number {
            problems.push(only_for(key, "integers and numbers"));
        } else if schema.value_type == ConfigurationType::Integer && !bound.is_integer() {
            problems.push(Problem::with_hint(
                &at.key(key),
                format!("`{bound}` is not an integer, and what it bounds is"),
                "write a whole number, or `type: number`",
            ));
        }
    }
    if schema.max_length.is_some() && schema.value_type != ConfigurationType::String {
        problems.push(only_for("max_length", "strings"));
    }
    if schema.is_range_empty() {
        problems.push(Problem::new(
            &at.key("maximum"),
            "is below the minimum: no value would fit",
        ));
    }
    if schema.required && schema.default.is_some() {
        problems.push(Problem::with_hint(
            &at.key("default"),
            "goes with keys that may be left out only",
            "remove it, or `required: true`",
        ));
    }
    if let Some(choices) = &schema.one_of {
        if choices.is_empty() {
            problems.push(Problem::with_hint(
                &at.key("one_of"),
                "offers no value",
                "list the values that it may have, or leave it out",
            ));
        }
        for (index, choice) in choices.iter().enumerate() {
            if let Err(message) = schema.check(choice) {
                problems.push(Problem::new(&at.key("one_of").index(index), message));
            }
        }
    }
    if let Some(default) = &schema.default {
        check_value_length(default, &at.key("default"), problems);
        if let Err(message) = schema.check(default) {
            problems.push(Problem::new(&at.key("default"), message));
        }
    }
    let description = schema.description.as_deref().unwrap_or_default();
    if description.len() > DESCRIPTION_BYTES_MAX {
        let message = format!(
            "{} bytes are more than the limit of {DESCRIPTION_BYTES_MAX}",
            description.len()
        );
        problems.push(Problem::new(&at.key("description"), message));
    }
}

/// Whether a configuration is small enough, and as its schema wants it.
pub(super) fn check_values(microservice: &Microservice, at: &KeyPath, problems: &mut Vec<Problem>) {
    for (key, value) in &microservice.configuration {
        if problems.len() >= PROBLEMS_MAX {
            return;
        }
        let at = at.key(key);
        check_key_length(key, &at, problems);
        check_value_length(value, &at, problems);
        if let Some(problem) = misfit(microservice, key, value, &at) {
            problems.push(problem);
        }
    }
    for (key, schema) in microservice.configuration_schema.iter().flatten() {
        if schema.required && !microservice.configuration.contains_key(key) {
            let message = format!("the key `{}` is missing", quotable(key));
            let hint = match &schema.description {
                Some(description) => {
                    format!("it is {}: {}", schema.value_type, quotable(description))
                }
                None => format!("it is {}", schema.value_type),
            };
            problems.push(Problem::with_hint(at, message, hint));
        }
    }
    let total: usize = microservice
        .effective_configuration()
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if total > CONFIGURATION_BYTES_MAX {
        let message = format!(
            "{total} bytes are more than the limit of {CONFIGURATION_BYTES_MAX} for a whole configuration"
        );
        problems.push(Problem::with_hint(
            at,
            message,
            "put large things into a granted directory",
        ));
    }
}

/// Why a value does not fit the schema, if there is one.
fn misfit(microservice: &Microservice, key: &str, value: &str, at: &KeyPath) -> Option<Problem> {
    let keys = microservice.configuration_schema.as_ref()?;
    let Some(schema) = keys.get(key) else {
        return Some(Problem {
            at: at.clone(),
            message: format!("the schema has no key `{}`", quotable(key)),
            hint: suggest::hint(key, keys.keys().map(String::as_str), "keys of the schema"),
        });
    };
    let message = schema.check(value).err()?;
    let hint = schema.description.as_deref().map(quotable);
    Some(Problem {
        at: at.clone(),
        message,
        hint,
    })
}

fn check_key_length(key: &str, at: &KeyPath, problems: &mut Vec<Problem>) {
    if key.is_empty() || key.len() > CONFIGURATION_KEY_BYTES_MAX {
        let message = format!(
            "a key must have 1 to {CONFIGURATION_KEY_BYTES_MAX} bytes, and this has {}",
            key.len()
        );
        problems.push(Problem::new(at, message));
    }
}

fn check_value_length(value: &str, at: &KeyPath, problems: &mut Vec<Problem>) {
    if value.len() > CONFIGURATION_VALUE_BYTES_MAX {
        let message = format!(
            "{} bytes are more than the limit of {CONFIGURATION_VALUE_BYTES_MAX} for one value",
            value.len()
        );
        problems.push(Problem::with_hint(
            at,
            message,
            "put large things into a granted directory",
        ));
    }
}
