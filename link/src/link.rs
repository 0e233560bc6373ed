//! Both directions of the link to one node, with the seal around them.

use std::collections::BTreeMap;

use crate::frame::{self, Ack, Batch, Frame};
use crate::receiver::{Receiver, Verdict};
use crate::sender::{Acknowledged, Sender, Settings, Want};
use crate::session::{self, Opened, Refusal, Session};

/// Between two hellos to a node that does not answer, or that answers what can't be opened.
const HELLO_MS_MIN: u64 = 500;
/// The longest such pause.
const HELLO_MS_MAX: u64 = 30_000;
/// Between two fresh boots that this node takes because the other one is alive twice; it doubles each
/// time, so two copies of a node that are both connected do not take turns at the speed of the relay.
const RENEW_MS_MIN: u64 = 500;
/// The longest such pause.
const RENEW_MS_MAX: u64 = 30_000;
/// After so long without a fresh boot the pause is short again.
const RENEW_CALM_MS: u64 = 2 * RENEW_MS_MAX;
/// Who sends what is not answered wants to hear of the other node so often.
const PROBE_MS: u64 = 5_000;

/// The link to one node.
#[derive(Debug)]
pub struct Link {
    session: Session,
    /// Streams to the node.
    pub sender: Sender,
    /// Streams from the node.
    pub receiver: Receiver,
    connected: bool,
    /// Sealed, and to be sent before anything else.
    answers: Vec<Vec<u8>>,
    /// When to say hello.
    hello_ms: Option<u64>,
    hello_pause_ms: u64,
    /// When this node took a fresh boot last, and the pause after that.
    renewed: Option<(u64, u64)>,
    /// When something came that only the other node can have made, and only now.
    last_heard_ms: Option<u64>,
    /// When the first thing went out that the other node has not answered.
    unanswered_since_ms: Option<u64>,
    /// The other node is asked now and then whether it is there.
    probes: bool,
    /// Live messages went out since it was last asked.
    wants_to_hear: bool,
    /// It was asked, and has not said anything since.
    has_asked: bool,
    /// It has asked.
    is_asked: bool,
    /// For each live route, the number of the newest frame of this session with messages of it.
    newest: BTreeMap<u64, u64>,
}

impl Link {
    /// A link without streams, not connected.
    pub fn new(session: Session, settings: Settings) -> Self {
        Self {
            session,
            sender: Sender::new(settings),
            receiver: Receiver::new(),
            connected: false,
            answers: Vec::new(),
            hello_ms: None,
            hello_pause_ms: HELLO_MS_MIN,
            renewed: None,
            last_heard_ms: None,
            unanswered_since_ms: None,
            probes: false,
            wants_to_hear: false,
            has_asked: false,
            is_asked: false,
            newest: BTreeMap::new(),
        }
    }

    /// Whether the other node is asked now and then, while nothing but live messages is sent, whether
    /// it is there: where there is another way to it.
    pub fn set_probes(&mut self, probes: bool) {
        self.probes = probes;
    }

    /// True when frames can be sealed.
    pub fn is_open(&self) -> bool {
        self.connected && self.session.is_open()
    }

    /// When an authentic frame of the other node was last heard: one that nobody can have recorded
    /// and played again. None: never.
    pub fn last_heard_ms(&self) -> Option<u64> {
        self.last_heard_ms
    }

    /// Since when the other node owes an answer: to a hello, or to messages of durable routes. None
    /// while it owes none, and without a connection. Messages of live routes are not answered.
    pub fn unanswered_since_ms(&self) -> Option<u64> {
        self.unanswered_since_ms
    }

    /// This node has a way to the relay, or has lost it.
    pub fn connected(&mut self, connected: bool, now_ms: u64) {
        self.connected = connected;
        self.answers.clear();
        self.unanswered_since_ms = None;
        self.has_asked = false;
        self.hello_pause_ms = HELLO_MS_MIN;
        // Also where the session is open: another agent with this node's identity may have replaced it
        // at the other node meanwhile.
        self.hello_ms = connected.then_some(now_ms);
        self.sender.connected(connected && self.session.is_open());
        if connected {
            self.receiver.connected();
        }
    }

    /// Opens what came from the node. A frame is handed on to [`frame::decode`], its parts to
    /// [`batch`](Self::batch) and [`acknowledged`](Self::acknowledged); messages of live routes are
    /// the caller's.
    ///
    /// # Errors
    /// When it is not from that node, for this one, and new.
    pub fn open(&mut self, bytes: &[u8], now_ms: u64) -> Result<Option<Vec<u8>>, Refusal> {
        match self.session.open(bytes, self.may_renew(now_ms)) {
            Ok(Opened::Data(frame)) => {
                self.last_heard_ms = Some(now_ms);
                if std::mem::take(&mut self.has_asked) {
                    self.unanswered_since_ms = self.sender.is_waiting().then_some(now_ms);
                }
                Ok(Some(frame))
            }
            Ok(Opened::Answer(answer)) => {
                self.answer(answer);
                Ok(None)
            }
            Ok(Opened::Renewed(answer)) => {
                self.answer(answer);
                self.renewed(now_ms);
                Ok(None)
            }
            Ok(Opened::Begun(answer)) => {
                self.answer(answer);
                self.last_heard_ms = Some(now_ms);
                self.unanswered_since_ms = None;
                self.hello_ms = None;
                self.hello_pause_ms = HELLO_MS_MIN;
                self.sender.connected(self.connected);
                self.receiver.connected();
                self.newest.clear(); // frames of the session before do not open any more
                Ok(None)
            }
            Ok(Opened::Nothing) => Ok(None),
            Err(refusal) => {
                // One of the two may have started again: whoever sees it says so, not too often.
                let is_session = matches!(refusal, Refusal::OtherSession | Refusal::NotAuthentic);
                if is_session && self.connected {
                    let soon = now_ms + HELLO_MS_MIN;
                    self.hello_ms = Some(self.hello_ms.map_or(soon, |due| due.min(soon)));
                }
                Err(refusal)
            }
        }
    }

