//! JSON as YAML 1.2 in block style, for people who read documents. Every JSON string is a YAML string in
//! double quotes, so only names and words go without.

use std::fmt::Write as _;

use serde_json::Value;

/// Words that readers of YAML 1.1 or 1.2 take for something else than a string.
const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

/// The document, with a line end.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    match is_block(value) {
        true => block(&mut text, value, 0, false),
        false => {
            let _ = writeln!(text, "{}", flow(value)); // writing to a string never fails
        }
    }
    text
}

/// True for what has lines of its own.
fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

/// Writes an object or an array. `begun`: its first line is indented already, by a `- `.
fn block(text: &mut String, value: &Value, indent: usize, begun: bool) {
    let mut begun = begun;
    let mut start = |text: &mut String| {
        if !std::mem::take(&mut begun) {
            text.push_str(&" ".repeat(indent));
        }
    };
    // Writing to a string never fails.
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                start(text);
                let _ = write!(text, "{}:", string(key));
                match value {
                    Value::Array(_) if is_block(value) => {
                        text.push('\n');
                        block(text, value, indent, false);
                    }
                    _ if is_block(value) => {
                        text.push('\n');
                        block(text, value, indent + 2, false);
                    }
                    _ => {
                        let _ = writeln!(text, " {}", flow(value));
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                start(text);
                text.push_str("- ");
                match is_block(item) {
                    true => block(text, item, indent + 2, true),
                    false => {
                        let _ = writeln!(text, "{}", flow(item));
                    }
                }
            }
        }
        _ => unreachable!("only what is a block is written as one"),
    }
}

/// What fits on a line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        other => other.to_string(),
    }
}

fn string(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut quoted = String::new();
    for character in Value::from(text).to_string().chars() {
        match character {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            _ => quoted.push(character),
        }
    }
    quoted
}

/// True for names, words and the like, which nobody reads as anything else.
fn is_plain(text: &str) -> bool {
    let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./@: ".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(is_inside)
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_block_style_with_quotes_where_they_are_needed() {
        let value = json!({
            "items": [
                { "name": "edge", "labels": { "role": "gateway", "on": "no", "a b/c": "1.0" }, "none": [] },
                [1, [true, null], {}],
                "a: b",
            ],
            "digest": "sha256:00ff", "empty": "", "lines": "one\ntwo \u{1b}\u{85}", "number": -1.5,
        });
        insta::assert_snapshot!(document(&value));
        assert_eq!(document(&json!([])), "[]\n");
        assert_eq!(document(&json!("x y")), "x y\n");
    }
}
