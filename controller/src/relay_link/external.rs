//! The site's sessions with relays that are not its own: one for each that carries everything, as
//! the database has them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use haar_protocol::ids::Name;
use haar_protocol::keys::PublicKey;
use haar_protocol::manifest::{ClientCertificate, Credentials};
use haar_protocol::relay::{EMBEDDED, RelayRole, RelayUrl, client_among_many};
use haar_protocol::topics;
use haar_relay::{Credentials as Proof, Endpoint, Identity, Session, SessionOptions};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::QUEUE_MESSAGES;
use super::reports::{self, Reports, Shared};
use super::site_session::SiteSession;
use crate::change;
use crate::db::Database;
use crate::plan::{Relay, RelayPlace};
use crate::site::Site;

/// How long a relay may be away before its nodes count as offline.
const AWAY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The sessions by relay, for those that publish. Taken for single look-ups.
#[derive(Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<BTreeMap<Name, Known>>>);

/// What is known of one.
enum Known {
    /// It is there, and why it is not connected.
    Session(Session, watch::Receiver<Option<String>>),
    /// There can't be one, for a reason.
    Unusable(String),
}

impl Known {
    fn session(&self) -> Option<&Session> {
        match self {
            Known::Session(session, _) => Some(session),
            Known::Unusable(_) => None,
        }
    }
}

impl Sessions {
    pub(super) fn set(&self, relay: Name, session: &SiteSession) {
        let known = Known::Session(session.session.clone(), session.reason.clone());
        self.lock().insert(relay, known);
    }

    fn remove(&self, relay: &Name) {
        self.lock().remove(relay);
    }

    /// Those that are connected, or all of them when none is.
    pub(super) fn usable(&self) -> Vec<Session> {
        let sessions = self.lock();
        let sessions = || sessions.values().filter_map(Known::session);
        let connected = sessions().filter(|session| session.is_connected());
        let connected: Vec<Session> = connected.cloned().collect();
        match connected.is_empty() {
            true => sessions().cloned().collect(),
            false => connected,
        }
    }

    /// Each relay, and why the controller is not connected to it; none when it is.
    pub(super) fn problems(&self) -> BTreeMap<Name, Option<String>> {
        let sessions = self.lock();
        let problem = |known: &Known| match known {
            Known::Session(session, _) if session.is_connected() => None,
            Known::Session(_, reason) => {
                let reason = reason.borrow().clone();
                Some(reason.unwrap_or_else(|| "not connected yet".to_owned()))
            }
            Known::Unusable(reason) => Some(reason.clone()),
        };
        let sessions = sessions.iter();
        sessions
            .map(|(relay, known)| (relay.clone(), problem(known)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a session depends on; with another it is started anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    url: RelayUrl,
    ca_pem: Option<String>,
    credentials: Credentials,
    client: Option<ClientCertificate>,
    role: RelayRole,
}

/// A session with a relay that is not ours.
struct Held {
    target: Target,
    session: SiteSession,
    /// Since when it is not connected; none once its nodes were told to be gone.
    away_since: Option<Instant>,
}

/// The task that keeps these sessions.
pub(super) struct Externals {
    site: Arc<Site>,
    database: Database,
    shared: Shared,
    sessions: Sessions,
    held: BTreeMap<Name, Held>,
}

impl Externals {
    pub(super) fn new(
        site: &Arc<Site>,
        database: &Database,
        shared: &Shared,
        sessions: &Sessions,
    ) -> Self {
        Self {
            site: Arc::clone(site),
            database: database.clone(),
            shared: shared.clone(),
            sessions: sessions.clone(),
            held: BTreeMap::new(),
        }
    }

    /// Follows the database until `stop`, then ends every session in order.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut changes = self.database.feeds.relays.subscribe();
        changes.mark_changed();
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = changes.changed() => match changed {
                    Ok(()) => self.follow().await,
                    Err(_) => break,
                },
                _ = look.tick(), if !self.held.is_empty() => self.look().await,
            }
        }
        for (_, held) in std::mem::take(&mut self.held) {
            held.session.stop().await;
        }
    }

