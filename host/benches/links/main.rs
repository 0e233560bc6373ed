//! Durable routes from node to node, beside plain publishers and subscribers on the same brokers:
//! `cargo bench -p haar -p haar-host --bench links [-- rate|own|drain|flash|latency]`. Needs Mosquitto with
//! its tools. Prints tables, asserts nothing.

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

mod broker;
#[path = "../../tests/it/node.rs"]
#[allow(dead_code, reason = "shared with the tests; each uses a part")]
mod node;
mod pair;
mod scene;
#[path = "../../tests/it/site.rs"]
#[allow(dead_code, reason = "shared with the tests; each uses a part")]
mod site;

use std::time::Duration;

use haar_protocol::manifest::Delivery;

use broker::Mosquitto;
use pair::Pair;
use scene::{Run, Scene};
use site::Site;

/// Each figure is the median of so many, taken in turns.
const ROUNDS: usize = 3;
const PUBLISHERS: usize = 64;

fn main() {
    let filter: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let runs =
        |name: &str| filter.is_empty() || filter.iter().any(|word| name.contains(word.as_str()));
    // Before the site's own: what agents say is not the table.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::ERROR)
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    println!("load average at the beginning: {}", load());
    if runs("rate") {
        runtime.block_on(rates(64, 384_000));
        runtime.block_on(rates(1_024, 192_000));
    }
    if runs("own") {
        for size in [64, 1_024] {
            runtime.block_on(own(size));
        }
    }
    if runs("drain") {
        runtime.block_on(drain(64, 192_000));
        runtime.block_on(drain(1_024, 48_000));
    }
    if runs("flash") {
        for size in [64, 1_024] {
            runtime.block_on(flash(size));
        }
        mosquitto_flash();
    }
    if runs("latency") {
        runtime.block_on(latency());
    }
    println!("load average at the end: {}", load());
}

/// Node to node as fast as it goes, beside pairs of QoS 1.
async fn rates(size: usize, messages: usize) {
    let mut columns: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        let mosquitto = Mosquitto::start("");
        let figures = [
            run(None, PUBLISHERS, messages, size).await.per_second,
            pair_rate(None, messages, size).await,
            run(Some(&mosquitto), PUBLISHERS, messages, size)
                .await
                .per_second,
            pair_rate(Some(&mosquitto), messages, size).await,
            tokio::task::block_in_place(|| mosquitto.pair("pair", messages, size)),
        ];
        for (column, figure) in columns.iter_mut().zip(figures) {
            column.push(figure);
        }
    }
    let [embedded, embedded_pair, mosquitto, sessions, tools] = columns.map(median);
    println!(
        "rate: durable, node to node, {PUBLISHERS} publishers, {size} B, {messages} messages, medians of {ROUNDS}"
    );
    println!(
        "  embedded relay: {:.2} times a QoS 1 pair of sessions on it, {:.2} times Mosquitto's tools: {embedded:.0} against {embedded_pair:.0} and {tools:.0} messages/s",
        embedded / embedded_pair,
        embedded / tools,
    );
    println!(
        "  Mosquitto:      {:.2} times a QoS 1 pair of sessions on it, {:.2} times Mosquitto's tools: {mosquitto:.0} against {sessions:.0} and {tools:.0} messages/s",
        mosquitto / sessions,
        mosquitto / tools,
    );
}

/// One run with both nodes there.
async fn run(broker: Option<&Mosquitto>, publishers: usize, messages: usize, size: usize) -> Run {
    let mut scene = Scene::new(broker).await;
    scene.add_durable(publishers, messages, size);
    scene.start_right().await;
    scene.start_left().await;
    let run = scene.handled(messages).await;
    scene.stop().await;
    run
}

/// Node to node as fast as it goes, and nothing beside it: for comparing one build with another.
async fn own(size: usize) {
    const MESSAGES: usize = 128_000;
    let mosquitto = Mosquitto::start("");
    for (name, broker) in [
        ("the embedded relay", None),
        ("Mosquitto", Some(&mosquitto)),
    ] {
        let rate = run(broker, PUBLISHERS, MESSAGES, size).await.per_second;
        println!("own: durable, node to node over {name}, {size} B: {rate:.0} messages/s");
    }
}

async fn pair_rate(broker: Option<&Mosquitto>, messages: usize, size: usize) -> f64 {
    let mut site = Site::start().await;
    let rate = Pair::connect(&site, broker)
        .await
        .rate(messages, size)
        .await;
    site.stop_relay().await;
    rate
}

