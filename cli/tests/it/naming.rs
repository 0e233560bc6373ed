//! What commands report when a name does not exist: one exit code, and the nearest name.

use haar_conformance_artifacts as artifacts;
use serde_json::Value;

use crate::system::{System, run};

const APP: &str = "
api_version: haar/v1
kind: Application
name: plant
microservices:
  - { name: echo, module: echo@0.1.0, place: { node: one }, inlets: { in: text/plain }, outlets: { out: text/plain } }
";

#[test]
fn what_is_not_there_is_not_found_whichever_command_names_it() {
    let system = System::start();
    system.push("echo", artifacts::ECHO);
    system.place.write("app.yaml", APP);
    system.haar("apply -f app.yaml").ok();
    system.eventually("get microservices --output json", |answer| run(answer, 1));
    let mut text = String::new();
    for line in [
        "logs nosuch",
        "logs plnt",
        "logs plant/ecco",
        "logs plant --node on",
        "logs nosuch --follow",
        "get microservices --application plants",
        "get routes --application plants",
        "describe application plan",
        "describe microservice echoo",
        "describe node one1",
        "describe module eco@0.1.0",
        "describe publisher teem",
        "delete publisher teem",
        "publisher delete teem --key team.pub",
        "publisher delete team --key team.pab",
        "relay check controller --node onne",
        "relay check controler --node one",
        "delete application plan",
        "delete node onne",
        "node rotate-key onne",
        "dead-letters list --application plan",
        "dead-letters list --application plant --microservice eco",
        "dead-letters list --node onne",
        "dead-letters show 99 --node one",
        "dead-letters drop 99 --node one",
        "dead-letters drop 98 99 --node one",
        "dead-letters replay 99 --node one",
        "dead-letters drop --all --yes --application plan --microservice echo --node one",
        "dead-letters replay --all --application plant --microservice ech --node one",
    ] {
        let output = system.haar(line);
        assert_eq!(output.code, 4, "{line}: {}{}", output.stdout, output.stderr);
        text += &format!("$ haar {line}\n{}{}\n", output.stdout, output.stderr);
    }
    insta::assert_snapshot!(text);
    // An existing microservice without lines or letters is not an error.
    system.haar("logs plant/echo").ok();
    system.haar("dead-letters list --application plant").ok();

    let json = system.haar("dead-letters drop 99 --node one --output json");
    assert_eq!(json.code, 4);
    assert_eq!(json.json()["dropped"], 0);
    let error: Value = serde_json::from_str(&json.stderr).unwrap();
    assert_eq!(error["code"], "unknown_dead_letter");
}
