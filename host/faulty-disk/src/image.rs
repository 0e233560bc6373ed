//! What is on a disk: what is durable of each file, and what waits for a sync. No I/O but what a
//! power cut writes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{Failure, Operation};

/// How long a test waits until a sync waits.
const DEADLINE: Duration = Duration::from_secs(60);
/// A sector is written as a whole, or not.
const SECTOR_BYTES: usize = 512;

/// The disks that are watched, by directory. Taken for each operation, and by tests between them.
static DISKS: Mutex<BTreeMap<PathBuf, Image>> = Mutex::new(BTreeMap::new());

/// The disks whose syncs wait, and how many wait. Taken by each sync, and by tests; never together with
/// [`DISKS`].
static STALLED: Mutex<(BTreeSet<PathBuf>, usize)> = Mutex::new((BTreeSet::new(), 0));
/// What is stalled has changed.
static STALLS: Condvar = Condvar::new();

/// What is to be done with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is done.
    Do,
    /// Half of it is done, and then it fails.
    DoHalf,
    /// It fails.
    Fail,
    /// There is no room for it.
    NoRoom,
}

/// One disk.
#[derive(Debug, Default)]
pub(crate) struct Image {
    files: BTreeMap<PathBuf, FileImage>,
    operations: Vec<Operation>,
    failure: Option<(usize, Failure)>,
    has_failed: bool,
    is_dead: bool,
}

#[derive(Debug, Default)]
struct FileImage {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

fn disks() -> MutexGuard<'static, BTreeMap<PathBuf, Image>> {
    DISKS.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn watch(directory: &Path) {
    disks().insert(directory.to_owned(), Image::default());
}

pub(crate) fn forget(directory: &Path) {
    disks().remove(directory);
}

/// Has syncs of the disk wait, or go on.
pub(crate) fn stall(directory: &Path, is_stalled: bool) {
    let mut stalled = STALLED.lock().unwrap_or_else(PoisonError::into_inner);
    match is_stalled {
        true => _ = stalled.0.insert(directory.to_owned()),
        false => _ = stalled.0.remove(directory),
    }
    STALLS.notify_all();
}

/// Waits until a sync of the disk waits.
pub(crate) fn until_stalled() {
    let stalled = STALLED.lock().unwrap_or_else(PoisonError::into_inner);
    let nobody = |(_, waiting): &mut (BTreeSet<PathBuf>, usize)| *waiting == 0;
    let waited = STALLS.wait_timeout_while(stalled, DEADLINE, nobody);
    let (stalled, _) = waited.unwrap_or_else(PoisonError::into_inner);
    assert!(stalled.1 > 0, "nobody waits for the disk");
}

/// Waits while syncs of the disk that a file is on do.
pub(crate) fn wait(file: &Path) {
    let mut stalled = STALLED.lock().unwrap_or_else(PoisonError::into_inner);
    let is_stalled = |disks: &BTreeSet<PathBuf>| file.parent().is_some_and(|at| disks.contains(at));
    if !is_stalled(&stalled.0) {
        return;
    }
    stalled.1 += 1;
    STALLS.notify_all();
    let mut stalled = STALLS
        .wait_while(stalled, |(disks, _)| is_stalled(disks))
        .unwrap_or_else(PoisonError::into_inner);
    stalled.1 -= 1;
}

/// Calls `work` with the disk of a directory.
pub(crate) fn with<T>(directory: &Path, work: impl FnOnce(&mut Image) -> T) -> T {
    let mut disks = disks();
    work(disks.get_mut(directory).expect("the disk is watched"))
}

/// The same with the disk that a file is on, if that is watched.
pub(crate) fn with_file<T>(file: &Path, work: impl FnOnce(&mut Image) -> T) -> Option<T> {
    disks().get_mut(file.parent()?).map(work)
}

impl Image {
    pub(crate) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    pub(crate) fn fail_at(&mut self, index: usize, failure: Failure) {
        self.failure = Some((index, failure));
    }

