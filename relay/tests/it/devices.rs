//! Sessions for plain MQTT devices, at brokers that do not keep to the rules.

use std::collections::VecDeque;

use haar_relay::{
    DeviceEvent, DeviceOptions, DevicePublish, MessageProperties, Outcome, SessionEvent,
    SessionOptions,
};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAckProperties, Packet, PubRel, Publish, RetainForwardRule, SubAck, SubscribeReasonCode,
};

use crate::receiver::{Receiver, wants};
use crate::scripted::{Scripted, publish};
use crate::support::Client;

const BURST: u16 = 1_060;

fn burst(numbers: std::ops::RangeInclusive<u16>) -> Vec<Packet> {
    let numbers = numbers.map(|number| publish("plant/1/t", number, number.to_string()));
    numbers.collect()
}

/// Mosquitto 2.0.11 sends sixteen more for each acknowledgement.
#[tokio::test]
async fn a_broker_that_exceeds_the_window_has_every_message_acknowledged_in_order() {
    let broker = Scripted::start().await;
    let mut receiver = Receiver::start(&broker);
    let mut connection = broker.subscriber(false).await;
    connection.send(&burst(1..=BURST)).await;
    let mut messages = Vec::new();
    for number in 1..=BURST {
        let message = receiver.message().await;
        assert_eq!(message.payload, number.to_string());
        messages.push(message);
    }
    for message in messages {
        let receipt = message.receipt.expect("QoS 1");
        receiver.session.acknowledge(receipt);
    }
    for number in 1..=BURST {
        assert_eq!(connection.acknowledged().await, number);
    }
    receiver.end().await;
}

#[tokio::test]
async fn acknowledgements_that_were_given_go_out_before_the_session_closes() {
    let broker = Scripted::start().await;
    let mut receiver = Receiver::start(&broker);
    let mut connection = broker.subscriber(false).await;
    connection.send(&burst(1..=100)).await;
    let mut messages = Vec::new();
    for _ in 1..=100 {
        messages.push(receiver.message().await);
    }
    for message in messages {
        let receipt = message.receipt.expect("QoS 1");
        receiver.session.acknowledge(receipt);
    }
    receiver.session.close();
    for number in 1..=100 {
        assert_eq!(connection.acknowledged().await, number);
    }
    let last = connection.packet().await;
    assert!(matches!(last, Packet::Disconnect(_)), "{last:?}");
    drop(connection);
    receiver.end().await;
}

#[tokio::test]
async fn a_broker_that_exceeds_the_window_is_reported_once_for_each_connection() {
    let broker = Scripted::start().await;
    let mut receiver = Receiver::start(&broker);
    let mut connection = broker.subscriber(false).await;
    connection.send(&burst(1..=16)).await;
    let mut window = Vec::new();
    while window.len() < 16 {
        match receiver.event().await {
            DeviceEvent::Message(message) => window.push(message),
            DeviceEvent::WindowExceeded { .. } => panic!("it keeps to the window"),
            _ => {}
        }
    }
    for attempt in 0..2 {
        connection.send(&burst(17..=60)).await;
        let (mut reports, mut messages) = (0, 0);
        while messages < 44 {
            match receiver.event().await {
                DeviceEvent::Message(_) => messages += 1,
                DeviceEvent::WindowExceeded { messages } => {
                    assert_eq!(messages, 16);
                    reports += 1;
                }
                _ => {}
            }
        }
        assert_eq!(reports, 1);
        if attempt == 0 {
            drop(connection);
            connection = broker.subscriber(true).await;
            connection.send(&burst(1..=16)).await;
            for _ in 0..16 {
                receiver.message().await;
            }
        }
    }
    receiver.end().await;
}

