//! One directory tree with a quota: all descriptors below one granted directory share it. Decides
//! with a [`Ledger`] and walks the tree when that says that it is full, no more often than once a
//! second.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use haar_protocol::log::Level;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ledger::{Charge, Ledger};
use super::thread::FileThread;
use super::walk;
use crate::local_api::logging::Logger;
use crate::runtime::guest::Counters;

/// The shortest pause between two walks of one tree.
const WALK_PAUSE: Duration = Duration::from_secs(1);

/// The tree is full: what a guest is told as `error-code::quota`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the quota of the directory is used up")]
pub(super) struct QuotaExceeded;

/// What the account of a tree is opened with.
pub(super) struct Opening {
    /// The directory, opened for reading.
    pub(super) root: File,
    /// The guest's name of it, for people.
    pub(super) guest_path: String,
    /// Bytes that it may take.
    pub(super) limit: u64,
    /// True for the microservice's private directory, whose usage is shown.
    pub(super) is_private: bool,
    /// The microservice's thread for files, which walks the tree too.
    pub(super) thread: Arc<FileThread>,
}

/// See the head of this file.
pub(super) struct Account {
    opening: Opening,
    limit: AtomicU64,
    /// Taken by the instance's calls and by whoever walks the tree for it.
    book: Mutex<Book>,
    /// Told when a walk has ended.
    walked: Notify,
    counters: Arc<Counters>,
    logger: Logger,
}

#[derive(Default)]
struct Book {
    ledger: Ledger,
    /// Files and directories of the tree that are open: what they take is not free when they have
    /// lost their names.
    open: Vec<Weak<File>>,
    is_walking: bool,
    walked_at: Option<Instant>,
    has_complained: bool,
}

/// An operation that is under way. It ends with this value.
pub(super) struct UnderWay {
    account: Arc<Account>,
    charge: Charge,
}

impl UnderWay {
    /// Nothing came of it: its growth is given back.
    pub(super) fn undo(self) {
        let (account, growth) = (Arc::clone(&self.account), self.charge.growth);
        drop(self);
        account.credit(growth);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.account.book().ledger.settle(self.charge);
    }
}

impl Account {
    /// The account of a tree, which is walked once for that.
    pub(super) async fn open(
        opening: Opening,
        counters: Arc<Counters>,
        logger: Logger,
    ) -> Arc<Self> {
        let account = Arc::new(Self {
            limit: AtomicU64::new(opening.limit),
            opening,
            book: Mutex::default(),
            walked: Notify::new(),
            counters,
            logger,
        });
        account.begin_walk();
        account.wait_for_walk().await;
        account
    }

    /// Changes what the tree may take, if it is the private directory.
    pub(super) fn set_private_limit(&self, limit: u64) {
        if self.opening.is_private {
            self.limit.store(limit, Ordering::Relaxed);
        }
    }

    /// Makes room for an operation. When there is none, the tree is looked at once more: something
    /// may have been removed.
    ///
    /// # Errors
    /// When the tree is full all the same.
    pub(super) async fn charge(
        self: &Arc<Self>,
        charge: Charge,
    ) -> Result<UnderWay, QuotaExceeded> {
        if let Some(under_way) = self.try_charge(charge) {
            return Ok(under_way);
        }
        let limit = self.limit.load(Ordering::Relaxed);
        if charge.growth <= limit
            && self.look_again().await
            && let Some(under_way) = self.try_charge(charge)
        {
            return Ok(under_way);
        }
        let exceeded = &self.counters.exceeded.files_size;
        exceeded.fetch_add(1, Ordering::Relaxed);
        Err(QuotaExceeded)
    }

    /// Makes room for an operation, if there is room.
    pub(super) fn try_charge(self: &Arc<Self>, charge: Charge) -> Option<UnderWay> {
        let limit = self.limit.load(Ordering::Relaxed);
        let mut book = self.book();
        let is_allowed = book.ledger.charge(charge, limit);
        self.show(&book);
        drop(book);
        is_allowed.then(|| UnderWay {
            account: Arc::clone(self),
            charge,
        })
    }

