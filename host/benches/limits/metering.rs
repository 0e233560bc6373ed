//! Compute-heavy guests with fuel as agents meter it, against the same engine without.

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

/// The settings of `haar_engine::configuration` that the speed of code depends on, but for fuel.
fn engine(metered: bool) -> Engine {
    let mut config = Config::new();
    config.wasm_component_model(true);
    config.concurrency_support(false);
    config.gc_support(false);
    config.consume_fuel(metered);
    config.memory_reservation(0);
    config.memory_reservation_for_growth(1 << 20);
    config.memory_guard_size(64 << 10);
    Engine::new(&config).unwrap()
}

struct Subject {
    store: Store<State>,
    handling: Handling,
    metered: bool,
    source: Arc<Source>,
    entry: Arc<Entry>,
}

impl Subject {
    async fn new(bench: &Bench, node: &Node, site: &Site, metered: bool) -> Self {
        let file = artifacts::read(artifacts::COMPUTE);
        let installed = node.install(&file, &site.publisher);
        let spec = microservice("it", installed, &[], &["in"]);
        let engine = engine(metered);
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
        if metered {
            store.set_fuel(u64::MAX).unwrap();
            store.fuel_async_yield_interval(Some(YIELD_FUEL)).unwrap();
        }
        let instance = pre.instantiate_async(&mut store).await.unwrap();
        let handling = Handling::new(&mut store, &instance).unwrap();
        Self {
            store,
            handling,
            metered,
            source: support::source(),
            entry: support::entry(),
        }
    }

    async fn time(&mut self, body: &str) -> Duration {
        if self.metered {
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

/// Prints the ratios; the two take turns, so that a slow moment of the machine hits both.
pub async fn compare() {
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    let bench = Bench::new(&site, &node, 1);
    let mut metered = Subject::new(&bench, &node, &site, true).await;
    let mut bare = Subject::new(&bench, &node, &site, false).await;
    println!(
        "metering: time with fuel and yields against time without (median of {ROUNDS} ratios)"
    );
    for (kind, rounds) in [
        ("sha256", 4_000),
        ("crc", 4_000),
        ("recursion", 4_000),
        ("indirect", 20_000),
        ("json", 20_000),
        ("sort", 4_000),
    ] {
        let body = format!("{kind} {rounds}");
        metered.time(&body).await;
        bare.time(&body).await;
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let with = metered.time(&body).await.as_secs_f64();
            let without = bare.time(&body).await.as_secs_f64();
            ratios.push(with / without);
        }
        ratios.sort_by(f64::total_cmp);
        println!("  {kind:10} {:>5.2}", ratios[ROUNDS / 2]);
    }
    bench.finish();
}
