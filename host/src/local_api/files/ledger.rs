//! What a directory tree takes, as far as it is known: never less than the truth. Pure; the
//! [`super::account::Account`] keeps one behind a lock.
//!
//! ```text
//!  charge ─► used + growth ≤ limit ? ─► used grows, the operation is under way ─► settle
//!                    └─ no ─► walk ─► used = what was found + what may have been added meanwhile
//! ```

/// What everything in the tree is rounded up to, in bytes, and what an empty file takes.
pub(super) const BLOCK: u64 = 4_096;

/// What a file of `size` bytes takes.
pub(super) fn blocks(size: u64) -> u64 {
    size.checked_next_multiple_of(BLOCK)
        .unwrap_or(u64::MAX)
        .max(BLOCK)
}

/// What an operation may add to the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Charge {
    /// By how much it grows the tree, as the tree is now.
    pub(super) growth: u64,
    /// By how much it grows the tree at most while others are under way that may grow it too.
    pub(super) growth_beside_others: u64,
    /// By how much it grows the tree at most, whatever happens to the tree before it is done.
    pub(super) reach: u64,
}

impl Charge {
    /// Making a file, a directory or a link.
    pub(super) const ENTRY: Self = Self {
        growth: BLOCK,
        growth_beside_others: BLOCK,
        reach: BLOCK,
    };

    /// Making a file that has `size` bytes at least `end` bytes long. What lies between the end
    /// of the file and what is written counts too, although a file system may not store it.
    pub(super) fn up_to(size: u64, end: u64) -> Self {
        let growth = blocks(size.max(end)) - blocks(size);
        Self {
            growth,
            growth_beside_others: growth, // less, when the file grows before
            reach: blocks(end),
        }
    }

    /// Adding `bytes` to a file that has `size` now, however large it is by then.
    pub(super) fn append(size: u64, bytes: u64) -> Self {
        let most = if bytes == 0 { 0 } else { blocks(bytes) };
        Self {
            growth: blocks(size.saturating_add(bytes)) - blocks(size),
            growth_beside_others: most,
            reach: most,
        }
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// What the tree takes at most.
    used: u64,
    /// What the operations that are under way may still add.
    under_way: u64,
    /// While the tree is walked: what may have been added since the walk began.
    since: Option<u64>,
    /// Something was removed, and it is not known how much that has freed.
    freed: bool,
}

impl Ledger {
    /// What the tree takes at most.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// True when a walk may find less than what is written here.
    pub(super) fn may_find_less(&self) -> bool {
        self.freed
    }

    /// Writes an operation down that is about to begin. False when there is no room for it.
    pub(super) fn charge(&mut self, charge: Charge, limit: u64) -> bool {
        // What does not grow the tree is allowed even when the limit has been lowered below it.
        let growth = if self.under_way > 0 {
            charge.growth_beside_others
        } else {
            charge.growth
        };
        let used = self.used.saturating_add(growth);
        if growth > 0 && used > limit {
            return false;
        }
        self.used = used;
        self.freed |= growth > charge.growth;
        self.under_way = self.under_way.saturating_add(charge.reach);
        if let Some(since) = &mut self.since {
            *since = since.saturating_add(charge.reach);
        }
        true
    }

    /// The operation has ended.
    pub(super) fn settle(&mut self, charge: Charge) {
        self.under_way = self.under_way.saturating_sub(charge.reach);
    }

    /// Something was removed that took `bytes`, which are free now.
    pub(super) fn credit(&mut self, bytes: u64) {
        // What is under way may bring back what was removed: only a walk can tell.
        if self.under_way > 0 || self.since.is_some() {
            self.freed = true;
        } else {
            self.used = self.used.saturating_sub(bytes);
        }
    }

    /// Something was removed, and only a walk tells what that has freed.
    pub(super) fn removed(&mut self) {
        self.freed = true;
    }

    /// The tree is about to be walked.
    pub(super) fn begin_walk(&mut self) {
        self.since = Some(self.under_way);
        self.freed = false;
    }

