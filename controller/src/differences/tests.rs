//! What people are told about the difference of two manifests.

use haar_protocol::manifest::{self, Document};

use super::*;

const BEFORE: &str = "
api_version: haar/v1
kind: Application
name: plant
microservices:
- name: filter
  module: filter@1.0.0
  place: { labels: {} }
  limits: { memory: 16384KiB }
  configuration: { threshold: 5, unit: C }
  inlets: { in: text/plain }
  outlets: { out: text/plain }
- { name: sink, module: sink@1.0.0, place: { node: gw-1 }, inlets: { in: text/plain } }
- { name: old, module: sink@1.0.0, place: { node: gw-1 }, inlets: { in: text/plain } }
routes:
- { from: filter.out, to: sink.in }
- { from: filter.out, to: old.in }
- { from: 'mqtt:plant/+/t', relay: plant, to: filter.in }
";

const AFTER: &str = "
api_version: haar/v1
kind: Application
name: plant
microservices:
- name: filter
  module: filter@1.1.0
  place: { labels: { role: edge } }
  limits: { memory: 32MiB }
  configuration: { unit: K, 'colour': red }
  grants: { key_value: true, directories: [{ host: /var/log, guest: /log }] }
  restart: { pauses: [1s, 2s] }
  inlets: { in: text/plain }
  outlets: { out: { type: text/plain, history: { size: 1MiB, age: 1d } } }
- { name: sink, module: sink@1.0.0, place: { node: gw-1 }, inlets: { in: text/plain } }
- { name: more, module: sink@1.0.0, place: { node: gw-2 }, inlets: { in: text/plain } }
routes:
- { from: filter.out, to: sink.in, delivery: live }
- { from: filter.out, to: more.in }
- { from: 'mqtt:plant/+/t', relay: other, to: filter.in }
";

fn parsed(yaml: &str) -> Manifest {
    manifest::parse(yaml, "test").unwrap_or_else(|errors| panic!("{errors}"))
}

fn digest(of: &str) -> Digest {
    Digest::of(of.as_bytes())
}

fn nodes(of: &[(&str, &[&str])]) -> BTreeMap<Name, BTreeSet<Name>> {
    let name = |text: &&str| text.parse().unwrap();
    let all = of.iter();
    all.map(|(one, nodes)| (name(one), nodes.iter().map(name).collect()))
        .collect()
}

fn modules(manifest: &Manifest) -> BTreeMap<Name, Digest> {
    let all = manifest.microservices.iter();
    all.map(|one| (one.name.clone(), digest(&one.module.to_string())))
        .collect()
}

fn lines(differences: &[Difference]) -> String {
    let mut text = String::new();
    for one in differences {
        text += &format!("{:?} {} {}\n", one.change, one.kind, one.name);
        for key in &one.keys {
            text += &format!("    {}: {:?} -> {:?}\n", key.key, key.before, key.after);
        }
    }
    text
}

#[test]
fn what_is_added_changed_and_removed_is_told_by_key_in_a_stable_order() {
    let (before, after) = (parsed(BEFORE), parsed(AFTER));
    let was = nodes(&[
        ("filter", &["gw-1"]),
        ("sink", &["gw-1"]),
        ("old", &["gw-1"]),
    ]);
    let is = nodes(&[
        ("filter", &["gw-1", "gw-2"]),
        ("sink", &["gw-1"]),
        ("more", &["gw-2"]),
    ]);
    let before = Applied {
        manifest: &before,
        modules: &modules(&before),
        nodes: &was,
    };
    let after = Applied {
        manifest: &after,
        modules: &modules(&after),
        nodes: &is,
    };
    insta::assert_snapshot!(lines(&of_application(Some(before), after)));
    insta::assert_snapshot!(lines(&of_application(None, after)));
}

#[test]
fn the_same_in_other_words_is_no_difference_and_other_modules_nodes_and_orders_are() {
    let before = parsed(BEFORE);
    let written_otherwise = BEFORE
        .replace("16384KiB", "16MiB")
        .replace("{ threshold: 5, unit: C }", "{ unit: 'C', threshold: '5' }");
    let after = parsed(&written_otherwise);
    assert_eq!(before, after);
    let (mut modules, none) = (modules(&before), nodes(&[]));
    let known = modules.clone();
    let was = Applied {
        manifest: &before,
        modules: &known,
        nodes: &none,
    };
    let same = Applied {
        manifest: &after,
        ..was
    };
    assert_eq!(of_application(Some(was), same), []);

    modules.insert("sink".parse().unwrap(), digest("another"));
    let elsewhere = nodes(&[("old", &["gw-1"])]);
    let mut moved = before.clone();
    moved.microservices.swap(0, 1);
    moved.routes.swap(0, 1);
    let other = Applied {
        manifest: &moved,
        modules: &modules,
        nodes: &elsewhere,
    };
    let told = lines(&of_application(Some(was), other));
    let told: Vec<&str> = told.lines().map(str::trim).collect();
    assert_eq!(told[0], "Changed application plant");
    assert!(
        told[1].starts_with("microservices: Some(\"filter, sink, old\") -> "),
        "{told:?}"
    );
    assert!(told[2].starts_with("routes: "), "{told:?}");
    assert_eq!(
        told[3..5],
        ["Changed microservice old", "nodes: None -> Some(\"gw-1\")"]
    );
    assert_eq!(told[5], "Changed microservice sink");
    assert!(told[6].starts_with("digest: Some(\"sha256:"), "{told:?}");
}

#[test]
fn secrets_of_a_relay_are_named_and_never_shown() {
    let parsed = |yaml: &str| match manifest::parse_document(yaml, "test") {
        Ok(Document::Relay(relay)) => *relay,
        other => panic!("{other:?}"),
    };
    let yaml = "api_version: haar/v1\nkind: Relay\nname: plant\nurl: mqtts://broker:8883\ncredentials: { user: us, password: hunter2 }\n";
    let before = parsed(yaml);
    let after = parsed(
        &yaml
            .replace("hunter2", "hunter3")
            .replace("broker", "other"),
    );
    let all = [
        of_relay(Some(&before), &after, &[PASSWORD]),
        of_relay(Some(&before), &before, &[]),
        of_relay(None, &after, &[]),
    ];
    let told = lines(&all.concat());
    assert!(!told.contains("hunter"), "{told}");
    insta::assert_snapshot!(told);
}
