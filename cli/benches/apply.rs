//! `apply` to the first message on a connected node whose cache has the module, over the real REST
//! API, relay and processes: `cargo bench -p haar --bench apply`. See docs/benchmarks.md.
//!
//! One application has a microservice that publishes when it starts, and one that logs when it
//! handles: the time of that log line, by the same machine's clock, is the end.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that can't run ends at once, with the line"
)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use haar_conformance_artifacts as artifacts;

const HAAR: &str = env!("CARGO_BIN_EXE_haar");
const ROUNDS: usize = 30;

const APPLICATION: &str = "
api_version: haar/v1
kind: Application
name: bench
microservices:
  - name: config
    module: config@0.1.0
    place: { node: one }
    configuration: { colour: blue }
    outlets: { out: text/plain }
  - name: spin
    module: spin@0.1.0
    place: { node: one }
    inlets: { in: text/plain }
routes:
  - { from: config.out, to: spin.in, delivery: live }
";

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let bench = Bench::start(path);
    bench.push(path, "config", artifacts::CONFIG);
    bench.push(path, "spin", artifacts::SPIN);
    std::fs::write(path.join("app.yaml"), APPLICATION).unwrap();
    let mut times = Vec::new();
    for round in 0..=ROUNDS {
        let began = Instant::now();
        let began_ms = now_ms();
        bench.haar(&[
            "apply",
            "--no-wait",
            "-f",
            path.join("app.yaml").to_str().unwrap(),
        ]);
        let applied = began.elapsed();
        let handled_ms = bench.wait_for_line(began_ms);
        if round > 0 {
            times.push((handled_ms - began_ms, applied));
        }
        bench.haar(&["delete", "application", "bench"]);
        bench.wait_until_nothing_runs();
    }
    times.sort();
    let (median, applied) = times[times.len() / 2];
    let (slowest, _) = times[times.len() - 1];
    println!(
        "apply to first handled message, module in the node's cache, {ROUNDS} rounds: median {median} ms, slowest {slowest} ms (of the median, the command `haar apply` itself: {applied:.1?})"
    );
}

struct Bench {
    context: String,
    children: Vec<Child>,
}

impl Bench {
    fn start(path: &Path) -> Self {
        let controller_data = path.join("controller");
        let data = controller_data.to_str().unwrap();
        let flags = [
            "--listen",
            "127.0.0.1:0",
            "--relay-listen",
            "127.0.0.1:0",
            "--announce",
            "--stop-on-stdin-close",
        ];
        let controller = start(&[&["controller", "run", "--data", data], &flags[..]].concat());
        let context = controller_data
            .join("context.toml")
            .to_str()
            .unwrap()
            .to_owned();
        let mut bench = Self {
            context,
            children: vec![controller],
        };
        let token = bench.haar(&["node", "token", "--name", "one", "--output", "json"]);
        let token: serde_json::Value = serde_json::from_slice(&token.stdout).unwrap();
        let agent_data = path.join("agent");
        let agent_data = agent_data.to_str().unwrap();
        let token = token["token"].as_str().unwrap();
        assert!(
            Command::new(HAAR)
                .args(["agent", "enrol", token, "--data", agent_data])
                .output()
                .unwrap()
                .status
                .success()
        );
        bench.children.push(start(&[
            "agent",
            "run",
            "--data",
            agent_data,
            "--announce",
            "--stop-on-stdin-close",
        ]));
        let key = path.join("team");
        bench.haar(&["key", "new", key.to_str().unwrap()]);
        bench.haar(&[
            "publisher",
            "trust",
            "team",
            path.join("team.pub").to_str().unwrap(),
        ]);
        bench
    }

    fn haar(&self, arguments: &[&str]) -> Output {
        let output = Command::new(HAAR)
            .args(["--context", &self.context])
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// Gives the component its name and version, signs and pushes it.
    fn push(&self, path: &Path, name: &str, component: &str) {
        let mut metadata = wasm_metadata::AddMetadata::default();
        metadata.name = wasm_metadata::AddMetadataField::Set(name.to_owned());
        let mut named = metadata.to_wasm(&artifacts::read(component)).unwrap();
        let version = wasm_encoder::CustomSection {
            name: "version".into(),
            data: b"0.1.0".as_slice().into(),
        };
        wasm_encoder::ComponentSection::append_to_component(&version, &mut named);
        let file = path.join(format!("{name}.wasm"));
        std::fs::write(&file, named).unwrap();
        let file = file.to_str().unwrap();
        self.haar(&[
            "sign",
            file,
            "--key",
            path.join("team.key").to_str().unwrap(),
        ]);
        self.haar(&["push", file]);
    }

    /// Waits for the line that the handler logged after `since_ms`, and returns its time.
    fn wait_for_line(&self, since_ms: u64) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            let output = self.haar(&["logs", "bench/spin", "--tail", "20", "--output", "json"]);
            let text = String::from_utf8(output.stdout).unwrap();
            let lines: Vec<serde_json::Value> =
                match serde_json::from_str::<serde_json::Value>(&text) {
                    Ok(serde_json::Value::Object(mut list)) if list.contains_key("items") => {
                        serde_json::from_value(list.remove("items").unwrap()).unwrap()
                    }
                    _ => text
                        .lines()
                        .filter_map(|line| serde_json::from_str(line).ok())
                        .collect(),
                };
            let times = lines.iter().filter_map(|line| line["time_ms"].as_u64());
            if let Some(time) = times.filter(|time| *time >= since_ms).min() {
                return time;
            }
        }
        panic!("the message was never handled");
    }

    fn wait_until_nothing_runs(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            let output = self.haar(&["get", "microservices", "--output", "json"]);
            let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            if list["items"].as_array().unwrap().is_empty() {
                return;
            }
        }
        panic!("the application was never gone");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        while let Some(mut child) = self.children.pop() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// Starts a child and waits for the line that says it is ready.
fn start(arguments: &[&str]) -> Child {
    let mut child = Command::new(HAAR)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains("ready"), "{arguments:?} said {line:?}");
    child
}

fn now_ms() -> u64 {
    u64::try_from(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_millis(),
    )
    .unwrap()
}
