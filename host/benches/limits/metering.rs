//! Compute-heavy guests with fuel as agents meter it, against the same engine without; and as bytecode
//! for the interpreter that stands in for native code on armv7, against native code.

use std::sync::Arc;
use std::time::{Duration, Instant};

use haar_conformance_artifacts as artifacts;
use haar_host::bus::message::{Entry, Source};
use haar_host::bus::registry::Registry;
use haar_host::local_api;
use haar_host::local_api::bindings::handler::Handling;
use haar_host::local_api::bindings::handler::exports::haar::local::handler;
use haar_host::local_api::state::State;
use haar_host::runtime::instance;
use wasmtime::component::Component;
use wasmtime::{Config, Engine, Store};

use crate::node::{Node, microservice};
use crate::site::Site;
use crate::support::{self, Bench};

const ROUNDS: usize = 7;
/// As in `haar_host::runtime`.
const YIELD_FUEL: u64 = 100_000;

/// The engine's interpreter with the words of this machine. The one of armv7 has words of 32 bits.
const INTERPRETER: &str = "pulley64";

/// How a guest's code is made and run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// As agents do.
    Metered,
    /// Native code without fuel.
    Bare,
    /// Metered bytecode, which is interpreted.
    Interpreted,
}

/// The settings of `haar_engine::configuration` that the speed of code depends on, but for `kind`.
fn engine(kind: Kind) -> Engine {
    let mut config = Config::new();
    config.wasm_component_model(true);
    config.concurrency_support(false);
    config.gc_support(false);
    config.consume_fuel(kind != Kind::Bare);
    config.memory_reservation(0);
    config.memory_reservation_for_growth(1 << 20);
    config.memory_guard_size(64 << 10);
    if kind == Kind::Interpreted {
        config.target(INTERPRETER).unwrap();
    }
    Engine::new(&config).unwrap()
}

struct Subject {
    store: Store<State>,
    handling: Handling,
    kind: Kind,
    source: Arc<Source>,
    entry: Arc<Entry>,
}

impl Subject {
    async fn new(bench: &Bench, node: &Node, site: &Site, kind: Kind) -> Self {
        let file = artifacts::read(artifacts::COMPUTE);
        let installed = node.install(&file, &site.publisher);
        let spec = microservice("it", installed, &[], &["in"]);
        let engine = engine(kind);
        let component = Component::new(&engine, &file).unwrap();
        let pre = local_api::linker(&engine)
            .unwrap()
            .instantiate_pre(&component)
            .unwrap();
        let ours = bench.prepare(&spec);
        let (setup, _) = bench.setup(&mut Registry::default(), &spec, ours);
        let state = instance::state(&setup, Default::default(), Arc::default())
            .await
            .unwrap();
        let mut store = Store::new(&engine, state);
        if kind != Kind::Bare {
            store.set_fuel(u64::MAX).unwrap();
            store.fuel_async_yield_interval(Some(YIELD_FUEL)).unwrap();
        }
        let instance = pre.instantiate_async(&mut store).await.unwrap();
        let handling = Handling::new(&mut store, &instance).unwrap();
        Self {
            store,
            handling,
            kind,
            source: support::source(),
            entry: support::entry(),
        }
    }

    async fn time(&mut self, body: &str) -> Duration {
        if self.kind != Kind::Bare {
            self.store.set_fuel(u64::MAX).unwrap();
        }
        let delivery = support::delivery(&self.source, &self.entry, 1, body.as_bytes());
        self.store.data_mut().handling = Some(delivery);
        let message = handler::Delivery {
            origin: self.entry.origin,
            sequence: 1,
            published: 0,
            headers: &[],
            body: body.as_bytes(),
            attempt: 1,
        };
        let began = Instant::now();
        self.handling
            .haar_local_handler()
            .call_handle(&mut self.store, message)
            .await
            .unwrap()
            .unwrap();
        began.elapsed()
    }
}

/// What guests compute, and how often in one call.
const WORK: [(&str, u32); 6] = [
    ("sha256", 4_000),
    ("crc", 4_000),
    ("recursion", 4_000),
    ("indirect", 20_000),
    ("json", 20_000),
    ("sort", 4_000),
];

/// What fuel costs.
pub async fn compare() {
    println!(
        "metering: time with fuel and yields against time without (median of {ROUNDS} ratios)"
    );
    ratios(Kind::Metered, Kind::Bare, 1).await;
}

/// What the interpreter costs.
pub async fn interpret() {
    println!(
        "interpreter: time as bytecode against time as native code, both metered (median of {ROUNDS} ratios)"
    );
    ratios(Kind::Interpreted, Kind::Metered, 10).await;
}

/// Prints the ratios; the two take turns, so that a slow moment of the machine hits both. Of the work,
/// one part in `parts`.
async fn ratios(kind: Kind, other: Kind, parts: u32) {
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    let bench = Bench::new(&site, &node, 1);
    let mut first = Subject::new(&bench, &node, &site, kind).await;
    let mut second = Subject::new(&bench, &node, &site, other).await;
    for (work, rounds) in WORK {
        let body = format!("{work} {}", rounds / parts);
        first.time(&body).await;
        second.time(&body).await;
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let with = first.time(&body).await.as_secs_f64();
            let without = second.time(&body).await.as_secs_f64();
            ratios.push(with / without);
        }
        ratios.sort_by(f64::total_cmp);
        println!("  {work:10} {:>5.2}", ratios[ROUNDS / 2]);
    }
    bench.finish();
}
