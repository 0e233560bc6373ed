//! How long a message waits for its handler beside guests that compute: from an inbox through a guest
//! that sends it back, into another inbox.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use haar_conformance_artifacts as artifacts;
use haar_host::bus::registry::Registry;

use crate::node::{Node, microservice, route};
use crate::site::Site;
use crate::support::{Bench, percentile};
use crate::unbounded;

const MESSAGES: usize = 1_000;
/// A message waits for the timer of the benchmark, too: beside nobody this is what one sees.
const PERIOD: Duration = Duration::from_millis(2);

/// Messages through an echo, beside spinning guests without a share.
pub async fn compare() {
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    let echo = node.install(&artifacts::read(artifacts::ECHO), &site.publisher);
    let spin = node.install(&artifacts::read(artifacts::SPIN), &site.publisher);
    println!("waiting: a message to a guest and back, 2 threads, {MESSAGES} messages every 2 ms");
    for neighbours in [0, 1, 4, 16] {
        let bench = Bench::new(&site, &node, 2);
        let spec = unbounded(microservice("it", echo, &["out"], &["in"]));
        let back = microservice("back", echo, &[], &["in"]);
        let mut assignment = node.assignment(&site, 1);
        assignment.microservices = vec![spec.clone(), back.clone()];
        assignment.routes = vec![route(node.port("it", "out"), node.port("back", "in"))];
        let mut registry = Registry::default();
        let inbox = registry.inbox(&back.name, &back.limits);
        bench.bus.set_table(registry.compile(&assignment));
        let pre = bench.prepare(&spec);
        let running = bench.run(&mut registry, &spec, pre);
        let mut others = Vec::new();
        for index in 0..neighbours {
            let spec = unbounded(microservice(&format!("other{index}"), spin, &[], &["in"]));
            let pre = bench.prepare(&spec);
            let other = bench.run(&mut registry, &spec, pre);
            other.deliver(1, b"spin");
            others.push(other);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut times = Vec::new();
        let mut taken = VecDeque::new();
        for _ in 0..MESSAGES {
            let began = Instant::now();
            running.deliver(1, b"there and back");
            inbox.wait().await;
            times.push(began.elapsed());
            inbox.take(&mut taken, 1);
            taken.clear();
            tokio::time::sleep(PERIOD).await;
        }
        println!(
            "  {neighbours:>2} spinning neighbours: p50 {:.3} ms, p99 {:.3} ms",
            percentile(&mut times, 50.0),
            percentile(&mut times, 99.0)
        );
        running.abort().await;
        for other in others {
            other.abort().await;
        }
        bench.finish();
    }
}
