//! Starting the relay: where it listens, what it refuses, what it leaves on disk.

use haar_relay::{Broker, BrokerError};

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
    let mut options = site.broker_options();
    options.data_dir.push("other");
    let error = soon("the second relay", Broker::start(options))
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
async fn a_folder_in_use_is_an_error_that_names_it() {
    let site = Site::start().await;
    let mut options = site.broker_options();
    options.listen = "127.0.0.1:0".parse().unwrap();
    let error = soon("the second relay", Broker::start(options))
        .await
        .unwrap_err();
    assert!(matches!(error, BrokerError::Storage { .. }), "{error}");
}

#[tokio::test]
async fn plaintext_is_refused_on_every_address_but_loopback() {
    let site = Site::start().await;
    let folder = tempfile::tempdir().unwrap();
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let mut options = site.broker_options();
        (options.tls, options.listen) = (None, listen.parse().unwrap());
        options.data_dir = folder.path().join("relay");
        let error = Broker::start(options).await.unwrap_err();
        assert!(
            matches!(error, BrokerError::Plaintext(_)),
            "{listen}: {error}"
        );
    }
    let mut options = site.broker_options();
    (options.tls, options.listen) = (None, free_address().await);
    options.data_dir = folder.path().join("relay");
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

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_reads_the_folder() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::start().await;
    let mode = std::fs::metadata(site.broker_options().data_dir)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn retained_messages_outlive_a_restart() {
    let site = Site::start().await;
    let topic = site.text(&Topic::Assignment(site.one.id.clone()));
    let controller = site.connect_site().await;
    controller
        .session
        .publish(message(&topic, "assignment 1").retained())
        .await
        .unwrap();
    controller.session.finish(None).await.unwrap();
    let site = site.restart().await;
    let mut node = site.connect_node(&site.one).await;
    assert_eq!(node.message().await, (topic, "assignment 1".into(), true));
}
