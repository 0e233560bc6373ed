//! The whole system as processes on loopback: a controller with its relay, agents, and `haar`
//! in a person's hands. What is deployed are the conformance guests.

use std::process::Stdio;
use std::time::Instant;

use haar_conformance_artifacts as artifacts;
use serde_json::Value;

use crate::haar::{Output, Workplace};
use crate::modules;
use crate::program::{DEADLINE, Program};

/// A site with one agent, `one`.
pub(crate) struct System {
    pub(crate) place: Workplace,
    children: Vec<(&'static str, Program)>,
}

impl System {
    pub(crate) fn start() -> Self {
        let mut system = Self {
            place: Workplace::new(),
            children: Vec::new(),
        };
        system.start_controller();
        system.haar("key new team").ok();
        system.haar("publisher trust team team.pub").ok();
        system.enrol("one", "agent").ok();
        system.start_agent();
        system
    }

    fn child(&mut self, label: &'static str, line: &str) -> Value {
        let mut command = self.place.command();
        command
            .args(line.split_whitespace())
            .args(["--announce", "--stop-on-stdin-close"])
            .stdin(Stdio::piped());
        let mut child = Program::start(&mut command);
        let said = child.announcement();
        self.children.push((label, child));
        said
    }

    fn start_controller(&mut self) {
        let said = self.child(
            "controller",
            "controller run --data site --listen 127.0.0.1:0 --relay-listen 127.0.0.1:0",
        );
        assert_eq!(said["event"], "ready");
    }

    pub(crate) fn start_agent(&mut self) {
        let said = self.child("agent", "agent run --data agent --status-interval 200ms");
        assert_eq!(said["name"], "one");
    }

    /// Ends a child as a power cut does.
    pub(crate) fn kill(&mut self, label: &str) {
        let index = self
            .children
            .iter()
            .position(|(other, _)| *other == label)
            .unwrap();
        let (_, mut child) = self.children.remove(index);
        child.kill();
    }

    pub(crate) fn haar(&self, line: &str) -> Output {
        self.place
            .haar(&format!("--context site/context.toml {line}"))
    }

    fn enrol(&self, name: &str, data: &str) -> Output {
        let token = self
            .haar(&format!("node token --name {name} --output json"))
            .ok()
            .json();
        let token = token["token"].as_str().unwrap();
        self.place
            .haar(&format!("agent enrol {token} --data {data} --memory 64MiB"))
    }

    /// Gives a guest its name and version, signs it, and returns its file.
    fn module(&self, name: &str, component: &[u8]) -> String {
        let file = format!("{name}.wasm");
        let component = modules::with_name(component, name, "0.1.0");
        self.place.write(&file, component);
        self.haar(&format!("sign {file} --key team.key")).ok();
        file
    }

    pub(crate) fn push(&self, name: &str, component: &str) {
        let file = self.module(name, &artifacts::read(component));
        self.haar(&format!("push {file}")).ok();
    }

