//! Two nodes of a site: sources on the one, a sink on the other, durable routes between them.

use haar_conformance_artifacts as artifacts;
use haar_protocol::assignment::{Assignment, Microservice, MicroserviceName, Route};
use haar_protocol::ids::{Digest, RouteId};
use haar_protocol::log::LogLine;
use haar_protocol::manifest::Delivery;
use haar_protocol::quantity::{ByteSize, Millis};
use haar_protocol::relay::{EMBEDDED, NodeCredentials, RelayAccess, RelayRole};
use haar_protocol::status::Status;

use crate::broker::Mosquitto;
use crate::node::{Node, configured, microservice, route};
use crate::site::Site;
use crate::written_bytes;

/// The microservice that takes what durable sources publish.
const SINK: &str = "sink";
/// Messages that a source publishes in one call.
const MESSAGES_PER_CALL: &str = "16";

/// The nodes, and what they are told.
pub struct Scene {
    pub site: Site,
    pub left: Node,
    pub right: Node,
    to_left: Assignment,
    to_right: Assignment,
    source: (Digest, u64),
    sink: (Digest, u64),
    /// Routes that are not durable.
    live: Vec<RouteId>,
}

/// What came of messages that all publishers sent as fast as they could.
pub struct Run {
    pub per_second: f64,
    /// Written to disk by this process, with both nodes and the embedded relay, for one message.
    pub written_bytes: f64,
}

impl Scene {
    /// Two nodes that do not run yet. Their link goes over a broker, or over the embedded relay.
    pub async fn new(broker: Option<&Mosquitto>) -> Self {
        let site = Site::start().await;
        let (left, right) = (Node::enrol(&site, "left"), Node::enrol(&site, "right"));
        let source = left.install(&artifacts::read(artifacts::SOURCE), &site.publisher);
        let sink = right.install(&artifacts::read(artifacts::SINK), &site.publisher);
        let (mut to_left, mut to_right) = (left.assignment(&site, 1), right.assignment(&site, 1));
        to_left.peers = vec![right.peer()];
        to_right.peers = vec![left.peer()];
        if let Some(broker) = broker {
            let relays = vec![broker.access(), embedded()];
            (to_left.relays, to_right.relays) = (relays.clone(), relays);
        }
        let mut scene = Self {
            site,
            left,
            right,
            to_left,
            to_right,
            source,
            sink,
            live: vec![],
        };
        scene.add_sink(SINK);
        scene
    }

    /// Sources that publish so many messages together, on durable routes.
    pub fn add_durable(&mut self, publishers: usize, messages: usize, size: usize) {
        for index in 0..publishers {
            let source = format!("source-{index}");
            let (total, size) = ((messages / publishers).to_string(), size.to_string());
            let values = [("period_ms", "1"), ("messages", MESSAGES_PER_CALL)];
            let values = [&values[..], &[("total", &total), ("size", &size)]].concat();
            self.add_source(&source, &values, SINK, Delivery::Durable);
        }
    }

    /// One source with a message of 64 B each `period_ms`, to a sink.
    pub fn add_source(
        &mut self,
        name: &str,
        values: &[(&str, &str)],
        sink: &str,
        delivery: Delivery,
    ) {
        let source = configured(self.generous(name, self.source, &["out"], &[]), values);
        self.to_left.microservices.push(source);
        let route = Route {
            delivery,
            ..route(self.left.port(name, "out"), self.right.port(sink, "in"))
        };
        if delivery == Delivery::Live {
            self.live.push(route.id);
        }
        self.to_left.routes.push(route.clone());
        self.to_right.routes.push(route);
    }

    /// Takes a source away. Its route stays on the other node.
    pub fn remove_source(&mut self, name: &str) {
        let is_it = |spec: &MicroserviceName| spec.microservice.as_str() == name;
        let microservices = &mut self.to_left.microservices;
        microservices.retain(|one| !is_it(&one.name));
        let routes = &mut self.to_left.routes;
        routes.retain(|route| !is_it(&route.from.microservice));
    }

    /// One more sink.
    pub fn add_sink(&mut self, name: &str) {
        let sink = self.generous(name, self.sink, &[], &["in"]);
        let sink = configured(sink, &[("report_ms", "100")]);
        self.to_right.microservices.push(sink);
    }

