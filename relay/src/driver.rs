//! The task behind a session: it owns the queue, starts connections one after another, hands them
//! publishes as the window allows, and waits between them. Only [`crate::session`] starts it.

use std::collections::VecDeque;
use std::sync::Arc;

use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Filter;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::backoff::{Backoff, TakeoverPauses};
use crate::connection::{IN_FLIGHT_MAX, Liveness, Note, Poller, mqtt_options, quality};
use crate::endpoint::Endpoint;
use crate::reason::DisconnectReason;
use crate::session::{
    Ending, FLUSH_TIMEOUT, Outgoing, Queued, SessionEvent, SessionOptions, packet_bytes,
};
use crate::window::{HANDED_MAX, Window};

/// How long a relay may take to close after our DISCONNECT.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// A relay that ends closes its connections, and this much later at most the place where it listens.
const ENDING_PAUSE: Duration = Duration::from_millis(250);
const NOTES_MAX: usize = 64;

/// The owner of a session's state.
pub(crate) struct Driver {
    pub(crate) options: SessionOptions,
    pub(crate) events: mpsc::Sender<SessionEvent>,
    pub(crate) queued: mpsc::Receiver<Queued>,
    /// Sent on the last connection and not acknowledged: at most the window.
    pub(crate) resend: VecDeque<Outgoing>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) closing: CancellationToken,
    pub(crate) pauses: TakeoverPauses,
}

/// The connection that is open now.
struct Open {
    client: AsyncClient,
    notes: mpsc::Receiver<Note>,
    window: Window<Outgoing>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Ready,
    /// Taking nothing new; what is queued goes out until the deadline.
    Flushing(Instant),
    /// DISCONNECT is on its way; the relay closes.
    Disconnecting(Instant),
}

