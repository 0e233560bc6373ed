//! The way to the relay, and small things that the control loop needs.

use anyhow::Context as _;
use bytes::Bytes;
use haar_protocol::ids::{NodeId, SiteId};
use haar_protocol::topics::{self, Topic};
use haar_relay::{Endpoint, Identity, Outgoing, Session, SessionOptions};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::links::{self, Intake};
use super::run::Options;

/// Events of the relay that may wait to be sorted.
const RELAY_EVENTS_MAX: usize = 256;
/// Publishes that may wait for the relay.
const RELAY_QUEUE_MESSAGES: usize = 64;

/// Starts the session with the relay.
pub(super) fn connect(
    options: &Options,
    intake: Intake,
    work: &mut JoinSet<()>,
) -> anyhow::Result<Session> {
    let membership = &options.membership;
    let (site, node) = (membership.site.clone(), membership.node.clone());
    let url = membership
        .relays
        .first()
        .context("the enrolment names no relay: enrol again")?;
    let session_options = SessionOptions {
        endpoint: Endpoint::parse(url, Some(&membership.ca_pem))?,
        identity: Identity::of_key(node.to_string(), site.clone(), options.key.clone()),
        will: Some(alive(&site, &node, "offline")),
        subscriptions: topics::node_subscriptions(&site, &node),
        queue_messages: RELAY_QUEUE_MESSAGES,
    };
    let (relay_events, relay) = mpsc::channel(RELAY_EVENTS_MAX);
    let (session, task) = Session::start(session_options, relay_events, CancellationToken::new());
    work.spawn(task);
    work.spawn(links::receive(intake, relay));
    Ok(session)
}

pub(super) fn alive(site: &SiteId, node: &NodeId, word: &'static str) -> Outgoing {
    Outgoing {
        topic: Topic::Alive(node.clone()).text(site),
        payload: Bytes::from_static(word.as_bytes()),
        at_least_once: true,
        retain: true,
    }
}

/// One random byte; no matter if the machine has none to give.
pub(super) fn jitter() -> u8 {
    let mut byte = [0];
    match getrandom::fill(&mut byte) {
        Ok(()) => byte[0],
        Err(_) => 0,
    }
}

pub(super) async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
