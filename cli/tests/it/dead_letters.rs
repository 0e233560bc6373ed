//! Dead letters from the node that has them to the person who looks at them.

use haar_conformance_artifacts as artifacts;
use haar_host::bus::message::Source;
use haar_host::store::Store;
use haar_host::store::dead_letters::DeadLetter;
use haar_protocol::assignment::MicroserviceName;
use serde_json::Value;

use crate::program::join_within;
use crate::system::{System, run};

const VICTIM: &str = "
api_version: haar/v1
kind: Application
name: app
microservices:
  - name: victim
    module: victim@0.1.0
    place: { node: one }
    inlets: { in: text/plain }
";

/// Puts a dead letter of `app/victim` into the store of a stopped agent.
fn put_aside(data: &std::path::Path, body: &str) {
    let (store, thread) = Store::open(data).unwrap();
    let letter = DeadLetter {
        owner: MicroserviceName {
            application: "app".parse().unwrap(),
            microservice: "victim".parse().unwrap(),
        },
        inlet: "in".into(),
        source: Source {
            site: "s".into(),
            node: "one".into(),
            application: "app".into(),
            microservice: "other".into(),
            outlet: "out".into(),
        },
        sequence: 1,
        published_ms: 1,
        content_type: "text/plain".into(),
        headers: Vec::new(),
        body: body.into(),
        attempts: 5,
        reason: "it panicked".into(),
        died_ms: 2,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime
        .block_on(store.add_dead_letter(letter, 100))
        .unwrap();
    drop(store);
    thread.join();
}

#[test]
fn dead_letters_are_listed_shown_replayed_and_dropped() {
    let mut system = System::start();
    system.push("victim", artifacts::TRAP);
    system.place.write("victim.yaml", VICTIM);
    system.haar("apply -f victim.yaml").ok();
    system.eventually("get microservices --output json", |answer| run(answer, 1));
    system.kill("agent");
    for body in ["hello", "again"] {
        let data = system.place.path("agent");
        let thread = std::thread::spawn(move || put_aside(&data, body));
        join_within("a dead letter is stored", thread);
    }
    system.start_agent();
    let listed = |count: usize| {
        move |answer: &Value| answer["items"].as_array().map(Vec::len) == Some(count)
    };
    let list = system.eventually("dead-letters list --output json", listed(2));
    let id = |index: usize| list["items"][index]["id"].as_u64().unwrap();
    assert_eq!(list["items"][0]["node"], "one");
    let body = system.haar(&format!("dead-letters show {} --node one --body -", id(0)));
    assert_eq!(body.ok().stdout, "hello");
    let shown = system.haar(&format!("dead-letters show {} --node one", id(0)));
    assert!(shown.ok().stdout.contains("it panicked"));

    let replay = format!("dead-letters replay {} --node one", id(0));
    assert_eq!(
        system.haar(&replay).ok().stdout,
        "Replayed 1 dead letter.\n"
    );
    system.eventually("logs app/victim --output json", |answer| {
        answer.to_string().contains("handled hello")
    });
    assert_eq!(system.haar(&replay).code, 4, "it is replayed already");
    let all = "dead-letters drop --all --application app --microservice victim --node one";
    assert_eq!(system.haar(all).code, 2, "it asks for --yes");
    let dropped = system.haar(&format!("{all} --yes")).ok().stdout;
    assert_eq!(dropped, "Dropped 1 dead letter.\n");
    let none = system.haar("dead-letters list --node one").ok().stdout;
    assert_eq!(none, "No dead letters.\n");
    let described = system.haar("describe microservice app/victim").ok().stdout;
    assert!(described.contains("Dead letters:"), "{described}");
}
