//! A node of the test's site: an agent on a thread of its own, as in production, and assignments
//! for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use haar_host::agent::ending::Ended;
use haar_host::agent::run::{Agent, Options};
use haar_host::config::{Location, Precompiled, Supervision};
use haar_host::identity::{DataDirectory, LinkSecret, Membership};
use haar_host::modules::compile::Compiler;
use haar_host::policy::{Policy, Rules};
use haar_host::service_manager::ServiceManager;
use haar_host::store::Store;
use haar_protocol::assignment::{
    Assignment, Microservice, MicroserviceName, Peer, Port, Publisher, Route,
};
use haar_protocol::grants::Grants;
use haar_protocol::ids::{Digest, MediaType, Name, NodeId, PortName, RouteId};
use haar_protocol::keys::SecretKey;
use haar_protocol::limits::{Budget, Limits};
use haar_protocol::manifest::Delivery;
use haar_protocol::module;
use haar_protocol::quantity::ByteSize;
use haar_protocol::status::{MicroserviceStatus, Status};
use tokio_util::sync::CancellationToken;

use crate::site::Site;

/// The type of every port in these tests.
pub const TYPE: &str = "application/octet-stream";

/// An agent that takes longer to end hangs: its own end is bounded by less.
const STOP_MAX: Duration = Duration::from_secs(60);

static SEEDS: AtomicU8 = AtomicU8::new(10);

/// One node.
pub struct Node {
    pub name: Name,
    pub key: SecretKey,
    pub id: NodeId,
    pub data: tempfile::TempDir,
    /// What the owner of the device allows, from its next start on.
    pub rules: Rules,
    /// Where the device stands.
    pub location: Option<Location>,
    /// How often it was started.
    pub starts: u32,
    membership: Membership,
    /// The service manager that its agent is started by.
    pub supervision: Supervision,
    /// How often its microservices look whether their granted directories have changed.
    pub look_pause: Duration,
    running: Option<(CancellationToken, std::thread::JoinHandle<Ended>)>,
}

impl Node {
    /// A node that is enrolled and does not run yet.
    pub fn enrol(site: &Site, name: &str) -> Self {
        let key = SecretKey::from_seed([SEEDS.fetch_add(1, Ordering::Relaxed); 32]);
        let id = NodeId::of(&key.public());
        site.admit(key.public());
        let membership = Membership {
            site: site.id(),
            site_key: site.key.public(),
            node: id.clone(),
            name: name.parse().unwrap(),
            controller: "https://127.0.0.1:1".into(),
            relays: vec![site.relay_url()],
            ca_pem: site.ca_pem(),
            budget: Budget::new(ByteSize(1 << 30), 100),
            memory_source: None,
            labels: BTreeMap::new(),
        };
        let data = tempfile::tempdir().unwrap();
        Self {
            name: name.parse().unwrap(),
            key,
            id,
            data,
            rules: Rules::default(),
            location: None,
            starts: 0,
            membership,
            supervision: Supervision::default(),
            look_pause: Duration::from_secs(60),
            running: None,
        }
    }

    /// Another node with the same identity and an empty directory.
    #[allow(dead_code, reason = "the benchmarks share this file")]
    pub fn twin(&self) -> Self {
        Self {
            name: self.name.clone(),
            key: self.key.clone(),
            id: self.id.clone(),
            data: tempfile::tempdir().unwrap(),
            rules: self.rules.clone(),
            location: self.location,
            starts: 0,
            membership: self.membership.clone(),
            supervision: Supervision::default(),
            look_pause: Duration::from_secs(60),
            running: None,
        }
    }

    /// What it has to give, from its next start on.
    #[allow(dead_code, reason = "the benchmarks share this file")]
    pub fn give(&mut self, budget: Budget) {
        self.membership.budget = budget;
    }

    /// Writes down what an agent in a process of its own starts with.
    #[allow(dead_code, reason = "the benchmarks share this file")]
    pub fn write_enrolment(&self) {
        self.kept_link_secret();
        std::fs::write(self.data.path().join("node.key"), self.key.to_pem()).unwrap();
        let directory = DataDirectory::open(self.data.path()).unwrap();
        directory.set_membership(&self.membership).unwrap();
    }

    /// The relay that it knows since it enrolled is another one.
    #[allow(dead_code, reason = "the benchmarks share this file")]
    pub fn attach_to(&mut self, relay: &str) {
        self.membership.relays = vec![relay.to_owned()];
    }

    /// What its agent starts with.
    pub fn options(&self) -> Options {
        Options {
            membership: self.membership.clone(),
            key: self.key.clone(),
            link_secret: self.kept_link_secret(),
            status_interval: Duration::from_millis(200),
            guest_threads: 2,
            location: self.location,
            flash_budget: None,
            compiler: Compiler::InProcess,
            precompiled: Precompiled::Accept,
            policy: Arc::new(self.policy()),
            look_pause: self.look_pause,
        }
    }

