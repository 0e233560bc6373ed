//! The runs of a log. A *run* is what one start of an agent appended to a log; its *epoch* names it,
//! and contains enough randomness that two copies of a node never draw the same. Messages are
//! identified by run and sequence, so those of two copies are told apart although both count on from
//! the same number, and the common past of both is recognised whichever of them sends it.

/// Runs of one log that are known. What is sent again of one that had to make room is taken for new;
/// of a node's own log, a run that had to make room is joined with the one after it.
pub const RUNS_MAX: usize = 32;
/// The largest epoch that is taken: SQLite has no larger numbers.
pub const EPOCH_MAX: u64 = u64::MAX >> 1;

/// Bits of an epoch that are random; the others are milliseconds. So two copies draw the same epoch
/// once in a million times that both start in the same millisecond.
const RANDOM_BITS: u32 = 20;
const RANDOM_MASK: u64 = (1 << RANDOM_BITS) - 1;

/// A run, and how far it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Names the run.
    pub epoch: u64,
    /// Sequence of its last message; for a receiver, of the last one that it has.
    pub upto: u64,
}

/// The epoch of a run that begins now. Later ones are larger where the clock goes on, and larger than
/// those of releases that took the time in milliseconds.
pub fn epoch(now_ms: u64, random: u32) -> u64 {
    let now_ms = now_ms.min(EPOCH_MAX >> RANDOM_BITS);
    (now_ms << RANDOM_BITS) | (u64::from(random) & RANDOM_MASK)
}

/// An epoch that is larger than `last`: `fresh`, or one with the same randomness where the clock went
/// back.
pub fn epoch_after(last: u64, fresh: u64) -> u64 {
    if fresh > last {
        return fresh;
    }
    let later = (last >> RANDOM_BITS).saturating_add(1);
    ((later << RANDOM_BITS) | (fresh & RANDOM_MASK)).min(EPOCH_MAX)
}

/// The runs of a log: of one that came from another node, as far as each is there, the most recently
/// used last; of a node's own, those of which messages wait, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs(Vec<Run>);

impl Runs {
    /// None yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// How far a run goes; none when nothing is known of it.
    pub fn upto(&self, epoch: u64) -> Option<u64> {
        let mut runs = self.0.iter();
        runs.find(|run| run.epoch == epoch).map(|run| run.upto)
    }

    /// The one that was used last.
    pub fn last(&self) -> Option<Run> {
        self.0.last().copied()
    }

    /// All of them, the most recently used last.
    pub fn iter(&self) -> impl Iterator<Item = Run> {
        self.0.iter().copied()
    }

    /// A run goes as far as this, or farther; it is the most recently used. One too many takes the
    /// place of the second: something of the first may be on its way.
    pub fn reached(&mut self, epoch: u64, upto: u64) {
        let mut run = Run { epoch, upto };
        let known = self.0.iter().position(|one| one.epoch == epoch);
        if let Some(index) = known {
            run.upto = upto.max(self.0.remove(index).upto);
        }
        if self.0.len() >= RUNS_MAX {
            self.0.remove(1);
        }
        self.0.push(run);
    }

    /// Nothing up to `base` is needed: forgets the runs that end there, but not the last one.
    pub fn pass(&mut self, base: u64) {
        let last = self.last();
        self.0.retain(|run| run.upto > base || Some(*run) == last);
    }
}

impl FromIterator<Run> for Runs {
    fn from_iter<I: IntoIterator<Item = Run>>(runs: I) -> Self {
        let mut all = Self::new();
        for run in runs {
            all.reached(run.epoch, run.upto);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_run_of_this_release_is_newer_than_one_of_the_last() {
        let now_ms = 1_700_000_000_000;
        assert!(epoch(now_ms, 0) > now_ms);
        assert_eq!(epoch_after(now_ms, epoch(now_ms, 7)), epoch(now_ms, 7));
    }

    #[test]
    fn runs_are_bounded_and_never_go_back() {
        let mut runs = Runs::new();
        for epoch in 0..RUNS_MAX as u64 {
            runs.reached(epoch, 10 * epoch);
        }
        runs.reached(3, 5);
        assert_eq!(runs.upto(3), Some(30), "it never goes back");
        runs.reached(1_000, 1_000);
        assert_eq!((runs.upto(0), runs.upto(1)), (Some(0), None));
        assert_eq!(runs.iter().count(), RUNS_MAX);
        assert_eq!(runs.last().map(|run| run.epoch), Some(1_000));
        runs.pass(1_000);
        assert_eq!(runs.iter().count(), 1, "the last one stays");
    }

    proptest! {
        #[test]
        fn the_next_epoch_is_larger_and_keeps_its_randomness(last in 0..EPOCH_MAX >> 1, now_ms in 0..1u64 << 43, random: u32) {
            let next = epoch_after(last, epoch(now_ms, random));
            prop_assert!(next > last && next <= EPOCH_MAX);
            prop_assert_eq!(next & RANDOM_MASK, u64::from(random) & RANDOM_MASK);
        }
    }
}
