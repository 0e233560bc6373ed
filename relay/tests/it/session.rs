//! The session: it comes back by itself, sends again what it must, and never takes what it can't send.

use std::time::Duration;

use haar_protocol::topics::Topic;
use haar_relay::{
    DisconnectReason, Endpoint, PACKET_BYTES_MAX, PublishError, Session, SessionEvent,
    TakeoverPauses,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{Client, Retained as _, Site, free_address, message, soon};

#[tokio::test]
async fn messages_cross_the_relay_between_sessions() {
    let site = Site::start().await;
    let sender = site.connect_node(&site.one).await;
    let mut receiver = site.connect_node(&site.two).await;
    for number in 0..500 {
        let mut next = message(&site.link(), &number.to_string());
        next.at_least_once = number % 2 == 0;
        sender.session.publish(next).await.unwrap();
        if number % 50 == 49 {
            // Messages without acknowledgement may overtake others: check each batch as a set.
            let mut batch = Vec::new();
            for _ in 0..50 {
                batch.push(receiver.message().await.1.parse::<u32>().unwrap());
            }
            batch.sort_unstable();
            assert_eq!(batch, (number - 49..=number).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_retained_assignment_arrives_on_every_connection() {
    let site = Site::start().await;
    let topic = site.text(&Topic::Assignment(site.one.id.clone()));
    let controller = site.connect_site().await;
    for number in ["assignment 1", "assignment 2"] {
        controller
            .session
            .publish(message(&topic, number).retained())
            .await
            .unwrap();
    }
    // Once acknowledged it is on its way to nobody: what a node gets from here on was retained.
    controller.session.finish(None).await.unwrap();
    let mut node = site.connect_node(&site.one).await;
    node.message_is(&topic, "assignment 2").await;
    node.session.finish(None).await.unwrap();
    let mut node = site.connect_node(&site.one).await;
    assert_eq!(node.message().await, (topic, "assignment 2".into(), true));
}

#[tokio::test]
async fn a_session_survives_a_restart_of_the_relay() {
    let site = Site::start().await;
    let mut controller = site.connect_site().await;
    let mut node = site.connect_node(&site.one).await;
    let are_cut = async {
        for client in [&mut node, &mut controller] {
            let reason = client.disconnected().await;
            assert!(!reason.is_takeover(), "{reason}");
        }
    };
    let site = site.restart_after(are_cut).await;
    for client in [&mut node, &mut controller] {
        client.reconnected().await;
    }
    let status = site.text(&Topic::Status(site.one.id.clone()));
    node.session
        .publish(message(&status, "back"))
        .await
        .unwrap();
    controller.message_is(&status, "back").await;
}

#[tokio::test]
async fn the_last_status_arrives_over_restarts_without_being_sent_again_by_the_caller() {
    let mut site = Site::start().await;
    let status = site.text(&Topic::Status(site.one.id.clone()));
    let mut node = site.connect_node(&site.one).await;
    let mut last = String::new();
    for restart in 0..4 {
        for number in 0..40 {
            last = format!("status {restart} {number}");
            node.session
                .publish(message(&status, &last).retained())
                .await
                .unwrap();
        }
        site = site.restart().await;
        node.reconnected().await;
    }
    let mut controller = site.connect_site().await;
    controller.message_is(&status, &last).await;
}

#[tokio::test]
async fn an_absent_relay_is_reported_as_unreachable() {
    let site = Site::start().await;
    let mut options = site.node_options(&site.one);
    options.endpoint.port = free_address().await.port();
    let mut client = Client::start(options);
    for _ in 0..3 {
        let reason = client.disconnected().await;
        assert!(
            matches!(reason, DisconnectReason::Unreachable(_)),
            "{reason}"
        );
    }
}

#[tokio::test]
async fn a_live_message_without_a_connection_is_an_error() {
    let site = Site::start().await;
    let mut options = site.node_options(&site.one);
    options.endpoint.port = free_address().await.port();
    let mut client = Client::start(options);
    client.disconnected().await;
    let live = message(&site.link(), "x");
    assert_eq!(
        client.session.try_publish(live.clone()),
        Err(PublishError::NotConnected)
    );
    client.stop.cancel();
    assert_eq!(
        client.session.try_publish(live.clone()),
        Err(PublishError::Stopped)
    );
    assert_eq!(
        client.session.publish(live).await,
        Err(PublishError::Stopped)
    );
    client.ended().await;
}

#[tokio::test]
async fn a_full_queue_is_an_error_for_live_messages_and_a_wait_for_others() {
    let site = Site::start().await;
    let mut options = site.node_options(&site.one);
    options.queue_messages = 2;
    let client = Client::connected(options).await;
    let live = message(&site.link(), "x");
    // This test's only thread does not give way to the session: nothing leaves the queue.
    assert_eq!(client.session.try_publish(live.clone()), Ok(()));
    assert_eq!(client.session.try_publish(live.clone()), Ok(()));
    assert_eq!(
        client.session.try_publish(live.clone()),
        Err(PublishError::Full)
    );
    soon("room in the queue", client.session.publish(live))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_oversize_publish_is_refused_before_it_is_sent() {
    let site = Site::start().await;
    let mut node = site.connect_node(&site.one).await;
    let mut controller = site.connect_site().await;
    // The kind of topic that may carry most.
    let log = site.text(&Topic::Log(site.one.id.clone()));
    let limit = usize::try_from(PACKET_BYTES_MAX).unwrap();
    let too_large = message(&log, &"x".repeat(limit));
    let refused = node.session.publish(too_large.clone()).await;
    assert!(
        matches!(refused, Err(PublishError::TooLarge { .. })),
        "{refused:?}"
    );
    assert!(matches!(
        node.session.try_publish(too_large),
        Err(PublishError::TooLarge { .. })
    ));
    let largest = "x".repeat(limit - log.len() - 16 - 1024);
    node.session.publish(message(&log, &largest)).await.unwrap();
    assert_eq!(controller.message().await.1.len(), largest.len());
    assert!(node.events.try_recv().is_err(), "the connection holds");
}

#[tokio::test]
async fn a_topic_with_wildcards_is_refused() {
    let site = Site::start().await;
    let node = site.connect_node(&site.one).await;
    for topic in ["", "a/+", "#", "a\0b"] {
        let refused = node.session.publish(message(topic, "x")).await;
        assert!(
            matches!(refused, Err(PublishError::Topic(_))),
            "{topic}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_takeover_ends_the_first_connection_and_not_the_second() {
    let site = Site::start().await;
    let mut first = site.connect_node(&site.one).await;
    let mut second = site.connect_node(&site.one).await;
    let reason = first.disconnected().await;
    assert!(reason.is_takeover(), "{reason}");
    first.stop.cancel();
    let controller = site.connect_site().await;
    let topic = site.text(&Topic::Assignment(site.one.id.clone()));
    controller
        .session
        .publish(message(&topic, "x"))
        .await
        .unwrap();
    assert_eq!(second.message().await.1, "x");
    assert!(!first.session.is_connected());
}

#[tokio::test]
async fn of_two_processes_with_one_identity_the_other_goes_on_when_one_stops() {
    let site = Site::start().await;
    let short = TakeoverPauses {
        first: Duration::from_millis(50),
        max: Duration::from_millis(200),
        calm: Duration::from_secs(600),
    };
    let (events, mut received) = mpsc::channel(64);
    let stop = CancellationToken::new();
    let options = site.node_options(&site.one);
    let (_session, task) = Session::start_with(options, short, events, stop.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(task);
    let first = soon("a connection", received.recv()).await;
    assert_eq!(first, Some(SessionEvent::Connected));
    let mut copy = site.connect_node(&site.one).await;
    let next = soon("an interruption", received.recv()).await;
    let Some(SessionEvent::Disconnected { reason }) = next else {
        panic!("it was not interrupted");
    };
    assert!(reason.is_takeover(), "{reason}");
    assert!(copy.disconnected().await.is_takeover(), "it is taken back");
    copy.stop.cancel();
    let again = async { while received.recv().await != Some(SessionEvent::Connected) {} };
    soon("it goes on", again).await;
    stop.cancel();
    soon("the end of the session", tasks.join_all()).await;
}

#[tokio::test]
async fn a_relay_that_ends_is_no_takeover() {
    let site = Site::start().await;
    let mut node = site.connect_node(&site.one).await;
    site.broker.shutdown().await;
    let reason = node.disconnected().await;
    assert!(!reason.is_takeover(), "{reason}");
}

#[tokio::test]
async fn finish_sends_everything_that_was_queued() {
    let site = Site::start().await;
    let status = site.text(&Topic::Status(site.one.id.clone()));
    let mut controller = site.connect_site().await;
    let node = site.connect_node(&site.one).await;
    for number in 0..60 {
        node.session
            .publish(message(&status, &number.to_string()))
            .await
            .unwrap();
    }
    node.session
        .finish(Some(message(&status, "last")))
        .await
        .unwrap();
    for number in 0..60 {
        assert_eq!(controller.message().await.1, number.to_string());
    }
    assert_eq!(controller.message().await.1, "last");
    let again = node.session.finish(Some(message(&status, "later"))).await;
    assert_eq!(again, Err(PublishError::Stopped));
    assert!(node.ended().await.is_empty(), "no event follows");
}

#[tokio::test]
async fn finish_without_a_connection_says_that_the_last_message_was_not_sent() {
    let site = Site::start().await;
    let mut options = site.node_options(&site.one);
    options.endpoint.port = free_address().await.port();
    let mut client = Client::start(options);
    client.disconnected().await;
    let status = site.text(&Topic::Status(site.one.id.clone()));
    let finished = soon(
        "the end",
        client.session.finish(Some(message(&status, "last"))),
    )
    .await;
    assert_eq!(finished, Err(PublishError::NotConnected));
}

#[tokio::test]
async fn a_session_ends_though_nobody_reads_its_events() {
    let site = Site::start().await;
    let status = site.text(&Topic::Status(site.one.id.clone()));
    let controller = site.connect_site().await;
    let node = site.connect_node(&site.one).await;
    for number in 0..600 {
        node.session
            .publish(message(&status, &number.to_string()))
            .await
            .unwrap();
    }
    node.session.finish(None).await.unwrap();
    controller.stop.cancel();
    let events = controller.ended().await;
    assert!(
        events
            .iter()
            .all(|event| matches!(event, SessionEvent::Message { .. }))
    );
}

#[tokio::test]
async fn plaintext_works_on_loopback() {
    let site = Site::start().await;
    let mut options = site.broker_options();
    (options.tls, options.listen) = (None, "127.0.0.1:0".parse().unwrap());
    let plain = haar_relay::Broker::start(options).await.unwrap();
    let mut options = site.node_options(&site.one);
    options.endpoint = Endpoint::parse(&format!("mqtt://{}", plain.address()), None).unwrap();
    Client::connected(options)
        .await
        .session
        .finish(None)
        .await
        .unwrap();
    plain.shutdown().await;
}
