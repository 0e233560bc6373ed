//! The manifest: valid ones are read as they are meant, and no text does harm.

use haar_protocol::manifest::{MANIFEST_BYTES_MAX, Manifest, ManifestErrors, parse, warnings};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::fixtures::{FULL_MANIFEST, manifest};
use crate::golden;

const SMALL: &str = "api_version: haar/v1\nkind: Application\nname: a\nmicroservices:\n";

fn errors(text: &str) -> String {
    parse(text, "app.yaml").unwrap_err().to_string()
}

#[test]
fn a_manifest_with_every_key_is_read_as_it_is_meant() {
    golden::check_json("full.json", &manifest());
    assert_eq!(warnings(&manifest()), Vec::<String>::new());
}

#[test]
fn a_manifest_written_as_json_is_read_as_the_same() {
    let json = serde_json::to_string_pretty(&manifest()).unwrap();
    assert_eq!(parse(&json, "app.json").unwrap(), manifest());
}

#[test]
fn what_is_left_out_has_its_default() {
    let text = format!("{SMALL}  - name: a\n    module: a@1\n    place: {{labels: {{}}}}\n");
    let manifest = parse(&text, "app.yaml").unwrap();
    let microservice = &manifest.microservices[0];
    assert_eq!(
        microservice.limits,
        haar_protocol::limits::Limits::default()
    );
    assert_eq!(
        microservice.grants,
        haar_protocol::grants::Grants::default()
    );
    assert_eq!(
        microservice
            .place
            .labels
            .as_ref()
            .map(std::collections::BTreeMap::len),
        Some(0)
    );
    assert!(manifest.routes.is_empty());
}

#[test]
fn configuration_keeps_the_text_of_numbers_and_booleans() {
    let text = format!(
        "{SMALL}  - name: a\n    module: a@1\n    place: {{node: b}}\n    configuration: {{a: 1_000, b: 0x1F, c: 1.50, d: yes, e: True, f: 2026-01-02, g: 'null', h: \"~\", i: -0}}\n"
    );
    let configuration = parse(&text, "app.yaml").unwrap().microservices[0]
        .configuration
        .clone();
    let values: Vec<&str> = configuration.values().map(String::as_str).collect();
    assert_eq!(
        values,
        [
            "1_000",
            "0x1F",
            "1.50",
            "yes",
            "True",
            "2026-01-02",
            "null",
            "~",
            "-0"
        ]
    );
}

#[test]
fn a_schema_fills_in_what_a_configuration_leaves_out() {
    let sampler = &manifest().microservices[0];
    assert!(!sampler.configuration.contains_key("retries"));
    let effective = sampler.effective_configuration();
    assert_eq!(effective["retries"], "3");
    assert_eq!(
        effective["unit"], "°C",
        "what is said wins over the default"
    );
}

/// A manifest whose schema has the one key `k`, set to `value`.
fn with_schema(schema: &str, value: &str) -> Result<Manifest, ManifestErrors> {
    let text = format!(
        "{SMALL}  - name: a\n    module: a@1\n    place: {{node: b}}\n    configuration: {{k: {value}}}\n    configuration_schema: {{k: {{{schema}}}}}\n"
    );
    parse(&text, "app.yaml")
}

#[test]
fn values_at_the_edge_of_a_schema_are_taken_and_those_beyond_are_not() {
    let int = "type: integer, minimum: -9223372036854775808, maximum: 9223372036854775806";
    for (schema, value, fits) in [
        (int, "-9223372036854775808", true),
        (int, "9223372036854775806", true),
        (int, "9223372036854775807", false),
        ("type: integer", "9223372036854775808", false),
        ("type: integer", "1.0", false),
        ("type: integer", "+1", false),
        ("type: integer", "\" 1\"", false),
        ("type: number, minimum: 0", "-0", true),
        ("type: number, minimum: 0.5", "0.5", true),
        ("type: number, minimum: 0.5", "0.49", false),
        ("type: number, maximum: 1e3", "1000", true),
        ("type: number", "inf", false),
        ("type: number", ".5", false),
        ("type: string, max_length: 2", "äö", true),
        ("type: string, max_length: 2", "äöü", false),
        ("type: boolean", "\"true\"", true),
        ("type: boolean", "True", false),
    ] {
        let outcome = with_schema(schema, value);
        assert_eq!(outcome.is_ok(), fits, "{schema}: {value}: {outcome:?}");
    }
}

#[test]
fn ports_without_a_route_are_warned_of() {
    let text = format!(
        "{SMALL}  - name: a\n    module: a@1\n    place: {{node: b}}\n    outlets: {{out: a/b}}\n    inlets: {{in: a/b}}\n"
    );
    golden::check(
        "warnings.txt",
        &(warnings(&parse(&text, "app.yaml").unwrap()).join("\n") + "\n"),
    );
}

#[test]
fn an_error_has_its_parts_for_programs() {
    let errors = parse(
        &FULL_MANIFEST.replace("limits: &small", "limit: &small"),
        "app.yaml",
    )
    .unwrap_err();
    golden::check_json("manifest-errors.json", &errors);
}

#[test]
fn a_manifest_beyond_the_limit_is_refused_unread() {
    let text = "#".repeat(MANIFEST_BYTES_MAX + 1);
    assert_eq!(
        errors(&text),
        "app.yaml:1:1: 1048577 bytes are more than the limit of 1048576"
    );
}