    /// `bytes` of the tree are free again.
    pub(super) fn credit(&self, bytes: u64) {
        let mut book = self.book();
        book.ledger.credit(bytes);
        self.show(&book);
    }

    /// A name of something that took `bytes` was removed.
    pub(super) fn unlinked(&self, bytes: u64) {
        let mut book = self.book();
        // It takes its place for as long as somebody has it open, and that may be this one.
        book.open.retain(|file| file.strong_count() > 0);
        if book.open.is_empty() {
            book.ledger.credit(bytes);
        } else {
            book.ledger.removed();
        }
        self.show(&book);
    }

    /// Something may have been removed, or less was added than was charged.
    pub(super) fn freed(&self) {
        self.book().ledger.removed();
    }

    /// A file or directory of the tree was opened.
    pub(super) fn opened(&self, file: &Arc<File>) {
        let mut book = self.book();
        book.open.retain(|file| file.strong_count() > 0);
        book.open.push(Arc::downgrade(file));
    }

    /// Walks the tree when that may find room, or waits for a walk that is under way. False when
    /// nothing can be otherwise than it was.
    async fn look_again(self: &Arc<Self>) -> bool {
        let (is_walking, walked_at, may_find_less) = {
            let book = self.book();
            (book.is_walking, book.walked_at, book.ledger.may_find_less())
        };
        if !is_walking {
            let due = walked_at.map_or_else(Instant::now, |at| at + WALK_PAUSE);
            if due > Instant::now() && !may_find_less {
                return false;
            }
            tokio::time::sleep_until(due).await;
            self.begin_walk();
        }
        self.wait_for_walk().await;
        true
    }

    async fn wait_for_walk(&self) {
        let (thread, path) = (&self.opening.thread, &self.opening.guest_path);
        thread.run("measure", path, self.until_walked()).await;
    }

    /// Waits until no walk is under way.
    async fn until_walked(&self) {
        loop {
            let walked = self.walked.notified();
            if !self.book().is_walking {
                return;
            }
            walked.await;
        }
    }

    /// Has the tree walked on a thread that may block. Whoever asked for it need not wait: what was
    /// found is written down in any case.
    fn begin_walk(self: &Arc<Self>) {
        {
            let mut book = self.book();
            if book.is_walking {
                return;
            }
            book.is_walking = true;
        }
        let account = Arc::clone(self);
        if let Err(error) = self.opening.thread.begin_call(move || account.walk()) {
            self.note(Err(error));
        }
    }

    fn walk(&self) {
        let open: Vec<Arc<File>> = {
            let mut book = self.book();
            book.ledger.begin_walk();
            book.open.iter().filter_map(Weak::upgrade).collect()
        };
        let usage = walk::usage(&self.opening.root, &open);
        drop(open);
        self.note(usage);
    }

    /// Writes down what a walk has found.
    fn note(&self, usage: io::Result<u64>) {
        let mut book = self.book();
        match usage {
            Ok(bytes) => book.ledger.end_walk(bytes),
            Err(error) => {
                book.ledger.end_walk(u64::MAX);
                if !book.has_complained {
                    book.has_complained = true;
                    let text = format!(
                        "what {} takes can't be measured, so nothing more is written there: {error}",
                        self.opening.guest_path
                    );
                    self.logger.agent(Level::Error, &text);
                }
            }
        }
        book.is_walking = false;
        book.walked_at = Some(Instant::now());
        self.show(&book);
        drop(book);
        self.walked.notify_waiters();
    }

    fn show(&self, book: &Book) {
        let used = book.ledger.used();
        let is_known = used < u64::MAX;
        if self.opening.is_private && is_known {
            self.counters.files_bytes.store(used, Ordering::Relaxed);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
