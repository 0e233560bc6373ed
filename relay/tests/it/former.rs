//! Sessions for devices that take over what a broker keeps for an agent of an earlier release.

use std::time::Duration;

use haar_relay::FORMER_SILENCE;
use rumqttc::v5::mqttbytes::v5::Connect;

use crate::receiver::Receiver;
use crate::scripted::{Connection, Scripted, publish};

const FORMER: &str = "former";
/// Nothing is said within this time, but while a message waits to be acknowledged.
const SHORT: Duration = Duration::from_millis(50);

/// The next client, greeted.
async fn greeted(broker: &Scripted, session_present: bool) -> (Connect, Connection) {
    let (connect, mut connection) = broker.client().await;
    connection.greet(session_present, None).await;
    (connect, connection)
}

/// The next client, which is this one, greeted.
async fn greeted_as(broker: &Scripted, client_id: &str, session_present: bool) -> Connection {
    let (connect, connection) = greeted(broker, session_present).await;
    assert_eq!(connect.client_id, client_id);
    connection
}

/// The next client, which is this one, refused.
async fn refused(broker: &Scripted, client_id: &str) {
    let (connect, connection) = broker.client().await;
    assert_eq!(connect.client_id, client_id);
    connection.refuse().await;
}

fn expiry_s(connect: &Connect) -> Option<u32> {
    connect.properties.as_ref()?.session_expiry_interval
}

/// Until the former session is drained: its connection, on which there is one message.
async fn draining(broker: &Scripted) -> Connection {
    let (connect, looking) = greeted(broker, true).await;
    assert_eq!(connect.client_id, FORMER);
    // A cut in this state loses nothing.
    assert_eq!(
        (connect.clean_start, expiry_s(&connect)),
        (false, Some(3_600))
    );
    drop(looking);
    let (connect, mut preparing) = greeted(broker, true).await;
    assert_eq!(connect.client_id, "one");
    preparing.send(&[publish("plant/1/t", 1, "new")]).await;
    preparing.subscribed().await;
    preparing.left().await; // without an acknowledgement
    let (connect, mut draining) = greeted(broker, true).await;
    assert_eq!(connect.client_id, FORMER);
    assert_eq!(
        (connect.clean_start, expiry_s(&connect)),
        (false, Some(3_600))
    );
    draining.send(&[publish("plant/1/t", 1, "1")]).await;
    draining.unsubscribed().await;
    draining
}

/// A connection as itself that subscribes and takes nothing.
async fn prepared(broker: &Scripted) {
    let mut preparing = greeted_as(broker, "one", false).await;
    preparing.subscribed().await;
    preparing.left().await;
}

async fn forgotten(broker: &Scripted, client_id: &str) {
    let (connect, connection) = greeted(broker, false).await;
    assert_eq!(connect.client_id, client_id);
    assert_eq!((connect.clean_start, expiry_s(&connect)), (true, Some(0)));
    connection.left().await;
}

#[tokio::test]
async fn a_former_session_is_forgotten_when_all_that_waits_in_it_is_acknowledged() {
    let broker = Scripted::start().await;
    let mut receiver = Receiver::start_after(&broker, FORMER, SHORT);
    let mut former = draining(&broker).await;
    let mut last = receiver.message().await;
    for number in 2..=40 {
        let next = publish("plant/1/t", number, number.to_string());
        former.send(&[next]).await;
        let message = receiver.message().await;
        assert_eq!(message.payload, number.to_string());
        receiver.session.acknowledge(last.receipt.unwrap());
        assert_eq!(former.acknowledged().await, number - 1);
        last = message;
    }
    receiver.session.acknowledge(last.receipt.unwrap());
    assert_eq!(former.acknowledged().await, 40);
    former.left().await;
    forgotten(&broker, FORMER).await;
    let (connect, mut own) = greeted(&broker, true).await;
    assert_eq!(
        (connect.client_id.as_str(), connect.clean_start),
        ("one", false)
    );
    own.send(&[publish("plant/1/t", 1, "new")]).await;
    assert_eq!(receiver.message().await.payload, "new");
    receiver.end().await;
}

#[tokio::test]
async fn a_former_session_that_is_cut_off_is_drained_further() {
    let broker = Scripted::start().await;
    let mut receiver = Receiver::start_after(&broker, FORMER, SHORT);
    let former = draining(&broker).await;
    assert_eq!(receiver.message().await.payload, "1");
    drop(former); // not acknowledged
    let (connect, mut former) = greeted(&broker, true).await;
    assert_eq!(
        (connect.client_id.as_str(), connect.clean_start),
        (FORMER, false)
    );
    former.send(&[publish("plant/1/t", 1, "1")]).await;
    former.unsubscribed().await;
    let message = receiver.message().await;
    receiver.session.acknowledge(message.receipt.unwrap());
    assert_eq!(former.acknowledged().await, 1);
    former.left().await;
    forgotten(&broker, FORMER).await;
    receiver.end().await;
}

