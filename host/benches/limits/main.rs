//! What the limits cost, and how exact they are: `cargo bench -p haar-host --bench limits
//! [-- imports|engine|share|waiting|metering|interpreter]`. What the figures mean and what they were stands in
//! docs/benchmarks.md. Prints tables, asserts nothing.

#![allow(unreachable_pub, reason = "modules that the tests share")]
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that can't run ends at once, with the line"
)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]

#[path = "../../tests/it/node.rs"]
#[allow(dead_code, reason = "shared with the tests; each uses a part")]
mod node;
#[path = "../../tests/it/site.rs"]
#[allow(dead_code, reason = "shared with the tests; each uses a part")]
mod site;

#[allow(
    dead_code,
    reason = "shared with the other benchmark; each uses a part"
)]
#[path = "../support/mod.rs"]
mod support;

mod metering;
mod waiting;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use haar_conformance_artifacts as artifacts;
use haar_host::bus::registry::Registry;
use haar_protocol::assignment::Microservice;
use haar_protocol::quantity::{Millis, Percent};
use wasmtime::Store;
use wasmtime::component::{Component, Linker};

use node::{Node, configured, microservice, route};
use site::Site;
use support::{Bench, cpu_seconds};

fn main() {
    let filter: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let runs =
        |name: &str| filter.is_empty() || filter.iter().any(|word| name.contains(word.as_str()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    if runs("imports") {
        runtime.block_on(imports());
    }
    if runs("engine") {
        runtime.block_on(engine());
    }
    if runs("share") {
        runtime.block_on(share());
    }
    if runs("waiting") {
        runtime.block_on(waiting::compare());
    }
    if runs("metering") {
        runtime.block_on(metering::compare());
    }
    if runs("interpreter") {
        runtime.block_on(metering::interpret());
    }
}

fn unbounded(mut spec: Microservice) -> Microservice {
    spec.limits.publish_per_second = u32::MAX;
    spec.limits.log_lines_per_second = u32::MAX;
    spec.limits.log_bytes_per_second.0 = u64::MAX;
    spec.limits.key_value_per_second = u32::MAX;
    spec.limits.key_value_writes_per_second = u32::MAX;
    spec.limits.fuel_per_call = 1_000_000_000_000;
    spec.limits.call_timeout = Millis(600_000);
    spec.grants.key_value = true;
    spec
}

/// The price of each function of the agent, from inside a guest.
async fn imports() {
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::COSTS), &site.publisher);
    let quiet = node.install(&artifacts::read(artifacts::QUIET), &site.publisher);
    let bench = Bench::new(&site, &node, 1);
    let spec = configured(
        unbounded(microservice("it", module, &["out"], &["in"])),
        &[("key", "value")],
    );
    let receiver = microservice("receiver", quiet, &[], &["in"]);
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![spec.clone(), receiver.clone()];
    assignment.routes = vec![route(node.port("it", "out"), node.port("receiver", "in"))];
    let mut registry = Registry::default();
    bench.bus.set_table(registry.compile(&assignment));
    let pre = bench.prepare(&spec);
    let running = bench.run(&mut registry, &spec, pre);
    println!(
        "imports: time of one call from a guest (publish: 64 B into a local inbox, not handled)"
    );
    let time = |what: &str, count: u32| {
        let began = Instant::now();
        let counters = running.deliver(1, format!("{what} {count}").as_bytes());
        running.wait_handled(&counters, 1);
        began.elapsed()
    };
    for (what, count) in [
        ("nothing", 1_000_000),
        ("now", 100_000),
        ("config", 100_000),
        ("log", 100_000),
        ("publish", 100_000),
        ("batch", 10_000),
        ("get", 10_000),
        ("set", 1_000),
    ] {
        time(what, count / 10);
        let empty = time(what, 0);
        let mut rounds: Vec<f64> = (0..5)
            .map(|_| (time(what, count) - empty.min(time(what, 0))).as_secs_f64() * 1e6)
            .map(|microseconds| microseconds / f64::from(count))
            .collect();
        rounds.sort_by(f64::total_cmp);
        println!("  {what:10} {:>10.3} us", rounds[2]);
    }
    running.stop().await;
    bench.finish();
}

/// Messages through one handler, against bare calls of the engine with the same bytes.
async fn engine() {
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::QUIET), &site.publisher);
    let bench = Bench::new(&site, &node, 1);
    println!("engine: messages per CPU second through one handler, live, against the engine alone");
    for size in [64, 1_024] {
        let (mut handled, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            handled.push(through_a_handler(&bench, &node, module, size).await);
            bare.push(through_the_engine(&bench, size).await);
        }
        handled.sort_by(f64::total_cmp);
        bare.sort_by(f64::total_cmp);
        println!(
            "  {size:>5} B: handler {:>9.0}/s, engine {:>9.0}/s: {:.0} %",
            handled[1],
            bare[1],
            handled[1] / bare[1] * 100.0
        );
    }
    bench.finish();
}

