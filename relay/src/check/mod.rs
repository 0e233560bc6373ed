//! Tries what a broker does with messages, on topics of its own, and says what is lost there. People
//! run it before they rely on a broker; nothing of it is in the agent.
//!
//! Its topics begin with `$haar-check/`, so that no subscription of anybody else takes them in
//! (MQTT 5.0 section 4.7.2). At a broker that passes no such topics on they begin with `haar-check/`,
//! and what would be many messages is not tried. Where shared subscriptions or retained messages
//! know no `$` topics, one message of each goes there, too. What it has retained or queued it clears.

mod link;
mod trials;

use std::time::Duration;

use haar_protocol::rest::RelayFinding;
use rumqttc::v5::mqttbytes::v5::ConnAck;

use crate::devices::SESSION_EXPIRY_S;
use crate::endpoint::Endpoint;
use crate::session::Identity;
use link::Link;

/// Messages that wait for a session that is away, at most.
pub(crate) const QUEUED_MESSAGES: usize = 1_500;
/// After this time without a message no more are expected.
pub(crate) const QUIET: Duration = Duration::from_secs(2);

/// What is tried.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// Where the broker is.
    pub endpoint: Endpoint,
    /// Two who may publish and subscribe there, with client ids that nobody else has.
    pub clients: [Identity; 2],
    /// Tells the topics of this check from those of others.
    pub run: String,
}

/// Tries everything. Takes half a minute at most where the broker answers.
pub async fn check(options: &CheckOptions) -> Vec<RelayFinding> {
    let mut findings = Vec::new();
    let [one, _] = &options.clients;
    let mut link = match Link::open(&options.endpoint, one, true, 0).await {
        Ok((link, answer)) => {
            findings.extend(terms(&options.endpoint, &answer));
            link
        }
        Err(reason) => {
            findings.push(RelayFinding::fails(
                "connection",
                reason.to_string(),
                "nothing else can be tried",
            ));
            return findings;
        }
    };
    let hidden = format!("$haar-check/{}", options.run);
    let plain = format!("haar-check/{}", options.run);
    let hides = matches!(trials::echoes(&mut link, &hidden, 1).await, Ok(Some(_)));
    if !hides && !link.is_open() {
        // A broker may cut off who uses such a topic.
        if let Ok((again, _)) = Link::open(&options.endpoint, one, true, 0).await {
            link = again;
        }
    }
    let base = if hides { hidden } else { plain };
    findings.extend(trials::qualities(&mut link, &base).await);
    findings.push(trials::properties(&mut link, &base).await);
    findings.push(trials::retained(&mut link, &base).await);
    findings.push(trials::shared(&mut link, &base).await);
    link.close().await;
    findings.push(trials::size(options, &base).await);
    findings.push(trials::receive_maximum(options, &base).await);
    match hides {
        true => findings.extend(trials::queue(options, &base).await),
        false => findings.push(RelayFinding::short(
            "messages for a session that is away",
            "not tried: this broker passes on no topics that begin with `$`",
            "find its limit in its manual: subscribers of `#` would get what is tried",
        )),
    }
    findings
}

/// What the broker says of itself in CONNACK.
fn terms(endpoint: &Endpoint, answer: &ConnAck) -> Vec<RelayFinding> {
    let encrypted = match &endpoint.tls {
        Some(trust) if trust.client.is_some() => "MQTT 5 over TLS, with a client certificate",
        Some(_) => "MQTT 5 over TLS",
        None => "MQTT 5, without TLS",
    };
    let mut findings = vec![RelayFinding::works("connection", encrypted)];
    let Some(properties) = &answer.properties else {
        return findings;
    };
    let mut lacks = |what: &str, means: &str| {
        findings.push(RelayFinding::fails(what, "the broker has none", means));
    };
    if properties.retain_available == Some(0) {
        lacks(
            "retained messages",
            "assignments reach only nodes that are connected",
        );
    }
    if properties.wildcard_subscription_available == Some(0) {
        lacks(
            "wildcards",
            "routes from topics with `+` or `#` get nothing",
        );
    }
    if properties.shared_subscription_available == Some(0) {
        lacks("shared subscriptions", "routes from `$share/…` get nothing");
    }
    if let Some(expiry_s) = properties.session_expiry_interval
        && expiry_s < SESSION_EXPIRY_S
    {
        findings.push(RelayFinding::short(
            "session expiry",
            format!("{expiry_s} s"),
            "a node that is away for longer loses what devices publish meanwhile; Haar asks for a day",
        ));
    }
    findings
}
