//! The task behind a session for devices: it starts connections one after another, keeps the broker's
//! subscriptions as they are wanted, hands publishes over as the window allows, and has the session
//! forgotten in the end. Only [`super::DeviceSession`] starts it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use rumqttc::v5::{AsyncClient, MqttOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::former::{Answers, Course, Phase};
use super::open::{Open, at, last_will};
use super::poller::{Note, Poller, Terms};
use super::steps::Step;
use super::{
    DeviceEvent, DeviceOptions, DeviceSubscription, DeviceWants, Outcome, Receipt, Submitted,
};
use crate::backoff::Backoff;
use crate::connection::{IN_FLIGHT_MAX, mqtt_options};
use crate::driver::{ended, random};
use crate::endpoint::Endpoint;
use crate::reason::DisconnectReason;
use crate::session::{Identity, SessionOptions};
use crate::window::{HANDED_MAX, Window};

const NOTES_MAX: usize = 64;
/// Acknowledgements that are handed to rumqttc before it reports that it took one.
const ACKNOWLEDGING_MAX: usize = 16;

/// The owner of the session's state.
pub(super) struct Driver {
    pub(super) options: DeviceOptions,
    pub(super) phase: Phase,
    /// How the broker has answered up to now.
    pub(super) answers: Answers,
    /// The session begins in place of one that the broker may keep.
    pub(super) is_clean: bool,
    pub(super) events: mpsc::Sender<DeviceEvent>,
    pub(super) submitted: mpsc::Receiver<Submitted>,
    pub(super) given: mpsc::Receiver<Receipt>,
    pub(super) wanted: watch::Receiver<DeviceWants>,
    /// What the broker's session may hold of connections before.
    pub(super) known: Vec<DeviceSubscription>,
    pub(super) connection: u64,
    pub(super) budget: Budget,
    /// Whether the broker takes a will that it is to retain.
    pub(super) retains_will: bool,
    /// Whether the broker is asked to number subscriptions.
    pub(super) numbers_subscriptions: bool,
    pub(super) closing: CancellationToken,
    pub(super) forgetting: CancellationToken,
    pub(super) stop: CancellationToken,
}

/// The options of a connection.
pub(super) fn device_mqtt(
    endpoint: &Endpoint,
    identity: &Identity,
) -> Result<MqttOptions, DisconnectReason> {
    mqtt_options(&SessionOptions {
        endpoint: endpoint.clone(),
        identity: identity.clone(),
        will: None,
        subscriptions: Vec::new(),
        queue_messages: 1,
    })
}

/// How a connection ended.
enum Ending {
    /// Its owner has not heard of it, and another one follows at once.
    Unannounced,
    /// The session needs another one at once.
    Again,
    Failed(DisconnectReason),
}