    /// Without what makes a node stop what takes long.
    fn generous(
        &self,
        name: &str,
        module: (Digest, u64),
        outlets: &[&str],
        inlets: &[&str],
    ) -> Microservice {
        let mut spec = microservice(name, module, outlets, inlets);
        spec.limits.memory = ByteSize(4 << 20);
        spec.limits.publish_per_second = 100_000;
        spec.limits.call_timeout = Millis(60_000);
        spec
    }

    pub async fn start_right(&mut self) {
        self.right.start();
        self.tell_right().await;
        let runs = |status: &Status| status.microservices.iter().any(|one| one.calls > 0);
        self.site.status(&self.right.id, runs).await;
    }

    pub async fn start_left(&mut self) {
        self.left.start();
        self.tell_left().await;
    }

    /// Hands out what was added since.
    pub async fn tell_left(&mut self) {
        self.site.assign(&self.to_left).await;
        self.to_left.number += 1;
    }

    /// See [`Scene::tell_left`].
    pub async fn tell_right(&mut self) {
        self.site.assign(&self.to_right).await;
        self.to_right.number += 1;
    }

    /// Waits until all are in the logs of the sender.
    pub async fn published(&self, messages: usize) {
        let all = |status: &Status| {
            status.routes.iter().map(|route| route.sent).sum::<u64>() >= messages as u64
        };
        self.site.status(&self.left.id, all).await;
    }

    /// Waits until all are handled on the other node; figures from the first status that says so of
    /// some to the one that says so of all.
    pub async fn handled(&self, messages: usize) -> Run {
        let first = self.until_handled(1).await;
        let written = written_bytes("self");
        let last = self.until_handled(messages as u64).await;
        let count = (self.durably(&last) - self.durably(&first)) as f64;
        Run {
            per_second: count * 1_000.0 / (last.sent_ms - first.sent_ms) as f64,
            written_bytes: (written_bytes("self") - written) as f64 / count,
        }
    }

    /// Waits until so many of the durable routes' messages are handled on the other node.
    pub async fn until_handled(&self, messages: u64) -> Status {
        let enough = |status: &Status| self.durably(status) >= messages;
        self.site.status(&self.right.id, enough).await
    }

    /// What a sink said of the latencies of so many messages: p50, p99, p99.9, in milliseconds.
    pub async fn latencies(&self, sink: &str, messages: usize) -> [f64; 3] {
        let begin = format!("messages={messages} ");
        let said = |line: &LogLine| is_of(line, sink) && line.text.starts_with(&begin);
        let line = self.site.line(&self.right.id, said).await;
        percentiles(&line.text)
    }

    /// What a sink said last: how many messages, and their latencies as in [`Scene::latencies`].
    pub fn latencies_until_now(&self, sink: &str) -> (u64, [f64; 3]) {
        let lines = self.site.lines(&self.right.id);
        let last = lines.iter().rfind(|line| is_of(line, sink)).unwrap();
        (
            value(&last.text, "messages=") as u64,
            percentiles(&last.text),
        )
    }

    /// Messages of durable routes that the other node has handled.
    pub fn durably(&self, status: &Status) -> u64 {
        let routes = status.routes.iter();
        let durable = routes.filter(|route| !self.live.contains(&route.id));
        durable.map(|route| route.handled).sum()
    }

    pub async fn stop(mut self) {
        self.left.stop().await;
        self.right.stop().await;
        self.site.stop_relay().await;
    }
}

fn embedded() -> RelayAccess {
    RelayAccess {
        name: EMBEDDED.parse().unwrap(),
        role: RelayRole::Everything,
        url: None,
        ca_pem: None,
        credentials: NodeCredentials::Proof,
        session_expiry_s: None,
        client: None,
    }
}

fn is_of(line: &LogLine, microservice: &str) -> bool {
    line.name.microservice.as_str() == microservice
}

/// p50, p99 and p99.9 in a line of a sink, in milliseconds.
fn percentiles(line: &str) -> [f64; 3] {
    ["p50_us=", "p99_us=", "p999_us="].map(|key| value(line, key) / 1_000.0)
}

fn value(line: &str, key: &str) -> f64 {
    let value = line.split(' ').find_map(|word| word.strip_prefix(key));
    value.unwrap().parse().unwrap()
}