#[test]
fn bounds_on_counts_hold() {
    let microservice = |index: usize, more: &str| {
        format!("  - name: m{index}\n    module: a@1\n    place: {{node: b}}\n{more}")
    };
    let many = |count| {
        SMALL.to_owned()
            + &(0..count)
                .map(|index| microservice(index, ""))
                .collect::<String>()
    };
    assert!(parse(&many(256), "app.yaml").is_ok());
    assert!(errors(&many(257)).contains("257 entries are more than the limit of 256"));
    let ports: String = (0..65).map(|index| format!("p{index}: a/b, ")).collect();
    let text = SMALL.to_owned() + &microservice(0, &format!("    inlets: {{{ports}}}\n"));
    assert!(errors(&text).contains("65 entries are more than the limit of 64"));
    let text = SMALL.to_owned() + "  []\nroutes:\n" + &"  - {from: a.b, to: c.d}\n".repeat(4_097);
    assert!(errors(&text).contains("4097 entries are more than the limit of 4096"));
}

#[test]
fn bounds_on_configuration_hold() {
    let with = |configuration: &str| {
        format!(
            "{SMALL}  - name: a\n    module: a@1\n    place: {{node: b}}\n    configuration:\n{configuration}"
        )
    };
    let key = |length| "k".repeat(length);
    let value = |index: usize, length: usize| format!("      key{index}: {}\n", "v".repeat(length));
    assert!(parse(&with(&format!("      {}: v\n", key(256))), "app.yaml").is_ok());
    assert!(errors(&with(&format!("      {}: v\n", key(257)))).contains("1 to 256 bytes"));
    assert!(parse(&with(&value(0, 65_536)), "app.yaml").is_ok());
    assert!(
        errors(&with(&value(0, 65_537))).contains("65537 bytes are more than the limit of 65536")
    );
    let four: String = (0..4).map(|index| value(index, 65_536)).collect();
    assert!(errors(&with(&four)).contains("262160 bytes are more than the limit of 262144"));
}

#[test]
fn aliases_cannot_make_a_small_text_large() {
    let mut wide = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    let mut long = format!("t: &t {}\nl: [", "x".repeat(100_000));
    let mut deep = "- &a0 [x]\n".to_owned();
    for index in 1..200 {
        let alias = format!("*a{}", index - 1);
        wide += &format!("a{index}: &a{index} [{}]\n", [alias.as_str(); 9].join(", "));
        deep += &format!("- &a{index} [{alias}]\n");
        long += "*t, ";
    }
    for text in [wide, deep, long + "]\n"] {
        assert!(errors(&text).contains("too large or too deeply nested"));
    }
}

#[test]
fn errors_are_told_in_order_and_at_most_50_of_them() {
    let text = format!("{SMALL}  - {{}}\n{}", "bad: 1\n".repeat(60));
    let errors = parse(&text, "app.yaml").unwrap_err();
    assert_eq!(errors.errors.len(), 50);
    assert!(errors.more > 0);
    assert!(
        errors
            .errors
            .is_sorted_by_key(|error| (error.line, error.column))
    );
    assert!(
        errors
            .to_string()
            .ends_with(&format!("and {} more", errors.more))
    );
}

/// What must be true of every answer of the parser.
fn check_answer(text: &str, answer: Result<Manifest, ManifestErrors>) -> Result<(), TestCaseError> {
    match answer {
        Ok(manifest) => {
            let json = serde_json::to_string(&manifest).unwrap();
            prop_assert_eq!(parse(&json, "again"), Ok(manifest.clone()));
            let _ = warnings(&manifest);
        }
        Err(errors) => {
            prop_assert!(!errors.errors.is_empty());
            let lines = text
                .chars()
                .filter(|character| matches!(character, '\n' | '\r'))
                .count()
                + 1;
            for error in &errors.errors {
                prop_assert!((1..=lines + 1).contains(&error.line), "{}", error);
                prop_assert!(error.column >= 1);
                let line = error.to_string();
                prop_assert!(!line.chars().any(char::is_control), "{line:?}");
                prop_assert!(line.len() < 2_000, "{} bytes", line.len());
            }
        }
    }
    Ok(())
}

/// One change to a text: replaces a stretch of it, by something else.
fn mutation() -> impl Strategy<Value = (Index, usize, String)> {
    let words = prop::sample::select(vec![
        "",
        "\n",
        " ",
        "  - ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "&small ",
        "*small",
        "\"",
        "'",
        "|",
        "null",
        "~",
        "-1",
        "#",
        "\t",
        "limits",
        "name",
        "sampler",
        "!!str ",
        "---\n",
        "\u{0}",
        "\u{85}",
        "\u{7f}",
        "<<: *small\n",
        "node: ",
        "0",
        "éé",
    ]);
    (
        any::<Index>(),
        0usize..30,
        prop_oneof![words.prop_map(String::from), "\\PC{0,8}"],
    )
}

fn mutated(mutations: Vec<(Index, usize, String)>) -> String {
    let mut characters: Vec<char> = FULL_MANIFEST.chars().collect();
    for (at, length, new) in mutations {
        let start = at.index(characters.len() + 1);
        let end = (start + length).min(characters.len());
        characters.splice(start..end, new.chars());
    }
    characters.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_time: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}|[ \\n:\\[\\]{}&*!|>'\"#a-c~,?%@-]{0,200}|(.|\\n){0,60}") {
        check_answer(&text, parse(&text, "app.yaml"))?;
    }

    #[test]
    fn no_change_to_a_valid_manifest_makes_the_parser_panic(mutations in prop::collection::vec(mutation(), 1..5)) {
        let text = mutated(mutations);
        check_answer(&text, parse(&text, "app.yaml"))?;
    }
}

#[test]
fn hostile_nesting_is_refused_at_once() {
    for open in ["[", "{", "- ", "? ", "&a [", "{a: "] {
        let text = open.repeat(MANIFEST_BYTES_MAX / open.len());
        assert!(parse(&text, "app.yaml").is_err(), "{open:?}");
    }
}
