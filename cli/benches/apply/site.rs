//! A controller, and one node that is connected to it, as processes.

use std::cell::Cell;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use haar_conformance_artifacts as artifacts;
use serde_json::Value;

use crate::HAAR;
use crate::network::Network;

pub(crate) struct Site {
    context: String,
    /// The node, then the controller: the order in which they end.
    children: Vec<Child>,
    pub(crate) network: Network,
    folder: tempfile::TempDir,
    versions: Cell<u64>,
}

impl Site {
    /// Starts both. The node runs `agent`, or the program with all roles.
    pub(crate) fn start(network: Network, agent: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let data = path.join("controller");
        let listen = format!("{}:0", network.controller());
        let mut controller = Command::new(HAAR);
        controller
            .args(["controller", "run", "--announce", "--stop-on-stdin-close"])
            .args(["--listen", &listen, "--relay-listen", &listen, "--data"])
            .arg(&data);
        let context = data.join("context.toml").to_str().unwrap().to_owned();
        let mut site = Self {
            context,
            children: vec![start(controller)],
            network,
            folder,
            versions: Cell::new(0),
        };
        let token = site.json(&["node", "token", "--name", "one"]);
        let mut enrol = site.agent(agent);
        let enrol = enrol.args(["enrol", token["token"].as_str().unwrap(), "--data"]);
        assert!(
            enrol
                .arg(site.agent_data())
                .output()
                .unwrap()
                .status
                .success()
        );
        let mut run = site.agent(agent);
        run.args(["run", "--announce", "--stop-on-stdin-close", "--data"])
            .arg(site.agent_data());
        site.children.insert(0, start(run));
        let key = site.folder.path().join("team");
        site.haar(&["key", "new", key.to_str().unwrap()]);
        let public = key.with_extension("pub");
        site.haar(&["publisher", "trust", "team", public.to_str().unwrap()]);
        site.wait(
            Duration::from_secs(30),
            "the node has told of itself",
            || {
                let nodes = site.list(&["get", "nodes"]);
                let known =
                    |node: &Value| node["online"] == true && node["resident_bytes"].is_u64();
                nodes.iter().any(known)
            },
        );
        site
    }

    fn agent(&self, agent: Option<&Path>) -> Command {
        match agent {
            Some(agent) => self.network.on_node(agent),
            None => {
                let mut command = self.network.on_node(Path::new(HAAR));
                command.arg("agent");
                command
            }
        }
    }

    fn agent_data(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    /// Runs a command, which must succeed.
    pub(crate) fn haar(&self, arguments: &[&str]) -> Output {
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

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.haar(&[arguments, &["--output", "json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The items of a list, or the lines of a stream.
    pub(crate) fn list(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.haar(&[arguments, &["--output", "json"]].concat());
        match serde_json::from_slice::<Value>(&output.stdout) {
            Ok(Value::Object(mut list)) if list.contains_key("items") => {
                serde_json::from_value(list.remove("items").unwrap()).unwrap()
            }
            _ => String::from_utf8(output.stdout)
                .unwrap()
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect(),
        }
    }

    /// Gives the component its name and version, signs and pushes it. Returns its size in bytes.
    pub(crate) fn push(&self, name: &str, version: &str, component: &str) -> u64 {
        let mut metadata = wasm_metadata::AddMetadata::default();
        metadata.name = wasm_metadata::AddMetadataField::Set(name.to_owned());
        let mut named = metadata.to_wasm(&artifacts::read(component)).unwrap();
        let section = wasm_encoder::CustomSection {
            name: "version".into(),
            data: version.as_bytes().into(),
        };
        wasm_encoder::ComponentSection::append_to_component(&section, &mut named);
        let file = self.folder.path().join(format!("{name}.wasm"));
        std::fs::write(&file, named).unwrap();
        let key = self.folder.path().join("team.key");
        let path = file.to_str().unwrap();
        self.haar(&["sign", path, "--key", key.to_str().unwrap()]);
        self.haar(&["push", path]);
        file.metadata().unwrap().len()
    }

    /// A version that no module has had.
    pub(crate) fn next_version(&self) -> String {
        self.versions.set(self.versions.get() + 1);
        format!("0.1.{}", self.versions.get())
    }

    /// Writes a manifest, and returns its path.
    pub(crate) fn manifest(&self, text: &str) -> String {
        let path = self.folder.path().join("app.yaml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Waits until there is code of the module.
    pub(crate) fn wait_until_compiled(&self, name: &str, version: &str) {
        let module = format!("{name}@{version}");
        self.wait(Duration::from_secs(60), "the module is compiled", || {
            let detail = self.json(&["describe", "module", &module]);
            let code = detail["code"].as_array().unwrap();
            code.iter().any(|code| code["packed_bytes"].is_u64())
        });
    }

    /// Since when the microservice runs, by the node's clock.
    pub(crate) fn running_since_ms(&self, microservice: &str) -> u64 {
        let all = self.list(&["get", "microservices"]);
        let one = all
            .iter()
            .find(|one| one["microservice"] == microservice)
            .unwrap();
        one["status"]["since_ms"].as_u64().unwrap()
    }

    /// Deletes the application, and waits until nothing runs.
    pub(crate) fn delete(&self, application: &str) {
        self.haar(&["delete", "application", application, "--yes"]);
        self.wait(Duration::from_secs(30), "the application is gone", || {
            self.list(&["get", "microservices"]).is_empty()
        });
    }

    /// True when the node has taken its newest assignment.
    pub(crate) fn is_at_rest(&self) -> bool {
        let nodes = self.list(&["get", "nodes"]);
        nodes
            .iter()
            .all(|node| node["applied"] == node["assignment"])
    }

    /// Bytes that the node has given to the disk since it began.
    pub(crate) fn written_bytes(&self) -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.children[0].id())).unwrap();
        let line = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "));
        line.unwrap().trim().parse().unwrap()
    }

    /// What of modules and code is on the node's disk: sizes of files, and of the blocks that they take.
    pub(crate) fn describe_files(&self) -> String {
        use std::os::unix::fs::MetadataExt as _;
        let mut kinds = std::collections::BTreeMap::<String, (u64, u64, u64)>::new();
        for folder in ["modules", "compiled"] {
            for entry in std::fs::read_dir(self.agent_data().join(folder)).unwrap() {
                let file = entry.unwrap();
                let kind = file
                    .path()
                    .extension()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                let file = file.metadata().unwrap();
                let sum = kinds.entry(kind).or_default();
                *sum = (sum.0 + 1, sum.1 + file.len(), sum.2 + file.blocks() * 512);
            }
        }
        let kinds: Vec<String> = kinds
            .iter()
            .map(|(kind, (count, bytes, blocks))| {
                let (bytes, blocks) = (bytes / count, blocks / count);
                format!("{kind} {bytes} bytes each in blocks of {blocks}")
            })
            .collect();
        kinds.join(", ")
    }

    /// Waits until something is so.
    pub(crate) fn wait(&self, time: Duration, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + time;
        while !is_so() {
            assert!(
                Instant::now() < deadline,
                "in {time:?} it was never so: {what}"
            );
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// Starts a child and waits for the line that says it is ready.
fn start(mut command: Command) -> Child {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains("ready"), "{command:?} said {line:?}");
    child
}

pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}
