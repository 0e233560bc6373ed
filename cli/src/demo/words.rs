//! What the microservices of the example say, in words: quantities with their units, alerts. Pure.

use serde_json::{Number, Value};

use crate::output;

/// A message as `NODE name value, …`: numbers rounded, nothing nested.
pub(super) fn describe(message: &Value) -> String {
    let Value::Object(fields) = message else {
        return output::printable(&message.to_string());
    };
    let node = text(message, "node");
    let others = fields
        .iter()
        .filter(|(name, _)| *name != "node")
        .map(|(name, value)| match (name.as_str(), value) {
            (name, Value::Number(number)) => {
                let (name, value) = quantity(name, number);
                format!("{name} {value}")
            }
            (name, Value::String(text)) => format!("{name} {text}"),
            (name, Value::Array(items)) => format!("{name} {}", items.len()),
            (name, other) => format!("{name} {other}"),
        });
    output::printable(&format!(
        "{node:<10} {}",
        others.collect::<Vec<_>>().join(", ")
    ))
}

/// What an alert says of its node: `load is 9.0, usually 0.2`.
pub(super) fn alert(message: &Value) -> String {
    let field = |name: &str| match message.get(name) {
        Some(Value::Number(number)) => quantity(text(message, "quantity"), number),
        _ => (text(message, "quantity").to_owned(), "?".to_owned()),
    };
    let ((name, value), (_, mean)) = (field("value"), field("mean"));
    let is = if is_left(message) { "is" } else { "is back at" };
    output::printable(&format!("{name} {is} {value}, usually {mean}"))
}

/// True when the alert is of a value that left its band, false when it came back.
pub(super) fn is_left(alert: &Value) -> bool {
    text(alert, "change") == "left"
}

/// A text in a message; empty when there is none.
pub(super) fn text<'a>(message: &'a Value, name: &str) -> &'a str {
    message
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// `cpu_percent: 12.3` as `cpu` and `12.3 %`, and likewise for the other units that names end
/// with; `temperature_celsius.ZONE` as `temperature of ZONE`.
fn quantity(name: &str, number: &Number) -> (String, String) {
    let value = number.as_f64().unwrap_or_default();
    let plain = || {
        if number.is_u64() {
            number.to_string()
        } else {
            format!("{value:.1}")
        }
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float that is out of range becomes the nearest number"
    )]
    let bytes = || output::bytes(value as u64);
    let units: [(&str, &dyn Fn() -> String); 5] = [
        ("_bytes_per_second", &|| format!("{}/s", bytes())),
        ("_per_second", &|| format!("{}/s", plain())),
        ("_bytes", &bytes),
        ("_percent", &|| format!("{} %", plain())),
        ("_celsius", &|| format!("{} C", plain())),
    ];
    let (family, part) = name
        .split_once('.')
        .map_or((name, String::new()), |(family, part)| {
            (family, format!(" of {part}"))
        });
    for (ending, write) in units {
        if let Some(family) = family.strip_suffix(ending) {
            return (format!("{}{part}", family.replace('_', " ")), write());
        }
    }
    (format!("{}{part}", family.replace('_', " ")), plain())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn alerts_are_sentences() {
        let left = json!({"node": "sensor", "quantity": "cpu_percent", "change": "left", "value": 100.0, "mean": 7.25, "band": 20.0});
        assert_eq!(alert(&left), "cpu is 100.0 %, usually 7.2 %");
        let returned = json!({"node": "sensor", "quantity": "temperature_celsius.zone-1", "change": "returned", "value": 41, "mean": 40.5});
        assert_eq!(
            alert(&returned),
            "temperature of zone-1 is back at 41 C, usually 40.5 C"
        );
        assert_eq!(
            alert(&json!({"quantity": "a\u{1b}"})),
            "a\u{fffd} is back at ?, usually ?"
        );
    }
}
