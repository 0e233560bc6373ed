//! What an agent takes of a small gateway: `cargo bench -p haar -p haar-host --bench constrained
//! [-- idle|further|load|thousand|cell|start|one|power] [--agent PATH] [--seconds N]`. Starts the agent
//! as a process, with compiled code in its cache, enrolled at and connected to a site of this program's
//! own. What the figures mean and what they were stands in docs/benchmarks.md. Prints tables, asserts
//! nothing.

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

mod process;
mod cell;
mod device;
mod starting;
mod container;

use std::path::PathBuf;
use std::time::Duration;

use haar_conformance_artifacts as artifacts;
use haar_protocol::manifest::Delivery;
use haar_protocol::status::Status;

use cell::Cell;
use device::Device;
use node::{Node, configured, microservice, route};
use process::Memory;
use site::Site;

/// How long a load runs, and power is measured, unless told otherwise.
const SECONDS: u64 = 600;
/// Microservices of a gateway that has something to do.
const MICROSERVICES: usize = 25;

/// What the benchmark was asked.
struct Wish {
    filter: Vec<String>,
    agent: PathBuf,
    seconds: Duration,
}

impl Wish {
    fn parse() -> Self {
        let mut wish = Self {
            filter: Vec::new(),
            agent: PathBuf::from(env!("CARGO_BIN_EXE_haar-agent")),
            seconds: Duration::from_secs(SECONDS),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--agent" => wish.agent = words.next().unwrap().into(),
                "--seconds" => {
                    wish.seconds = Duration::from_secs(words.next().unwrap().parse().unwrap());
                }
                word if word.starts_with('-') => {}
                _ => wish.filter.push(word),
            }
        }
        wish.agent = wish.agent.canonicalize().unwrap();
        wish
    }

    fn has(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|word| name == word)
    }
}

fn main() {
    let wish = Wish::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let bytes = std::fs::metadata(&wish.agent).unwrap().len();
    println!("agent: {}, {bytes} bytes", wish.agent.display());
    if wish.has("idle") {
        runtime.block_on(idle(&wish));
    }
    if wish.has("further") {
        runtime.block_on(further(&wish));
    }
    if wish.has("load") {
        runtime.block_on(load(&wish, None, Duration::from_secs(30)));
    }
    if wish.has("thousand") {
        runtime.block_on(thousand(&wish));
    }
    if wish.has("cell") {
        let cell = Cell::new("32", 32 << 20);
        runtime.block_on(load(&wish, Some(&cell), wish.seconds));
    }
    if wish.has("start") {
        runtime.block_on(starting::of_the_agent(&wish.agent));
    }
    if wish.has("one") {
        runtime.block_on(starting::of_one_microservice());
    }
    if wish.has("power") {
        runtime.block_on(power(&wish));
    }
}

/// An agent that is connected and has nothing to run.
async fn idle(wish: &Wish) {
    let site = Site::start_with_tls().await;
    let mut device = Device::enrol(&site, "idle", &wish.agent);
    device.start(None);
    device.assign(&site).await;
    println!(
        "idle: connected, nothing to run: {}",
        device.memory_at_rest()
    );
    let threads = process::threads(device.process());
    let names: Vec<_> = threads.iter().map(|thread| thread.name.as_str()).collect();
    println!("  {} threads: {}", names.len(), names.join(", "));
}

/// What each further idle microservice takes.
async fn further(wish: &Wish) {
    let site = Site::start_with_tls().await;
    let mut device = Device::enrol(&site, "further", &wish.agent);
    let echo = device.install(&site, artifacts::ECHO);
    device.start(None);
    let mut before: Option<(usize, Memory, usize)> = None;
    println!("further: idle Rust microservices of one module");
    for count in [0, 1, 101, 1_001] {
        for index in device.assignment.microservices.len()..count {
            device.add(microservice(&format!("m{index}"), echo, &["out"], &["in"]));
        }
        device.assign(&site).await;
        let now = device.memory_at_rest();
        let mappings = process::mappings(device.process());
        println!("  {count:>5}: {now}, {mappings} mappings");
        if let Some((fewer, then, maps)) = before {
            let more = (count - fewer) as f64;
            println!(
                "         each further one: {:.1} KiB resident, {:.1} KiB proportional, {:.1} mappings",
                (now.resident as f64 - then.resident as f64) / more,
                (now.proportional as f64 - then.proportional as f64) / more,
                (mappings as f64 - maps as f64) / more
            );
        }
        before = Some((count, now, mappings));
    }
}

/// A thousand idle microservices within 128 MB.
async fn thousand(wish: &Wish) {
    const COUNT: usize = 1_000;
    let site = Site::start_with_tls().await;
    let cell = Cell::new("128", 128 << 20);
    let mut device = Device::enrol(&site, "thousand", &wish.agent);
    let echo = device.install(&site, artifacts::ECHO);
    for index in 0..COUNT {
        device.add(microservice(&format!("m{index}"), echo, &["out"], &["in"]));
    }
    device.start(Some(&cell));
    device.assign(&site).await;
    let memory = device.memory_at_rest();
    println!(
        "thousand: {COUNT} idle microservices in 128 MB ({}): {memory}",
        cell.describe()
    );
    tell_peak(&cell);
    device.stop();
}

