//! The relays that this node attaches to: a session with each, as the assignment says. What goes to
//! the site takes the most preferred one that works; a link chooses among those that the other node
//! attaches to as well ([`super::peer_link`]).
//!
//! Without an assignment, and whenever none of the relays of the assignment can be reached for long,
//! it is the relay that the node knows since it enrolled: a wrong manifest cuts nobody off for ever.

use std::sync::Arc;
use std::time::Duration;

use haar_link::paths::RelayNumber;
use haar_protocol::assignment::Assignment;
use haar_protocol::ids::Name;
use haar_protocol::relay::{EMBEDDED, NodeCredentials, RelayAccess, RelayRole};
use haar_protocol::status::RelayStatus;
use haar_relay::{Endpoint, Outgoing, PublishError, Session};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection::{Account, alive, connect};
use super::links::Intake;
use crate::local_api::state::now_ms;

/// How long no relay may be reached before the one of the enrolment is tried, too.
const FALLBACK_AFTER: Duration = Duration::from_secs(30);

/// A relay that the node attaches to.
#[derive(Debug, Clone)]
pub(super) struct Attachment {
    /// Names this attachment; another one of the same relay has another number.
    pub(super) number: RelayNumber,
    pub(super) name: Name,
    pub(super) role: RelayRole,
    pub(super) session: Session,
    pub(super) connected: bool,
    /// Counts the connections of the session.
    pub(super) connections: u64,
    /// Why it is not connected.
    pub(super) reason: Option<String>,
    /// Since when it is connected, or is not.
    pub(super) since_ms: u64,
}

/// All of them, the most preferred first.
pub(super) type Table = Arc<Vec<Attachment>>;

/// The way to the site: the most preferred relay that works. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Uplink(watch::Receiver<Table>);

impl Uplink {
    /// The session to use, and whether it is connected.
    fn best(&self) -> Option<Session> {
        let table = self.0.borrow();
        let mut sites = table.iter().filter(|one| one.role == RelayRole::Everything);
        let connected = sites.clone().find(|one| one.connected);
        connected
            .or_else(|| sites.next())
            .map(|one| one.session.clone())
    }

    /// Queues a message, waiting for room.
    pub(super) async fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        let session = self.best().ok_or(PublishError::NotConnected)?;
        session.publish(message).await
    }

    /// Queues a message for the current connection only, without waiting.
    pub(super) fn try_publish(&self, message: Outgoing) -> Result<(), PublishError> {
        let session = self.best().ok_or(PublishError::NotConnected)?;
        session.try_publish(message)
    }
}

/// The sessions of a node.
pub(super) struct Relays {
    account: Account,
    intake: Intake,
    table: Arc<watch::Sender<Table>>,
    /// What each attachment was made for.
    accesses: Vec<(RelayNumber, RelayAccess)>,
    /// Those of the assignment.
    wanted: Vec<RelayAccess>,
    next: RelayNumber,
    tasks: JoinSet<()>,
    /// Relays that are told that the node leaves.
    leaving: JoinSet<()>,
    cut_off_since: Option<Instant>,
    is_falling_back: bool,
}

impl Relays {
    /// Attaches to the relay of the enrolment.
    ///
    /// # Errors
    /// When there is none, or it can't be used.
    pub(super) fn start(
        account: Account,
        intake: Intake,
        table: Arc<watch::Sender<Table>>,
    ) -> anyhow::Result<Self> {
        let mut relays = Self {
            account,
            intake,
            table,
            accesses: Vec::new(),
            wanted: vec![embedded()],
            next: 1,
            tasks: JoinSet::new(),
            leaving: JoinSet::new(),
            cut_off_since: None,
            is_falling_back: false,
        };
        let session = relays.attach(&embedded())?;
        relays.table.send_replace(Arc::new(vec![session]));
        Ok(relays)
    }

    /// The way to the site.
    pub(super) fn uplink(&self) -> Uplink {
        Uplink(self.table.subscribe())
    }

    /// The relays, as they change.
    pub(super) fn table(&self) -> watch::Receiver<Table> {
        self.table.subscribe()
    }

    /// Attaches to the relays of an assignment, and leaves the others.
    pub(super) fn follow(&mut self, assignment: &Assignment) {
        self.wanted = assignment.relays.clone();
        let sees_site = |access: &RelayAccess| access.role == RelayRole::Everything;
        if !self.wanted.iter().any(sees_site) {
            self.wanted.push(embedded());
        }
        self.is_falling_back = false;
        self.cut_off_since = None;
        self.apply();
    }