    /// Asks again and again until the answer is as it should be.
    pub(crate) fn eventually(&self, line: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let answer = self.haar(line).ok().json();
            if is_so(&answer) {
                return answer;
            }
            assert!(began.elapsed() < DEADLINE, "{line}: {answer:#}");
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        while let Some((_, mut child)) = self.children.pop() {
            child.stop();
        }
    }
}

const FLOW: &str = "
api_version: haar/v1
kind: Application
name: flow
microservices:
  - name: source
    module: source@0.1.0
    place: { labels: {} }
    configuration: { period_ms: 50 }
    outlets: { out: application/octet-stream }
  - name: sink
    module: sink@0.1.0
    place: { node: one }
    inlets: { in: application/octet-stream }
routes:
  - { from: source.out, to: sink.in, delivery: live }
";

pub(crate) fn instances(answer: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = answer["items"].as_array().unwrap();
    items
        .iter()
        .map(|one| {
            (
                text(&one["microservice"]),
                text(&one["node"]),
                text(&one["status"]["state"]),
            )
        })
        .collect()
}

pub(crate) fn run(answer: &Value, count: usize) -> bool {
    let instances = instances(answer);
    instances.len() == count && instances.iter().all(|(_, _, state)| state == "running")
}

#[test]
fn a_signed_microservice_is_deployed_watched_and_deleted() {
    let system = System::start();
    system.push("source", artifacts::SOURCE);
    system.push("sink", artifacts::SINK);
    system.place.write("flow.yaml", FLOW);
    system.haar("apply -f flow.yaml").ok();
    system.eventually("get microservices --output json", |answer| run(answer, 2));
    system.eventually("get routes --output json", |answer| {
        answer["items"][0]["handled"]
            .as_u64()
            .is_some_and(|handled| handled > 10)
    });
    // It reports once a second.
    system.eventually("logs flow/sink --tail 5 --output json", |answer| {
        answer.to_string().contains("messages=")
    });
    let lines = system.haar("logs flow/sink --tail 5").ok().stdout;
    assert!(lines.contains("messages="), "{lines}");
    let described = system.haar("describe microservice flow/sink").ok().stdout;
    assert!(described.contains("running"), "{described}");

    // One line for a microservice, one for an instance, and what is chosen of them.
    let listed = system.haar("get microservices").ok().stdout;
    assert!(listed.contains("1 of 1"), "{listed}");
    let listed = system.haar("get instances --node one --state running").ok();
    assert!(listed.stdout.contains("flow/sink"), "{}", listed.stdout);
    let chosen = "get instances --state back-off --output json";
    assert!(instances(&system.haar(chosen).ok().json()).is_empty());
    assert_eq!(
        system.haar("get nodes --problems").ok().stdout,
        "Nothing matches.\n"
    );
    assert_eq!(system.haar("get instances --node onne").code, 4);
    assert_eq!(system.haar("get modules --problems").code, 2);

    // A route is named by its ends.
    for line in ["flow/source.out", "flow", "source.out sink.in"] {
        let described = system.haar(&format!("describe route {line}")).ok().stdout;
        assert!(described.contains("healthy"), "{described}");
        assert!(described.contains("flow/source.out"), "{described}");
    }
    let described = system
        .haar("describe route flow/sink.in --output json")
        .ok();
    let route = &described.json()["items"][0];
    assert_eq!(route["health"]["state"], "healthy");
    assert!(route["pairs"][0]["reports"]["one"]["handled"].as_u64() > Some(10));
    assert_eq!(system.haar("describe route flow/sorce.out").code, 4);

    // What an apply would change is told before.
    let changed = FLOW.replace("period_ms: 50", "period_ms: 60");
    system.place.write("changed.yaml", changed);
    let tried = system.haar("apply -f changed.yaml --dry-run").ok().stdout;
    assert!(
        tried.contains("~ microservice source\n    configuration.period_ms: 50 -> 60\n"),
        "{tried}"
    );
    let tried = system.haar("apply -f flow.yaml --dry-run").ok().stdout;
    assert!(tried.starts_with("flow is unchanged"), "{tried}");

    // Nothing moves when nothing changed.
    let again = system.haar("apply -f flow.yaml --output json").ok().json();
    assert_eq!(again["changed"], false);

    // A second node with the labels gets its instance at once.
    system.enrol("two", "second").ok();
    let placed = system.eventually("get microservices --output json", |answer| {
        instances(answer).len() == 3
    });
    assert!(
        instances(&placed)
            .iter()
            .any(|(name, node, _)| name == "source" && node == "two")
    );

    // Without a terminal nothing is deleted that stops or loses something, unless that is said.
    for line in [
        "delete application flow",
        "delete node two",
        "node delete two",
        "delete publisher team",
        "publisher delete team",
    ] {
        let refused = system.haar(line);
        assert_eq!(refused.code, 3, "{line}: {}", refused.stderr);
        assert!(
            refused.stderr.contains("flow/source stops on "),
            "{}",
            refused.stderr
        );
        assert!(
            refused.stderr.contains("--yes goes on"),
            "{}",
            refused.stderr
        );
        let tried = system.haar(&format!("{line} --dry-run")).ok().stdout;
        assert!(
            tried.contains("Would happen: flow/source stops on "),
            "{tried}"
        );
        let tried = system.haar(&format!("{line} --dry-run --output json")).ok();
        assert_eq!(tried.json()["losses"][0]["kind"], "stop");
    }
    system.haar("key new other").ok();
    let refused = system.haar("publisher trust team other.pub --replace --output json");
    assert_eq!(refused.code, 3);
    assert!(
        refused.stderr.contains("\"would_lose\""),
        "{}",
        refused.stderr
    );
    let still_there = system.haar("get microservices --output json").ok().json();
    assert_eq!(instances(&still_there).len(), 3);
    system.haar("delete application flow --yes").ok();
    system.eventually("get microservices --output json", |answer| {
        instances(answer).is_empty()
    });
}

#[test]
fn what_is_not_right_is_refused_at_the_earliest_place() {
    let system = System::start();
    let http = artifacts::component_importing("wasi:http/types@0.2.10");
    let file = system.module("http", &http);
    system.haar(&format!("push {file}")).ok();
    system.push("sink", artifacts::SINK);
    let manifest = |body: &str| {
        let head = "api_version: haar/v1\nkind: Application\nname: bad\nmicroservices:\n";
        system.place.write("bad.yaml", format!("{head}{body}"));
        let refused = system.haar("apply -f bad.yaml");
        assert_ne!(refused.code, 0);
        refused.stderr
    };

    let lacking = manifest("  - { name: s, module: http@0.1.0, place: { node: one } }\n");
    assert!(
        lacking.contains("wasi:http/types@0.2.10") && lacking.contains("--disable http"),
        "{lacking}"
    );
    let unknown = manifest("  - { name: s, module: sinc@0.1.0, place: { node: one } }\n");
    assert!(unknown.contains("sinc@0.1.0"), "{unknown}");
    let nowhere = manifest("  - { name: s, module: sink@0.1.0, place: { node: onne } }\n");
    assert!(nowhere.contains("onne"), "{nowhere}");
    let heavy = manifest(
        "  - { name: s, module: sink@0.1.0, place: { node: one }, limits: { memory: 96MiB } }\n",
    );
    assert!(heavy.contains("32MiB") && heavy.contains("one"), "{heavy}");

    let core = system.place.write("core.wasm", artifacts::core_module());
    let refused = system.haar(&format!("push {}", core.display()));
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("core module"), "{}", refused.stderr);
}

