//! Tests: a link that waits lets others go on, and uses no processor time.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use haar_protocol::ids::{Name, RouteId};
use haar_protocol::relay::RelayRole;
use haar_relay::{Credentials, Endpoint, Identity, Session, SessionOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::tests::{SETTINGS, links, message, node, seals, stream, stream_at_hand_from};
use super::*;
use crate::agent::relays::Attachment;
use crate::bus::message::RouteCounters;
use crate::bus::peer::Outbound;

/// Ends the test, not the wait: nothing of it takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything around a link, over one relay that is as good as connected.
struct Around {
    _relays: watch::Sender<Table>,
    _shared: watch::Sender<Vec<Name>>,
    _plan: watch::Sender<LinkPlan>,
    _frames: mpsc::Sender<(RelayNumber, Bytes)>,
    _directory: tempfile::TempDir,
}

/// A session that nobody runs: its queue has room for one message.
fn session(stop: &CancellationToken) -> Session {
    let options = SessionOptions {
        endpoint: Endpoint::parse("mqtt://127.0.0.1:1", None).unwrap(),
        identity: Identity {
            client_id: "it".to_owned(),
            credentials: Credentials::Anonymous,
        },
        will: None,
        subscriptions: vec![],
        queue_messages: 1,
    };
    let (events, _) = mpsc::channel(1);
    Session::start(options, events, stop.clone()).0
}

/// All of it; the link has met the other node.
fn around(session: Session, plan: LinkPlan) -> (Around, PeerLink) {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(directory.path()).unwrap();
    let attachment = Attachment {
        number: 1,
        name: "relay".parse().unwrap(),
        role: RelayRole::Everything,
        session,
        connected: true,
        connections: 1,
        reason: None,
        since_ms: 0,
    };
    let (relays, to_relays) = watch::channel(Arc::new(vec![attachment]));
    let (shared, to_shared) = watch::channel(vec![]);
    let (planned, to_plan) = watch::channel(plan);
    let (frames, to_frames) = mpsc::channel(1);
    let ways = Ways {
        bus: Arc::default(),
        store,
        node: node(),
        topic: "site/link".to_owned(),
        relays: to_relays,
        shared: to_shared,
        plan: to_plan,
        frames: to_frames,
        began: Instant::now(),
    };
    let mut link = PeerLink::new(ways, seals(1, 2));
    link.link = links(SETTINGS).0; // the other node has answered already
    let around = Around {
        _relays: relays,
        _shared: shared,
        _plan: planned,
        _frames: frames,
        _directory: directory,
    };
    (around, link)
}

/// Runs the link on a thread of its own and lets another task of that thread say that it goes on.
async fn run_beside(around: Around, link: PeerLink, goes_on: SyncSender<()>) {
    let mut running = JoinSet::new();
    running.spawn(link.run());
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    goes_on.send(()).unwrap();
    drop(around);
    running.join_next().await.unwrap().unwrap();
    goes_on.send(()).unwrap();
}

#[test]
fn a_session_that_has_ended_while_live_messages_wait_holds_up_nobody() {
    let (goes_on, told) = sync_channel(2);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let stop = CancellationToken::new();
            stop.cancel();
            let queue = Arc::new(PeerQueue::new(node()));
            queue.push(Outbound {
                message: message(1),
                counters: Arc::new(RouteCounters::new(RouteId::from_u64(2))),
            });
            let plan = LinkPlan {
                live: Some(queue),
                ..LinkPlan::default()
            };
            let (around, link) = around(session(&stop), plan);
            run_beside(around, link, goes_on).await;
        });
    });
    for what in ["another task goes on", "the link ends with its agent"] {
        assert_eq!(told.recv_timeout(PATIENCE), Ok(()), "{what}");
    }
}

#[tokio::test]
async fn what_is_due_wakes_nobody_who_waits_for_room_at_the_relay() {
    let mut plan = LinkPlan::default();
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(directory.path()).unwrap();
    plan.outgoing.push(stream(&store, 1).await);
    let (_around, mut link) = around(session(&CancellationToken::new()), plan);
    link.follow();
    link.meet();
    link.choose();
    let hello = link.leaving.next(&mut link.link, &link.plan, 0);
    assert!(hello.is_some());
    let sent = link.leaving.next(&mut link.link, &link.plan, 0);
    assert!(sent.is_some());
    assert_eq!(link.wake_ms(false), Some(SETTINGS.resend_ms_min));
    assert_eq!(link.wake_ms(true), None);
}

#[tokio::test]
async fn what_is_due_wakes_nobody_who_waits_for_the_disk() {
    let mut plan = LinkPlan::default();
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(directory.path()).unwrap();
    plan.outgoing.push(stream(&store, 1).await);
    plan.outgoing
        .push(stream_at_hand_from(&store, 2, 1_000).await);
    let (_around, mut link) = around(session(&CancellationToken::new()), plan);
    link.follow();
    link.meet();
    link.choose();
    let hello = link.leaving.next(&mut link.link, &link.plan, 0);
    assert!(hello.is_some());
    let sent = link.leaving.next(&mut link.link, &link.plan, 0);
    assert!(sent.is_some() && link.leaving.is_reading());
    assert_eq!(link.link.wake_ms(), Some(SETTINGS.resend_ms_min));
    assert_eq!(link.wake_ms(false), None);
}
