//! Figures of the agent: `cargo bench -p haar-host --bench agent [-- start|local|crossing|memory]`.
//! What they mean and what they were stands in docs/benchmarks.md. Prints tables, asserts nothing.

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

#[path = "../tests/it/node.rs"]
#[allow(dead_code, reason = "shared with the tests; each uses a part")]
mod node;
#[path = "../tests/it/site.rs"]
#[allow(dead_code, reason = "shared with the tests; each uses a part")]
mod site;

#[allow(
    dead_code,
    reason = "shared with the other benchmark; each uses a part"
)]
mod support;

use std::time::{Duration, Instant};

use haar_conformance_artifacts as artifacts;
use haar_host::bus::registry::Registry;
use haar_protocol::log::LogLine;
use haar_protocol::status::Status;

use node::{Node, configured, microservice, route};
use site::Site;
use support::{Bench, percentile, resident_bytes};

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
    if runs("start") {
        runtime.block_on(start());
    }
    if runs("local") {
        runtime.block_on(local(64));
        runtime.block_on(local(1_024));
    }
    if runs("crossing") {
        runtime.block_on(crossing_rate());
        runtime.block_on(crossing_latency());
    }
    if runs("memory") {
        runtime.block_on(memory());
    }
}

/// Module file to first handled message, from the agent's cache, with every verification.
async fn start() {
    const ROUNDS: usize = 300;
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::SPIN), &site.publisher);
    let bench = Bench::new(&site, &node, 1);
    let mut spec = microservice("it", module, &[], &["in"]);
    spec.limits.log_lines_per_second = 1;
    let mut whole = Vec::new();
    let mut prepared = Vec::new();
    for round in 0..=ROUNDS {
        let mut assignment = node.assignment(&site, 1);
        assignment.microservices = vec![spec.clone()];
        assignment.routes = vec![route(node.port("it", "in"), node.port("it", "in"))];
        let mut registry = Registry::default();
        bench.forget();
        let began = Instant::now();
        let pre = bench.prepare(&spec);
        let ready = began.elapsed();
        let running = bench.run(&mut registry, &spec, pre);
        let counters = running.deliver(1, b"hello");
        running.wait_handled(&counters, 1);
        let handled = began.elapsed();
        running.stop().await;
        if round > 0 {
            // The first round compiles.
            whole.push(handled);
            prepared.push(ready);
        }
    }
    bench.finish();
    println!(
        "start: module file to first handled message, from the cache, verified ({ROUNDS} rounds)"
    );
    for (what, times) in [
        ("read, verify, load, link", &mut prepared),
        ("to the first handled message", &mut whole),
    ] {
        println!(
            "  {what:32} median {:>8.3} ms   p99 {:>8.3} ms",
            percentile(times, 50.0),
            percentile(times, 99.0)
        );
    }
}

/// Guest to guest on one node and one thread: two echoes throw messages to and fro.
async fn local(size: usize) {
    const IN_FLIGHT: usize = 256;
    const SECONDS: u64 = 5;
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::ECHO), &site.publisher);
    let bench = Bench::new(&site, &node, 1);
    let mut specs = Vec::new();
    for name in ["ping", "pong"] {
        let mut spec = microservice(name, module, &["out"], &["in"]);
        spec.limits.publish_per_second = u32::MAX;
        specs.push(spec);
    }
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices.clone_from(&specs);
    assignment.routes = vec![
        route(node.port("ping", "out"), node.port("pong", "in")),
        route(node.port("pong", "out"), node.port("ping", "in")),
    ];
    let mut registry = Registry::default();
    bench.bus.set_table(registry.compile(&assignment));
    let pre = bench.prepare(&specs[0]);
    let ping = bench.run(&mut registry, &specs[0], pre.clone());
    let pong = bench.run(&mut registry, &specs[1], pre);
    let body = vec![b'x'; size];
    ping.deliver(IN_FLIGHT, &body);
    let handled = |registry: &Registry| -> u64 {
        registry
            .counters()
            .map(|(_, route)| route.handled.load(std::sync::atomic::Ordering::Relaxed))
            .sum()
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, cpu_before, began) = (
        handled(&registry),
        support::cpu_seconds("haar-guest"),
        Instant::now(),
    );
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let (messages, elapsed) = (handled(&registry) - before, began.elapsed().as_secs_f64());
    let cpu = support::cpu_seconds("haar-guest") - cpu_before;
    println!(
        "local: guest to guest, live, {size} B, one thread: {:.0} messages/s ({:.0} per CPU second)",
        messages as f64 / elapsed,
        messages as f64 / cpu
    );
    ping.stop().await;
    pong.stop().await;
    bench.finish();
}