#[test]
fn a_data_directory_of_another_site_and_a_used_token_are_refused() {
    let (here, there) = (System::start(), System::start());
    let token = there.haar("node token --output json").ok().json();
    let token = token["token"].as_str().unwrap();
    let refused = here
        .place
        .haar(&format!("agent enrol {token} --data agent"));
    assert_ne!(refused.code, 0);
    // It runs, so the lock speaks first; a stopped one says whose it is.
    assert!(
        refused.stderr.contains("another haar-agent"),
        "{}",
        refused.stderr
    );
    let mut here = here;
    here.kill("agent");
    let refused = here
        .place
        .haar(&format!("agent enrol {token} --data agent"));
    assert!(
        refused.stderr.contains("use another data directory"),
        "{}",
        refused.stderr
    );
    here.place
        .haar(&format!("agent enrol {token} --data fresh --name fresh"))
        .ok();
    let refused = here
        .place
        .haar(&format!("agent enrol {token} --data third --name third"));
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("token"), "{}", refused.stderr);
    let refused = here.place.haar("agent run --data site");
    assert!(
        refused.stderr.contains("data directory of a controller"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_killed_agent_and_a_killed_controller_go_on_where_they_were() {
    let mut system = System::start();
    system.push("source", artifacts::SOURCE);
    system.push("sink", artifacts::SINK);
    system.place.write("flow.yaml", FLOW);
    system.haar("apply -f flow.yaml").ok();
    system.eventually("get microservices --output json", |answer| run(answer, 2));
    system.kill("agent");
    system.eventually("get nodes --output json", |answer| {
        answer["items"][0]["online"] == false
    });
    system.start_agent();
    system.eventually("get nodes --output json", |answer| {
        answer["items"][0]["online"] == true
    });
    system.eventually("get microservices --output json", |answer| run(answer, 2));
}