impl Driver {
    pub(crate) async fn run(mut self) -> Ending {
        let mut backoff = Backoff::new(self.pauses);
        while !self.closing.is_cancelled() {
            let started = Instant::now();
            let (reason, flushed) = self.connect_once().await;
            let lasted = started.elapsed();
            let was_served = self.liveness.is_connected();
            self.liveness.disconnected();
            if self.closing.is_cancelled() {
                let nothing_left = self.resend.is_empty() && self.queued.is_empty();
                return if flushed || nothing_left {
                    Ending::Flushed
                } else {
                    Ending::Unsent
                };
            }
            let reason = tokio::select! {
                reason = explained(reason, was_served, &self.options.endpoint) => reason,
                () = self.closing.cancelled() => continue,
            };
            let delay = backoff.after(&reason, lasted, random());
            tracing::info!(relay = %self.options.endpoint, %reason, delay_ms = delay.as_millis(), "no connection");
            let event = SessionEvent::Disconnected { reason };
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
        self.queued.close();
        let nothing_left = self.resend.is_empty() && self.queued.is_empty();
        if nothing_left {
            Ending::Flushed
        } else {
            Ending::Unsent
        }
    }

    /// Runs one connection to its end; true when it ended by our own DISCONNECT with nothing left.
    async fn connect_once(&mut self) -> (DisconnectReason, bool) {
        let mqtt = match mqtt_options(&self.options) {
            Ok(mqtt) => mqtt,
            Err(reason) => return (reason, false),
        };
        // Room for everything that the window lets through, the SUBSCRIBE and the DISCONNECT: so a
        // `try_` call never finds it full.
        let capacity = usize::from(IN_FLIGHT_MAX) + HANDED_MAX + 2;
        let (client, event_loop) = AsyncClient::new(mqtt, capacity);
        let (notes_in, notes) = mpsc::channel(NOTES_MAX);
        let poller = Poller {
            event_loop,
            subscriptions: self.options.subscriptions.clone(),
            liveness: Arc::clone(&self.liveness),
            notes: notes_in,
            events: self.events.clone(),
            closing: self.closing.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(poller.run());
        let window = Window::new(IN_FLIGHT_MAX);
        let mut open = Open {
            client,
            notes,
            window,
            state: State::Connecting,
        };
        let reason = self.serve(&mut open, &mut tasks).await;
        tasks.shutdown().await;
        while let Ok(note) = open.notes.try_recv() {
            apply(&mut open, &self.options, note);
        }
        let flushed = matches!(open.state, State::Disconnecting(_)) && open.window.is_empty();
        let mut unacknowledged = open.window.into_unacknowledged();
        unacknowledged.append(&mut self.resend);
        self.resend = unacknowledged;
        (
            reason,
            flushed && self.resend.is_empty() && self.queued.is_empty(),
        )
    }

    async fn serve(
        &mut self,
        open: &mut Open,
        tasks: &mut JoinSet<DisconnectReason>,
    ) -> DisconnectReason {
        loop {
            self.hand_over_resends(open);
            self.advance_closing(open);
            let takes = matches!(open.state, State::Ready | State::Flushing(_));
            let room = takes && self.resend.is_empty() && open.window.has_room();
            let deadline = match open.state {
                State::Flushing(deadline) | State::Disconnecting(deadline) => Some(deadline),
                State::Connecting | State::Ready => None,
            };
            tokio::select! {
                note = open.notes.recv() => match note {
                    Some(note) => apply(open, &self.options, note),
                    None => return ended(tasks.join_next().await),
                },
                Some(queued) = self.queued.recv(), if room => self.hand_over_queued(open, queued),
                () = self.closing.cancelled(), if deadline.is_none() => {
                    self.queued.close();
                    if open.state == State::Connecting {
                        return DisconnectReason::Closed("stopped".into());
                    }
                    open.state = State::Flushing(Instant::now() + FLUSH_TIMEOUT);
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    if matches!(open.state, State::Disconnecting(_)) {
                        return DisconnectReason::Closed("the relay did not close".into());
                    }
                    disconnect(open);
                }
            }
        }
    }

    /// Sends DISCONNECT once everything is out; before that, there is something to wait for.
    fn advance_closing(&self, open: &mut Open) {
        let flushed = self.resend.is_empty() && self.queued.is_empty() && open.window.is_empty();
        if matches!(open.state, State::Flushing(_)) && flushed {
            disconnect(open);
        }
    }

    fn hand_over_resends(&mut self, open: &mut Open) {
        while matches!(open.state, State::Ready | State::Flushing(_)) && open.window.has_room() {
            let Some(message) = self.resend.pop_front() else {
                return;
            };
            self.hand_over(open, message);
        }
    }

    fn hand_over_queued(&self, open: &mut Open, queued: Queued) {
        let stale = queued
            .only_on_connection
            .is_some_and(|on| on != self.liveness.connection());
        if !stale {
            self.hand_over(open, queued.message);
        }
    }

    fn hand_over(&self, open: &mut Open, message: Outgoing) {
        let limit_bytes = self.liveness.publish_bytes_max();
        if packet_bytes(&message) > limit_bytes {
            tracing::warn!(topic = %message.topic, limit_bytes, "dropped a message: too large for this relay");
            return;
        }
        let taken = open.client.try_publish(
            message.topic.as_str(),
            quality(message.at_least_once),
            message.retain,
            message.payload.clone(),
        );
        // An error means that the poller is gone, never that there is no room: the window then
        // hands the message back with the others.
        if taken.is_err() {
            tracing::debug!(topic = %message.topic, "the connection ended before a message");
        }
        let is_acknowledged = message.at_least_once;
        open.window.handed(is_acknowledged.then_some(message));
    }
}

/// A relay that closes a connection in order and goes on has most likely given its place to another
/// process. One that ends does not listen any more.
pub(crate) async fn explained(
    reason: DisconnectReason,
    was_served: bool,
    endpoint: &Endpoint,
) -> DisconnectReason {
    if reason != DisconnectReason::ClosedInOrder || !was_served {
        return reason;
    }
    // At once, because a relay that restarts may listen again soon; and later, because one that ends
    // may still listen.
    if !endpoint.listens().await {
        return reason;
    }
    sleep(ENDING_PAUSE).await;
    match endpoint.listens().await {
        true => DisconnectReason::Displaced,
        false => reason,
    }
}

fn apply(open: &mut Open, options: &SessionOptions, note: Note) {
    match note {
        Note::Accepted { packet_ids } => {
            open.window = Window::new(packet_ids);
            subscribe(open, options);
        }
        Note::Ready if open.state == State::Connecting => open.state = State::Ready,
        Note::Ready => {}
        Note::Sent(packet_id) => open.window.sent(packet_id),
        Note::Acknowledged(packet_id, refused) => {
            let topic = open.window.acknowledged(packet_id).map(|one| one.topic);
            if let Some(refused) = refused {
                tracing::warn!(?topic, ?refused, "the relay refused a message");
            }
        }
    }
}

fn subscribe(open: &Open, options: &SessionOptions) {
    let filters = options
        .subscriptions
        .iter()
        .map(|filter| Filter::new(filter, QoS::AtLeastOnce));
    if options.subscriptions.is_empty() {
        return;
    }
    if open.client.try_subscribe_many(filters).is_err() {
        tracing::error!(subscriptions = ?options.subscriptions, "not filters to subscribe to");
    }
}

fn disconnect(open: &mut Open) {
    if open.client.try_disconnect().is_err() {
        tracing::debug!("the connection ended before its DISCONNECT");
    }
    open.state = State::Disconnecting(Instant::now() + CLOSE_TIMEOUT);
}

pub(crate) fn ended(
    poller: Option<Result<DisconnectReason, tokio::task::JoinError>>,
) -> DisconnectReason {
    match poller {
        Some(Ok(reason)) => reason,
        // A panic inside rumqttc, on bytes from a relay: it costs this connection, not the process.
        Some(Err(error)) => DisconnectReason::Closed(format!("the MQTT client failed: {error}")),
        None => DisconnectReason::Closed("the MQTT client is gone".into()),
    }
}

pub(crate) fn random() -> u32 {
    // Without random bytes the delay is at its shortest; the next connection reports the reason.
    getrandom::u32().unwrap_or(0)
}
