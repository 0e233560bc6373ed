//! In what a manifest differs from what is applied: told by a dry run, and by the apply itself.

use haar_protocol::relay::RelayApplied;
use haar_protocol::rest::{ApplyResult, Change, Difference};

use crate::support::device::Device;
use crate::support::modules::recipe;
use crate::support::site::TestSite;

const BEFORE: &str = "api_version: haar/v1
kind: Application
name: app
microservices:
- {name: source, module: sampler@1.0.0, place: {labels: {}}, outlets: {out: text/plain}}
- {name: sink, module: sampler@1.0.0, place: {node: gw-1}, inlets: {in: text/plain}}
routes:
- {from: source.out, to: sink.in}
";

fn told(differences: &[Difference]) -> Vec<String> {
    let lines = differences.iter().map(|one| {
        let keys: Vec<String> = one
            .keys
            .iter()
            .map(|key| {
                let [before, after] = [&key.before, &key.after].map(|value| value.as_deref());
                let (before, after) = (before.unwrap_or("-"), after.unwrap_or("-"));
                format!(" {}: {before} > {after}", key.key)
            })
            .collect();
        let what = match one.change {
            Change::Added => "added",
            Change::Changed => "changed",
            Change::Removed => "removed",
        };
        format!("{what} {} {}{}", one.kind, one.name, keys.join(","))
    });
    lines.collect()
}

#[test]
fn a_dry_run_says_in_what_a_manifest_differs_from_what_is_applied_and_where_things_move() {
    let site = TestSite::with_publisher();
    site.push(&recipe("sampler", "1.0.0"));
    Device::join(&site, 1, "gw-1", &[]);
    let tried = |yaml: &str| -> ApplyResult {
        let path = "/applications/app?dry_run=true";
        site.client.put(path, yaml.as_bytes()).ok()
    };
    let all = [
        "added application app",
        "added microservice sink module: - > sampler@1.0.0, nodes: - > gw-1",
        "added microservice source module: - > sampler@1.0.0, nodes: - > gw-1",
        "added route source.out -> sink.in delivery: - > durable",
    ];
    assert_eq!(told(&tried(BEFORE).differences), all);
    assert_eq!(told(&site.apply("app", BEFORE).differences), all);
    let same = tried(&BEFORE.replace("to: sink.in", "to: sink.in, delivery: durable"));
    assert!(!same.changed && same.differences.is_empty(), "{same:?}");

    let after = BEFORE
        .replace(
            "inlets: {in: text/plain}",
            "limits: {memory: 4MiB}, configuration: {unit: C}, inlets: {in: text/plain}",
        )
        .replace("to: sink.in", "to: sink.in, delivery: live");
    let changed = tried(&after);
    assert_eq!(
        told(&changed.differences),
        [
            "changed microservice sink configuration.unit: - > C, limits.memory: 16MiB > 4MiB",
            "changed route source.out -> sink.in delivery: durable > live",
        ]
    );
    assert!(changed.changed);
    // A dry run has changed nothing; a node that is gone moves what ran there.
    Device::join(&site, 2, "gw-2", &[]);
    site.client.delete("/nodes/gw-1").done();
    let elsewhere = BEFORE.replace("node: gw-1", "node: gw-2");
    assert_eq!(
        told(&tried(&elsewhere).differences),
        ["changed microservice sink nodes: - > gw-2, place.node: gw-1 > gw-2"]
    );
}

#[test]
fn secrets_of_a_relay_stand_in_no_difference() {
    let site = TestSite::start();
    let yaml = |password: &str, port: u16| {
        format!(
            "api_version: haar/v1\nkind: Relay\nname: plant\nurl: mqtts://192.0.2.9:{port}\ncarries: topics\ncredentials: {{user: us, password: {password}}}\n"
        )
    };
    let put = |query: &str, yaml: &str| {
        let reply = site
            .client
            .put(&format!("/relays/plant{query}"), yaml.as_bytes());
        let text = reply.json().to_string();
        assert!(!text.contains("hunter"), "{text}");
        told(&reply.ok::<RelayApplied>().differences)
    };
    let added = ["added relay plant url: - > mqtts://192.0.2.9:8883"];
    assert_eq!(put("", &yaml("hunter2", 8883)), added);
    let same: [&str; 0] = [];
    assert_eq!(put("?dry_run=true", &yaml("hunter2", 8883)), same);
    assert_eq!(
        put("?dry_run=true", &yaml("hunter3", 8884)),
        [
            "changed relay plant credentials.password: (secret) > (another secret), url: mqtts://192.0.2.9:8883 > mqtts://192.0.2.9:8884"
        ]
    );
}
