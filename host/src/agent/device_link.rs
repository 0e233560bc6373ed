//! The task of one broker: between the topics of plain MQTT devices and the logs and inboxes of this
//! node. A message is acknowledged to the broker when it is on the disk, and an outlet's log lets go
//! of a message when the broker has acknowledged it.

use std::sync::Arc;
use std::time::Duration;

use haar_protocol::ids::Name;
use haar_protocol::mqtt::TopicFilter;
use haar_protocol::relay::RelayAccess;
use haar_relay::{DeviceEvent, DeviceOptions, DeviceSession, DeviceTerms, DeviceWants};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::sleep_until;
use super::device_health::Health;
use super::device_intake::Intake;
use super::device_output::Output;
use crate::bus::Bus;
use crate::bus::topics::BrokerPlan;
use crate::store::Store;

/// Events of the session that may wait.
const EVENTS_MAX: usize = 64;
/// After a store that can't be read or written.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How long brokers keep sessions of which nobody says anything: a day.
const SESSION_EXPIRY_S: u32 = 86_400;
/// The same of a session with shared subscriptions: the broker gives messages to a member that is
/// away until its session ends.
const SHARED_EXPIRY_S: u32 = 60;

/// What ties the task to the control loop.
pub(super) struct Ends {
    /// What statuses report of the session.
    pub(super) health: Arc<Health>,
    /// No route needs the broker any more: it is told to forget the session.
    pub(super) forget: CancellationToken,
    /// The agent stops.
    pub(super) stop: CancellationToken,
}

/// Runs the session and what belongs to it, to its end.
pub(super) async fn run(
    access: RelayAccess,
    options: DeviceOptions,
    plan: watch::Receiver<BrokerPlan>,
    bus: Arc<Bus>,
    store: Store,
    ends: Ends,
) {
    let (relay, expiry_s) = (access.name, access.session_expiry_s);
    let (events, received) = mpsc::channel(EVENTS_MAX);
    let wants = wants(&plan.borrow(), expiry_s);
    let stop = ends.stop.clone();
    let (session, task) = DeviceSession::start(options, wants, events, stop);
    let link = DeviceLink {
        intake: Intake::new(relay.clone(), bus, store.clone()),
        output: Output::new(relay.clone(), store),
        relay,
        expiry_s,
        session,
        received,
        plan,
        health: Arc::clone(&ends.health),
        connection: None,
    };
    tokio::join!(link.run(ends), task);
}

struct DeviceLink {
    relay: Name,
    expiry_s: Option<u32>,
    session: DeviceSession,
    received: mpsc::Receiver<DeviceEvent>,
    plan: watch::Receiver<BrokerPlan>,
    intake: Intake,
    output: Output,
    health: Arc<Health>,
    /// The number of the connection, while there is one.
    connection: Option<u64>,
}

impl DeviceLink {
    async fn run(mut self, ends: Ends) {
        let mut plan = self.plan.borrow_and_update().clone();
        self.output.follow(&plan);
        let (mut is_ending, mut is_stopping) = (false, false);
        loop {
            if is_ending {
                self.intake.end();
            }
            self.intake.store_waiting(&plan).await;
            let is_told = !self.output.has_errands()
                || (self.connection.is_none() && ends.stop.is_cancelled());
            if is_ending && self.intake.is_idle() && is_told {
                // What is stored was acknowledged before.
                match ends.forget.is_cancelled() {
                    true => self.session.forget(),
                    false => self.session.close(),
                }
            }
            let connection = self.connection.filter(|_| !is_ending || !is_told);
            let can_send = connection.is_some() && self.output.fill().await;
            let wake = earlier(self.intake.wake(), self.output.wake());
            let arrived = Arc::clone(&plan.arrived);
            tokio::select! {
                event = self.received.recv() => match event {
                    Some(event) => self.event(&plan, event),
                    None => return, // the session has ended
                },
                changed = self.plan.changed(), if !is_ending => {
                    if changed.is_err() {
                        // The control loop has let go of it, and said before whether for good.
                        is_ending = true;
                        self.output.leave(ends.forget.is_cancelled());
                        continue;
                    }
                    let before = plan.subscriptions();
                    plan = self.plan.borrow_and_update().clone();
                    if plan.subscriptions() != before {
                        self.intake.follow();
                    }
                    self.session.want(wants(&plan, self.expiry_s));
                    self.output.follow(&plan);
                }
                stored = self.intake.stored() => {
                    for receipt in stored {
                        self.session.acknowledge(receipt);
                    }
                }
                () = self.session.room(), if can_send => {
                    if let Some(connection) = connection {
                        self.output.send(&self.session, connection);
                    }
                }
                () = arrived.notified() => {}
                () = sleep_until(wake), if wake.is_some() => {}
                () = ends.forget.cancelled(), if !is_ending => {
                    is_ending = true;
                    self.output.leave(true);
                }
                () = ends.stop.cancelled(), if !is_ending => {
                    is_ending = true;
                    self.output.leave(false);
                }
                () = ends.stop.cancelled(), if is_ending && !is_stopping => is_stopping = true,
            }
        }
    }

