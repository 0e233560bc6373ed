//! A disk for tests, below SQLite. It counts what changes files, fails where a test says, and knows
//! what would be left after a power cut: what was synced, and by chance this and that of the rest.
//!
//! A database changes its files by these operations and no other, so a process that is killed was
//! killed between two of them: failing before each one in turn goes through every point where a
//! crash can hit, whatever the code above looks like. Only tests use this crate.
//!
//! ```text
//! SQLite ─ write, truncate, sync, delete ─► shim ─► the real file
//!                                            └────► image: what is durable, and what waits for a sync
//! ```

mod image;
mod shim;

use std::path::{Path, PathBuf};

/// What changes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Bytes are written.
    Write,
    /// It is made shorter.
    Truncate,
    /// What was written is to be on the disk.
    Sync,
    /// It is deleted.
    Delete,
}

/// What goes wrong at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The process is killed before it: from here on nothing reaches a file.
    Death,
    /// The process is killed in the middle of it: half of a write is done.
    TornDeath,
    /// A sync says that it failed. What was to be synced stays visible until the power is cut, and
    /// no later sync writes it (as Linux does: the pages count as clean). Other operations succeed.
    Sync,
    /// The same for this sync and all later ones.
    EverySync,
    /// The disk is full for this write. Other operations succeed.
    Full,
    /// The same for this write and all later ones.
    EveryFull,
}

/// The disk that a directory is on, for databases that are opened while this value lives.
#[derive(Debug)]
pub struct Disk {
    directory: PathBuf,
}

impl Disk {
    /// The disk of a directory. Files that are in it already are taken for synced.
    ///
    /// # Panics
    /// When the directory is not there.
    pub fn of(directory: &Path) -> Self {
        let directory = directory.canonicalize().expect("the directory is there");
        shim::install();
        image::watch(&directory);
        Self { directory }
    }

    /// What was done until now.
    pub fn operations(&self) -> Vec<Operation> {
        image::with(&self.directory, |image| image.operations().to_vec())
    }

    /// Has the operation at `index`, counted from 0, fail.
    pub fn fail_at(&self, index: usize, failure: Failure) {
        image::with(&self.directory, |image| image.fail_at(index, failure));
    }

    /// The process is killed: from here on nothing reaches a file.
    pub fn kill(&self) {
        image::with(&self.directory, image::Image::kill);
    }

    /// Has syncs wait until the answer is dropped: the disk does not answer.
    pub fn stall(&self) -> Stall<'_> {
        image::stall(&self.directory, true);
        Stall(self)
    }

    /// Whether something has failed.
    pub fn has_failed(&self) -> bool {
        image::with(&self.directory, |image| image.has_failed())
    }

    /// It works again, as it is. Close its databases before.
    pub fn repair(&self) {
        image::with(&self.directory, |image| image.repair());
    }

    /// The power is cut: files are what was synced, and by a chance that the seed decides, sector by
    /// sector, what was not. Then it works again. Close its databases before.
    ///
    /// # Panics
    /// When a file can't be written.
    pub fn cut_power(&self, seed: u64) {
        image::with(&self.directory, |image| image.cut_power(seed));
    }
}

/// A disk whose syncs wait.
#[derive(Debug)]
pub struct Stall<'d>(&'d Disk);

impl Stall<'_> {
    /// Waits until a sync waits. Blocks.
    pub fn until_somebody_waits(&self) {
        image::until_stalled();
    }
}

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        image::stall(&self.0.directory, false);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        image::forget(&self.directory);
    }
}

#[cfg(test)]
mod tests;
