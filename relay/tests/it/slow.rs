//! Clients that read nothing, and messages that are too large or too many: what the relay holds for
//! them is bounded in bytes.

use std::time::Duration;

use haar_protocol::ids::NodeId;
use haar_protocol::keys::SecretKey;
use haar_protocol::topics::Topic;
use haar_relay::{BrokerLimits, Outgoing, Rate};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::hostile::{connect_packet, dial};
use crate::support::{Retained as _, Site, message, soon};

const BODY_BYTES: usize = 100 * 1000;
const BODIES: usize = 600;

/// Node two, subscribed to its links at QoS 1, and then asleep.
async fn sleeper(site: &Site) -> TlsStream<TcpStream> {
    let mut stream = dial(site).await;
    stream.write_all(&connect_packet(site)).await.unwrap();
    let mut answer = [0; 256];
    soon("CONNACK", stream.read(&mut answer)).await.unwrap();
    let filter = format!("haar/{}/{}/in/#", site.id, site.two.id);
    let mut subscribe = vec![
        0x82,
        u8::try_from(2 + 1 + 2 + filter.len() + 1).unwrap(),
        0,
        1,
        0,
    ];
    subscribe.extend(u16::try_from(filter.len()).unwrap().to_be_bytes());
    subscribe.extend(filter.as_bytes());
    subscribe.push(1);
    stream.write_all(&subscribe).await.unwrap();
    soon("SUBACK", stream.read(&mut answer)).await.unwrap();
    stream
}

/// Publishes 60 MB to the sleeper, and returns when the relay has dealt with all of it.
async fn flood(site: &Site, quality: QoS) {
    let mut controller = site.connect_site().await;
    let mut node = site.raw_node(&site.one).await;
    let body = "x".repeat(BODY_BYTES);
    for _ in 0..BODIES {
        match quality {
            QoS::AtMostOnce => {
                let sent = node
                    .client
                    .publish(site.link(), quality, false, body.clone());
                soon("the relay reads", sent).await.unwrap();
            }
            _ => assert_eq!(
                node.publish(&site.link(), &body, false).await,
                PubAckReason::Success
            ),
        }
    }
    let status = site.text(&Topic::Status(site.one.id.clone()));
    let last = node
        .client
        .publish(&status, QoS::AtLeastOnce, false, "last");
    soon("the relay reads", last).await.unwrap();
    controller.message_is(&status, "last").await;
}

/// The bytes that the relay had for a client that now reads everything: until one more message,
/// which it gets at once when nothing else waits.
async fn bytes_that_waited(site: &Site, sleeper: TlsStream<TcpStream>) -> usize {
    soon("the end of what waited", read_all(site, sleeper)).await
}

async fn read_all(site: &Site, mut sleeper: TlsStream<TcpStream>) -> usize {
    let node = site.raw_node(&site.one).await;
    let mut total = 0;
    let mut buffer = vec![0; 1 << 20];
    let mark = b"the end of what waited";
    let mut tail: Vec<u8> = Vec::new();
    loop {
        node.client
            .publish(site.link(), QoS::AtMostOnce, false, mark.to_vec())
            .await
            .unwrap();
        let read = tokio::time::timeout(Duration::from_millis(100), sleeper.read(&mut buffer));
        let Ok(read) = read.await else { continue };
        let count = read.unwrap();
        assert!(count > 0, "the relay closed");
        total += count;
        tail.extend(&buffer[..count]);
        if tail.windows(mark.len()).any(|part| part == mark) {
            return total;
        }
        tail.drain(..tail.len().saturating_sub(mark.len()));
    }
}

