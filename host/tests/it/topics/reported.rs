//! What statuses tell of the brokers of devices: whether the node is connected, since when, why not, and
//! what did not become headers.

use haar_protocol::relay::{NodeCredentials, RelayRole};
use haar_protocol::status::{RelayStatus, Status};

use super::{READINGS, listening, says, scene};
use crate::mosquitto::Mosquitto;
use crate::node::Node;
use crate::site::Site;

fn plant(status: &Status) -> Option<&RelayStatus> {
    status
        .brokers
        .iter()
        .find(|one| one.name.as_str() == "plant")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_tells_whether_the_broker_of_devices_is_there_since_when_and_why_not() {
    let (site, mut broker, mut node, _) = scene(READINGS).await;
    let connected = |status: &Status| plant(status).is_some_and(|one| one.connected);
    let first = site.status(&node.id, connected).await;
    let since = plant(&first).unwrap().since_ms.unwrap();
    assert!(first.started_ms <= since && since <= first.sent_ms);
    broker.stop();
    let away = |status: &Status| {
        let one = plant(status);
        one.is_some_and(|one| !one.connected && one.reason.is_some() && one.since_ms > Some(since))
    };
    let status = site.status(&node.id, away).await;
    assert!(status.relays.iter().all(|one| one.name.as_str() != "plant"));
    broker.start_again().await;
    let status = site.status(&node.id, connected).await;
    assert_eq!(plant(&status).unwrap().reason, None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_can_not_be_used_is_told() {
    let site = Site::start().await;
    let broker = Mosquitto::start().await;
    let mut node = Node::enrol(&site, "one");
    let mut access = broker.access(NodeCredentials::Proof);
    access.role = RelayRole::Topics;
    let mut assignment = listening(&node, &site, access, READINGS);
    node.start();
    site.assign(&assignment).await;
    let unusable = |status: &Status| {
        let reason = plant(status).and_then(|one| one.reason.as_deref());
        reason.is_some_and(|reason| reason.contains("without devices"))
    };
    site.status(&node.id, unusable).await;
    assignment.number = 2;
    assignment.brokers = vec![broker.access(NodeCredentials::Anonymous)];
    site.assign(&assignment).await;
    let well =
        |status: &Status| plant(status).is_some_and(|one| one.connected && one.reason.is_none());
    site.status(&node.id, well).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_that_are_left_out_have_a_counter_of_their_own() {
    let (site, broker, mut node, _) = scene(READINGS).await;
    let property = ["-D", "publish", "user-property", "mqtt-topic", "forged"];
    let message = ["-q", "1", "-t", "plant/7/temperature", "-m", "21"];
    broker.publish(&[&message[..], &property].concat()).await;
    let left_out = |status: &Status| status.device_properties_dropped == 1;
    let status = site.status(&node.id, left_out).await;
    assert_eq!(
        (status.device_messages_dropped, status.frames_refused),
        (0, 0)
    );
    node.stop().await;
}

/// Shelly's devices publish below their own names.
#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_begins_with_a_wildcard_takes_what_devices_publish_below_their_names() {
    let (site, broker, mut node, _) = scene("+/events/rpc").await;
    let topic = ["-q", "1", "-t", "shellyplus1-a8032abe54dc/events/rpc"];
    broker.publish(&[&topic[..], &["-m", "on"]].concat()).await;
    site.line(&node.id, |line| says(line, "on")).await;
    node.stop().await;
}
