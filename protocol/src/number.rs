//! The range of numbers that cross a process. Every JSON parser represents whole numbers up to
//! 2^53 - 1 exactly (RFC 8259 section 6), and adding to one of them never overflows; so no process
//! of Haar's accepts, stores or sends a larger one. The check reads the JSON text and not the parsed
//! value: it covers every number of every document, also of fields that are added later.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The largest number, 2^53 - 1.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

/// How much of a name or a number an error repeats, in characters.
const SHOWN_CHARACTERS_MAX: usize = 64;

/// A number is out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is {number}: numbers range from -{NUMBER_MAX} to {NUMBER_MAX}")]
pub struct OutOfRange {
    /// The key of the number, or the key of the list that holds it.
    name: String,
    /// The number as it was written.
    number: String,
}

/// Why a document was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It holds a number that is out of range.
    #[error(transparent)]
    Number(#[from] OutOfRange),
    /// It is not JSON, or not the JSON of such a document.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// A number as it stands in a path or a query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct Number(pub u64);

impl TryFrom<u64> for Number {
    type Error = OutOfRange;

    fn try_from(number: u64) -> Result<Self, OutOfRange> {
        match number {
            0..=NUMBER_MAX => Ok(Self(number)),
            _ => Err(OutOfRange {
                name: "the number".to_owned(),
                number: number.to_string(),
            }),
        }
    }
}

/// Returns `count`, or [`NUMBER_MAX`] if it is larger: for totals that a process reports of itself
/// and that grow for as long as it runs.
pub fn capped(count: u64) -> u64 {
    count.min(NUMBER_MAX)
}

/// Parses JSON from outside.
///
/// # Errors
/// When a number in it is out of range, or it is not the JSON of a `T`.
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, ReadError> {
    check(json)?;
    Ok(serde_json::from_slice(json)?)
}

/// Checks that every number in `json` is in range. Text that is not JSON may pass: the parser
/// refuses it afterwards.
///
/// # Errors
/// Names the first number that is out of range.
pub fn check(json: &[u8]) -> Result<(), OutOfRange> {
    let mut name: &[u8] = b"";
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        let rest = &json[at..];
        let bytes = match byte {
            b'"' => {
                let bytes = string_bytes(rest);
                let after = rest[bytes..]
                    .iter()
                    .find(|byte| !byte.is_ascii_whitespace());
                if after == Some(&b':') {
                    name = &rest[..bytes];
                }
                bytes
            }
            b'-' | b'0'..=b'9' => {
                let bytes = rest.iter().take_while(|byte| is_of_number(**byte));
                let number = &rest[..bytes.count()];
                if !is_in_range(number) {
                    return Err(OutOfRange {
                        name: shown(name).trim_matches('"').to_owned(),
                        number: shown(number),
                    });
                }
                number.len()
            }
            _ => 1,
        };
        at += bytes;
    }
    Ok(())
}

/// Bytes of the string that `json` begins with, its quotes included.
fn string_bytes(json: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

fn is_of_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// A fraction or an exponent is not a whole number; the types of the documents refuse those.
fn is_in_range(number: &[u8]) -> bool {
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    let whole = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let whole = whole.fold(0_u64, |sum, digit| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    });
    whole <= NUMBER_MAX
}

fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let printable = text.chars().filter(|character| !character.is_control());
    printable.take(SHOWN_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_error_names_the_number() {
        let json = br#"{"a": 1, "of \"b\"": {"ids" : [2, -9007199254740992]}}"#;
        let error = check(json).unwrap_err().to_string();
        assert_eq!(
            error,
            "`ids` is -9007199254740992: numbers range from -9007199254740991 to 9007199254740991"
        );
    }

    #[test]
    fn digits_inside_a_string_are_not_a_number() {
        let json = json!({"text": "\\\" 18446744073709551615", "18446744073709551615": NUMBER_MAX});
        assert_eq!(check(json.to_string().as_bytes()), Ok(()));
    }

    #[test]
    fn a_number_of_a_path_or_query_is_bounded() {
        assert_eq!(Number::try_from(NUMBER_MAX), Ok(Number(NUMBER_MAX)));
        for number in [NUMBER_MAX + 1, 1 << 63, u64::MAX] {
            assert!(Number::try_from(number).is_err(), "{number}");
            assert!(serde_json::from_value::<Number>(json!(number)).is_err());
        }
    }

    fn is_bounded(value: &Value) -> bool {
        match value {
            Value::Number(number) => number
                .as_i128()
                .is_none_or(|number| number.unsigned_abs() <= u128::from(NUMBER_MAX)),
            Value::Array(items) => items.iter().all(is_bounded),
            Value::Object(entries) => entries.values().all(is_bounded),
            Value::Null | Value::Bool(_) | Value::String(_) => true,
        }
    }

    fn document() -> impl Strategy<Value = Value> {
        let near = |middle: u64| (middle - 2..=middle + 2).prop_map(Value::from);
        let leaf = prop_oneof![
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            near(1 << 53),
            near(1 << 63),
            any::<String>().prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// The text is judged as the parsed value would be.
        #[test]
        fn a_document_passes_if_and_only_if_every_number_is_in_range(value in document()) {
            for json in [serde_json::to_vec(&value), serde_json::to_vec_pretty(&value)] {
                let json = json.unwrap();
                prop_assert_eq!(check(&json).is_ok(), is_bounded(&value));
                prop_assert_eq!(from_slice::<Value>(&json).is_ok(), is_bounded(&value));
            }
        }

        #[test]
        fn bytes_that_are_not_json_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = check(&bytes);
        }
    }
}
