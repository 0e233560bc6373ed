//! A node whose clock is wrong, and set right. The program runs with another clock than the test by
//! `faketime`, where that is installed.

use std::path::Path;
use std::time::Duration;

use haar_host::store::Store;
use haar_host::store::log::{Consumer, LogName, WantedLog};
use haar_protocol::limits::Backlog;
use haar_protocol::quantity::Millis;
use haar_protocol::signed;

use crate::durable::Scene;
use crate::node::name;
use crate::site::DEADLINE;
use crate::supervised::{start, terminate};

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Bytes of the messages in batches, as far as they are committed.
fn batches_bytes(data: &Path) -> Option<u64> {
    let connection = rusqlite::Connection::open(data.join("agent.db")).ok()?;
    let bytes: i64 = connection
        .query_row(
            "SELECT coalesce(sum(length(messages)), 0) FROM batch",
            [],
            |row| row.get(0),
        )
        .ok()?;
    u64::try_from(bytes).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_while_the_clock_was_a_day_behind_arrives_when_it_is_right() {
    if !Path::new(FAKETIME).exists() {
        println!("skipped: {FAKETIME} is not installed");
        return;
    }
    let backlog = Backlog {
        expiry: Some(Millis(3_600_000)),
        ..Backlog::default()
    };
    let source = [("period_ms", "2"), ("total", "50"), ("size", "100")];
    let mut scene = Scene::with(backlog, &source).await;
    // The assignment is there from an earlier run; the relay would refuse a clock that is so wrong.
    let envelope = signed::seal(&scene.to_left, &scene.site.key).unwrap();
    let data = scene.left.data.path().to_owned();
    std::fs::write(data.join("assignment"), envelope).unwrap();
    scene.left.write_enrolment();
    let variables = [("LD_PRELOAD", FAKETIME), ("FAKETIME", "-1d")];
    let mut agent = start(&scene.left, &variables);
    let published = async {
        let mut often = tokio::time::interval(Duration::from_millis(20));
        while batches_bytes(&data).is_none_or(|bytes| bytes < 5_000) {
            often.tick().await;
        }
    };
    tokio::time::timeout(DEADLINE, published).await.unwrap();
    assert!(terminate(&mut agent).await.success());

    let route = &scene.to_left.routes[0];
    let wanted = WantedLog {
        owner: name("source"),
        name: LogName::Outlet("out".parse().unwrap()),
        consumers: vec![Consumer {
            route: route.id.to_u64(),
            node: scene.right.id.clone(),
        }],
    };
    let (store, thread) = Store::open(&data).unwrap();
    let opened = store.open_logs(vec![name("source")], vec![wanted], 1).await;
    let waiting = opened.unwrap()[0].head;
    assert!(waiting >= 40, "{waiting}");
    drop(store);
    thread.join();

    scene.start_left().await;
    scene.published(50).await;
    scene.start_right().await;
    scene.arrived(waiting + 50).await;
    scene.stop().await;
}
