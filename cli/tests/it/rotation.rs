//! A publisher's key is rotated as documented, on a running site, and nothing stops meanwhile.

use haar_conformance_artifacts as artifacts;
use serde_json::Value;

use crate::system::{System, instances};

const APP: &str = "
api_version: haar/v1
kind: Application
name: app
microservices:
  - { name: echo, module: echo@0.1.0, place: { node: one }, inlets: { in: text/plain }, outlets: { out: text/plain } }
";

fn since(answer: &Value) -> (u64, u64) {
    let status = &answer["items"][0]["status"];
    let number = |key: &str| status[key].as_u64().unwrap_or_default();
    (number("since_ms"), number("restarts"))
}

fn fingerprint(system: &System, key: &str) -> String {
    let key = haar_protocol::keys::PublicKey::from_pem(&system.place.read(key)).unwrap();
    key.fingerprint()
}

#[test]
fn a_publisher_goes_over_to_another_key_and_nothing_stops() {
    let mut system = System::start();
    system.push("echo", artifacts::ECHO);
    system.place.write("app.yaml", APP);
    system.haar("apply -f app.yaml").ok();
    let microservices = "get microservices --output json";
    let is_running = |answer: &Value| {
        let instances = instances(answer);
        instances.len() == 1 && instances[0].2 == "running"
    };
    let before = since(&system.eventually(microservices, is_running));

    system.haar("key new team2").ok();
    let trusted = system.haar("publisher trust team team2.pub").ok();
    let old = fingerprint(&system, "team.pub");
    assert!(trusted.stderr.contains(&old), "{}", trusted.stderr);

    let signed = system.haar("sign echo.wasm --key team2.key").ok();
    assert!(signed.stderr.contains("team.pub"), "{}", signed.stderr);
    let pushed = system.haar("push echo.wasm").ok().stdout;
    assert!(pushed.contains("The site has this code"), "{pushed}");

    system
        .haar(&format!("publisher delete team --key {old}"))
        .ok();
    let publishers = system.haar("get publishers --output json").ok().json();
    assert_eq!(publishers["items"].as_array().unwrap().len(), 1);
    // Every change is in force at the node.
    system.eventually("get nodes --output json", |answer| {
        let node = &answer["items"][0];
        node["applied"] == node["assignment"] && node["assignment"].is_u64()
    });
    let answer = system.eventually(microservices, is_running);
    assert_eq!(since(&answer), before, "it was stopped");

    // A restarted agent does not need the old key either.
    system.kill("agent");
    system.start_agent();
    system.eventually(microservices, |answer| {
        is_running(answer) && since(answer) != before
    });
}
