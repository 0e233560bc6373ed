//! What the demo sees: the site's answers once a second, and the recorder's log lines as they come.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use haar_protocol::ids::{Name, RouteId};
use haar_protocol::rest::{LogEntry, Microservice, Node, Route};
use serde_json::Value;

use crate::client::Client;
use crate::error::{CommandError, Result};
use crate::output;
use crate::stream::{Followed, follow_logs};

/// Rates are taken over this time: counters come in with statuses, in steps.
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Messages of each kind that are kept to be shown, and as many of each node.
const KEPT: usize = 256;
/// Lines that the recorder wrote before we listened.
const TAIL_LINES: u32 = 1_000;

/// Everything that is shown, at one moment.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The file with which other terminals reach the site.
    pub(super) context: String,
    pub(super) watched: Duration,
    /// When it was seen: milliseconds since the Unix epoch.
    pub(super) now_ms: u64,
    pub(super) nodes: Vec<NodeView>,
    pub(super) microservices: Vec<Microservice>,
    pub(super) routes: Vec<RouteView>,
    pub(super) recorded: Recorded,
}

#[derive(Debug, Clone)]
pub(super) struct NodeView {
    pub(super) node: Node,
    /// Resident memory of its agent, as the system says, else as it reports.
    pub(super) resident_bytes: Option<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct RouteView {
    pub(super) route: Route,
    /// Messages that were handled in a second.
    pub(super) rate: f64,
}

/// What the recorder wrote: counts by source node, and the newest of each kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Recorded {
    pub(super) readings: Kind,
    pub(super) summaries: Kind,
    pub(super) alerts: Kind,
}

/// Messages of one kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Kind {
    pub(super) count_by_node: BTreeMap<String, u64>,
    /// The newest last.
    pub(super) latest: VecDeque<Message>,
    /// The newest last.
    pub(super) by_node: BTreeMap<String, VecDeque<Value>>,
}

/// A message with the time at which the recorder had it.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) time_ms: u64,
    pub(super) value: Value,
}

/// Watches an application.
pub(super) struct Watch {
    client: Client,
    application: Name,
    agents: Vec<(String, u32)>,
    started: Instant,
    /// Samples of the routes' counters, the oldest first.
    samples: VecDeque<(Instant, BTreeMap<RouteId, u64>)>,
    recorder: Follower,
}

/// Follows the recorder's log in a thread of its own. The thread ends when the controller does,
/// after `stop` is set.
struct Follower {
    /// Written by the thread, read by whoever looks; never held while anything waits.
    recorded: Arc<Mutex<Recorded>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn begin(
        client: &Client,
        application: &Name,
        agents: Vec<(String, u32)>,
    ) -> Result<Self> {
        let recorder = Follower::start(
            client.clone(),
            format!("application={application}&microservice=recorder&"),
        )?;
        Ok(Self {
            client: client.clone(),
            application: application.clone(),
            agents,
            started: Instant::now(),
            samples: VecDeque::new(),
            recorder,
        })
    }

    /// Asks the site for everything.
    pub(super) fn look(&mut self) -> Result<View> {
        let application = &self.application;
        let nodes: Vec<Node> = self.client.list("nodes")?;
        let microservices = self
            .client
            .list(&format!("microservices?application={application}"))?;
        let routes: Vec<Route> = self
            .client
            .list(&format!("routes?application={application}"))?;
        self.sample(&routes);
        Ok(View {
            context: self.client.context_file().display().to_string(),
            watched: self.started.elapsed(),
            now_ms: output::now_ms(),
            nodes: nodes.into_iter().map(|node| self.node(node)).collect(),
            microservices,
            routes: routes
                .into_iter()
                .map(|route| RouteView {
                    rate: self.rate(&route),
                    route,
                })
                .collect(),
            recorded: self
                .recorder
                .recorded
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        })
    }

    /// The thread ends as soon as its connection does.
    pub(super) fn ask_to_stop(&self) {
        self.recorder.stop.store(true, Ordering::SeqCst);
    }

    /// Waits for the thread; the controller must have ended.
    pub(super) fn end(&mut self) {
        self.ask_to_stop();
        if let Some(thread) = self.recorder.thread.take() {
            let _ = thread.join(); // a thread that panicked has said so itself
        }
    }

    fn node(&self, node: Node) -> NodeView {
        let agent = self
            .agents
            .iter()
            .find(|(name, _)| name == node.name.as_str());
        let resident_bytes = agent
            .and_then(|(_, id)| resident_bytes(*id))
            .or(node.resident_bytes);
        NodeView {
            node,
            resident_bytes,
        }
    }

