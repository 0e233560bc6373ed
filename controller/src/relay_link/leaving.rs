//! Ends what brokers of devices keep for nodes that are revoked. Until its session expires it collects
//! what nobody will take, and a shared subscription still gives it its part.
//!
//! A few attempts are made at a time, however many nodes are revoked. A device that joins again has the
//! client ids of before: from then on the session is its own, and nobody ends it.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use haar_protocol::ids::{Name, NodeId};
use haar_protocol::relay::{device_user, former_device_user};
use haar_relay::{DisconnectReason, Endpoint, Identity};
use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::external;
use crate::change;
use crate::db::{self, Database};
use crate::failure::Failure;
use crate::plan::topic_rights;
use crate::site::Site;

/// Attempts at one time; each has one connection.
const ATTEMPTS_MAX: usize = 8;
/// How long a broker is tried that does not answer. One attempt is made in any case.
const TRIED_FOR: Duration = Duration::from_secs(600);
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(30);

/// What a node may have at a broker.
pub(crate) struct DeviceSession {
    relay: Name,
    endpoint: Endpoint,
    /// As its agent connects, and as agents of earlier releases did.
    identities: [Identity; 2],
}

/// The sessions that a node needs for the routes that it has now; none when there is no such node.
///
/// # Errors
/// When the database fails.
pub(crate) fn device_sessions(
    connection: &Connection,
    site: &Site,
    name: &Name,
) -> Result<Vec<DeviceSession>, Failure> {
    let Some(node) = db::nodes::by_name(connection, name.as_str())? else {
        return Ok(Vec::new());
    };
    let fleet = change::load_fleet(connection, site)?;
    let has_routes =
        |relay: &Name| topic_rights(&fleet, &fleet.placements, relay).contains_key(&node.id);
    let mut sessions = Vec::new();
    for relay in change::load_relays(connection, site)? {
        let Some((relay, target)) = external::target(relay).filter(|(relay, _)| has_routes(relay))
        else {
            continue;
        };
        let users = [device_user(&node.id, &relay), former_device_user(&node.id)];
        match external::endpoint(site, &target) {
            Ok(endpoint) => sessions.push(DeviceSession {
                endpoint,
                identities: users.map(|user| Identity {
                    credentials: external::credentials(site, &relay, &target, &user, &node.key),
                    client_id: user,
                }),
                relay,
            }),
            Err(error) => tracing::warn!(%relay, %error, "sessions there can't be ended"),
        }
    }
    Ok(sessions)
}

impl DeviceSession {
    /// Ends it, as far as its broker can be reached from here.
    ///
    /// # Errors
    /// Why it may be kept.
    async fn end(&self, turns: &Semaphore) -> Result<(), DisconnectReason> {
        let began = Instant::now();
        let mut is_ended = [false; 2];
        loop {
            let turn = turns.acquire().await; // nobody closes it
            let kept = self.attempt(&mut is_ended).await;
            drop(turn);
            match kept {
                None => return Ok(()),
                Some(reason) if began.elapsed() >= TRIED_FOR => return Err(reason),
                Some(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Tries to end what is not ended yet. Returns why something may be kept, if it may.
    async fn attempt(&self, is_ended: &mut [bool; 2]) -> Option<DisconnectReason> {
        let mut reasons = Vec::new();
        for (identity, is_ended) in std::iter::zip(&self.identities, is_ended.iter_mut()) {
            if *is_ended {
                continue;
            }
            match haar_relay::end_session(&self.endpoint, identity).await {
                Ok(()) => *is_ended = true,
                Err(reason) => reasons.push(reason),
            }
        }
        // A broker that knows one of the two users refuses the other, who has no session then.
        let is_one_ended = is_ended.contains(&true);
        let is_excused = |reason: &DisconnectReason| {
            is_one_ended && matches!(reason, DisconnectReason::Refused(_))
        };
        reasons.into_iter().find(|reason| !is_excused(reason))
    }
}

/// A session that is not ended.
struct Kept {
    node: Name,
    message: String,
}

impl Kept {
    fn new(node: Name, relay: &Name, reason: &str) -> Self {
        Self {
            node,
            message: format!(
                "the session for devices at relay `{relay}` could not be ended ({reason}): its broker keeps it until it expires"
            ),
        }
    }
}

/// Makes events of sessions that are not ended.
async fn tell(database: &Database, kept: Vec<Kept>) {
    if kept.is_empty() {
        return;
    }
    let told = database
        .write(move |write| {
            kept.iter().try_for_each(|one| {
                write.event("device_session_kept", one.node.as_str(), &one.message)
            })
        })
        .await;
    if let Err(failure) = told {
        tracing::error!(%failure, "an event could not be stored");
    }
}

/// Ends sessions of revoked nodes, beside everything else.
pub(super) struct Leaving {
    database: Database,
    turns: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: JoinSet<Option<Kept>>,
    /// What is not ended, because the controller stops.
    left: Vec<Kept>,
}

impl Leaving {
    /// Nothing is being ended. With `stop` everything is given up.
    pub(super) fn new(database: Database, stop: CancellationToken) -> Self {
        Self {
            database,
            turns: Arc::new(Semaphore::new(ATTEMPTS_MAX)),
            stop,
            tasks: JoinSet::new(),
            left: Vec::new(),
        }
    }

    /// Begins to end the sessions of a node.
    pub(super) fn end(&mut self, id: &NodeId, name: &Name, sessions: Vec<DeviceSession>) {
        for session in sessions {
            let task = Task {
                id: id.clone(),
                name: name.clone(),
                session,
                database: self.database.clone(),
                turns: Arc::clone(&self.turns),
                stop: self.stop.clone(),
            };
            self.tasks.spawn(task.run());
        }
    }

    /// Waits until one is done with; none when there is none.
    pub(super) async fn next_done(&mut self) -> Option<()> {
        let done = self.tasks.join_next().await?;
        self.left.extend(done.ok().flatten());
        Some(())
    }

    /// After `stop`: tells what is left.
    pub(super) async fn close(mut self) {
        while self.next_done().await.is_some() {}
        tell(&self.database, self.left).await;
    }
}

/// The end of one session.
struct Task {
    id: NodeId,
    name: Name,
    session: DeviceSession,
    database: Database,
    turns: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Task {
    /// Returns what is left when the controller stops; tells everything else by itself.
    async fn run(self) -> Option<Kept> {
        let Self {
            id,
            name: node,
            session,
            database,
            turns,
            stop,
        } = self;
        // The directory is what the database holds, and tells each change of it.
        let mut nodes = database.feeds.nodes.subscribe();
        let joined = async { drop(nodes.wait_for(|nodes| nodes.contains_key(&id)).await) };
        let relay = &session.relay;
        tokio::select! {
            biased;
            () = joined => {
                tracing::info!(%node, %relay, "a revoked device has joined again: its session is its own");
            }
            () = stop.cancelled() => return Some(Kept::new(node, relay, "the controller stops")),
            ended = session.end(&turns) => match ended {
                Ok(()) => tracing::info!(%node, %relay, "the session of a revoked node is ended"),
                Err(reason) => {
                    let kept = Kept::new(node, relay, &reason.to_string());
                    tell(&database, vec![kept]).await;
                }
            },
        }
        None
    }
}