    /// The walk has found so much.
    pub(super) fn end_walk(&mut self, found: u64) {
        let since = self.since.take().unwrap_or_default();
        self.used = found.saturating_add(since);
        // What was added meanwhile was perhaps found too: the next walk may find less.
        self.freed |= since > 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: u64 = 64 * BLOCK;

    #[test]
    fn a_small_file_takes_a_block_and_its_growth_is_the_blocks_that_it_gains() {
        assert_eq!(
            [0, 1, 4_096, 4_097].map(blocks),
            [BLOCK, BLOCK, BLOCK, 2 * BLOCK]
        );
        assert_eq!(Charge::up_to(10, 4_096).growth, 0);
        assert_eq!(Charge::up_to(0, 1 << 30).growth, (1 << 30) - BLOCK);
        assert_eq!(Charge::up_to(1 << 30, 10).growth, 0);
        assert_eq!(blocks(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_full_tree_refuses_growth_and_allows_what_grows_nothing() {
        let mut ledger = Ledger::default();
        ledger.begin_walk();
        ledger.end_walk(LIMIT);
        assert!(!ledger.charge(Charge::ENTRY, LIMIT));
        assert!(ledger.charge(Charge::up_to(BLOCK, 100), LIMIT));
    }

    /// What a guest and its host do to a tree of four files.
    #[derive(Debug, Clone)]
    enum Step {
        Begin { file: usize, end: u64 },
        BeginAppend { file: usize, bytes: u64 },
        Finish,
        Truncate { file: usize, size: u64 },
        BeginWalk,
        EndWalk,
    }

    fn step() -> impl Strategy<Value = Step> {
        let file = 0..4_usize;
        let size = 0..20 * BLOCK;
        prop_oneof![
            (file.clone(), size.clone()).prop_map(|(file, end)| Step::Begin { file, end }),
            (file.clone(), 0..3 * BLOCK)
                .prop_map(|(file, bytes)| Step::BeginAppend { file, bytes }),
            Just(Step::Finish),
            (file, size).prop_map(|(file, size)| Step::Truncate { file, size }),
            Just(Step::BeginWalk),
            Just(Step::EndWalk),
        ]
    }

    proptest! {
        #[test]
        fn the_tree_never_takes_more_than_is_written_nor_than_the_limit(
            steps in proptest::collection::vec(step(), 0..200),
        ) {
            let mut ledger = Ledger::default();
            let mut sizes = [0_u64; 4];
            let mut under_way = std::collections::VecDeque::new();
            // A walk sees each file at some moment between its begin and its end: the worst is
            // that it sees each one as small as it ever was.
            let mut seen: Option<[u64; 4]> = None;
            ledger.begin_walk();
            ledger.end_walk(4 * BLOCK);
            for step in steps {
                match step {
                    Step::Begin { file, end } => {
                        let charge = Charge::up_to(sizes[file], end);
                        if ledger.charge(charge, LIMIT) {
                            under_way.push_back((file, Some(end), 0, charge));
                        }
                    }
                    Step::BeginAppend { file, bytes } => {
                        let charge = Charge::append(sizes[file], bytes);
                        if ledger.charge(charge, LIMIT) {
                            under_way.push_back((file, None, bytes, charge));
                        }
                    }
                    Step::Finish => {
                        if let Some((file, end, more, charge)) = under_way.pop_front() {
                            let end = end.unwrap_or(sizes[file] + more);
                            sizes[file] = sizes[file].max(end);
                            ledger.settle(charge);
                        }
                    }
                    Step::Truncate { file, size } if size < sizes[file] => {
                        let freed = blocks(sizes[file]) - blocks(size);
                        sizes[file] = size;
                        ledger.credit(freed);
                    }
                    Step::Truncate { .. } => {}
                    Step::BeginWalk if seen.is_none() => {
                        ledger.begin_walk();
                        seen = Some(sizes);
                    }
                    Step::BeginWalk => {}
                    Step::EndWalk => {
                        if let Some(seen) = seen.take() {
                            ledger.end_walk(seen.into_iter().map(blocks).sum());
                        }
                    }
                }
                if let Some(seen) = &mut seen {
                    for (seen, size) in seen.iter_mut().zip(sizes) {
                        *seen = (*seen).min(size);
                    }
                }
                let truth: u64 = sizes.into_iter().map(blocks).sum();
                prop_assert!(truth <= LIMIT, "{truth} over the limit");
                if seen.is_none() && under_way.is_empty() {
                    prop_assert!(truth <= ledger.used(), "{truth} > {}", ledger.used());
                }
            }
        }
    }
}
