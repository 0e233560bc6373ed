//! A device of the benchmark's site: a node whose agent is a process of its own, as on a gateway, with
//! compiled code in its cache.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use haar_conformance_artifacts as artifacts;
use haar_host::controller::{Controller, Credentials};
use haar_host::modules::code::CodeSources;
use haar_host::modules::compile::Compiler;
use haar_host::modules::{Modules, Trust};
use haar_host::runtime::GuestRuntime;
use haar_protocol::assignment::{Assignment, Microservice, Route};
use haar_protocol::ids::Digest;
use haar_protocol::limits::Budget;
use haar_protocol::quantity::ByteSize;
use haar_protocol::status::{State, Status};

use crate::cell::Cell;
use crate::node::{Node, microservice};
use crate::process;
use crate::site::Site;

/// How long an agent has to come to rest.
const REST: Duration = Duration::from_secs(5);

/// The device.
pub struct Device {
    pub node: Node,
    /// What it is told, once more each time with the next number.
    pub assignment: Assignment,
    agent: PathBuf,
    process: Option<Child>,
}

impl Device {
    /// An enrolled node that does not run yet.
    pub fn enrol(site: &Site, name: &str, agent: &std::path::Path) -> Self {
        let mut node = Node::enrol(site, name);
        node.give(Budget::new(ByteSize(1 << 40), u32::MAX));
        node.write_enrolment();
        Self {
            assignment: node.assignment(site, 1),
            node,
            agent: agent.to_owned(),
            process: None,
        }
    }

    /// Signs a conformance guest, puts it on the device and has it compiled there.
    pub fn install(&self, site: &Site, guest: &str) -> (Digest, u64) {
        let module = self.node.install(&artifacts::read(guest), &site.publisher);
        let runtime = GuestRuntime::new(1).unwrap();
        let spec = microservice("compiled", module, &[], &[]);
        let modules = self.modules(site);
        modules
            .prepare(&spec, Trust::of(&self.assignment, &spec.module), &runtime)
            .unwrap();
        module
    }

    /// The device's modules, as its agent has them.
    pub fn modules(&self, site: &Site) -> Arc<Modules> {
        let controller = Controller::new("https://127.0.0.1:1", &site.ca_pem()).unwrap();
        let credentials = Credentials {
            site: site.id(),
            node: self.node.id.clone(),
            key: self.node.key.clone(),
        };
        let data = self.node.data.path();
        let sources = CodeSources {
            compiler: Compiler::InProcess,
            precompiled_by: None,
        };
        let policy = Arc::new(self.node.policy());
        Modules::open(data, controller, credentials, sources, policy).unwrap()
    }

    /// One more microservice. Its limits are a gateway's.
    pub fn add(&mut self, mut spec: Microservice) {
        spec.limits.memory = ByteSize(1 << 20);
        self.assignment.microservices.push(spec);
    }

    /// One more route.
    pub fn join(&mut self, route: Route) {
        self.assignment.routes.push(route);
    }

    /// Starts the agent, in a cell if there is one. Returns when it says that it runs.
    pub fn start(&mut self, cell: Option<&Cell>) {
        self.spawn(cell);
        let output = self.process.as_mut().unwrap().stdout.take().unwrap();
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert!(line.contains("ready"), "the agent did not start: {line}");
    }

    /// The same, and returns at once.
    pub fn spawn(&mut self, cell: Option<&Cell>) {
        let mut command = match cell {
            Some(cell) => cell.command(&self.agent),
            None => Command::new(&self.agent),
        };
        command
            .args(["run", "--announce", "--stop-on-stdin-close", "--data"])
            .arg(self.node.data.path())
            .env("HAAR_LOG", "warn")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        self.process = Some(command.spawn().unwrap());
    }

    /// The agent's process.
    pub fn process(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// Hands the assignment out, and waits until everything runs.
    pub async fn assign(&mut self, site: &Site) {
        site.assign(&self.assignment).await;
        let (number, count) = (self.assignment.number, self.assignment.microservices.len());
        let runs = |status: &Status| {
            let microservices = status.microservices.iter();
            let running = microservices.filter(|one| one.state == State::Running);
            status.applied == number && running.count() == count
        };
        site.status(&self.node.id, runs).await;
        self.assignment.number += 1;
    }

    /// Its memory at rest.
    pub fn memory_at_rest(&self) -> process::Memory {
        std::thread::sleep(REST);
        process::Memory::of(self.process())
    }

    /// Stops the agent, and waits for its end.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.stdin.take());
            process.wait().unwrap();
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop();
    }
}