    pub fn start(&mut self) {
        self.starts += 1;
        let stop = CancellationToken::new();
        let options = self.options();
        let (data, stopped) = (self.data.path().to_owned(), stop.clone());
        let supervision = self.supervision.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let (store, store_thread) = Store::open_or_lack(&data).unwrap();
            let ended = runtime.block_on(async {
                let agent = Agent::start(&data, options, store).await.unwrap();
                let manager = ServiceManager::new(&supervision).unwrap();
                manager.ready();
                agent.run(stopped, manager).await
            });
            drop(runtime);
            store_thread.join();
            ended
        });
        self.running = Some((stop, thread));
    }

    /// What its rules come to.
    pub fn policy(&self) -> Policy {
        let data = self.data.path().to_owned();
        Policy::new(self.rules.clone(), data.join("agent.toml"), data)
    }

    /// Stops it. Returns why it has ended, if it ran.
    pub async fn stop(&mut self) -> Option<Ended> {
        let (stop, thread) = self.running.take()?;
        stop.cancel();
        let mut often = tokio::time::interval(Duration::from_millis(2));
        let ended = async {
            while !thread.is_finished() {
                often.tick().await;
            }
        };
        let ended = tokio::time::timeout(STOP_MAX, ended).await;
        assert!(ended.is_ok(), "the agent does not end");
        Some(thread.join().unwrap())
    }

    /// Signs a module and puts it where the agent keeps fetched ones. Returns what an assignment
    /// says of it.
    pub fn install(&self, component: &[u8], publisher: &SecretKey) -> (Digest, u64) {
        let signed = module::sign(component, publisher).unwrap();
        (self.install_as_is(&signed), signed.len() as u64)
    }

    pub fn install_as_is(&self, file: &[u8]) -> Digest {
        let digest = Digest::of(file);
        std::fs::create_dir_all(self.data.path().join("modules")).unwrap();
        std::fs::write(self.module_file(digest), file).unwrap();
        digest
    }

    fn module_file(&self, module: Digest) -> PathBuf {
        let name = format!("modules/{}.wasm", module.to_hex());
        self.data.path().join(name)
    }

    /// Puts a module where the agent does not look for it.
    pub fn put_aside(&self, module: Digest) {
        std::fs::rename(self.module_file(module), self.data.path().join("aside")).unwrap();
    }

    /// Puts it back.
    pub fn put_back(&self, module: Digest) {
        std::fs::rename(self.data.path().join("aside"), self.module_file(module)).unwrap();
    }

    /// An assignment of nothing.
    pub fn assignment(&self, site: &Site, number: u64) -> Assignment {
        Assignment {
            site: site.id(),
            node: self.id.clone(),
            node_name: self.name.clone(),
            labels: BTreeMap::new(),
            number,
            issued_ms: 0,
            publishers: vec![Publisher {
                name: "team".parse().unwrap(),
                key: site.publisher.public(),
            }],
            signatures: BTreeMap::new(),
            relays: Vec::new(),
            serves: Vec::new(),
            link_key_generation: 0,
            peers: vec![],
            microservices: vec![],
            routes: vec![],
            topics: vec![],
            brokers: vec![],
            lives: None,
            ended: vec![],
        }
    }

    pub fn port(&self, microservice: &str, port: &str) -> Port {
        Port {
            node: self.id.clone(),
            microservice: name(microservice),
            port: port.parse().unwrap(),
        }
    }

    pub fn peer(&self) -> Peer {
        Peer {
            id: self.id.clone(),
            name: self.name.clone(),
            link_key: Some(self.link_secret().public()),
            relays: Vec::new(),
        }
    }

    /// The secret that it has on its disk, as after any start.
    fn kept_link_secret(&self) -> LinkSecret {
        let directory = DataDirectory::open(self.data.path()).unwrap();
        let first = || Ok(*Digest::of(self.id.as_str().as_bytes()).as_bytes());
        directory.link_secret(first).unwrap()
    }

    pub fn link_secret(&self) -> LinkSecret {
        LinkSecret::from_bytes(*Digest::of(self.id.as_str().as_bytes()).as_bytes())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((stop, _)) = self.running.take() {
            stop.cancel();
        }
    }
}

pub fn name(microservice: &str) -> MicroserviceName {
    MicroserviceName {
        application: "app".parse().unwrap(),
        microservice: microservice.parse().unwrap(),
    }
}

/// A microservice with the given ports and everything else as usual.
pub fn microservice(
    called: &str,
    (module, module_bytes): (Digest, u64),
    outlets: &[&str],
    inlets: &[&str],
) -> Microservice {
    let ports = |names: &[&str]| -> BTreeMap<Name, MediaType> {
        names
            .iter()
            .map(|port| (port.parse().unwrap(), TYPE.parse().unwrap()))
            .collect()
    };
    Microservice {
        name: name(called),
        module,
        module_bytes,
        module_label: format!("{called}@0.1.0"),
        limits: Limits::default(),
        grants: Grants::default(),
        configuration: BTreeMap::new(),
        outlets: ports(outlets),
        inlets: ports(inlets),
        log_level: Default::default(),
        restart: Default::default(),
        retry: Default::default(),
        inlet_history: BTreeMap::new(),
        outlet_history: BTreeMap::new(),
        unknown: Vec::new(),
        life: None,
    }
}

pub fn configured(mut microservice: Microservice, values: &[(&str, &str)]) -> Microservice {
    microservice.configuration = values
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    microservice
}

pub fn route(from: Port, to: Port) -> Route {
    let port = |port: &Port| PortName {
        microservice: port.microservice.microservice.clone(),
        port: port.port.clone(),
    };
    let content_type: MediaType = TYPE.parse().unwrap();
    let id = RouteId::of(
        &from.microservice.application,
        &port(&from),
        &port(&to),
        &content_type,
    );
    Route {
        id,
        from,
        to,
        content_type,
        delivery: Delivery::Live,
        backlog: Default::default(),
    }
}

/// What a status says of one microservice.
pub fn of<'a>(status: &'a Status, microservice: &str) -> Option<&'a MicroserviceStatus> {
    status
        .microservices
        .iter()
        .find(|one| one.name == name(microservice))
}
