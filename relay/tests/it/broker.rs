//! Starting the relay: where it listens, what it refuses, what it begins with.

use haar_relay::{Broker, BrokerError, ServerTls};

use crate::support::{Retained as _, Site, certificates, free_address, message, soon};
use haar_protocol::topics::Topic;

#[tokio::test]
async fn port_zero_becomes_a_real_port() {
    let site = Site::start().await;
    assert_ne!(site.broker.address().port(), 0);
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_the_address() {
    let site = Site::start().await;
    let error = soon("the second relay", Broker::start(site.broker_options()))
        .await
        .unwrap_err();
    assert!(matches!(error, BrokerError::Listen { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains(&site.broker.address().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn plaintext_is_refused_on_every_address_but_loopback() {
    let site = Site::start().await;
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let mut options = site.broker_options();
        (options.tls, options.listen) = (None, listen.parse().unwrap());
        let error = Broker::start(options).await.unwrap_err();
        assert!(
            matches!(error, BrokerError::Plaintext(_)),
            "{listen}: {error}"
        );
    }
    let mut options = site.broker_options();
    (options.tls, options.listen) = (None, free_address().await);
    Broker::start(options).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn a_certificate_with_another_key_is_an_error() {
    let site = Site::start().await;
    let mut options = site.broker_options();
    options.listen = "127.0.0.1:0".parse().unwrap();
    if let Some(tls) = &mut options.tls {
        tls.key_pem = certificates().server.key_pem;
    }
    let error = Broker::start(options).await.unwrap_err();
    assert!(matches!(error, BrokerError::Tls(_)), "{error}");
}

#[tokio::test]
async fn another_certificate_is_shown_to_newcomers_and_cuts_nobody_off() {
    let mut site = Site::start().await;
    let topic = site.text(&Topic::Assignment(site.one.id.clone()));
    let controller = site.connect_site().await;
    let mut before = site.connect_node(&site.one).await;
    site.certificates = certificates();
    let wrong = ServerTls {
        cert_pem: "nothing".to_owned(),
        ..site.certificates.server.clone()
    };
    let error = site.broker.set_certificate(&wrong).unwrap_err();
    assert!(matches!(error, BrokerError::Tls(_)), "{error}");
    site.broker
        .set_certificate(&site.certificates.server)
        .unwrap();
    // It trusts the new authority only.
    let _newcomer = site.connect_node(&site.two).await;
    controller
        .session
        .publish(message(&topic, "assignment 1"))
        .await
        .unwrap();
    before.message_is(&topic, "assignment 1").await;
}

#[tokio::test]
async fn a_relay_that_restarts_begins_empty_and_gets_everything_again() {
    let site = Site::start().await;
    let topic = site.text(&Topic::Assignment(site.one.id.clone()));
    let mut controller = site.connect_site().await;
    let assignment = || message(&topic, "assignment 1").retained();
    controller.session.publish(assignment()).await.unwrap();
    let mut node = site.connect_node(&site.one).await;
    node.message_is(&topic, "assignment 1").await;
    node.session.finish(None).await.unwrap();
    let site = site.restart().await;
    controller.reconnected().await;
    let mut node = site.connect_node(&site.one).await;
    controller.session.publish(assignment()).await.unwrap();
    assert_eq!(
        node.message().await,
        (topic.clone(), "assignment 1".into(), false)
    );
    let mut again = site.connect_node(&site.one).await;
    assert_eq!(again.message().await, (topic, "assignment 1".into(), true));
}

#[test]
fn the_folder_of_an_earlier_release_is_removed() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("relay");
    std::fs::create_dir_all(folder.join("retained")).unwrap();
    std::fs::write(folder.join("retained/one.json"), "{}").unwrap();
    haar_relay::remove_earlier_state(&folder);
    assert!(!folder.exists() && data.path().exists());
    haar_relay::remove_earlier_state(&folder);
}
