//! Runs single instances as the agent does, without its control loop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use haar_host::bus::Bus;
use haar_host::bus::inbox::Inbox;
use haar_host::bus::message::{Delivery, Entry, Message, RouteCounters, Source};
use haar_host::bus::registry::Registry;
use haar_host::controller::{Controller, Credentials};
use haar_host::local_api::logging::Logger;
use haar_host::local_api::state::State;
use haar_host::logs::Logs;
use haar_host::modules::code::CodeSources;
use haar_host::modules::compile::Compiler;
use haar_host::modules::{Modules, Trust};
use haar_host::runtime::GuestRuntime;
use haar_host::runtime::guest::Counters;
use haar_host::runtime::instance::{Exit, Orders, Setup};
use haar_host::runtime::surroundings::Surroundings;
use haar_host::store::Store;
use haar_protocol::assignment::{Assignment, Microservice};
use haar_protocol::ids::RouteId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use wasmtime::component::InstancePre;

use crate::node::Node;
use crate::site::Site;

/// The parts of an agent.
pub struct Bench {
    pub runtime: Arc<GuestRuntime>,
    pub bus: Arc<Bus>,
    surroundings: Arc<Surroundings>,
    modules: Arc<Modules>,
    assignment: Assignment,
}

impl Bench {
    pub fn new(site: &Site, node: &Node, threads: usize) -> Self {
        let controller = Controller::new("https://127.0.0.1:1", &site.ca_pem()).unwrap();
        let credentials = Credentials {
            site: site.id(),
            node: node.id.clone(),
            key: node.key.clone(),
        };
        let bus: Arc<Bus> = Arc::default();
        Self {
            runtime: GuestRuntime::new(threads).unwrap(),
            surroundings: Arc::new(Surroundings {
                bus: Arc::clone(&bus),
                store: Store::open(node.data.path()).unwrap().0,
                private_directories: node.data.path().join("private"),
                measurements: Arc::default(),
                policy: Arc::new(node.policy()),
                look_pause: node.look_pause,
                facts: Default::default(),
            }),
            bus,
            modules: Modules::open(
                node.data.path(),
                controller,
                credentials,
                CodeSources {
                    compiler: Compiler::InProcess,
                    precompiled_by: None,
                },
                Arc::new(node.policy()),
            )
            .unwrap(),
            assignment: node.assignment(site, 1),
        }
    }

    /// Ends the guests' threads.
    pub fn finish(self) {
        drop(self.runtime);
    }

    /// Reads, verifies, loads and links, compiling when there is no code yet.
    pub fn prepare(&self, spec: &Microservice) -> InstancePre<State> {
        self.modules
            .prepare(
                spec,
                Trust::of(&self.assignment, &spec.module),
                &self.runtime,
            )
            .unwrap()
    }

    /// Forgets loaded code: the next one is prepared from its files.
    pub fn forget(&self) {
        self.modules.sweep(&BTreeSet::new());
    }

    /// Starts an instance.
    pub fn run(
        &self,
        registry: &mut Registry,
        spec: &Microservice,
        pre: InstancePre<State>,
    ) -> Running {
        let (setup, orders) = self.setup(registry, spec, pre);
        let (inbox, counters) = (Arc::clone(&setup.inbox), Arc::clone(&setup.counters));
        let mut task = JoinSet::new();
        self.runtime.spawn(&mut task, setup);
        Running {
            inbox,
            counters,
            orders,
            task,
        }
    }

    /// What an instance is started with.
    pub fn setup(
        &self,
        registry: &mut Registry,
        spec: &Microservice,
        pre: InstancePre<State>,
    ) -> (Setup, watch::Sender<Orders>) {
        let (orders, given) = watch::channel(Orders::of(spec));
        let (answered, _) = mpsc::channel(1);
        let logs: Arc<Logs> = Arc::default();
        let inbox = registry.inbox(&spec.name, &spec.limits);
        let counters: Arc<Counters> = Arc::default();
        let setup = Setup {
            pre,
            spec: Arc::new(spec.clone()),
            inbox,
            surroundings: Arc::clone(&self.surroundings),
            logger: Logger::new(spec, logs, Arc::clone(&counters)),
            counters,
            file_thread: Arc::default(),
            orders: given,
            answered,
        };
        (setup, orders)
    }
}