impl Driver {
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        while !self.closing.is_cancelled() {
            let started = Instant::now();
            let ending = self.connect_once().await;
            if self.closing.is_cancelled() {
                break;
            }
            let (reason, delay) = match ending {
                Ending::Unannounced => continue,
                Ending::Again => (None, Duration::ZERO),
                Ending::Failed(reason) => {
                    let delay = backoff.after(&reason, started.elapsed(), random());
                    (Some(reason), delay)
                }
            };
            let event = DeviceEvent::Disconnected { reason };
            tokio::select! {
                biased;
                () = self.closing.cancelled() => break,
                sent = self.events.send(event) => drop(sent),
            }
            tokio::select! {
                () = sleep(delay) => {}
                () = self.closing.cancelled() => {}
            }
        }
        self.submitted.close();
        if self.forgetting.is_cancelled() {
            self.forget().await;
        }
    }

    /// As whom to connect: as agents before, or as itself.
    pub(super) fn identity(&self, is_former: bool) -> &Identity {
        let former = self.options.former.as_ref().filter(|_| is_former);
        former.map_or(&self.options.identity, |former| &former.identity)
    }

    /// How long a former session is silent before it is left, while it is drained.
    fn silence(&self) -> Option<Duration> {
        let former = self.options.former.as_ref();
        let former = former.filter(|_| self.phase == Phase::Draining);
        former.map(|former| former.silence)
    }

    async fn connect_once(&mut self) -> Ending {
        let phase = self.phase;
        let mut mqtt = match device_mqtt(&self.options.endpoint, self.identity(phase.is_former())) {
            Ok(mqtt) => mqtt,
            Err(reason) => return Ending::Failed(reason),
        };
        let wants = self.wanted.borrow_and_update().clone();
        self.let_go(&mut []);
        mqtt.set_clean_start(self.is_clean).set_manual_acks(true);
        if matches!(phase, Phase::Own | Phase::Before) {
            let will = wants.will.as_ref();
            will.map(|will| mqtt.set_last_will(last_will(will, self.retains_will)));
        }
        // Also while looking: what waits in a former session outlives a cut.
        mqtt.set_session_expiry_interval(Some(wants.expiry_s));
        // Room for the window, acknowledgements, one step and the DISCONNECT: so a `try_` call never
        // finds it full.
        let capacity = usize::from(IN_FLIGHT_MAX) + ACKNOWLEDGING_MAX + HANDED_MAX + 2;
        let (client, event_loop) = AsyncClient::new(mqtt, capacity);
        let (notes_in, notes) = mpsc::channel(NOTES_MAX);
        self.connection += 1;
        let unacknowledged = Arc::new(AtomicUsize::new(0));
        let mut open = Open::new(client, notes, Arc::clone(&unacknowledged));
        if phase == Phase::Draining {
            let wanted = wants.subscriptions.iter();
            open.leaving = wanted.map(|one| one.filter.clone()).collect();
        }
        let poller = Poller {
            event_loop,
            connection: self.connection,
            expiry_s: wants.expiry_s,
            phase,
            awaited: open.leaving.clone(),
            numbers_subscriptions: self.numbers_subscriptions,
            unacknowledged,
            has_exceeded: false,
            budget: self.budget.clone(),
            notes: notes_in,
            events: self.events.clone(),
            closing: self.closing.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(poller.run());
        let reason = self.serve(&mut open, &mut tasks, &wants).await;
        tasks.shutdown().await;
        while let Ok(note) = open.notes.try_recv() {
            self.apply(&mut open, note).await; // PUBACKs that were still read
        }
        for mut subscription in std::mem::take(&mut open.subscribed) {
            if phase == Phase::Preparing {
                // Nobody has had anything yet.
                subscription.receivers.clear();
            }
            self.known.retain(|one| one.filter != subscription.filter);
            self.known.push(subscription);
        }
        self.retains_will &= reason != DisconnectReason::WillRefused;
        if self.options.former.is_some() {
            self.go_on(&open, &reason).await;
        }
        match open.disconnecting {
            _ if phase.passes_to(self.phase) => Ending::Unannounced,
            true => Ending::Again,
            false => Ending::Failed(reason),
        }
    }

    /// Enters the next phase, if that of a connection is over. What it has left behind at the broker
    /// is forgotten before.
    async fn go_on(&mut self, open: &Open, reason: &DisconnectReason) {
        let phase = self.phase;
        let course = match open.terms {
            None if matches!(reason, DisconnectReason::Refused(_)) => Course::Refused,
            None => return,
            // A message that came after the silence is taken on another connection.
            Some(_) if open.is_done && !open.has_unacknowledged() => Course::Done,
            Some(Terms {
                session_present, ..
            }) => Course::Answered { session_present },
        };
        self.answers.note(phase, course);
        let next = phase.after(course, self.answers);
        // Where there was no former session, looking for one began one.
        if next == Phase::Own && course != Course::Refused && phase.is_former() {
            if self.closing.is_cancelled() {
                return; // the next start sees to it
            }
            let attempt = self.forget_one(true).await;
            tracing::debug!(?attempt, "left the session of agents of earlier releases");
        }
        self.phase = next;
    }

    async fn serve(
        &mut self,
        open: &mut Open,
        tasks: &mut JoinSet<DisconnectReason>,
        wants: &DeviceWants,
    ) -> DisconnectReason {
        loop {
            if !open.disconnecting {
                self.advance(open).await;
            }
            let is_answered = open.terms.is_some() && open.asked.is_none();
            let settled = is_answered && self.step(open).is_none();
            let is_closing = open.deadline.is_some();
            let is_passing = matches!(self.phase, Phase::Preparing | Phase::Draining);
            let is_empty = open.silent_at.is_none() && !open.has_unacknowledged();
            if settled && is_passing && is_empty && !is_closing {
                open.is_done = true;
                open.close();
                continue;
            }
            // Also when it closes, for what was submitted before.
            let takes = if is_closing {
                is_answered && !open.disconnecting
            } else {
                settled
            };
            let room = takes && open.window.has_room();
            tokio::select! {
                note = open.notes.recv() => match note {
                    Some(note) => self.apply(open, note).await,
                    None => return ended(tasks.join_next().await),
                },
                Some(receipt) = self.given.recv(), if open.acknowledging < ACKNOWLEDGING_MAX => {
                    self.acknowledge(open, &receipt);
                }
                Some(submitted) = self.submitted.recv(), if room => {
                    self.hand_over(open, submitted).await;
                }
                Ok(()) = self.wanted.changed(), if !is_closing => {
                    self.let_go(&mut open.subscribed);
                    if !self.wanted.borrow().has_terms_of(wants) {
                        open.close();
                    }
                }
                () = self.closing.cancelled(), if !is_closing => {
                    if open.terms.is_none() {
                        return DisconnectReason::Closed("stopped".into());
                    }
                    open.close();
                }
                () = at(open.again_at), if !is_closing => {
                    open.again_at = None;
                    open.refused.clear();
                }
                () = at(open.silent_at), if !is_closing => open.silent(self.silence()),
                () = at(open.deadline), if is_closing => {
                    if open.disconnecting {
                        return DisconnectReason::Closed("the broker did not close".into());
                    }
                    open.disconnect();
                }
            }
        }
    }

    async fn apply(&mut self, open: &mut Open, note: Note) {
        match note {
            Note::Accepted(terms) => {
                open.window = Window::new(terms.packet_ids);
                open.terms = Some(terms);
                match terms.session_present {
                    true if self.phase.is_announced() => open.heard(self.silence()),
                    true => {}
                    false if self.phase == Phase::Draining => open.leaving.clear(),
                    false if self.phase == Phase::Looking => {} // what is known is of another session
                    false => self.known.clear(),
                }
                // Looking makes no session that lasts.
                self.is_clean &= self.phase == Phase::Looking;
            }
            Note::Subscribed(granted) => self.subscribed(open, granted).await,
            Note::Unsubscribed => {
                if let Some(Step::Unsubscribe(filter)) = open.asked.take() {
                    match self.phase {
                        Phase::Draining => open.leaving.retain(|one| one != &filter),
                        _ => self.known.retain(|one| one.filter != filter),
                    }
                    open.subscribed.retain(|one| one.filter != filter);
                }
            }
            Note::Sent(packet_id) => open.window.sent(packet_id),
            Note::Acknowledged => {
                open.acknowledging = open.acknowledging.saturating_sub(1);
                if open.silent_at.is_some() && self.silence().is_none() {
                    open.heard(None);
                }
            }
            Note::Answered(packet_id, outcome) => {
                if let Some(token) = open.window.acknowledged(packet_id) {
                    self.tell(token, outcome).await;
                }
            }
            Note::Merged => self.numbers_subscriptions = false,
        }
    }

    async fn hand_over(&self, open: &mut Open, submitted: Submitted) {
        if submitted.connection != self.connection {
            return; // its caller has heard of the end of that connection
        }
        if let Err(outcome) = open.hand_over(submitted.message, submitted.token) {
            self.tell(submitted.token, outcome).await;
        }
    }

    fn acknowledge(&self, open: &mut Open, receipt: &Receipt) {
        if receipt.connection != self.connection {
            return; // the broker sends the message again
        }
        let silence = self.silence();
        if receipt.is_awaited && silence.is_some() {
            open.heard(silence); // the broker may send another one in its place
        }
        match open.client.try_ack(&receipt.publish()) {
            Ok(()) => open.acknowledging += 1,
            Err(_) => tracing::debug!("the connection ended before an acknowledgement"),
        }
    }

    async fn tell(&self, token: u64, outcome: Outcome) {
        let event = DeviceEvent::Published { token, outcome };
        drop(self.events.send(event).await); // or the owner has ended
    }
}
