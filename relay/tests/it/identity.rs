//! Who gets in: nobody without a fresh proof made with the key of the identity that is claimed.

use std::sync::Arc;

use haar_protocol::keys::SecretKey;
use haar_relay::{DisconnectReason, Identity};
use rumqttc::v5::mqttbytes::v5::ConnectReturnCode;
use rumqttc::v5::{ConnectionError, MqttOptions};

use crate::support::{Client, RawClient, Site, certificates, node, now_ms};

async fn refused(options: MqttOptions) -> ConnectReturnCode {
    match RawClient::connect(options).await {
        Err(ConnectionError::ConnectionRefused(code)) => code,
        Err(other) => panic!("neither accepted nor refused: {other}"),
        Ok(_) => panic!("accepted"),
    }
}

#[tokio::test]
async fn strangers_and_thieves_are_refused() {
    let site = Site::start().await;
    let (one, two, stranger) = (&site.one, &site.two, node(9));
    let (one_id, two_id, site_id) = (one.id.as_str(), two.id.as_str(), site.id.as_str());
    let own = |key: &SecretKey, subject: &str| Some((subject.to_owned(), site.proof(key, subject)));
    let cases = [
        ("anonymous", one_id, None),
        ("anonymous without a client id", "", None),
        ("no client id", "", own(&one.key, one_id)),
        (
            "another node's id with the own key",
            two_id,
            own(&one.key, two_id),
        ),
        (
            "the site's id with a node's key",
            site_id,
            own(&one.key, site_id),
        ),
        (
            "a node's id with the site's key",
            one_id,
            own(&site.key, one_id),
        ),
        (
            "the own name with another's client id",
            two_id,
            own(&one.key, one_id),
        ),
        (
            "the own name with the site's client id",
            site_id,
            own(&one.key, one_id),
        ),
        (
            "an unknown node",
            stranger.id.as_str(),
            own(&stranger.key, stranger.id.as_str()),
        ),
        ("no id at all", "anybody", own(&one.key, "anybody")),
        (
            "a proof for another name",
            one_id,
            Some((one_id.into(), site.proof(&one.key, two_id))),
        ),
        (
            "a password that is no proof",
            one_id,
            Some((one_id.into(), "secret".into())),
        ),
        ("a path as client id", "../one", own(&one.key, "../one")),
    ];
    for (what, client_id, credentials) in cases {
        let mut options = site.raw_options(client_id);
        if let Some((user, password)) = credentials {
            options.set_credentials(user, password);
        }
        let code = refused(options).await;
        let expected = match what {
            "a path as client id" => ConnectReturnCode::ClientIdentifierNotValid,
            _ => ConnectReturnCode::BadUserNamePassword,
        };
        assert_eq!(code, expected, "{what}");
    }
    site.connect_node(one).await;
}

#[tokio::test]
async fn a_proof_is_good_for_one_connection_and_for_its_time() {
    let site = Site::start().await;
    let id = site.one.id.as_str();
    let with = |password: &str| {
        let mut options = site.raw_options(id);
        options.set_credentials(id, password);
        options
    };
    let proof = site.proof(&site.one.key, id);
    let first = RawClient::connect(with(&proof)).await.unwrap();
    assert_eq!(
        refused(with(&proof)).await,
        ConnectReturnCode::BadUserNamePassword
    );
    first.cut().await;
    assert_eq!(
        refused(with(&proof)).await,
        ConnectReturnCode::BadUserNamePassword
    );
    for issued_ms in [now_ms() - 200_000, now_ms() + 200_000] {
        let proof = site.proof_at(&site.one.key, id, issued_ms);
        assert_eq!(
            refused(with(&proof)).await,
            ConnectReturnCode::BadUserNamePassword
        );
    }
}

#[tokio::test]
async fn a_proof_for_the_rest_api_or_another_site_does_not_open_the_relay() {
    use haar_protocol::ids::SiteId;
    use haar_protocol::proof::{Audience, Claims, make};
    let site = Site::start().await;
    let id = site.one.id.as_str();
    let other_site = SiteId::of(&SecretKey::from_seed([8; 32]).public());
    for (audience, of_site) in [
        (Audience::Controller, &site.id),
        (Audience::Relay, &other_site),
    ] {
        let claims = Claims {
            audience,
            site: of_site.clone(),
            subject: id.to_owned(),
            issued_ms: now_ms(),
            nonce: "00".into(),
            relay: None,
        };
        let mut options = site.raw_options(id);
        options.set_credentials(id, make(&claims, &site.one.key));
        assert_eq!(
            refused(options).await,
            ConnectReturnCode::BadUserNamePassword
        );
    }
}

#[tokio::test]
async fn a_session_reports_refused_credentials_as_such() {
    let site = Site::start().await;
    let mut options = site.node_options(&site.one);
    let (id, key) = (site.one.id.to_string(), site.two.key.clone());
    options.identity = Identity::of_key(id, site.id.clone(), key);
    let mut client = Client::start(options);
    for _ in 0..2 {
        let reason = client.disconnected().await;
        assert!(matches!(reason, DisconnectReason::Refused(_)), "{reason}");
    }
    assert!(!client.session.is_connected());
}

#[tokio::test]
async fn a_session_reports_a_certificate_of_another_authority_as_such() {
    let site = Site::start().await;
    let mut options = site.node_options(&site.one);
    if let Some(trust) = &mut options.endpoint.tls {
        trust.ca_pem = certificates().ca_pem;
    }
    let reason = Client::start(options).disconnected().await;
    assert!(matches!(reason, DisconnectReason::Tls(_)), "{reason}");
}

#[tokio::test]
async fn a_session_trusts_the_configured_name_and_no_other() {
    let site = Site::start().await;
    for (name, trusted) in [
        ("relay.test", true),
        ("localhost", true),
        ("other.test", false),
    ] {
        let mut options = site.node_options(&site.one);
        if let Some(trust) = &mut options.endpoint.tls {
            trust.server_name = name.into();
        }
        if trusted {
            Client::connected(options)
                .await
                .session
                .finish(None)
                .await
                .unwrap();
        } else {
            let reason = Client::start(options).disconnected().await;
            assert!(matches!(reason, DisconnectReason::Tls(_)), "{reason}");
        }
    }
}

#[tokio::test]
async fn a_session_never_sends_its_proof_in_clear_to_the_network() {
    let site = Site::start().await;
    let mut options = site.node_options(&site.one);
    (options.endpoint.tls, options.endpoint.host) = (None, "192.0.2.1".into());
    let reason = Client::start(options).disconnected().await;
    assert!(matches!(reason, DisconnectReason::Tls(_)), "{reason}");
}

#[tokio::test]
async fn a_node_gets_in_as_soon_as_the_directory_has_it() {
    let site = Site::start().await;
    let newcomer = node(9);
    let mut client = Client::start(site.node_options(&newcomer));
    assert!(matches!(
        client.disconnected().await,
        DisconnectReason::Refused(_)
    ));
    site.nodes.send_modify(|nodes| {
        Arc::make_mut(nodes).insert(newcomer.id.clone(), newcomer.key.public());
    });
    client.reconnected().await;
}