/// Looking began one.
#[tokio::test]
async fn where_there_is_no_former_session_none_is_left() {
    let broker = Scripted::start().await;
    let receiver = Receiver::start_after(&broker, FORMER, FORMER_SILENCE);
    drop(greeted(&broker, false).await);
    forgotten(&broker, FORMER).await;
    let (connect, mut own) = greeted(&broker, false).await;
    assert_eq!(connect.client_id, "one");
    own.subscribed().await;
    receiver.end().await;
}

#[tokio::test]
async fn a_session_whose_end_the_broker_did_not_answer_is_not_taken_for_forgotten() {
    let broker = Scripted::start().await;
    let receiver = Receiver::start_after(&broker, FORMER, FORMER_SILENCE);
    let former = draining(&broker).await;
    receiver.session.forget();
    former.left().await;
    drop(broker.client().await); // the former one, unanswered
    forgotten(&broker, "one").await;
    forgotten(&broker, FORMER).await;
    receiver.ended().await;
}

/// Its password file is half written, for example.
#[tokio::test]
async fn a_broker_that_refuses_for_a_moment_finds_the_same_client_afterwards() {
    let broker = Scripted::start().await;
    let mut receiver = Receiver::start_after(&broker, FORMER, FORMER_SILENCE);
    drop(greeted(&broker, false).await);
    forgotten(&broker, FORMER).await;
    let mut own = greeted_as(&broker, "one", false).await;
    own.subscribed().await;
    drop(own);
    for _ in 0..3 {
        refused(&broker, "one").await;
    }
    let mut own = greeted_as(&broker, "one", true).await;
    own.send(&[publish("plant/1/t", 1, "kept")]).await;
    assert_eq!(receiver.message().await.payload, "kept");
    receiver.end().await;
}

#[tokio::test]
async fn a_former_session_that_is_refused_for_a_moment_is_drained_afterwards() {
    let broker = Scripted::start().await;
    let mut receiver = Receiver::start_after(&broker, FORMER, SHORT);
    // At first nobody is known.
    for client_id in [FORMER, "one", FORMER] {
        refused(&broker, client_id).await;
    }
    prepared(&broker).await;
    let former = draining(&broker).await;
    assert_eq!(receiver.message().await.payload, "1");
    drop(former); // not acknowledged
    refused(&broker, FORMER).await;
    prepared(&broker).await;
    // It is known again.
    drop(greeted_as(&broker, FORMER, true).await);
    prepared(&broker).await;
    let mut former = greeted_as(&broker, FORMER, true).await;
    former.send(&[publish("plant/1/t", 1, "1")]).await;
    former.unsubscribed().await;
    let message = receiver.message().await;
    receiver.session.acknowledge(message.receipt.unwrap());
    assert_eq!(former.acknowledged().await, 1);
    former.left().await;
    forgotten(&broker, FORMER).await;
    greeted_as(&broker, "one", true).await;
    receiver.end().await;
}

#[tokio::test]
async fn a_former_user_that_goes_while_its_session_is_drained_holds_up_nobody() {
    let broker = Scripted::start().await;
    let mut receiver = Receiver::start_after(&broker, FORMER, SHORT);
    let former = draining(&broker).await;
    assert_eq!(receiver.message().await.payload, "1");
    drop(former);
    refused(&broker, FORMER).await;
    prepared(&broker).await;
    refused(&broker, FORMER).await;
    let mut own = greeted_as(&broker, "one", true).await;
    own.send(&[publish("plant/1/t", 1, "new")]).await;
    assert_eq!(receiver.message().await.payload, "new");
    receiver.end().await;
}

#[tokio::test]
async fn a_broker_that_knows_the_former_user_only_is_asked_for_the_present_one_each_time() {
    let broker = Scripted::start().await;
    let mut receiver = Receiver::start_after(&broker, FORMER, SHORT);
    drop(greeted_as(&broker, FORMER, true).await);
    refused(&broker, "one").await; // once may be for a moment
    for number in 1..=2 {
        refused(&broker, "one").await;
        let mut before = greeted_as(&broker, FORMER, false).await;
        before.subscribed().await;
        before.send(&[publish("plant/1/t", number, "1")]).await;
        let message = receiver.message().await;
        receiver.session.acknowledge(message.receipt.unwrap());
        assert_eq!(before.acknowledged().await, number);
    }
    prepared(&broker).await;
    let mut former = greeted_as(&broker, FORMER, true).await;
    former.unsubscribed().await;
    former.left().await;
    forgotten(&broker, FORMER).await;
    receiver.end().await;
}
