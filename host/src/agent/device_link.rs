//! The task of one broker: between the topics of plain MQTT devices and the logs and inboxes of this
//! node. A message is acknowledged to the broker when it is on the disk, and an outlet's log lets go
//! of a message when the broker has acknowledged it.

use std::sync::Arc;
use std::time::Duration;

use haar_protocol::ids::Name;
use haar_relay::{DeviceEvent, DeviceOptions, DeviceSession, DeviceSubscription};
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
    relay: Name,
    options: DeviceOptions,
    plan: watch::Receiver<BrokerPlan>,
    bus: Arc<Bus>,
    store: Store,
    ends: Ends,
) {
    let (events, received) = mpsc::channel(EVENTS_MAX);
    let subscriptions = subscriptions(&plan.borrow());
    let stop = ends.stop.clone();
    let (session, task) = DeviceSession::start(options, subscriptions, events, stop);
    let link = DeviceLink {
        intake: Intake::new(relay.clone(), bus, store.clone()),
        relay,
        session,
        received,
        plan,
        output: Output::new(store),
        health: Arc::clone(&ends.health),
        connection: None,
    };
    tokio::join!(link.run(ends), task);
}

struct DeviceLink {
    relay: Name,
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
        let mut is_ending = false;
        loop {
            if is_ending {
                self.intake.end();
            }
            self.intake.store_waiting(&plan).await;
            if is_ending && self.intake.is_idle() {
                // What is stored was acknowledged before.
                match ends.forget.is_cancelled() {
                    true => self.session.forget(),
                    false => self.session.close(),
                }
            }
            let connection = self.connection.filter(|_| !is_ending);
            let can_send = connection.is_some() && self.output.fill().await;
            let wake = earlier(self.intake.wake(), self.output.wake());
            let arrived = Arc::clone(&plan.arrived);
            tokio::select! {
                event = self.received.recv() => match event {
                    Some(event) => self.event(&plan, event),
                    None => return, // the session has ended
                },
                changed = self.plan.changed(), if !is_ending => {
                    is_ending = changed.is_err();
                    plan = self.plan.borrow_and_update().clone();
                    self.session.subscribe(subscriptions(&plan));
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
                () = ends.forget.cancelled(), if !is_ending => is_ending = true,
                () = ends.stop.cancelled(), if !is_ending => is_ending = true,
            }
        }
    }

    fn event(&mut self, plan: &BrokerPlan, event: DeviceEvent) {
        match event {
            DeviceEvent::Connected { connection } => {
                self.health.set(true, None);
                tracing::info!(relay = %self.relay, "connected to the broker of devices");
                self.connection = Some(connection);
            }
            DeviceEvent::Disconnected { reason } => {
                tracing::warn!(relay = %self.relay, "devices: {reason}");
                self.health.set(false, Some(&reason.to_string()));
                self.connection = None;
                self.intake.disconnected();
                self.output.disconnected();
            }
            DeviceEvent::Message(message) => self.intake.arrived(plan, message),
            DeviceEvent::WindowExceeded { messages } => {
                tracing::warn!(relay = %self.relay, "the broker sends more unacknowledged messages than the {messages} that this node allows (the receive maximum of MQTT 5): all of them are taken; see whether there is a newer release of the broker");
            }
            DeviceEvent::Published { token, outcome } => {
                self.output.published(&self.relay, token, outcome);
            }
            DeviceEvent::SubscriptionRefused { filter, why } => {
                let why = format!(
                    "the broker refused to subscribe to {filter}: {why}; tried again each minute"
                );
                tracing::error!(relay = %self.relay, "{why}");
                self.health.set(true, Some(&why));
            }
        }
    }
}

fn subscriptions(plan: &BrokerPlan) -> Vec<DeviceSubscription> {
    let subscriptions = plan.subscriptions().into_iter();
    subscriptions
        .map(|(filter, at_least_once)| DeviceSubscription {
            filter: filter.clone(),
            at_least_once,
        })
        .collect()
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}
