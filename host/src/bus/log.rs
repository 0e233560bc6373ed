//! Logs in use: what the node's store has of a durable outlet, or of a durable route from another
//! node, with the newest messages at hand, so that who keeps up never reads the disk.

mod recent;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use haar_link::runs::{Runs, epoch_after};
use tokio::sync::Notify;

pub use self::recent::Held;
use self::recent::Recent;
use super::inbox::Inbox;
use super::message::{Message, Source};
use super::overflow::Overflow;
use crate::store::Store;
use crate::store::log::{Advance, Consumer, LogId, Logged, OpenLog};

/// When consumers have passed so many messages, the store hears of it before its time: what they need
/// no more is deleted before it is moved.
const PASSED_MESSAGES: u64 = 1_000;
/// The same when what logs hold in memory tells that messages are large.
const PASSED_MESSAGES_LARGE: u64 = 200;

/// A log in use. It lives on from route table to route table.
#[derive(Debug)]
pub struct Log {
    /// Names it in the store.
    pub id: LogId,
    /// Where its messages come from.
    pub source: Arc<Source>,
    /// The most bytes that it may take.
    limit_bytes: AtomicU64,
    /// The oldest messages make room when it is full.
    drops_oldest: AtomicBool,
    /// What it takes on the disk, roughly.
    bytes: AtomicU64,
    /// What did not fit.
    pub overflow: Overflow,
    /// Position of the last message.
    head: AtomicU64,
    /// Taken by the thread of the store after a commit, and by who reads, never across an await.
    recent: Mutex<Recent>,
    held: Held,
    listeners: Mutex<Vec<Listener>>,
}

/// Who is told that there is more.
#[derive(Debug, Clone)]
pub enum Listener {
    /// An inlet's inbox.
    Inbox(Arc<Inbox>),
    /// The link to, or from, another node.
    Link(Arc<Notify>),
}

impl Listener {
    fn tell(&self) {
        match self {
            Listener::Inbox(inbox) => inbox.tell(),
            Listener::Link(link) => link.notify_one(),
        }
    }
}

impl Log {
    /// A log as the store has it. It may take `limit_bytes`, and refuses what is more. What it holds
    /// in memory counts among what all logs hold.
    pub fn new(open: &OpenLog, source: Arc<Source>, limit_bytes: u64, held: Held) -> Self {
        let needed = open.consumers.iter().map(|(_, bytes)| *bytes).max();
        Self {
            id: open.id,
            source,
            limit_bytes: AtomicU64::new(limit_bytes),
            drops_oldest: AtomicBool::new(false),
            bytes: AtomicU64::new(needed.unwrap_or(0)),
            overflow: Overflow::default(),
            head: AtomicU64::new(open.head),
            recent: Mutex::new(Recent::new(runs(open), held.clone())),
            held,
            listeners: Mutex::default(),
        }
    }

    /// Position of the last message.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Makes another run of what waits in it: see [`Store::renew_log`]. `fresh` is an epoch of now.
    ///
    /// # Errors
    /// When the store can't be written.
    pub async fn renew(&self, store: &Store, fresh: u64) -> anyhow::Result<()> {
        let last = self.runs().last().map_or(0, |run| run.epoch);
        let epoch = epoch_after(last, fresh);
        store.renew_log(self.id, epoch).await?;
        let mut recent = self.recent();
        recent.runs = Runs::new();
        recent.runs.reached(epoch, self.head());
        Ok(())
    }

    /// Its runs. The last one of a log to which this node appends goes on.
    pub fn runs(&self) -> Runs {
        self.recent().runs.clone()
    }

    /// Changes how much it may take, and what happens to more.
    pub fn set_limit(&self, bytes: u64, drops_oldest: bool) {
        self.limit_bytes.store(bytes, Ordering::Relaxed);
        self.drops_oldest.store(drops_oldest, Ordering::Relaxed);
        self.look_for_room();
    }

    /// True when the oldest messages make room for new ones.
    pub fn drops_oldest(&self) -> bool {
        self.drops_oldest.load(Ordering::Relaxed)
    }

    /// Bytes that still fit.
    pub fn room(&self) -> u64 {
        self.limit_bytes().saturating_sub(self.bytes())
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn look_for_room(&self) {
        if self.bytes() <= self.limit_bytes() / 2 {
            self.overflow.end();
        }
    }

    /// Bytes that it may take in all.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes.load(Ordering::Relaxed)
    }

    /// Sets bytes aside for messages that are about to be stored. False when they do not fit.
    pub fn reserve(&self, bytes: u64) -> bool {
        let fits = |held: u64| {
            let after = held.checked_add(bytes)?;
            (after <= self.limit_bytes()).then_some(after)
        };
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        self.bytes.fetch_update(set, get, fits).is_ok()
    }

    /// Gives back what was set aside, or what was deleted.
    pub fn release(&self, bytes: u64) {
        let less = |held: u64| Some(held.saturating_sub(bytes));
        let _ = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.look_for_room();
        for listener in self.listeners().iter() {
            if let Listener::Link(link) = listener {
                link.notify_one(); // it may have been waiting for room
            }
        }
    }

    /// Nobody needs anything up to this position any more.
    fn forget(&self, upto: u64) {
        self.recent().forget(upto);
    }

