//! Ends what brokers of devices keep for a node that is revoked. Until its session expires it collects
//! what nobody will take, and a shared subscription still gives it its part.

use std::time::Duration;

use haar_protocol::ids::Name;
use haar_protocol::relay::{device_user, former_device_user};
use haar_relay::{DisconnectReason, Endpoint, Identity};
use rusqlite::Connection;

use super::external;
use crate::change;
use crate::db::{self, Database};
use crate::failure::Failure;
use crate::plan::topic_rights;
use crate::site::Site;

/// How often a broker is tried that does not answer.
const ATTEMPTS: u32 = 20;
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
    /// Ends it, as far as its broker can be reached from here, else tells that it is kept.
    pub(super) async fn end_or_tell(self, node: Name, database: Database) {
        let Err(reason) = self.end().await else {
            tracing::info!(%node, relay = %self.relay, "the session of a revoked node is ended");
            return;
        };
        let message = format!(
            "the session for devices at relay `{}` could not be ended ({reason}): its broker keeps it until it expires",
            self.relay
        );
        let told = database
            .write(move |write| write.event("device_session_kept", node.as_str(), &message))
            .await;
        if let Err(failure) = told {
            tracing::error!(%failure, "an event could not be stored");
        }
    }

    async fn end(&self) -> Result<(), DisconnectReason> {
        let mut attempts = 0;
        loop {
            let [own, former] = &self.identities;
            let ended = haar_relay::end_session(&self.endpoint, own).await;
            // A broker may know one of the two users only.
            let former = haar_relay::end_session(&self.endpoint, former).await;
            attempts += 1;
            match ended.or_else(|reason| former.map_err(|_| reason)) {
                Err(_) if attempts < ATTEMPTS => tokio::time::sleep(PAUSE).await,
                ended => return ended,
            }
        }
    }
}