    async fn follow(&mut self) {
        let site = Arc::clone(&self.site);
        let relays = self
            .database
            .read(move |sql| change::load_relays(sql, &site))
            .await;
        let relays = match relays {
            Ok(relays) => relays,
            Err(failure) => return tracing::error!(%failure, "the relays could not be read"),
        };
        let mut wanted: BTreeMap<Name, Target> = relays.into_iter().filter_map(target).collect();
        wanted.retain(|_, target| target.role == RelayRole::Everything);
        let is_known = |name: &Name| self.held.contains_key(name) || name.as_str() == EMBEDDED;
        self.sessions.lock().retain(|name, _| is_known(name));
        let names: Vec<Name> = self.held.keys().cloned().collect();
        for name in names {
            let is_kept = wanted.get(&name) == self.held.get(&name).map(|held| &held.target);
            if is_kept {
                wanted.remove(&name);
            } else if let Some(held) = self.held.remove(&name) {
                self.sessions.remove(&name);
                held.session.stop().await;
                self.left(&name).await;
            }
        }
        for (name, target) in wanted {
            match session_options(&self.site, &name, &target) {
                Ok(options) => self.hold(name, target, options),
                Err(error) => {
                    tracing::error!(relay = %name, %error, "a relay can't be used");
                    let known = Known::Unusable(error.to_string());
                    self.sessions.lock().insert(name, known);
                }
            }
        }
    }

    fn hold(&mut self, name: Name, target: Target, options: SessionOptions) {
        let reports = Reports::new(&name, &self.site, &self.database, &self.shared);
        let session = SiteSession::start(&name, options, &self.site, &self.database, reports);
        self.sessions.set(name.clone(), &session);
        let held = Held {
            target,
            session,
            away_since: Some(Instant::now()),
        };
        self.held.insert(name, held);
    }

    /// Who was at a relay that is away for long is somewhere else, or offline.
    async fn look(&mut self) {
        let mut gone = Vec::new();
        for (name, held) in &mut self.held {
            if held.session.session.is_connected() {
                held.away_since = None;
                continue;
            }
            let since = *held.away_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= AWAY_TIMEOUT {
                gone.push(name.clone());
            }
        }
        for name in gone {
            self.left(&name).await;
        }
    }

    async fn left(&self, relay: &Name) {
        let nodes = self.shared.presence.forget(relay, |_| true);
        let message =
            format!("it was at relay `{relay}`, to which the controller has no connection");
        reports::offline(&self.database, nodes, message).await;
    }
}

/// What it takes to connect to a relay that is not ours.
pub(super) fn target(relay: Relay) -> Option<(Name, Target)> {
    match relay.place {
        RelayPlace::External {
            url,
            ca_pem,
            credentials,
            client,
            ..
        } => {
            let target = Target {
                url,
                ca_pem,
                credentials,
                client,
                role: relay.role,
            };
            Some((relay.name, target))
        }
        _ => None,
    }
}

/// Where it is, and whom to trust there.
///
/// # Errors
/// When its certificates can't be used.
pub(super) fn endpoint(site: &Site, target: &Target) -> Result<Endpoint, haar_relay::RelayError> {
    let ca = target.ca_pem.as_deref().unwrap_or(&site.ca_pem);
    Endpoint::new(&target.url, Some(ca))?.showing(target.client.as_ref().map(change::shown))
}

/// What whoever has `key` shows there, as `user` where there are users of their own.
pub(super) fn credentials(
    site: &Site,
    relay: &Name,
    target: &Target,
    user: &str,
    key: &PublicKey,
) -> Proof {
    match &target.credentials {
        Credentials::Generated => Proof::Password {
            user: user.to_owned(),
            password: site.key.shared_with(key).relay_password(relay),
        },
        Credentials::Given { user, password } => Proof::Password {
            user: user.clone(),
            password: password.clone(),
        },
        Credentials::Anonymous => Proof::Anonymous,
    }
}

fn session_options(
    site: &Site,
    relay: &Name,
    target: &Target,
) -> Result<SessionOptions, haar_relay::RelayError> {
    let user = site.id.to_string();
    Ok(SessionOptions {
        endpoint: endpoint(site, target)?,
        identity: Identity {
            credentials: credentials(site, relay, target, &user, &site.key.public()),
            client_id: match target.credentials {
                Credentials::Generated => user,
                Credentials::Given { .. } | Credentials::Anonymous => {
                    client_among_many(&user, relay)
                }
            },
        },
        will: None,
        subscriptions: topics::site_subscriptions(&site.id),
        queue_messages: QUEUE_MESSAGES,
    })
}
