//! Manifests are checked before the site is asked.

use std::process::Stdio;

use crate::haar::Workplace;
use crate::program::{COMMAND, Program};

const BAD: &str = "api_version: haar/v1
kind: Application
name: fleet
microservices:
  - name: sampler
    modul: sampler@1.0.0
    place: { labels: {} }
    limits: { memory: 4 }
";

#[test]
fn errors_say_where_in_the_file() {
    let workplace = Workplace::new();
    workplace.write("app.yaml", BAD);
    insta::assert_snapshot!(workplace.haar("apply -f app.yaml").all());
    insta::assert_snapshot!(workplace.haar("apply app.yaml --output json").all());
}

#[test]
fn a_manifest_may_come_from_standard_input() {
    let workplace = Workplace::new();
    let mut command = workplace.command();
    command.args(["apply", "-f", "-"]).stdin(Stdio::piped());
    let mut apply = Program::start(&mut command);
    apply.feed(BAD);
    let output = apply.output_within(COMMAND);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("<stdin>:6:")
    );
}

#[test]
fn the_schema_is_a_json_schema() {
    let schema = Workplace::new().haar("schema").ok().json();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    assert!(schema["properties"]["microservices"].is_object());
}
