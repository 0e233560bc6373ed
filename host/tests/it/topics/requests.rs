//! What MQTT 5 says about messages beside their payload: where an answer goes, what it carries, and how
//! long a message is of use.

use haar_protocol::limits::WhenFull;
use haar_protocol::relay::NodeCredentials;
use haar_protocol::status::Status;

use super::outlets::{echoing, to};
use super::qos::{counts, deaf};
use super::{says, texts, topic_route};
use crate::mosquitto::Mosquitto;
use crate::node::Node;
use crate::site::Site;

const TOPIC: [&str; 4] = ["-q", "1", "-t", "plant/7/temperature"];

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_reaches_the_device_that_has_asked_with_what_it_asked_for() {
    let site = Site::start().await;
    let broker = Mosquitto::start().await;
    let mut node = Node::enrol(&site, "one");
    let access = broker.access(NodeCredentials::Anonymous);
    let mut assignment = echoing(&node, &site, access);
    assignment.topics[1] = topic_route(to("plant/answers", false), "echo", "out");
    node.start();
    site.assign(&assignment).await;
    broker.subscribed(&node.id, 1).await;
    let answers = ["-e", "plant/answers", "-m", "21", "-F", "%p %D %R %E %F"];
    let publish = ["-D", "publish"];
    let request = [
        &TOPIC[..],
        &answers,
        &publish,
        &["correlation-data", "request 7"],
        &publish,
        &["message-expiry-interval", "1000"],
        &publish,
        &["payload-format-indicator", "1"],
    ];
    let printed = broker.request(&request.concat()).await;
    let words: Vec<&str> = printed.trim_end().split(' ').collect();
    let [payload, one, other, response, expiry, format] = words[..] else {
        panic!("{printed}");
    };
    assert_eq!(
        [payload, one, other, response, format],
        ["21", "request", "7", "plant/answers", "1"]
    );
    let left: u32 = expiry.parse().unwrap();
    assert!((1..=1_000).contains(&left), "{left}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_has_expired_is_counted_and_not_handled() {
    let (site, broker, mut node, module) = deaf(WhenFull::Refuse).await;
    let expiry = ["-D", "publish", "message-expiry-interval", "1"];
    broker
        .publish(&[&TOPIC[..], &expiry, &["-m", "open the valve"]].concat())
        .await;
    let expiry = ["-D", "publish", "message-expiry-interval", "1000"];
    broker
        .publish(&[&TOPIC[..], &expiry, &["-m", "close the valve"]].concat())
        .await;
    let stored = site.status(&node.id, counts(2, 0)).await;
    let is_later = |status: &Status| status.sent_ms > stored.sent_ms + 1_100;
    site.status(&node.id, is_later).await;
    node.stop().await;
    node.put_back(module);
    node.start();
    let line = site
        .line(&node.id, |line| says(line, "close the valve"))
        .await;
    assert!(line.text.contains("\"mqtt-message-expiry\":\""), "{line:?}");
    assert_eq!(texts(&site, &node), ["close the valve"]);
    site.status(&node.id, counts(0, 1)).await;
    node.stop().await;
}
