//! Revocation: a node that leaves the directory is out at once, and gets nothing that waited.

use std::sync::Arc;

use haar_protocol::topics::Topic;
use haar_relay::{BrokerError, DisconnectReason};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, SubscribeReasonCode};

use crate::support::{RawClient, Site, message};

fn remove(site: &Site) {
    site.nodes.send_modify(|nodes| {
        Arc::make_mut(nodes).remove(&site.one.id);
    });
}

fn restore(site: &Site) {
    site.nodes.send_modify(|nodes| {
        Arc::make_mut(nodes).insert(site.one.id.clone(), site.one.key.public());
    });
}

#[tokio::test]
async fn a_node_that_leaves_the_directory_is_disconnected_and_stays_out() {
    let site = Site::start().await;
    let mut node = site.connect_node(&site.one).await;
    let mut other = site.connect_node(&site.two).await;
    remove(&site);
    // The relay goes on for others: the session can't know yet that it is not wanted.
    let reason = node.disconnected().await;
    assert!(matches!(reason, DisconnectReason::Displaced), "{reason}");
    let reason = node.disconnected().await;
    assert!(matches!(reason, DisconnectReason::Refused(_)), "{reason}");
    // Its will is on its own topic, but it has none any more; and the others notice nothing.
    let mut controller = site.connect_site().await;
    let status = site.text(&Topic::Status(site.two.id.clone()));
    other
        .session
        .publish(message(&status, "well"))
        .await
        .unwrap();
    assert_eq!(controller.message().await, (status, "well".into(), false));
    assert!(other.events.try_recv().is_err());
    restore(&site);
    node.reconnected().await;
}

#[tokio::test]
async fn revoking_a_listed_node_is_an_error() {
    let site = Site::start().await;
    let error = site.broker.revoke(&site.one.id).await.unwrap_err();
    assert!(matches!(error, BrokerError::StillListed(_)), "{error}");
    remove(&site);
    site.broker.revoke(&site.one.id).await.unwrap();
    site.broker.revoke(&site.one.id).await.unwrap();
}

#[tokio::test]
async fn a_revoked_node_has_no_rights_on_a_connection_that_is_still_open() {
    let site = Site::start().await;
    let mut node = site.raw_node(&site.one).await;
    remove(&site);
    let status = site.text(&Topic::Status(site.one.id.clone()));
    // Whichever the relay does first: it refuses, or it has already cut the connection.
    node.client
        .publish(&status, QoS::AtLeastOnce, false, "x")
        .await
        .unwrap();
    let answer = node
        .wait("an answer", |packet| match packet {
            Packet::PubAck(answer) => Some(answer.reason),
            _ => None,
        })
        .await;
    assert!(
        matches!(answer, Err(_) | Ok(PubAckReason::NotAuthorized)),
        "{answer:?}"
    );
}

#[tokio::test]
async fn what_waited_for_a_revoked_node_is_gone_when_it_comes_back() {
    let site = Site::start().await;
    let persistent = || {
        let id = site.one.id.as_str();
        let mut options = site.raw_options(id);
        options.set_credentials(id, site.proof(&site.one.key, id));
        options
            .set_clean_start(false)
            .set_session_expiry_interval(Some(60));
        options
    };
    let mut other = site.connect_node(&site.two).await;
    let request = site.text(&Topic::Request(site.one.id.clone()));
    let mark = site.text(&Topic::Request(site.two.id.clone()));
    let controller = site.connect_site().await;
    for revoked in [false, true] {
        let mut node = RawClient::connect(persistent()).await.unwrap();
        let filter = format!("haar/{}/{}/ctl/#", site.id, site.one.id);
        assert!(matches!(
            node.subscribe(&filter).await,
            SubscribeReasonCode::Success(_)
        ));
        node.client.disconnect().await.unwrap();
        node.ended().await;
        for (topic, text) in [(&request, "waited"), (&mark, "mark")] {
            controller
                .session
                .publish(message(topic, text))
                .await
                .unwrap();
        }
        other.message_is(&mark, "mark").await;
        if revoked {
            remove(&site);
            site.broker.revoke(&site.one.id).await.unwrap();
            restore(&site);
        }
        let mut node = RawClient::connect(persistent()).await.unwrap();
        // What waited comes at once, even before the SUBACK: subscribe without losing it.
        node.client
            .subscribe(&filter, QoS::AtLeastOnce)
            .await
            .unwrap();
        let payload = |packet| match packet {
            Packet::Publish(publish) => Some(publish.payload),
            Packet::SubAck(_) => Some("nothing yet".into()),
            _ => None,
        };
        let mut first = node.wait("a message or SUBACK", payload).await.unwrap();
        if first == "nothing yet" {
            controller
                .session
                .publish(message(&request, "new"))
                .await
                .unwrap();
            first = node.wait("a message", payload).await.unwrap();
        }
        assert_eq!(first, if revoked { "new" } else { "waited" });
        node.cut().await;
    }
}