/// 25 microservices that each handle a message a second, one of which comes from them on a durable route
/// to another node.
async fn load(wish: &Wish, cell: Option<&Cell>, time: Duration) {
    let site = Site::start_with_tls().await;
    let mut device = Device::enrol(&site, "gateway", &wish.agent);
    let mut other = Node::enrol(&site, "other");
    let quiet = device.install(&site, artifacts::QUIET);
    let source = device.install(&site, artifacts::SOURCE);
    other.install(&artifacts::read(artifacts::QUIET), &site.publisher);

    let durable = route(device.node.port("source", "out"), other.port("sink", "in"));
    let durable = haar_protocol::assignment::Route {
        delivery: Delivery::Durable,
        ..durable
    };
    let mut to_other = other.assignment(&site, 1);
    to_other.microservices = vec![microservice("sink", quiet, &[], &["in"])];
    to_other.routes = vec![durable.clone()];
    to_other.peers = vec![device.node.peer()];
    other.start();
    site.assign(&to_other).await;

    device.add(configured(
        microservice("source", source, &["out"], &[]),
        &[("period_ms", "1000")],
    ));
    device.assignment.peers = vec![other.peer()];
    device.join(durable);
    for index in 1..MICROSERVICES {
        let name = format!("m{index}");
        device.add(microservice(&name, quiet, &[], &["in"]));
        let (from, to) = (
            device.node.port("source", "out"),
            device.node.port(&name, "in"),
        );
        device.join(route(from, to));
    }
    device.start(cell);
    device.assign(&site).await;
    let from = device.memory_at_rest();
    let threads = process::threads(device.process());
    let mut most = from;
    let began = std::time::Instant::now();
    while began.elapsed() < time {
        std::thread::sleep(Duration::from_secs(1));
        let now = Memory::of(device.process());
        if now.resident > most.resident {
            most = now;
        }
    }
    let place = cell.map_or("no cell", Cell::describe);
    println!(
        "load: {MICROSERVICES} microservices, a message a second each, durable route to another node, {} s, {place}",
        time.as_secs()
    );
    println!("  at the beginning: {from}");
    println!("  at most:          {most}");
    println!("  at the end:       {}", Memory::of(device.process()));
    tell_threads(&threads, &device, time);
    if let Some(cell) = cell {
        tell_peak(cell);
    }
    let crossed = |status: &Status| status.routes.iter().any(|route| route.handled > 0);
    let status = site.status(&other.id, crossed).await;
    println!("  handled on the other node: {}", status.routes[0].handled);
    println!(
        "  written to disk: {} KiB in all",
        process::written_bytes(device.process()) >> 10
    );
    device.stop();
    other.stop().await;
}

/// An idle agent with idle microservices: how often it wakes up.
async fn power(wish: &Wish) {
    let site = Site::start_with_tls().await;
    let mut device = Device::enrol(&site, "power", &wish.agent);
    let echo = device.install(&site, artifacts::ECHO);
    for index in 0..MICROSERVICES {
        device.add(microservice(&format!("m{index}"), echo, &["out"], &["in"]));
    }
    device.start(None);
    device.assign(&site).await;
    let memory = device.memory_at_rest();
    let before = process::threads(device.process());
    let written = process::written_bytes(device.process());
    std::thread::sleep(wish.seconds);
    println!(
        "power: {MICROSERVICES} idle microservices, {} s: {memory}",
        wish.seconds.as_secs()
    );
    tell_threads(&before, &device, wish.seconds);
    println!(
        "  written to disk meanwhile: {} bytes",
        process::written_bytes(device.process()) - written
    );
}

fn tell_threads(before: &[process::Thread], device: &Device, time: Duration) {
    let threads = process::between(before, &process::threads(device.process()));
    let seconds = time.as_secs_f64();
    let (mut wakes, mut cpu_ms) = (0, 0.0);
    for thread in &threads {
        wakes += thread.wakes;
        cpu_ms += thread.cpu_ms;
        if thread.wakes > 0 {
            println!(
                "    {:16} {:>8.3} wake-ups a second, {:>9.1} ms of processor time",
                thread.name,
                thread.wakes as f64 / seconds,
                thread.cpu_ms
            );
        }
    }
    println!(
        "  {:.2} wake-ups a second, {cpu_ms:.1} ms of processor time ({:.4} % of a core), {} threads",
        wakes as f64 / seconds,
        cpu_ms / seconds / 10.0,
        threads.len()
    );
}

fn tell_peak(cell: &Cell) {
    if let Some(peak) = cell.peak() {
        println!(
            "  peak in the cell, page cache included: {:.2} MiB; ended for want of memory: {}",
            peak.bytes as f64 / 1_048_576.0,
            peak.kills
        );
    }
}