    fn sample(&mut self, routes: &[Route]) {
        let now = Instant::now();
        self.samples.push_back((
            now,
            routes
                .iter()
                .map(|route| (route.id, route.handled))
                .collect(),
        ));
        // One sample older than the window stays, to measure against.
        while self
            .samples
            .get(1)
            .is_some_and(|(time, _)| now.duration_since(*time) >= RATE_WINDOW)
        {
            self.samples.pop_front();
        }
    }

    fn rate(&self, route: &Route) -> f64 {
        let (Some((then, counts)), Some((now, _))) = (self.samples.front(), self.samples.back())
        else {
            return 0.0;
        };
        let time = now.duration_since(*then).as_secs_f64();
        let before = counts.get(&route.id).copied().unwrap_or(route.handled);
        let messages = u32::try_from(route.handled.saturating_sub(before)).unwrap_or(u32::MAX);
        if time > 0.0 {
            f64::from(messages) / time
        } else {
            0.0
        }
    }
}

impl Follower {
    fn start(client: Client, filter: String) -> Result<Self> {
        let recorded = Arc::new(Mutex::new(Recorded::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (recorded.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("recorder".into())
            .spawn(move || {
                let stopped = || stopped.load(Ordering::SeqCst);
                // What ends it early is seen as a recorder that says nothing more.
                let _ = follow_logs(&client, &filter, TAIL_LINES, &stopped, &mut |followed| {
                    if let Followed::Line(entry, _) = followed {
                        shared
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .add(entry);
                    }
                    Ok(())
                });
            });
        let thread = thread
            .map_err(|error| CommandError::failure(format!("can't start a thread: {error}")))?;
        Ok(Self {
            recorded,
            stop,
            thread: Some(thread),
        })
    }
}

impl Recorded {
    fn add(&mut self, entry: &LogEntry) {
        let kind = match entry.line.context.as_str() {
            "reading" => &mut self.readings,
            "summary" => &mut self.summaries,
            "alert" => &mut self.alerts,
            _ => return,
        };
        let Ok(message) = serde_json::from_str::<Value>(&entry.line.text) else {
            return;
        };
        let Some(node) = message
            .get("node")
            .and_then(Value::as_str)
            .map(str::to_owned)
        else {
            return;
        };
        kind.add(node, entry.line.time_ms, message);
    }
}

impl Kind {
    pub(super) fn add(&mut self, node: String, time_ms: u64, value: Value) {
        *self.count_by_node.entry(node.clone()).or_default() += 1;
        keep(self.by_node.entry(node).or_default(), value.clone());
        keep(&mut self.latest, Message { time_ms, value });
    }

    pub(super) fn count(&self) -> u64 {
        self.count_by_node.values().sum()
    }
}

/// Adds the newest; the oldest of too many goes.
fn keep<T>(kept: &mut VecDeque<T>, newest: T) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(newest);
}

/// Resident memory of a process (`VmRSS` in `/proc`, proc(5)); none where there is no such file.
fn resident_bytes(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_recorder_are_counted_by_their_source() {
        let entry = |context: &str, text: &str| -> LogEntry {
            serde_json::from_value(serde_json::json!({
                "node": "recorder", "application": "a", "microservice": "recorder", "sequence": 1, "time_ms": 1,
                "level": "info", "stream": "log", "context": context, "text": text
            }))
            .unwrap()
        };
        let mut recorded = Recorded::default();
        recorded.add(&entry("reading", r#"{"node":"sensor","load":1}"#));
        recorded.add(&entry("reading", r#"{"node":"sensor","load":2}"#));
        recorded.add(&entry("reading", r#"{"node":"gateway","load":1}"#));
        recorded.add(&entry("alert", r#"{"node":"sensor"}"#));
        recorded.add(&entry("statistics", r#"{"node":"sensor"}"#));
        recorded.add(&entry("reading", "not JSON"));
        assert_eq!(
            recorded.readings.count_by_node,
            BTreeMap::from([("sensor".into(), 2), ("gateway".into(), 1)])
        );
        assert_eq!(recorded.readings.by_node["sensor"][1]["load"], 2);
        assert_eq!(recorded.alerts.count(), 1);
        assert_eq!(recorded.summaries.count(), 0);
    }

    #[test]
    fn the_memory_of_a_process_is_read() {
        if cfg!(target_os = "linux") {
            assert!(resident_bytes(std::process::id()).is_some_and(|bytes| bytes > 100_000));
        }
    }
}
