//! `apply` to the first message on a connected node whose cache has the modules.
//!
//! One application has a microservice that publishes when it starts, and one that logs when it
//! handles: the time of that log line, by the same machine's clock, is the end.

use std::path::Path;
use std::time::{Duration, Instant};

use haar_conformance_artifacts as artifacts;

use crate::network::Network;
use crate::site::{Site, now_ms};

const ROUNDS: usize = 30;

const APPLICATION: &str = "
api_version: haar/v1
kind: Application
name: bench
microservices:
  - name: config
    module: config@0.1.0
    place: { node: one }
    configuration: { colour: blue }
    outlets: { out: text/plain }
  - name: spin
    module: spin@0.1.0
    place: { node: one }
    inlets: { in: text/plain }
routes:
  - { from: config.out, to: spin.in, delivery: live }
";

pub(crate) fn run(agent: Option<&Path>) {
    let site = Site::start(Network::Loopback, agent);
    site.push("config", "0.1.0", artifacts::CONFIG);
    site.push("spin", "0.1.0", artifacts::SPIN);
    let manifest = site.manifest(APPLICATION);
    let mut times = Vec::new();
    for round in 0..=ROUNDS {
        let began = Instant::now();
        let began_ms = now_ms();
        site.haar(&["apply", "--no-wait", "-f", &manifest]);
        let applied = began.elapsed();
        let handled_ms = wait_for_line(&site, began_ms);
        if round > 0 {
            times.push((handled_ms - began_ms, applied));
        }
        site.delete("bench");
    }
    times.sort();
    let (median, applied) = times[times.len() / 2];
    let (slowest, _) = times[times.len() - 1];
    println!(
        "apply to first handled message, modules in the node's cache, {ROUNDS} rounds: median {median} ms, slowest {slowest} ms (of the median, the command `haar apply` itself: {applied:.1?})"
    );
}

/// Waits for the line that the handler logged after `since_ms`, and returns its time.
fn wait_for_line(site: &Site, since_ms: u64) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        let lines = site.list(&["logs", "bench/spin", "--tail", "20"]);
        let times = lines.iter().filter_map(|line| line["time_ms"].as_u64());
        if let Some(time) = times.filter(|time| *time >= since_ms).min() {
            return time;
        }
    }
    panic!("the message was never handled");
}