/// A message as it waits in an inbox.
pub fn delivery(source: &Arc<Source>, entry: &Arc<Entry>, sequence: u64, body: &[u8]) -> Delivery {
    Delivery {
        message: Arc::new(Message {
            source: Arc::clone(source),
            sequence,
            published_ms: 0,
            headers: vec![],
            body: body.to_vec(),
        }),
        entry: Arc::clone(entry),
        attempt: 1,
        place: None,
        taken_ms: None,
    }
}

/// Where the messages come from.
pub fn source() -> Arc<Source> {
    let text = |word: &str| word.to_owned();
    Arc::new(Source {
        site: text("site"),
        node: text("node"),
        application: text("application"),
        microservice: text("microservice"),
        outlet: text("outlet"),
    })
}

/// A route of its own into the inlet `in`.
pub fn entry() -> Arc<Entry> {
    let counters = Arc::new(RouteCounters::new(RouteId::from_u64(1)));
    Arc::new(Entry {
        origin: counters.origin,
        inlet: "in".to_owned(),
        content_type: "application/octet-stream".to_owned(),
        message_bytes_max: u64::MAX,
        expiry_ms: None,
        counters,
        history: None,
    })
}

/// An instance that runs.
pub struct Running {
    pub inbox: Arc<Inbox>,
    pub counters: Arc<Counters>,
    orders: watch::Sender<Orders>,
    task: JoinSet<Exit>,
}

impl Running {
    /// Puts messages into the inbox. Returns what is counted of them.
    pub fn deliver(&self, count: usize, body: &[u8]) -> Arc<RouteCounters> {
        let (source, entry) = (source(), entry());
        for sequence in 1..=count as u64 {
            self.inbox.push(delivery(&source, &entry, sequence, body));
        }
        Arc::clone(&entry.counters)
    }

    /// Spins until so many messages were handled.
    pub fn wait_handled(&self, counters: &RouteCounters, count: u64) {
        while counters.handled.load(Ordering::Relaxed) < count {
            std::hint::spin_loop();
        }
    }

    /// Waits until a message was handled or rejected.
    pub fn wait_called(&self, counters: &RouteCounters) {
        let done = |counters: &RouteCounters| {
            counters.handled.load(Ordering::Relaxed) + counters.dropped.load(Ordering::Relaxed) > 0
                || self.counters.failures.load(Ordering::Relaxed) > 0
        };
        while !done(counters) {
            std::thread::yield_now();
        }
    }

    /// Ends it in the middle of its call.
    pub async fn abort(mut self) {
        self.task.shutdown().await;
    }

    pub async fn stop(mut self) {
        self.orders
            .send_modify(|orders| orders.stop = Some(Duration::from_secs(1)));
        while self.task.join_next().await.is_some() {}
    }
}

/// A percentile in milliseconds.
pub fn percentile(times: &mut [Duration], percent: f64) -> f64 {
    times.sort();
    let index = ((times.len() - 1) as f64 * percent / 100.0).round() as usize;
    times[index].as_secs_f64() * 1_000.0
}

/// Resident memory of this process.
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .next()
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1_024
}

/// CPU time of the threads of that name, in seconds (`/proc/self/task/*/schedstat`, nanoseconds).
pub fn cpu_seconds(thread: &str) -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let nanoseconds: u64 = tasks
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm"))
                .is_ok_and(|name| name.trim() == thread)
        })
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| {
            text.split_whitespace()
                .next()
                .and_then(|time| time.parse::<u64>().ok())
        })
        .sum();
    nanoseconds as f64 / 1e9
}
