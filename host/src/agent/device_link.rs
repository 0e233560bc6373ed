//! The task of one broker: between the topics of plain MQTT devices and the logs and inboxes of this
//! node. A message is acknowledged to the broker when it is on the disk, and an outlet's log lets go
//! of a message when the broker has acknowledged it.

use std::sync::Arc;
use std::time::Duration;

use haar_protocol::ids::Name;
use haar_protocol::mqtt::TopicFilter;
use haar_protocol::relay::RelayAccess;
use haar_relay::{
    DeviceEvent, DeviceOptions, DeviceSession, DeviceTerms, DeviceWants, SESSION_EXPIRY_S,
};
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
/// For how many seconds brokers keep a session with shared subscriptions of which nobody says
/// anything: a broker gives messages to a member that is away until its session ends.
const SHARED_EXPIRY_S: u32 = 60;

/// What ties the task to the control loop.
pub(super) struct Ends {
    /// What statuses report of the session.
    pub(super) health: Arc<Health>,
    /// The agent stops.
    pub(super) stop: CancellationToken,
}

/// Runs sessions and what belongs to them: until no route needs the broker any more (there is no plan)
/// and the broker has forgotten the session, or until the agent stops.
pub(super) async fn run(
    access: RelayAccess,
    mut options: DeviceOptions,
    plan: watch::Receiver<Option<BrokerPlan>>,
    bus: Arc<Bus>,
    store: Store,
    ends: Ends,
) {
    let (relay, expiry_s) = (access.name, access.session_expiry_s);
    let mut link = DeviceLink {
        intake: Intake::new(relay.clone(), bus, store.clone()),
        output: Output::new(relay.clone(), store),
        relay,
        expiry_s,
        plan,
        health: ends.health,
        stop: ends.stop,
        connection: None,
    };
    loop {
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let plan = link.plan.borrow_and_update().clone();
        let wants = wants(&plan.clone().unwrap_or_default(), expiry_s);
        let halt = link.stop.child_token();
        let (session, task) = DeviceSession::start(options.clone(), wants, events, halt.clone());
        tokio::join!(link.run(plan, &session, received, &halt), task);
        let is_needed = link.plan.borrow().is_some();
        if link.stop.is_cancelled() || !is_needed {
            return;
        }
        // What the broker still keeps is of routes that were withdrawn.
        options.begins_clean = true;
    }
}

struct DeviceLink {
    relay: Name,
    expiry_s: Option<u32>,
    plan: watch::Receiver<Option<BrokerPlan>>,
    intake: Intake,
    output: Output,
    health: Arc<Health>,
    stop: CancellationToken,
    /// The number of the connection, while there is one.
    connection: Option<u64>,
}

/// What a session is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    Serve,
    /// No route needs the broker any more.
    Forget,
    /// The agent stops.
    Stop,
    /// Routes need the broker again: another session begins when this one has ended.
    Return,
}

impl DeviceLink {
    /// Serves one session, to its end.
    async fn run(
        &mut self,
        plan: Option<BrokerPlan>,
        session: &DeviceSession,
        mut received: mpsc::Receiver<DeviceEvent>,
        halt: &CancellationToken,
    ) {
        let mut aim = match plan {
            Some(_) => Aim::Serve,
            None => Aim::Forget,
        };
        let mut plan = plan.unwrap_or_default();
        self.begin(&plan);
        let mut is_stopping = false;
        loop {
            if aim != Aim::Serve {
                self.intake.end();
            }
            self.intake.store_waiting(&plan).await;
            let is_told = !self.output.has_errands()
                || aim == Aim::Return
                || (self.connection.is_none() && self.stop.is_cancelled());
            if self.intake.is_idle() && is_told {
                // What is stored was acknowledged before.
                match aim {
                    Aim::Serve => {}
                    Aim::Forget => session.forget(),
                    Aim::Stop | Aim::Return => session.close(),
                }
            }
            let connection = self.connection.filter(|_| aim == Aim::Serve || !is_told);
            let can_send = connection.is_some() && self.output.fill().await;
            let wake = earlier(self.intake.wake(), self.output.wake());
            let arrived = Arc::clone(&plan.arrived);
            tokio::select! {
                event = received.recv() => match event {
                    Some(event) => self.event(&plan, event),
                    None => return, // the session has ended
                },
                Ok(()) = self.plan.changed(), if matches!(aim, Aim::Serve | Aim::Forget) => {
                    let next = self.plan.borrow_and_update().clone();
                    match (aim, next) {
                        (Aim::Serve, Some(next)) => {
                            plan = next;
                            self.follow(&plan, session);
                        }
                        (_, None) => {
                            aim = Aim::Forget;
                            self.output.leave(true);
                        }
                        (_, Some(_)) => {
                            aim = Aim::Return;
                            halt.cancel();
                        }
                    }
                }
                stored = self.intake.stored() => {
                    for receipt in stored {
                        session.acknowledge(receipt);
                    }
                }
                () = session.room(), if can_send => {
                    if let Some(connection) = connection {
                        self.output.send(session, connection);
                    }
                }
                () = arrived.notified() => {}
                () = sleep_until(wake), if wake.is_some() => {}
                () = self.stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    if aim == Aim::Serve {
                        aim = Aim::Stop;
                        self.output.leave(false);
                    }
                }
            }
        }
    }

    /// A session begins: nothing of an earlier one is on its way any more.
    fn begin(&mut self, plan: &BrokerPlan) {
        if self.connection.take().is_some() {
            self.health.set(false, None);
        }
        self.health.takes_over(false);
        self.intake.begin(plan);
        self.output.begin(plan);
    }

    fn follow(&mut self, plan: &BrokerPlan, session: &DeviceSession) {
        self.intake.follow(plan);
        session.want(wants(plan, self.expiry_s));
        self.output.follow(plan);
        if self.connection.is_some() {
            self.tell_health(plan);
        }
    }

    fn event(&mut self, plan: &BrokerPlan, event: DeviceEvent) {
        match event {
            DeviceEvent::Connected {
                connection,
                is_new_session,
                drains_former,
                terms,
            } => {
                self.health.takes_over(drains_former);
                self.health.set(true, None);
                self.intake.connected(is_new_session);
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
                if problem.is_none() {
                    self.intake.subscribed(plan, &filter);
                }
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
                tracing::error!(%filter, "{problem}");
            }
        }
        self.tell_health(plan);
    }

    /// There is a connection; a route may lack something all the same.
    fn tell_health(&self, plan: &BrokerPlan) {
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