/// What piled up while the receiver was away, and live messages meanwhile. Statuses tell the end up to
/// 0.2 s late.
async fn drain(size: usize, messages: usize) {
    /// Messages of the figure alone.
    const ALONE: usize = 500;
    let mut scene = Scene::new(None).await;
    scene.add_sink("during");
    scene.add_sink("alone");
    scene.add_durable(PUBLISHERS, messages, size);
    scene.start_left().await;
    scene.published(messages).await;
    let live = |scene: &mut Scene, name: &str, total: usize| {
        let (total, name) = (total.to_string(), name.to_owned());
        let source = format!("live-{name}");
        let values = [("period_ms", "10"), ("total", total.as_str())];
        scene.add_source(&source, &values, &name, Delivery::Live);
    };
    live(&mut scene, "during", usize::MAX);
    scene.start_right().await;
    let began = scene.until_handled(1).await;
    scene.tell_left().await;
    let ended = scene.until_handled(messages as u64).await;
    let (count, during) = scene.latencies_until_now("during");
    scene.remove_source("live-during");
    live(&mut scene, "alone", ALONE);
    scene.tell_right().await;
    scene.tell_left().await;
    let alone = scene.latencies("alone", ALONE).await;
    let handled = (messages as u64 - scene.durably(&began)) as f64;
    let per_second = handled * 1_000.0 / (ended.sent_ms - began.sent_ms) as f64;
    scene.stop().await;
    let tools = tokio::task::block_in_place(|| {
        let mosquitto = Mosquitto::start("");
        mosquitto.keep_session("drain");
        mosquitto.publish("drain", messages, size);
        mosquitto.subscribe("drain", messages)
    });
    println!(
        "drain: {:.2} times Mosquitto's tools: {messages} messages of {size} B that waited, over the embedded relay: {per_second:.0} messages/s against {tools:.0}",
        per_second / tools
    );
    println!(
        "  a live message each 10 ms meanwhile ({count}): p99 {:.1} times that alone: p50 {:.2}, p99 {:.2}, p99.9 {:.2} ms; alone p50 {:.2}, p99 {:.2}, p99.9 {:.2} ms",
        during[1] / alone[1],
        during[0],
        during[1],
        during[2],
        alone[0],
        alone[1],
        alone[2],
    );
}

/// What the disk is given for a message from node to node.
async fn flash(size: usize) {
    for (publishers, messages) in [(1, 3_000), (8, 12_800), (PUBLISHERS, 38_400)] {
        let run = run(None, publishers, messages, size).await;
        println!(
            "flash: node to node, {publishers:>2} publishers, {size:>5} B: {:.1} times the body: {:.0} B written for a message, on both nodes together ({:.0} messages/s)",
            run.written_bytes / size as f64,
            run.written_bytes,
            run.per_second
        );
    }
}

/// What Mosquitto writes for messages that wait for a subscriber.
fn mosquitto_flash() {
    let each = |more: &str, messages: usize, size: usize| {
        let broker = Mosquitto::start(more);
        broker.keep_session("flash");
        let before = broker.written_bytes();
        broker.publish("flash", messages, size);
        broker.save();
        (broker.written_bytes() - before) as f64 / messages as f64
    };
    for size in [64, 1_024] {
        let once = each("", 10_000, size);
        let always = each("autosave_on_changes true\nautosave_interval 1\n", 300, size);
        println!(
            "flash: Mosquitto, {size:>5} B: {:.1} times the body: {once:.0} B for each of 10,000 waiting messages, saved once (its way: every 30 minutes); {:.1} times: {always:.0} B for each of 300, saved at nearly every change",
            once / size as f64,
            always / size as f64
        );
    }
}

/// 1,000 messages/s, publish to handled.
async fn latency() {
    const MESSAGES: usize = 2_000;
    let mut columns: [Vec<[f64; 3]>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let mosquitto = Mosquitto::start("");
        let figures = [
            node_latency(None, MESSAGES).await,
            pair_latency(None, MESSAGES).await,
            node_latency(Some(&mosquitto), MESSAGES).await,
            pair_latency(Some(&mosquitto), MESSAGES).await,
        ];
        for (column, figure) in columns.iter_mut().zip(figures) {
            column.push(figure);
        }
    }
    println!(
        "latency: 1,000 messages/s of 64 B, {MESSAGES} messages, medians of {ROUNDS}; ratios of p50, p99, p99.9 to a QoS 1 pair of sessions"
    );
    let medians = columns.map(|rounds| {
        [0, 1, 2].map(|index| median(rounds.iter().map(|round| round[index]).collect()))
    });
    for (name, ours, pair) in [
        ("embedded relay", medians[0], medians[1]),
        ("Mosquitto", medians[2], medians[3]),
    ] {
        let ratio = [0, 1, 2].map(|index| ours[index] / pair[index]);
        println!(
            "  {name:14} {ratio:.1?} times: durable p50, p99, p99.9 {ours:.2?} ms, pair {pair:.2?} ms"
        );
    }
}

async fn node_latency(broker: Option<&Mosquitto>, messages: usize) -> [f64; 3] {
    let mut scene = Scene::new(broker).await;
    scene.start_right().await;
    let total = messages.to_string();
    let values = [("period_ms", "1"), ("total", total.as_str())];
    scene.add_source("source", &values, "sink", Delivery::Durable);
    scene.tell_right().await;
    scene.start_left().await;
    let latencies = scene.latencies("sink", messages).await;
    scene.stop().await;
    latencies
}

async fn pair_latency(broker: Option<&Mosquitto>, messages: usize) -> [f64; 3] {
    let mut site = Site::start().await;
    let mut pair = Pair::connect(&site, broker).await;
    let times = pair.latencies(messages, Duration::from_millis(1)).await;
    site.stop_relay().await;
    [500, 990, 999].map(|per_mille| times[(messages - 1) * per_mille / 1_000].as_secs_f64() * 1e3)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// What a process has given to disks (`write_bytes` of `/proc/PID/io`), without the file system's own
/// journal.
pub fn written_bytes(process: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/io")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.unwrap().parse().unwrap()
}