    /// Whether messages of a live route in the frame that was opened last are newer than all that came
    /// before. A frame that a relay held back arrives after those that took another one: its messages
    /// are stale. Only for routes from the other node, since each is remembered.
    pub fn is_newest(&mut self, route: u64) -> bool {
        let number = self.session.opened();
        let newest = self.newest.entry(route).or_insert(number);
        *newest = number.max(*newest);
        *newest == number
    }

    /// The other node has asked whether this one is there.
    pub fn asked(&mut self) {
        self.is_asked = true;
    }

    /// A frame that asks the other node whether it is there, over whatever way; none while its boot
    /// is not known.
    pub fn probe(&mut self, now_ms: u64) -> Option<Vec<u8>> {
        self.seal(&Frame::Probe, now_ms)
    }

    /// What answers a hello that just came: it goes back the way by which that came.
    pub fn take_answer(&mut self) -> Option<Vec<u8>> {
        self.answers.pop()
    }

    /// Judges a batch that came.
    pub fn batch(&mut self, batch: &Batch<'_>) -> Verdict {
        self.receiver.batch(batch)
    }

    /// Takes an acknowledgement that came.
    pub fn acknowledged(&mut self, ack: &Ack, now_ms: u64) -> Acknowledged {
        let acknowledged = self.sender.acknowledged(ack, now_ms);
        self.unanswered_since_ms = self.sender.is_waiting().then_some(now_ms);
        acknowledged
    }

    /// What is to be sent beside messages: hellos and acknowledgements, sealed. Call it until there
    /// is nothing more.
    pub fn outgoing(&mut self, now_ms: u64) -> Option<Vec<u8>> {
        if !self.connected {
            return None;
        }
        if let Some(answer) = self.answers.pop() {
            return Some(answer);
        }
        if self.hello_ms.is_some_and(|due| due <= now_ms) {
            self.hello_ms = (!self.session.is_open()).then(|| now_ms + self.hello_pause_ms);
            self.hello_pause_ms = (2 * self.hello_pause_ms).min(HELLO_MS_MAX);
            if !self.session.is_open() {
                self.unanswered_since_ms.get_or_insert(now_ms);
            }
            return Some(self.session.hello());
        }
        if !self.session.is_open() {
            return None;
        }
        if self.is_due_to_ask(now_ms) {
            self.has_asked = true;
            self.wants_to_hear = false;
            self.unanswered_since_ms.get_or_insert(now_ms);
            return self.probe(now_ms);
        }
        let acks = self.receiver.acks();
        if acks.is_empty() && !self.is_asked {
            return None;
        }
        self.is_asked = false;
        self.seal(&Frame::Acks(acks), now_ms)
    }

    /// Live messages go out, and nothing comes back.
    fn is_due_to_ask(&self, now_ms: u64) -> bool {
        let heard_ms = self.last_heard_ms.unwrap_or(0);
        self.wants_to_hear && !self.has_asked && heard_ms.saturating_add(PROBE_MS) <= now_ms
    }

    /// What to read and send next, see [`Sender::next`].
    pub fn next(&mut self, now_ms: u64) -> Option<Want> {
        if !self.is_open() {
            return None;
        }
        self.sender.next(now_ms)
    }

    /// Encodes and seals a frame; none while the other node has not answered, or when it is larger
    /// than a frame may be.
    pub fn seal(&mut self, frame: &Frame<'_>, now_ms: u64) -> Option<Vec<u8>> {
        let bytes = frame::encode_to(frame, session::buffer(0)).ok()?;
        let sealed = self.session.seal_in_place(bytes)?;
        if matches!(frame, Frame::Batches(_)) {
            self.unanswered_since_ms.get_or_insert(now_ms);
        }
        self.wants_to_hear |= self.probes && matches!(frame, Frame::Live(_));
        Some(sealed)
    }

    /// When there is something to do although nothing has happened.
    pub fn wake_ms(&self) -> Option<u64> {
        let hello = self.hello_ms();
        hello.into_iter().chain(self.sender.wake_ms()).min()
    }

    /// When to say hello.
    pub fn hello_ms(&self) -> Option<u64> {
        self.hello_ms.filter(|_| self.connected)
    }

    fn may_renew(&self, now_ms: u64) -> bool {
        self.renewed
            .is_none_or(|(last_ms, pause_ms)| now_ms >= last_ms.saturating_add(pause_ms))
    }

    /// The session is void, and begins again with a fresh boot of this node.
    fn renewed(&mut self, now_ms: u64) {
        let pause_ms = match self.renewed {
            Some((last_ms, pause_ms)) if now_ms < last_ms.saturating_add(RENEW_CALM_MS) => {
                (2 * pause_ms).min(RENEW_MS_MAX)
            }
            _ => RENEW_MS_MIN,
        };
        self.renewed = Some((now_ms, pause_ms));
        self.unanswered_since_ms = None;
        self.has_asked = false;
        self.hello_pause_ms = HELLO_MS_MIN;
        // The announcement may be lost.
        self.hello_ms = self.connected.then_some(now_ms + HELLO_MS_MIN);
        self.sender.connected(false);
    }

    fn answer(&mut self, answer: Vec<u8>) {
        // One is enough: the newest says the same.
        self.answers.clear();
        self.answers.push(answer);
    }
}