async fn through_a_handler(
    bench: &Bench,
    node: &Node,
    module: (haar_protocol::ids::Digest, u64),
    size: usize,
) -> f64 {
    /// No more than an inbox holds.
    const MESSAGES: usize = 2_000;
    const ROUNDS: usize = 200;
    let mut spec = unbounded(microservice("it", module, &[], &["in"]));
    spec.limits.inbox_messages = 65_536;
    let mut registry = Registry::default();
    let pre = bench.prepare(&spec);
    let running = bench.run(&mut registry, &spec, pre);
    let body = vec![b'x'; size];
    let warm = running.deliver(1_000, &body);
    running.wait_handled(&warm, 1_000);
    let mut seconds = 0.0;
    for _ in 0..ROUNDS {
        let before = cpu_seconds("haar-guest");
        let counters = running.deliver(MESSAGES, &body);
        running.wait_handled(&counters, MESSAGES as u64);
        seconds += cpu_seconds("haar-guest") - before;
    }
    running.stop().await;
    let _ = node;
    (ROUNDS * MESSAGES) as f64 / seconds
}

/// A component whose one function takes a list of bytes and does nothing.
const BARE: &str = r#"(component
    (core module $m
        (memory (export "memory") 2)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
        (func (export "take") (param i32 i32)))
    (core instance $i (instantiate $m))
    (func (export "take") (param "body" (list u8))
        (canon lift (core func $i "take")
            (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))"#;

/// The same engine, a channel, and calls with fuel.
async fn through_the_engine(bench: &Bench, size: usize) -> f64 {
    const MESSAGES: usize = 500_000;
    let engine = bench.runtime.engine().clone();
    let component = Component::new(&engine, wat::parse_str(BARE).unwrap()).unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(1_024);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn_on(
        async move {
            let mut store = Store::new(&engine, ());
            store.set_fuel(u64::MAX).unwrap();
            store.fuel_async_yield_interval(Some(100_000)).unwrap();
            let linker: Linker<()> = Linker::new(&engine);
            let instance = linker
                .instantiate_async(&mut store, &component)
                .await
                .unwrap();
            let take = instance
                .get_typed_func::<(&[u8],), ()>(&mut store, "take")
                .unwrap();
            while let Some(body) = receiver.recv().await {
                store.set_fuel(1_000_000_000).unwrap();
                take.call_async(&mut store, (&body,)).await.unwrap();
            }
        },
        bench.runtime.handle(),
    );
    let body = vec![b'x'; size];
    for _ in 0..1_000 {
        sender.send(body.clone()).await.unwrap();
    }
    let before = cpu_seconds("haar-guest");
    for _ in 0..MESSAGES {
        sender.send(body.clone()).await.unwrap();
    }
    drop(sender);
    while tasks.join_next().await.is_some() {}
    MESSAGES as f64 / (cpu_seconds("haar-guest") - before)
}

/// How near to its share a spinning guest comes, alone and beside spinning guests without one.
async fn share() {
    const SECONDS: f64 = 5.0;
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::SPIN), &site.publisher);
    println!("share: processor time of a spinning guest with a share, 2 threads, {SECONDS} s");
    for percent in [5, 10, 25, 50] {
        for neighbours in [0, 4, 16] {
            let bench = Bench::new(&site, &node, 2);
            let mut registry = Registry::default();
            let mut spec = unbounded(microservice("it", module, &[], &["in"]));
            spec.limits.cpu = Some(Percent(percent));
            let pre = bench.prepare(&spec);
            let running = bench.run(&mut registry, &spec, pre.clone());
            let others: Vec<_> = (0..neighbours)
                .map(|index| {
                    let name = format!("other{index}");
                    let spec = unbounded(microservice(&name, module, &[], &["in"]));
                    let other = bench.run(&mut registry, &spec, pre.clone());
                    other.deliver(1, b"spin");
                    other
                })
                .collect();
            running.deliver(1, b"spin");
            tokio::time::sleep(Duration::from_millis(500)).await;
            let used = || running.counters.cpu_ns.load(Ordering::Relaxed) as f64 / 1e9;
            let (before, began) = (used(), Instant::now());
            tokio::time::sleep(Duration::from_secs_f64(SECONDS)).await;
            let got = (used() - before) / began.elapsed().as_secs_f64() * 100.0;
            println!(
                "  share {percent:>2} %, {neighbours:>2} spinning neighbours: got {got:>5.2} %, error {:+.1} % of it",
                (got / f64::from(percent) - 1.0) * 100.0
            );
            running.abort().await;
            for other in others {
                other.abort().await;
            }
            bench.finish();
        }
    }
}
