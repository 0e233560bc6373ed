//! What a relay takes away that goes to another broker: told before, and refused for who is careful.

use haar_protocol::relay::RelayApplied;
use haar_protocol::rest::LossKind;
use haar_protocol::status::{RelayStatus, Status};

use crate::support::device::{Device, Link, now_ms};
use crate::support::http::Reply;
use crate::support::modules::recipe;
use crate::support::site::TestSite;
use crate::support::wait::until;

const HERE: &str =
    "api_version: haar/v1\nkind: Relay\nname: plant\nurl: mqtts://127.0.0.2:1\ncarries: topics\n";

fn application(delivery: &str) -> String {
    format!(
        "api_version: haar/v1
kind: Application
name: app
microservices:
- {{name: sink, module: sampler@1.0.0, place: {{node: gw}}, inlets: {{in: text/plain}}}}
routes:
- {{from: \"mqtt:hall/#\", to: sink.in, relay: plant, delivery: {delivery}}}
"
    )
}

/// The node says whether it is connected to the broker.
fn report(site: &TestSite, device: &Device, link: &Link, sequence: u64, connected: bool) {
    let broker = RelayStatus {
        name: "plant".parse().unwrap(),
        connected,
        reason: None,
        since_ms: Some(now_ms()),
    };
    let status = Status {
        brokers: vec![broker],
        ..device.status(sequence, 1, Vec::new())
    };
    link.publish(device.sealed(&status, &device.key));
    until("the status is there", || {
        let node = site.client.get("/nodes/gw").json();
        (node["status_sequence"] == sequence).then_some(())
    });
}

#[test]
fn a_relay_at_another_address_says_what_waits_at_the_broker_and_is_refused_when_careful() {
    let site = TestSite::with_publisher();
    site.push(&recipe("sampler", "1.0.0"));
    let device = Device::join(&site, 1, "gw", &[]);
    let link = device.connect(&site);
    let put = |query: &str, yaml: &str| -> Reply {
        let path = format!("/relays/plant?{query}");
        site.client.put(&path, yaml.as_bytes())
    };
    let tried = |yaml: &str| -> RelayApplied { put("dry_run=true", yaml).ok() };
    let there = HERE.replace("127.0.0.2", "127.0.0.3");
    put("careful=true", HERE).done(); // nothing was there before
    site.apply("app", &application("durable"));
    assert!(tried(&there).losses.is_empty(), "no node has been there");
    report(&site, &device, &link, 1, true);
    // Its messages wait there until it is back.
    report(&site, &device, &link, 2, false);

    let told = tried(&there);
    assert!(told.changed && told.dry_run);
    let [loss] = &told.losses[..] else {
        panic!("{told:?}")
    };
    assert_eq!(
        (loss.kind, loss.subject.as_str(), loss.nodes[0].as_str()),
        (LossKind::Messages, "plant", "gw")
    );
    let words = "what waits for gw at mqtts://127.0.0.2:1 (relay `plant`) will be lost, unless mqtts://127.0.0.3:1 is the same broker";
    assert!(loss.message.starts_with(words), "{}", loss.message);
    let refused = put("careful=true", &there).refused(409, "would_lose");
    assert!(refused.contains(words), "{refused}");
    assert!(!tried(HERE).changed, "nothing was changed");

    // What stays at its address loses nothing, nor does a route for which no broker keeps anything.
    let longer = format!("{HERE}session_expiry: 1h\n");
    assert!(tried(&longer).losses.is_empty());
    put("careful=true", &longer).done();
    site.apply("app", &application("live"));
    assert!(tried(&there).losses.is_empty());
    site.apply("app", &application("durable"));

    // Who does not care gets it done, and is told nothing.
    let applied: RelayApplied = put("careful=false", &there).ok();
    assert!(applied.changed && applied.losses.is_empty());
    assert!(!tried(&there).changed);
}
