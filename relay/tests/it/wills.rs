//! Wills: told after a cut and only then, never on a foreign topic, never after a return.

use haar_protocol::topics::Topic;
use rumqttc::v5::ConnectionError;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, LastWill};

use crate::support::{RawClient, Retained as _, Site, message};

#[tokio::test]
async fn the_will_is_told_after_a_cut() {
    let site = Site::start().await;
    let alive = site.text(&Topic::Alive(site.one.id.clone()));
    let mut controller = site.connect_site().await;
    let node = site.connect_node(&site.one).await;
    node.session
        .publish(message(&alive, "online").retained())
        .await
        .unwrap();
    controller.message_is(&alive, "online").await;
    node.cut().await;
    assert_eq!(
        controller.message().await,
        (alive.clone(), "offline".into(), false)
    );
    controller.session.finish(None).await.unwrap();
    let mut controller = site.connect_site().await;
    assert_eq!(controller.message().await, (alive, "offline".into(), true));
}

#[tokio::test]
async fn the_will_is_not_told_after_a_clean_end() {
    let site = Site::start().await;
    let alive = site.text(&Topic::Alive(site.one.id.clone()));
    let mut controller = site.connect_site().await;
    // By finish with a last message, and by the stop token with one in the queue.
    let node = site.connect_node(&site.one).await;
    node.session
        .finish(Some(message(&alive, "bye").retained()))
        .await
        .unwrap();
    assert_eq!(
        controller.message().await,
        (alive.clone(), "bye".into(), false)
    );
    let node = site.connect_node(&site.one).await;
    node.session
        .publish(message(&alive, "bye again").retained())
        .await
        .unwrap();
    node.stop.cancel();
    node.ended().await;
    assert_eq!(
        controller.message().await,
        (alive, "bye again".into(), false)
    );
    // Another node's will, cut later and delayed alike, is a mark: theirs would come before it.
    let node = site.connect_node(&site.two).await;
    node.cut().await;
    let alive = site.text(&Topic::Alive(site.two.id.clone()));
    assert_eq!(controller.message().await, (alive, "offline".into(), false));
}

#[tokio::test]
async fn a_node_that_comes_back_is_not_declared_offline_by_its_old_connection() {
    let site = Site::start().await;
    let alive = site.text(&Topic::Alive(site.one.id.clone()));
    let mut controller = site.connect_site().await;
    let old = site.connect_node(&site.one).await;
    let new = site.connect_node(&site.one).await;
    old.cut().await;
    let cut = site.connect_node(&site.one).await;
    cut.cut().await;
    new.cut().await;
    let last = site.connect_node(&site.one).await;
    last.session
        .publish(message(&alive, "online").retained())
        .await
        .unwrap();
    assert_eq!(controller.message().await, (alive, "online".into(), false));
    let mark = site.connect_node(&site.two).await;
    mark.cut().await;
    let alive = site.text(&Topic::Alive(site.two.id.clone()));
    assert_eq!(controller.message().await, (alive, "offline".into(), false));
}

#[tokio::test]
async fn a_will_on_a_foreign_topic_is_refused_at_once() {
    let site = Site::start().await;
    let (one, two) = (site.one.id.clone(), site.two.id.clone());
    let cases = [
        (site.text(&Topic::Alive(two.clone())), true),
        (site.text(&Topic::Status(two.clone())), false),
        (site.text(&Topic::Assignment(one.clone())), true),
        (
            site.text(&Topic::Link {
                from: two.clone(),
                to: one.clone(),
            }),
            false,
        ),
        (site.link(), true),
        ("anything".into(), false),
    ];
    for (topic, retain) in cases {
        let mut options = site.raw_options(one.as_str());
        options.set_credentials(one.as_str(), site.proof(&site.one.key, one.as_str()));
        options.set_last_will(LastWill::new(
            &topic,
            "forged",
            QoS::AtLeastOnce,
            retain,
            None,
        ));
        match RawClient::connect(options).await {
            Err(ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized)) => {}
            Err(other) => panic!("{topic}: {other}"),
            Ok(_) => panic!("{topic}: accepted"),
        }
    }
}
