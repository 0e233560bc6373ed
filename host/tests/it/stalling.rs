//! Two nodes over two relays, of which the preferred one stops to pass anything on, and then delivers
//! what it held back.

use std::net::SocketAddr;

use haar_conformance_artifacts as artifacts;
use haar_protocol::relay::{NodeCredentials, RelayAccess, RelayRole};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::node::{Node, configured, microservice, route};
use crate::site::{DEADLINE, Site};

/// Passes connections on, or holds all of them.
struct Gate {
    address: SocketAddr,
    open: watch::Sender<bool>,
    /// Bytes that it has passed on.
    passed: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

impl Gate {
    async fn before(relay: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, is_open) = watch::channel(true);
        let (count, passed) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut pipes = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(relay).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                pipes.spawn(pipe(from_client, to_server, is_open.clone(), count.clone()));
                pipes.spawn(pipe(from_server, to_client, is_open.clone(), count.clone()));
            }
        });
        Self {
            address,
            open,
            passed,
            _tasks: tasks,
        }
    }
}

async fn pipe(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut open: watch::Receiver<bool>,
    passed: watch::Sender<usize>,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if open.wait_for(|open| *open).await.is_err() {
            return;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
        passed.send_modify(|passed| *passed += count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_messages_that_a_relay_held_back_are_dropped_and_counted_after_newer_ones() {
    let site = Site::start().await;
    let second = site.another_relay("second").await;
    let gate = Gate::before(second.address()).await;
    let relays: Vec<RelayAccess> = [Some(gate.address), None]
        .map(|address| RelayAccess {
            name: address.map_or("controller", |_| "second").parse().unwrap(),
            role: address.map_or(RelayRole::Everything, |_| RelayRole::Links),
            url: address.map(|address| format!("mqtt://{address}").parse().unwrap()),
            ca_pem: None,
            credentials: NodeCredentials::Proof,
            session_expiry_s: None,
            client: None,
        })
        .into();
    let (mut left, mut right) = (Node::enrol(&site, "left"), Node::enrol(&site, "right"));
    let source = left.install(&artifacts::read(artifacts::SOURCE), &site.publisher);
    let sink = right.install(&artifacts::read(artifacts::SINK), &site.publisher);
    let crossing = route(left.port("source", "out"), right.port("sink", "in"));
    let mut to_right = right.assignment(&site, 1);
    to_right.relays = relays.clone();
    to_right.microservices = vec![configured(
        microservice("sink", sink, &[], &["in"]),
        &[("report_ms", "100")],
    )];
    to_right.routes = vec![crossing.clone()];
    to_right.peers = vec![left.peer()];
    let mut to_left = left.assignment(&site, 1);
    to_left.relays = relays;
    to_left.microservices = vec![configured(
        microservice("source", source, &["out"], &[]),
        &[("period_ms", "20")],
    )];
    to_left.routes = vec![crossing];
    to_left.peers = vec![right.peer()];
    right.start();
    left.start();
    site.assign(&to_right).await;
    site.assign(&to_left).await;
    let delivered = async |least| {
        let status = site.status(&right.id, |status| {
            status.routes.iter().any(|route| route.delivered >= least)
        });
        status.await.routes[0].delivered
    };
    // Over the second relay, once both are there.
    for node in [&left.id, &right.id] {
        site.status(node, |status| status.relays.iter().all(|one| one.connected))
            .await;
    }
    // Far more than signs of life of connections.
    let mut passed = gate.passed.clone();
    let much = *passed.borrow() + 50_000;
    let is_used = async { passed.wait_for(|passed| *passed > much).await.is_ok() };
    let is_used = tokio::time::timeout(DEADLINE, is_used).await;
    assert_eq!(is_used, Ok(true), "messages go over the second relay");
    gate.open.send_replace(false);
    let before = delivered(1).await;
    delivered(before + 100).await;
    gate.open.send_replace(true);
    let stale = site
        .status(&right.id, |status| {
            status.routes.iter().any(|route| route.dropped > 0)
        })
        .await;
    delivered(stale.routes[0].delivered + 20).await;
    let lines = site.lines(&right.id);
    let counted = lines
        .iter()
        .filter(|line| line.text.contains("disordered="));
    for line in counted {
        assert!(line.text.contains(" disordered=0 "), "{}", line.text);
    }
    left.stop().await;
    right.stop().await;
    second.shutdown().await;
}