/// Two agents that are connected by the embedded relay, with a source and a sink.
async fn two_agents(source_values: &[(&str, &str)]) -> (Site, Node, Node) {
    let site = Site::start_with_tls().await;
    let (mut left, mut right) = (Node::enrol(&site, "left"), Node::enrol(&site, "right"));
    let source_module = left.install(&artifacts::read(artifacts::SOURCE), &site.publisher);
    let sink_module = right.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let crossing = route(left.port("source", "out"), right.port("sink", "in"));
    let mut to_right = right.assignment(&site, 1);
    let mut sink = configured(
        microservice("sink", sink_module, &[], &["in"]),
        &[("report_ms", "500")],
    );
    sink.limits.inbox_messages = 65_536;
    to_right.microservices = vec![sink];
    to_right.routes = vec![crossing.clone()];
    to_right.peers = vec![left.peer()];
    right.start();
    site.assign(&to_right).await;
    site.status(&right.id, |status| {
        status.microservices.iter().any(|one| one.calls > 0)
    })
    .await;
    let mut to_left = left.assignment(&site, 1);
    let mut source = configured(
        microservice("source", source_module, &["out"], &[]),
        source_values,
    );
    source.limits.publish_per_second = u32::MAX;
    source.limits.fuel_per_call = 1_000_000_000_000;
    to_left.microservices = vec![source];
    to_left.routes = vec![crossing];
    to_left.peers = vec![right.peer()];
    left.start();
    site.assign(&to_left).await;
    (site, left, right)
}

fn handled(status: &Status) -> u64 {
    status.routes.iter().map(|route| route.handled).sum()
}

async fn crossing_rate() {
    for size in ["64", "1024"] {
        // 4,000 messages every 4 ms: more than goes through; the newest win.
        let (site, mut left, mut right) =
            two_agents(&[("period_ms", "4"), ("messages", "4000"), ("size", size)]).await;
        let warm = site
            .status(&right.id, |status| handled(status) > 10_000)
            .await;
        let until_ms = warm.sent_ms + 5_000;
        let end = site
            .status(&right.id, |status| status.sent_ms >= until_ms)
            .await;
        let rate =
            (handled(&end) - handled(&warm)) as f64 * 1_000.0 / (end.sent_ms - warm.sent_ms) as f64;
        println!(
            "crossing: node to node over the embedded relay (TLS), {size} B, as fast as it goes: {rate:.0} messages/s"
        );
        left.stop().await;
        right.stop().await;
    }
}

async fn crossing_latency() {
    let (site, mut left, mut right) =
        two_agents(&[("period_ms", "1"), ("messages", "1"), ("total", "10000")]).await;
    let all = |status: &Status| status.routes.iter().any(|route| route.sent >= 10_000);
    site.status(&left.id, all).await;
    // The sink tells every 500 ms; of live messages the first may be lost while the nodes meet.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lines = site.lines(&right.id);
    let told = |line: &&LogLine| line.text.starts_with("messages=");
    let line = lines.iter().rfind(told).unwrap();
    println!(
        "crossing: node to node over the embedded relay (TLS), 64 B, 1,000 messages/s: {}",
        line.text
    );
    left.stop().await;
    right.stop().await;
}

/// What one more idle instance costs.
async fn memory() {
    const INSTANCES: usize = 200;
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::ECHO), &site.publisher);
    let bench = Bench::new(&site, &node, 2);
    let mut registry = Registry::default();
    let spec = microservice("first", module, &["out"], &["in"]);
    let pre = bench.prepare(&spec);
    let mut running = Vec::new();
    let mut before = 0;
    for index in 0..=INSTANCES {
        let spec = microservice(&format!("m{index}"), module, &["out"], &["in"]);
        let one = bench.run(&mut registry, &spec, pre.clone());
        let counters = one.deliver(1, b"hello");
        one.wait_called(&counters);
        running.push(one);
        if index == 0 {
            before = resident_bytes();
        }
    }
    let each = (resident_bytes() - before) / INSTANCES as u64;
    println!("memory: each further idle instance: {} KiB", each / 1_024);
    for one in running {
        one.stop().await;
    }
    bench.finish();
}
