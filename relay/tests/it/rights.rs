//! What an admitted client may write and read: its own topics, and nothing by a trick.

use haar_protocol::topics::Topic;
use rumqttc::v5::mqttbytes::v5::{PubAckReason, SubscribeReasonCode};

use crate::support::{Client, RawClient, Retained as _, Site, message, node};

#[tokio::test]
async fn a_node_publishes_to_its_own_topics_only() {
    let site = Site::start().await;
    let (one, two) = (site.one.id.clone(), site.two.id.clone());
    let id = &site.id;
    let mut controller = site.connect_site().await;
    let mut receiver = site.connect_node(&site.two).await;
    let mut attacker = site.raw_node(&site.one).await;
    let foreign = [
        site.text(&Topic::Assignment(one.clone())),
        site.text(&Topic::Assignment(two.clone())),
        site.text(&Topic::Status(two.clone())),
        site.text(&Topic::Alive(two.clone())),
        site.text(&Topic::Log(two.clone())),
        site.text(&Topic::Link {
            from: two.clone(),
            to: two.clone(),
        }),
        site.text(&Topic::Link {
            from: node(9).id,
            to: two.clone(),
        }),
        format!("haar/{id}/{one}/up/other"),
        format!("haar/{id}/{one}/up/status/more"),
        format!("haar/{id}/{two}/in/{one}/link/more"),
        format!("haar/{id}/{two}/in/{one}/other"),
        format!("/haar/{id}/{one}/up/status"),
        "$SYS/broker/version".into(),
        "anything".into(),
    ];
    for topic in foreign {
        for retain in [false, true] {
            let answer = attacker.publish(&topic, "forged", retain).await;
            assert_eq!(answer, PubAckReason::NotAuthorized, "{topic}");
        }
    }
    // The marks come after the forgeries, from the same client: nothing of those comes before.
    let status = site.text(&Topic::Status(one.clone()));
    assert_eq!(
        attacker.publish(&status, "mark", false).await,
        PubAckReason::Success
    );
    assert_eq!(
        attacker.publish(&site.link(), "mark", false).await,
        PubAckReason::Success
    );
    assert_eq!(controller.message().await, (status, "mark".into(), false));
    assert_eq!(
        receiver.message().await,
        (site.link(), "mark".into(), false)
    );
}

#[tokio::test]
async fn a_node_subscribes_below_its_own_topics_only() {
    let site = Site::start().await;
    let (id, one, two) = (&site.id, &site.one.id, &site.two.id);
    let mut attacker = site.raw_node(&site.one).await;
    let foreign = [
        "#".into(),
        "+".into(),
        "+/#".into(),
        "haar/#".into(),
        format!("haar/{id}/#"),
        format!("haar/{id}/+/#"),
        format!("haar/{id}/+/ctl/#"),
        format!("haar/{id}/+/in/#"),
        format!("haar/{id}/{one}/#"),
        format!("haar/{id}/{one}/+/assignment"),
        format!("haar/{id}/{one}/up/#"),
        format!("haar/{id}/{two}/ctl/#"),
        format!("haar/{id}/{two}/in/#"),
        format!("haar/+/{one}/ctl/#"),
        format!("+/{id}/{one}/ctl/#"),
        format!("$share/group/haar/{id}/{two}/in/#"),
        format!("$share/group/haar/{id}/{one}/in/#"),
        "$share/group/#".into(),
        "$SYS/#".into(),
    ];
    for filter in foreign {
        let answer = attacker.subscribe(&filter).await;
        assert_eq!(answer, SubscribeReasonCode::NotAuthorized, "{filter}");
    }
    for filter in [
        format!("haar/{id}/{one}/ctl/#"),
        format!("haar/{id}/{one}/in/+/link"),
    ] {
        assert!(matches!(
            attacker.subscribe(&filter).await,
            SubscribeReasonCode::Success(_)
        ));
    }
}

#[tokio::test]
async fn the_site_writes_assignments_reads_reports_and_can_not_forge_data() {
    let site = Site::start().await;
    let (id, one, two) = (&site.id, &site.one.id, &site.two.id);
    let mut options = site.raw_options(id.as_str());
    options.set_credentials(id.as_str(), site.proof(&site.key, id.as_str()));
    let mut controller = RawClient::connect(options).await.unwrap();
    for topic in [
        site.link(),
        site.text(&Topic::Status(one.clone())),
        format!("haar/{id}/{one}/ctl/x"),
    ] {
        assert_eq!(
            controller.publish(&topic, "x", true).await,
            PubAckReason::NotAuthorized
        );
    }
    for filter in [
        "#".into(),
        format!("haar/{id}/#"),
        format!("haar/{id}/{two}/in/#"),
        format!("haar/{id}/+/+/#"),
    ] {
        assert_eq!(
            controller.subscribe(&filter).await,
            SubscribeReasonCode::NotAuthorized
        );
    }
    let answer = controller.subscribe(&format!("haar/{id}/+/up/#")).await;
    assert!(matches!(answer, SubscribeReasonCode::Success(_)));
}

#[tokio::test]
async fn frames_of_links_are_never_retained() {
    let site = Site::start().await;
    let sender = site.connect_node(&site.one).await;
    let status = site.text(&Topic::Status(site.one.id.clone()));
    let mut controller = site.connect_site().await;
    sender
        .session
        .publish(message(&site.link(), "kept?").retained())
        .await
        .unwrap();
    sender
        .session
        .publish(message(&status, "mark").retained())
        .await
        .unwrap();
    controller.message_is(&status, "mark").await;
    let mut receiver = site.connect_node(&site.two).await;
    sender
        .session
        .publish(message(&site.link(), "new"))
        .await
        .unwrap();
    assert_eq!(receiver.message().await, (site.link(), "new".into(), false));
}

#[tokio::test]
async fn a_session_whose_subscription_is_refused_says_so() {
    let site = Site::start().await;
    let mut options = site.node_options(&site.one);
    options.subscriptions.push("haar/#".into());
    let reason = Client::start(options).disconnected().await;
    assert!(reason.to_string().contains("`haar/#`"), "{reason}");
    assert!(matches!(
        reason,
        haar_relay::DisconnectReason::SubscriptionRefused(_)
    ));
}