/// Each message takes a sixth of what the session may hold.
#[tokio::test]
async fn a_session_goes_on_reading_when_messages_are_let_go() {
    let broker = Scripted::start().await;
    let mut receiver = Receiver::start(&broker);
    let mut connection = broker.subscriber(false).await;
    let flood = async {
        for number in 0..100_u8 {
            let payload = vec![number; 160 << 10];
            connection.send(&[publish("plant/1/t", 0, payload)]).await;
        }
    };
    let received = async {
        let mut held = VecDeque::new();
        for number in 0..100_u8 {
            if held.len() == 6 {
                for _ in 0..1_000 {
                    tokio::task::yield_now().await;
                    assert!(
                        receiver.events.try_recv().is_err(),
                        "there was no room for it"
                    );
                }
                held.pop_front();
            }
            let message = receiver.message().await;
            assert_eq!(
                (message.payload[0], message.receipt.is_none()),
                (number, true)
            );
            held.push_back(message);
        }
    };
    tokio::join!(flood, received);
    receiver.end().await;
}

#[tokio::test]
async fn a_repeat_is_marked_and_a_message_of_qos_2_is_answered_as_such() {
    let broker = Scripted::start().await;
    let mut receiver = Receiver::start(&broker);
    let mut connection = broker.subscriber(true).await;
    let mut repeat = Publish::new("plant/1/t", QoS::AtLeastOnce, "1", None);
    (repeat.pkid, repeat.dup) = (7, true);
    // A subscription of QoS 1 forbids it.
    let mut twice = Publish::new("plant/1/t", QoS::ExactlyOnce, "2", None);
    twice.pkid = 8;
    let packets = [Packet::Publish(repeat), Packet::Publish(twice)];
    connection.send(&packets).await;
    for is_repeat in [true, false] {
        let message = receiver.message().await;
        assert_eq!(message.duplicate, is_repeat);
        receiver.session.acknowledge(message.receipt.unwrap());
    }
    assert_eq!(connection.acknowledged().await, 7);
    let answer = connection.packet().await;
    assert!(
        matches!(&answer, Packet::PubRec(answer) if answer.pkid == 8),
        "{answer:?}"
    );
    let release = PubRel::new(8, None);
    connection.send(&[Packet::PubRel(release)]).await;
    let answer = connection.packet().await;
    assert!(
        matches!(&answer, Packet::PubComp(answer) if answer.pkid == 8),
        "{answer:?}"
    );
    receiver.end().await;
}

fn publish_of(at_least_once: bool) -> DevicePublish {
    DevicePublish {
        topic: "plant/1/t".parse().unwrap(),
        payload: "on".into(),
        retain: true,
        properties: MessageProperties::default(),
        at_least_once,
    }
}

/// Brokers end the connection of a client that asks for it all the same.
#[tokio::test]
async fn what_a_broker_says_that_it_does_not_take_is_not_sent() {
    let broker = Scripted::start().await;
    let filters = ["$share/all/plant/1", "plant/+", "plant/1"];
    let mut receiver = Receiver::start_with(&broker, &filters);
    let (_, mut connection) = broker.client().await;
    let properties = ConnAckProperties {
        max_qos: Some(0),
        retain_available: Some(0),
        wildcard_subscription_available: Some(0),
        shared_subscription_available: Some(0),
        ..no_properties()
    };
    connection.greet(false, Some(properties)).await;
    let Packet::Subscribe(subscribe) = connection.packet().await else {
        panic!("no SUBSCRIBE");
    };
    assert_eq!(subscribe.filters[0].path, "plant/1");
    let answer = SubAck {
        pkid: subscribe.pkid,
        return_codes: vec![SubscribeReasonCode::Success(QoS::AtMostOnce)],
        properties: None,
    };
    connection.send(&[Packet::SubAck(answer)]).await;
    let mut problems = Vec::new();
    let mut number = 0;
    while problems.len() < 3 {
        match receiver.event().await {
            DeviceEvent::Connected {
                connection, terms, ..
            } => {
                assert!(!terms.retains && !terms.acknowledges);
                number = connection;
            }
            DeviceEvent::Subscribed { filter, problem } => {
                problems.push((filter.to_string(), problem.is_some()));
            }
            other => panic!("{other:?}"),
        }
    }
    let all = filters.map(|filter| (filter.to_owned(), true));
    assert_eq!(problems, all);
    for (token, at_least_once) in [(1, true), (2, false)] {
        let message = publish_of(at_least_once);
        receiver.session.publish(number, token, message).unwrap();
    }
    let event = receiver.event().await;
    let is_refused = matches!(
        &event,
        DeviceEvent::Published {
            token: 1,
            outcome: Outcome::Refused(_)
        }
    );
    assert!(is_refused, "{event:?}");
    let packet = connection.packet().await;
    assert!(
        matches!(&packet, Packet::Publish(message) if !message.retain && message.pkid == 0),
        "{packet:?}"
    );
    receiver.end().await;
}