async fn holds_little_for_a_sleeper(quality: QoS) {
    let limits = BrokerLimits {
        client_bytes_max: 1 << 20,
        ..BrokerLimits::default()
    };
    let site = Site::start_with(limits).await;
    let sleeper = sleeper(&site).await;
    flood(&site, quality).await;
    let waited = soon("what waited", bytes_that_waited(&site, sleeper)).await;
    // 1 MiB in the relay; the rest is what both kernels buffer, some MB on loopback.
    let sent = BODY_BYTES * BODIES;
    assert!(waited < sent / 4, "{waited} of {sent} bytes waited");
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_costs_a_bounded_number_of_bytes() {
    holds_little_for_a_sleeper(QoS::AtMostOnce).await;
}

#[tokio::test]
async fn the_same_at_quality_of_service_1() {
    holds_little_for_a_sleeper(QoS::AtLeastOnce).await;
}

#[tokio::test]
async fn what_is_too_large_for_its_topic_is_dropped_and_its_sender_goes_on() {
    let site = Site::start().await;
    let mut controller = site.connect_site().await;
    let node = site.connect_node(&site.one).await;
    let alive = site.text(&Topic::Alive(site.one.id.clone()));
    let publish = |text: &str| node.session.publish(message(&alive, text));
    publish(&"x".repeat(65)).await.unwrap();
    publish("online").await.unwrap();
    assert_eq!(
        controller.message().await,
        (alive.clone(), "online".into(), false)
    );
}

#[tokio::test]
async fn a_frame_to_a_node_that_the_relay_does_not_know_is_dropped() {
    let site = Site::start().await;
    let mut controller = site.connect_site().await;
    let mut two = site.connect_node(&site.two).await;
    let one = site.connect_node(&site.one).await;
    for seed in 100..200 {
        let link = site.text(&Topic::Link {
            from: site.one.id.clone(),
            to: NodeId::of(&SecretKey::from_seed([seed; 32]).public()),
        });
        one.session.publish(message(&link, "x")).await.unwrap();
    }
    one.session
        .publish(message(&site.link(), "to two"))
        .await
        .unwrap();
    assert_eq!(two.message().await, (site.link(), "to two".into(), false));
    assert!(controller.events.try_recv().is_err());
}

#[tokio::test]
async fn what_nodes_have_retained_is_bounded_in_bytes_and_passed_on_all_the_same() {
    let limits = BrokerLimits {
        retained_bytes_max: 1_000,
        ..BrokerLimits::default()
    };
    let site = Site::start_with(limits).await;
    let mut controller = site.connect_site().await;
    let status = |node: &NodeId| site.text(&Topic::Status(node.clone()));
    let (first, second) = (status(&site.one.id), status(&site.two.id));
    let (one, two) = (
        site.connect_node(&site.one).await,
        site.connect_node(&site.two).await,
    );
    let body = "x".repeat(600);
    let retained = |topic: &str| -> Outgoing { message(topic, &body).retained() };
    one.session.publish(retained(&first)).await.unwrap();
    controller.message_is(&first, &body).await;
    two.session.publish(retained(&second)).await.unwrap();
    controller.message_is(&second, &body).await;
    // The same topic again takes the place of the one before.
    one.session.publish(retained(&first)).await.unwrap();
    controller.message_is(&first, &body).await;
    let mut late = site.connect_site().await;
    assert_eq!(late.message().await, (first, body.clone(), true));
    two.session.publish(message(&second, "mark")).await.unwrap();
    assert_eq!(late.message().await, (second, "mark".into(), false));
}

#[tokio::test]
async fn reports_beyond_their_rate_wait_and_are_not_lost() {
    let limits = BrokerLimits {
        report_rate: Rate {
            bytes_per_second: 1 << 20,
            messages_per_second: 200,
            burst: Duration::ZERO,
        },
        ..BrokerLimits::default()
    };
    let site = Site::start_with(limits).await;
    let mut controller = site.connect_site().await;
    let node = site.connect_node(&site.one).await;
    let log = site.text(&Topic::Log(site.one.id.clone()));
    for number in 0..50 {
        let line = message(&log, &number.to_string());
        node.session.publish(line).await.unwrap();
    }
    for number in 0..50 {
        let expected = (log.clone(), number.to_string(), false);
        assert_eq!(controller.message().await, expected);
    }
}

#[tokio::test]
async fn a_node_that_does_not_read_its_assignments_is_cut_and_gets_the_newest_later() {
    let limits = BrokerLimits {
        client_bytes_max: 1 << 20,
        ..BrokerLimits::default()
    };
    let site = Site::start_with(limits).await;
    let mut node = site.connect_node(&site.two).await;
    let topic = site.text(&Topic::Assignment(site.two.id.clone()));
    let controller = site.connect_site().await;
    let body = |number: usize| format!("{number} {}", "x".repeat(BODY_BYTES));
    // Its events are not read, so that it stops reading: a channel of 256 and what kernels buffer.
    for number in 0..600 {
        let assignment = message(&topic, &body(number)).retained();
        controller.session.publish(assignment).await.unwrap();
    }
    node.disconnected().await;
    // It comes back by itself, and reads again.
    soon("the newest assignment", node.message_is(&topic, &body(599))).await;
}