    fn event(&mut self, plan: &BrokerPlan, event: DeviceEvent) {
        match event {
            DeviceEvent::Connected { connection, terms } => {
                self.health.set(true, None);
                tracing::info!(relay = %self.relay, "connected to the broker of devices");
                self.connection = Some(connection);
                self.output.connected(terms);
                self.check(plan, terms);
            }
            DeviceEvent::Disconnected { reason } => {
                if let Some(reason) = reason {
                    tracing::warn!(relay = %self.relay, "devices: {reason}");
                    self.health.set(false, Some(&reason.to_string()));
                }
                self.connection = None;
                self.intake.disconnected();
                self.output.disconnected();
            }
            DeviceEvent::Message(message) => self.intake.arrived(plan, message),
            DeviceEvent::WindowExceeded { messages } => {
                tracing::warn!(relay = %self.relay, "the broker sends more unacknowledged messages than the {messages} that this node allows (the receive maximum of MQTT 5): all of them are taken; see whether there is a newer release of the broker");
            }
            DeviceEvent::Published { token, outcome } => self.output.published(token, outcome),
            DeviceEvent::Subscribed { filter, problem } => {
                self.report(plan, &filter, problem);
            }
        }
    }

    /// Says on a filter's routes what the broker does not do for them.
    fn report(&self, plan: &BrokerPlan, filter: &TopicFilter, problem: Option<String>) {
        let routes = plan.incoming.iter();
        for route in routes.filter(|route| &route.filter == filter) {
            let problem = problem.as_ref();
            let problem = problem.map(|why| format!("the broker of relay `{}`: {why}", self.relay));
            let is_new = route.entry.counters.report(problem.clone());
            if let Some(problem) = problem.filter(|_| is_new) {
                tracing::error!(%filter, "{problem}; tried again in a minute");
            }
        }
        let mut problems = plan.incoming.iter();
        let first = problems.find_map(|route| route.entry.counters.problem.load_full());
        self.health
            .set(true, first.as_deref().map(|problem| problem.why.as_str()));
    }

    /// A broker may keep sessions for less time than it is asked to.
    fn check(&self, plan: &BrokerPlan, terms: DeviceTerms) {
        let wanted_s = wants(plan, self.expiry_s).expiry_s;
        if terms.keeps_s < wanted_s {
            let kept_s = terms.keeps_s;
            tracing::warn!(relay = %self.relay, "the broker keeps the session for {kept_s} s after a connection, and not for {wanted_s} s: what it has for this node is lost after that time");
        }
    }
}

fn wants(plan: &BrokerPlan, expiry_s: Option<u32>) -> DeviceWants {
    let mut routes = plan.incoming.iter();
    let is_shared = routes.any(|one| one.filter.group().is_some());
    let usual_s = match is_shared {
        true => SHARED_EXPIRY_S,
        false => SESSION_EXPIRY_S,
    };
    DeviceWants {
        subscriptions: plan.subscriptions(),
        expiry_s: expiry_s.unwrap_or(usual_s),
        will: plan.outgoing.iter().find_map(super::device_errands::will),
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}
