//! The site's own session with one relay: publishes the newest assignments there, and brings what
//! nodes report into the database.

use std::sync::Arc;

use haar_protocol::ids::Name;
use haar_protocol::text;
use haar_relay::{Session, SessionEvent, SessionOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::publisher::Publisher;
use super::reports::{Message, Reports};
use crate::db::Database;
use crate::site::Site;

const EVENTS_MAX: usize = 256;
/// Bytes of a broker's reason that are kept.
const REASON_BYTES_MAX: usize = 512;

/// A session and the tasks around it. Dropping it cuts the connection.
pub(super) struct SiteSession {
    pub(super) session: Session,
    /// Why the last connection ended, or did not come about; none while there is one.
    pub(super) reason: watch::Receiver<Option<String>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl SiteSession {
    /// Connects, again and again.
    pub(super) fn start(
        relay: &Name,
        options: SessionOptions,
        site: &Arc<Site>,
        database: &Database,
        reports: Reports,
    ) -> Self {
        let stop = CancellationToken::new();
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let (session, session_task) = Session::start(options, events, stop.child_token());
        let connections = watch::Sender::new(0);
        let (reasons, reason) = watch::channel(None);
        let publisher = Publisher::new(site, database, &session, connections.subscribe());
        let mut tasks = JoinSet::new();
        tasks.spawn(session_task);
        tasks.spawn(publish(publisher, stop.clone()));
        tasks.spawn(intake(
            relay.clone(),
            received,
            connections,
            reasons,
            reports,
        ));
        Self {
            session,
            reason,
            stop,
            tasks,
        }
    }

    /// Waits until a part of it fails; none does by itself.
    pub(super) async fn failed(&mut self) {
        self.tasks.join_next().await;
    }

    /// Sends what is queued and disconnects.
    pub(super) async fn stop(mut self) {
        if self.session.finish(None).await.is_err() {
            tracing::warn!(
                "not everything was sent to the relay; it is sent again at the next start"
            );
        }
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn publish(publisher: Publisher, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = publisher.run() => {}
    }
}

/// Reads what happens to the session until it ends, and brings reports into the database.
async fn intake(
    relay: Name,
    mut events: mpsc::Receiver<SessionEvent>,
    connections: watch::Sender<u64>,
    reasons: watch::Sender<Option<String>>,
    mut reports: Reports,
) {
    let mut batch = Vec::with_capacity(EVENTS_MAX);
    while events.recv_many(&mut batch, EVENTS_MAX).await > 0 {
        let mut messages = Vec::new();
        for event in batch.drain(..) {
            match event {
                SessionEvent::Connected => {
                    tracing::info!(%relay, "connected to the relay");
                    connections.send_modify(|count| *count += 1);
                    reasons.send_replace(None);
                }
                SessionEvent::Disconnected { reason } => {
                    tracing::warn!(%relay, %reason, "no connection to the relay; trying again");
                    reasons.send_replace(Some(text::line(&reason.to_string(), REASON_BYTES_MAX)));
                }
                SessionEvent::Message {
                    topic,
                    payload,
                    retained,
                } => messages.push(Message {
                    topic,
                    payload,
                    retained,
                }),
            }
        }
        if !messages.is_empty() {
            let is_first_connection = *connections.borrow() <= 1;
            reports.take(messages, is_first_connection).await;
        }
    }
}