    /// Counts what was stored without asking: what comes from another node.
    pub fn occupy(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Messages are on the disk since `stored_ms`, the first one at position `first`. `epoch` names the run
    /// of those that came from another node.
    pub fn committed(
        &self,
        first: u64,
        messages: impl IntoIterator<Item = Arc<Message>>,
        epoch: Option<u64>,
        stored_ms: u64,
    ) {
        let mut position = first;
        let mut recent = self.recent();
        for message in messages {
            if let Some(epoch) = epoch {
                recent.runs.reached(epoch, message.sequence);
            }
            recent.add(Logged {
                position,
                message,
                stored_ms,
            });
            position += 1;
        }
        self.head.fetch_max(position - 1, Ordering::Release);
        drop(recent);
        for listener in self.listeners().iter() {
            listener.tell();
        }
    }

    /// Tells these, and nobody else, from now on.
    pub fn set_listeners(&self, listeners: Vec<Listener>) {
        *self.listeners() = listeners;
    }

    /// Messages after a position as [`read`](Self::read) gives them; none when the store has to be
    /// read for them.
    pub fn at_hand(&self, after: u64, bytes: u64) -> Option<Vec<Logged>> {
        self.recent().after(after, bytes)
    }

    /// Messages after a position, see [`Store::read_log`].
    ///
    /// # Errors
    /// When they are not at hand, and the store can't be read.
    pub async fn read(&self, store: &Store, after: u64, bytes: u64) -> anyhow::Result<Vec<Logged>> {
        match self.at_hand(after, bytes) {
            Some(messages) => Ok(messages),
            None => {
                let source = Arc::clone(&self.source);
                store.read_log(self.id, after, bytes, source).await
            }
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The runs of a log that is taken into use.
fn runs(open: &OpenLog) -> Runs {
    let mut runs = open.runs.clone();
    if let Some(epoch) = open.own_run {
        runs.reached(epoch, open.head);
    }
    runs
}

/// A consumer of a log in use: how far it is.
#[derive(Debug)]
pub struct Reader {
    /// The log.
    pub log: Arc<Log>,
    /// Who it is.
    pub consumer: Consumer,
    /// It needs nothing up to here.
    base: AtomicU64,
    /// The last message that was found expired.
    expired: AtomicU64,
    is_noted: AtomicBool,
    bases: Arc<Bases>,
}

/// Readers whose bases the store does not know yet.
#[derive(Debug, Default)]
pub struct Bases {
    noted: Mutex<Vec<Arc<Reader>>>,
    arrived: Notify,
    /// Messages that were passed since the store was told.
    passed: AtomicU64,
    many: Notify,
}

impl Reader {
    /// As the store has it.
    pub fn new(log: Arc<Log>, consumer: Consumer, base: u64, bases: Arc<Bases>) -> Self {
        Self {
            log,
            consumer,
            base: AtomicU64::new(base),
            expired: AtomicU64::new(0),
            is_noted: AtomicBool::new(false),
            bases,
        }
    }

    /// It needs nothing up to here.
    pub fn base(&self) -> u64 {
        self.base.load(Ordering::Relaxed)
    }

    /// The message at `position` has expired. True the first time: what is sent again is read again.
    pub fn expired(&self, position: u64) -> bool {
        self.expired.fetch_max(position, Ordering::Relaxed) < position
    }

    /// Nothing up to `base` is there any more; the store knows. Returns where it was.
    pub fn skip_to(&self, base: u64) -> u64 {
        self.base.fetch_max(base, Ordering::Relaxed)
    }

    /// It needs nothing up to `base` any more. The store hears of it in a while: after a power cut
    /// it may get messages again that it has had.
    pub fn advance(self: &Arc<Self>, base: u64) {
        let before = self.base.fetch_max(base, Ordering::Relaxed);
        let passed = base.saturating_sub(before);
        let passed = self.bases.passed.fetch_add(passed, Ordering::Relaxed) + passed;
        let many = match self.log.held.is_much() {
            true => PASSED_MESSAGES_LARGE,
            false => PASSED_MESSAGES,
        };
        if passed >= many {
            self.bases.many.notify_one();
        }
        if !self.is_noted.swap(true, Ordering::AcqRel) {
            self.bases.noted().push(Arc::clone(self));
            self.bases.arrived.notify_one();
        }
    }
}

impl Bases {
    /// Waits until there is something to store.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Waits until it is so much that it should be stored now.
    pub async fn many(&self) {
        self.many.notified().await;
    }

    /// Stores what was noted, and deletes what nobody needs. What could not be stored is noted again.
    ///
    /// # Errors
    /// When the store can't be written.
    pub async fn store(&self, store: &Store) -> anyhow::Result<()> {
        let readers = std::mem::take(&mut *self.noted());
        self.passed.store(0, Ordering::Relaxed);
        if readers.is_empty() {
            return Ok(());
        }
        let advances = readers
            .iter()
            .map(|reader| {
                reader.is_noted.store(false, Ordering::Release);
                Advance {
                    log: reader.log.id,
                    consumer: reader.consumer.clone(),
                    base: reader.base(),
                }
            })
            .collect();
        match store.advance(advances).await {
            Ok(deleted) => {
                for (reader, deleted) in readers.iter().zip(deleted) {
                    reader.log.forget(deleted.upto);
                    reader.log.release(deleted.bytes);
                }
            }
            Err(error) => {
                for reader in readers {
                    reader.advance(0);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn noted(&self) -> MutexGuard<'_, Vec<Arc<Reader>>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
