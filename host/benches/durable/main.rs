//! What it costs to publish so that a power cut takes nothing back, beside publishers at QoS 1 on
//! Mosquitto: `cargo bench -p haar -p haar-host --bench durable`. Needs Mosquitto with its tools. Prints
//! tables, asserts nothing.

#![allow(unreachable_pub, reason = "modules that benchmarks share")]
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

#[path = "../links/broker.rs"]
#[allow(dead_code, reason = "shared with another benchmark; each uses a part")]
mod broker;
mod waiting;

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::Mosquitto;
use haar_host::bus::durable;
use haar_host::bus::log::{Held, Log};
use haar_host::bus::message::Source;
use haar_host::bus::table::Outlet;
use haar_host::store::Store;
use haar_host::store::log::{Advance, Consumer, LogName, WantedLog};
use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::NodeId;
use haar_protocol::keys::SecretKey;
use tokio::task::JoinSet;

/// How long each figure is taken.
const SECONDS: f64 = 3.0;
/// How often a receiver that keeps up has it noted how far it is, as in an agent.
const NOTED: Duration = Duration::from_millis(100);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let folder = std::env::current_dir().unwrap().join("target");
    let folder = if folder.is_dir() { folder } else { ".".into() };
    let directory = tempfile::tempdir_in(folder).unwrap();
    println!("publish: durable, local, into the log on the disk; {SECONDS} s each");
    for (publishers, size) in [(1, 64), (64, 64), (1, 1_024), (64, 1_024)] {
        // In turns: the disk is as noisy as the machine.
        let syncs = syncs(directory.path(), size);
        let before = written_bytes("self");
        let figures = runtime.block_on(publish(directory.path(), publishers, size));
        let written = (written_bytes("self") - before) as f64 / figures.len() as f64;
        let per_second = figures.len() as f64 / SECONDS;
        println!(
            "  {publishers:>2} publishers, {size:>5} B: {per_second:>8.0} messages/s, {:>5.1} times the syncs of a file ({syncs:.0}/s); p50 {:.2} ms, p99 {:.2} ms; {written:.0} B written for a message, {:.1} times its body",
            per_second / syncs,
            percentile(&figures, 50.0),
            percentile(&figures, 99.0),
            written / size as f64,
        );
        let mosquitto = Mosquitto::start("");
        let time = Duration::from_secs_f64(SECONDS);
        let acknowledged = waiting::publish(&mosquitto, publishers, size, time);
        println!(
            "      {:.2} times QoS 1 publishers on Mosquitto that wait as well, which syncs nothing: {:.0} messages/s; p50 {:.2} ms, p99 {:.2} ms",
            figures.len() as f64 / acknowledged.len() as f64,
            acknowledged.len() as f64 / SECONDS,
            percentile(&acknowledged, 50.0),
            percentile(&acknowledged, 99.0),
        );
    }
}

/// What a process has given to disks, without the file system's own journal.
fn written_bytes(process: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/io")).unwrap();
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("write_bytes: "));
    line.unwrap().parse().unwrap()
}

/// How often a second a file that grows can be synced.
fn syncs(folder: &std::path::Path, size: usize) -> f64 {
    let mut file = File::create(folder.join("syncs")).unwrap();
    let body = vec![b'x'; size];
    let began = Instant::now();
    let mut syncs = 0;
    while began.elapsed().as_secs_f64() < SECONDS / 3.0 {
        file.write_all(&body).unwrap();
        file.sync_data().unwrap();
        syncs += 1;
    }
    f64::from(syncs) / began.elapsed().as_secs_f64()
}

fn percentile(sorted: &[Duration], percent: f64) -> f64 {
    let index = (sorted.len() as f64 * percent / 100.0) as usize;
    sorted[index.min(sorted.len() - 1)].as_secs_f64() * 1e3
}

/// Publishers that each wait for their message before the next one; what each call took, in order.
async fn publish(folder: &std::path::Path, publishers: u64, size: usize) -> Vec<Duration> {
    let directory = tempfile::tempdir_in(folder).unwrap();
    let (store, thread) = Store::open(directory.path()).unwrap();
    let owners: Vec<MicroserviceName> = (0..publishers).map(owner).collect();
    let consumer = Consumer {
        route: 1,
        node: NodeId::of(&SecretKey::from_seed([1; 32]).public()),
    };
    let wanted = owners.iter().map(|owner| WantedLog {
        owner: owner.clone(),
        name: LogName::Outlet("out".parse().unwrap()),
        consumers: vec![consumer.clone()],
    });
    let opened = store
        .open_logs(owners.clone(), wanted.collect(), 1)
        .await
        .unwrap();
    let source = Arc::new(Source::default());
    let mut tasks = JoinSet::new();
    let end = Instant::now() + Duration::from_secs_f64(SECONDS);
    let logs: Vec<_> = opened
        .iter()
        .map(|open| {
            Arc::new(Log::new(
                open,
                Arc::clone(&source),
                u64::MAX,
                Held::default(),
            ))
        })
        .collect();
    tasks.spawn(receive(store.clone(), logs.clone(), consumer, end));
    for log in logs {
        let outlet = Arc::new(Outlet {
            source: Arc::clone(&source),
            sequence: Arc::default(),
            targets: vec![],
            log: Some(log),
            lacks_log: false,
            durable: vec![],
            history: None,
        });
        let store = store.clone();
        tasks.spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < end {
                let began = Instant::now();
                let messages = vec![(vec![], vec![b'x'; size])];
                durable::publish(&store, Arc::clone(&outlet), messages, 0)
                    .await
                    .unwrap();
                took.push(began.elapsed());
            }
            took
        });
    }
    let mut took: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    took.sort_unstable();
    drop(store);
    thread.join();
    took
}

/// A receiver that keeps up with all logs.
async fn receive(
    store: Store,
    logs: Vec<Arc<Log>>,
    consumer: Consumer,
    end: Instant,
) -> Vec<Duration> {
    while Instant::now() < end {
        tokio::time::sleep(NOTED).await;
        let advances = logs.iter().map(|log| Advance {
            log: log.id,
            consumer: consumer.clone(),
            base: log.head(),
        });
        store.advance(advances.collect()).await.unwrap();
    }
    vec![]
}

fn owner(index: u64) -> MicroserviceName {
    MicroserviceName {
        application: "bench".parse().unwrap(),
        microservice: format!("publisher-{index}").parse().unwrap(),
    }
}