/// More than rumqttc is handed at a time.
#[tokio::test]
async fn messages_of_qos_0_that_were_published_before_the_session_closes_are_sent() {
    let broker = Scripted::start().await;
    let mut receiver = Receiver::start(&broker);
    let mut connection = broker.subscriber(false).await;
    let number = loop {
        if let DeviceEvent::Connected { connection, .. } = receiver.event().await {
            break connection;
        }
    };
    for token in 0..30 {
        let message = publish_of(false);
        receiver.session.publish(number, token, message).unwrap();
    }
    receiver.session.close();
    for _ in 0..30 {
        let packet = connection.packet().await;
        assert!(matches!(packet, Packet::Publish(_)), "{packet:?}");
    }
    connection.left().await;
    receiver.ended().await;
}

#[tokio::test]
async fn a_filter_is_subscribed_again_for_somebody_who_has_not_had_what_is_retained() {
    let broker = Scripted::start().await;
    let receiver = Receiver::start(&broker);
    let (_, mut connection) = broker.client().await;
    connection.greet(true, None).await;
    let rule = |receivers: &[u64]| {
        let mut wants = wants(&["plant/#"]);
        wants.subscriptions[0].receivers = receivers.iter().copied().collect();
        receiver.session.want(wants);
    };
    let first = connection.subscribed().await;
    let new = RetainForwardRule::OnNewSubscribe;
    assert_eq!(first.filters[0].retain_forward_rule, new);
    for receivers in [&[1, 2][..], &[2, 3]] {
        rule(receivers);
        let again = connection.subscribed().await;
        let every = RetainForwardRule::OnEverySubscribe;
        assert_eq!(again.filters[0].retain_forward_rule, every);
    }
    receiver.end().await;
}

#[tokio::test]
async fn a_session_that_begins_clean_does_so_once() {
    let broker = Scripted::start().await;
    let options = DeviceOptions {
        endpoint: broker.endpoint(),
        identity: Scripted::identity(),
        former: None,
        begins_clean: true,
    };
    let receiver = Receiver::start_as(options, wants(&[]));
    for (is_answered, is_clean) in [(false, true), (true, true), (true, false)] {
        let (connect, mut connection) = broker.client().await;
        assert_eq!(connect.clean_start, is_clean);
        if is_answered {
            connection.greet(!is_clean, None).await;
        }
    }
    receiver.end().await;
}

fn no_properties() -> ConnAckProperties {
    ConnAckProperties {
        session_expiry_interval: None,
        receive_max: None,
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}

/// The sessions of nodes and sites acknowledge by themselves.
#[tokio::test]
async fn a_relay_that_exceeds_the_window_of_a_node_loses_nothing() {
    let broker = Scripted::start().await;
    let mut client = Client::start(SessionOptions {
        endpoint: broker.endpoint(),
        identity: Scripted::identity(),
        will: None,
        subscriptions: vec!["plant/#".to_owned()],
        queue_messages: 8,
    });
    let mut connection = broker.subscriber(false).await;
    assert_eq!(client.event().await, SessionEvent::Connected);
    connection.send(&burst(1..=BURST)).await;
    for number in 1..=BURST {
        let (_, payload, _) = client.message().await;
        assert_eq!(payload, number.to_string());
    }
    for number in 1..=BURST {
        assert_eq!(connection.acknowledged().await, number);
    }
    client.cut().await;
}