    pub(crate) fn kill(&mut self) {
        self.is_dead = true;
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    pub(crate) fn repair(&mut self) {
        self.failure = None;
        self.is_dead = false;
    }

    /// A file is opened.
    pub(crate) fn opened(&mut self, file: &Path) {
        self.files
            .entry(file.to_owned())
            .or_insert_with(|| FileImage {
                durable: std::fs::read(file).unwrap_or_default(),
                pending: Vec::new(),
            });
    }

    /// Counts an operation that is about to be done.
    pub(crate) fn verdict(&mut self, file: &Path, operation: Operation) -> Verdict {
        if self.is_dead {
            return Verdict::Fail;
        }
        let index = self.operations.len();
        self.operations.push(operation);
        let Some((at, failure)) = self.failure else {
            return Verdict::Do;
        };
        let is_here = at == index;
        let verdict = match failure {
            Failure::Death | Failure::TornDeath if is_here => {
                self.is_dead = true;
                match (failure, operation) {
                    (Failure::TornDeath, Operation::Write) => Verdict::DoHalf,
                    _ => Verdict::Fail,
                }
            }
            Failure::Sync if is_here && operation == Operation::Sync => Verdict::Fail,
            Failure::EverySync if at <= index && operation == Operation::Sync => Verdict::Fail,
            Failure::Full if is_here && operation == Operation::Write => Verdict::NoRoom,
            Failure::EveryFull if at <= index && operation == Operation::Write => Verdict::NoRoom,
            _ => Verdict::Do,
        };
        self.has_failed |= verdict != Verdict::Do;
        if verdict == Verdict::Fail && operation == Operation::Sync && !self.is_dead {
            self.file(file).pending.clear();
        }
        verdict
    }

    pub(crate) fn written(&mut self, file: &Path, offset: usize, bytes: &[u8]) {
        let change = Change::Write(offset, bytes.to_vec());
        self.file(file).pending.push(change);
    }

    pub(crate) fn truncated(&mut self, file: &Path, length: usize) {
        self.file(file).pending.push(Change::Truncate(length));
    }

    pub(crate) fn synced(&mut self, file: &Path) {
        let file = self.file(file);
        for change in std::mem::take(&mut file.pending) {
            change.apply(&mut file.durable);
        }
    }

    pub(crate) fn deleted(&mut self, file: &Path) {
        self.files.remove(file);
    }

    pub(crate) fn cut_power(&mut self, seed: u64) {
        let mut chance = Chance(seed);
        for (path, file) in &mut self.files {
            for change in std::mem::take(&mut file.pending) {
                change.apply_by_chance(&mut file.durable, &mut chance);
            }
            std::fs::write(path, &file.durable).expect("a test's file can be written");
        }
        self.repair();
    }

    fn file(&mut self, file: &Path) -> &mut FileImage {
        self.files.entry(file.to_owned()).or_default()
    }
}

impl Change {
    fn apply(self, content: &mut Vec<u8>) {
        match self {
            Change::Write(offset, bytes) => put(content, offset, &bytes),
            Change::Truncate(length) => content.resize(length, 0),
        }
    }

    /// A third is done, a third is not, and of a third this sector and not that one.
    fn apply_by_chance(self, content: &mut Vec<u8>, chance: &mut Chance) {
        match (chance.next() % 3, self) {
            (0, change) => change.apply(content),
            (1, _) | (_, Change::Truncate(_)) => {}
            (_, Change::Write(offset, bytes)) => {
                let mut at = 0;
                while at < bytes.len() {
                    let length = SECTOR_BYTES - (offset + at) % SECTOR_BYTES;
                    let end = bytes.len().min(at + length);
                    if chance.next().is_multiple_of(2) {
                        put(content, offset + at, &bytes[at..end]);
                    }
                    at = end;
                }
            }
        }
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

/// Numbers by chance that are the same for the same seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}