    /// Looks whether the node is cut off, from time to time.
    pub(super) fn look(&mut self) {
        while self.tasks.try_join_next().is_some() {} // sessions that were ended
        while self.leaving.try_join_next().is_some() {}
        let knows_enrolled = self.wanted.iter().any(|access| access.url.is_none());
        if knows_enrolled {
            return;
        }
        let wanted_works = self.table.borrow().iter().any(|one| {
            let is_wanted = self.wanted.iter().any(|access| access.name == one.name);
            is_wanted && one.connected && one.role == RelayRole::Everything
        });
        if wanted_works {
            self.cut_off_since = None;
            if std::mem::take(&mut self.is_falling_back) {
                self.apply();
            }
            return;
        }
        let since = *self.cut_off_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= FALLBACK_AFTER && !self.is_falling_back {
            tracing::warn!(
                "none of the relays of the assignment can be reached: trying the one of the enrolment, too"
            );
            self.is_falling_back = true;
            self.apply();
        }
    }

    /// How the node gets to the relay of an attachment; none when it was left.
    pub(super) fn access(&self, number: RelayNumber) -> Option<&RelayAccess> {
        let held = self.accesses.iter().find(|(held, _)| *held == number);
        held.map(|(_, access)| access)
    }

    /// Where that is.
    pub(super) fn endpoint(&self, number: RelayNumber) -> Option<Endpoint> {
        self.account.endpoint(self.access(number)?).ok()
    }

    /// What statuses say of them.
    pub(super) fn statuses(&self) -> Vec<RelayStatus> {
        let table = self.table.borrow();
        let statuses = table.iter().map(|one| RelayStatus {
            name: one.name.clone(),
            connected: one.connected,
            reason: one.reason.clone().filter(|_| !one.connected),
            since_ms: Some(one.since_ms),
        });
        statuses.collect()
    }

    /// Tells every relay that the node is leaving, and waits until it is told.
    pub(super) async fn finish(mut self) {
        let table = self.table.borrow().clone();
        for attachment in table.iter() {
            self.leave(attachment.clone());
        }
        // Each takes a few seconds at most.
        while self.leaving.join_next().await.is_some() {}
        self.tasks.shutdown().await;
    }

    fn apply(&mut self) {
        let mut wanted = self.wanted.clone();
        if self.is_falling_back {
            wanted.push(embedded());
        }
        let before = self.table.borrow().clone();
        let mut now = Vec::new();
        for access in &wanted {
            let held = self.accesses.iter().find(|(_, held)| held == access);
            let held = held.and_then(|(number, _)| before.iter().find(|one| one.number == *number));
            match held {
                Some(held) => now.push(held.clone()),
                None => match self.attach(access) {
                    Ok(attachment) => now.push(attachment),
                    Err(error) => {
                        tracing::error!("the relay {} can't be used: {error:#}", access.name);
                    }
                },
            }
        }
        let is_kept = |number| now.iter().any(|one: &Attachment| one.number == number);
        let left: Vec<_> = before
            .iter()
            .filter(|one| !is_kept(one.number))
            .cloned()
            .collect();
        self.accesses.retain(|(number, _)| is_kept(*number));
        // What is known of connections may have changed meanwhile: it is taken over, not overwritten.
        self.table.send_modify(|table| {
            for one in &mut now {
                if let Some(known) = table.iter().find(|known| known.number == one.number) {
                    *one = known.clone();
                }
            }
            *table = Arc::new(now);
        });
        self.intake.tell_connected();
        for attachment in left {
            tracing::info!("leaving the relay {}", attachment.name);
            self.leave(attachment);
        }
    }

    fn attach(&mut self, access: &RelayAccess) -> anyhow::Result<Attachment> {
        let number = self.next;
        let (session, task, received) = connect(&self.account, access)?;
        self.next += 1;
        self.tasks.spawn(task);
        self.tasks
            .spawn(self.intake.clone().receive(number, received));
        self.accesses.push((number, access.clone()));
        Ok(Attachment {
            number,
            name: access.name.clone(),
            role: access.role,
            session,
            connected: false,
            connections: 0,
            reason: None,
            since_ms: now_ms(),
        })
    }

    fn leave(&mut self, attachment: Attachment) {
        let last = alive(&self.account.site, &self.account.node, "offline");
        self.leaving.spawn(async move {
            let last = (attachment.role == RelayRole::Everything).then_some(last);
            if let Err(error) = attachment.session.finish(last).await {
                tracing::debug!("the last words did not reach {}: {error}", attachment.name);
            }
        });
    }
}

/// The relay of the enrolment.
fn embedded() -> RelayAccess {
    RelayAccess {
        name: EMBEDDED.parse().expect("it is a name"),
        role: RelayRole::Everything,
        url: None,
        ca_pem: None,
        credentials: NodeCredentials::Proof,
        session_expiry_s: None,
        client: None,
    }
}
