//! Compares what one publisher stored with what one receiver handled, and counts what must not be.
//! Pure: journals in, numbers out.
//!
//! What it knows does not come from what it checks: the publisher numbers its messages itself and
//! writes down, outside of the agent's store, what it was told of each. So a store that forgets
//! messages, and gives their sequences to others, is seen, where a look at sequences alone sees
//! nothing. Repeats are followed entry by entry: they may begin only where an instance began, and
//! must then go through everything up to where the one before it was.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::journals::{Entry, Fate, Published, Receipt};

/// What came of one route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Messages that the publisher was told are stored.
    pub(crate) stored: u64,
    /// Messages that it was told are not.
    pub(crate) refused: u64,
    /// Messages of which it was told nothing, because something ended.
    pub(crate) unknown: u64,
    /// Different messages that were handled.
    pub(crate) handled: u64,
    /// Messages that were handled again, as a further attempt, after a new instance began.
    pub(crate) repeats: u64,
    /// Messages that the receiver rejected, so that they come again.
    pub(crate) rejected: u64,
    /// Stored, and never handled.
    pub(crate) lost: u64,
    /// Handled after one that was published later, or out of turn among the repeats.
    pub(crate) disordered: u64,
    /// Handled again without a reason, or as if for the first time.
    pub(crate) unexplained: u64,
    /// Handled, though they were refused or never published.
    pub(crate) invented: u64,
    /// With another sequence than the publisher was told, or one that does not follow.
    pub(crate) misnumbered: u64,
    /// With another content than was published.
    pub(crate) damaged: u64,
}

impl Account {
    /// What must not be, by name.
    pub(crate) fn violations(&self) -> Vec<(&'static str, u64)> {
        let counts = [
            ("lost", self.lost),
            ("disordered", self.disordered),
            ("unexplained repeats", self.unexplained),
            ("invented", self.invented),
            ("misnumbered", self.misnumbered),
            ("damaged", self.damaged),
        ];
        let violations = counts.into_iter().filter(|(_, count)| *count > 0);
        violations.collect()
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "stored": self.stored,
            "refused": self.refused,
            "unknown": self.unknown,
            "handled": self.handled,
            "repeats": self.repeats,
            "rejected": self.rejected,
            "lost": self.lost,
            "disordered": self.disordered,
            "unexplained": self.unexplained,
            "invented": self.invented,
            "misnumbered": self.misnumbered,
            "damaged": self.damaged,
        })
    }
}

/// Compares the journal of the publisher `source` with that of a receiver.
pub(crate) fn compare(source: u64, published: &Published, received: &[Entry]) -> Account {
    let mut walk = Walk {
        published,
        account: Account {
            stored: published.stored(),
            refused: published.count(|fate| fate == Fate::Refused),
            unknown: published.count(|fate| fate == Fate::Unknown),
            ..Account::default()
        },
        arrived: Vec::new(),
        late: BTreeSet::new(),
        next: 0,
        may_repeat: false,
    };
    for entry in received {
        match entry {
            Entry::Started => walk.may_repeat = true,
            Entry::Handled(receipt) if receipt.source == source => walk.handled(receipt),
            Entry::Rejected(receipt) if receipt.source == source => walk.rejected(receipt),
            // What is damaged may have lost its source: it counts for everybody.
            Entry::Damaged(_) => walk.account.damaged += 1,
            Entry::Handled(_) | Entry::Rejected(_) => {}
        }
    }
    walk.end()
}

struct Walk<'p> {
    published: &'p Published,
    account: Account,
    /// Number and sequence of the messages that were handled, in the order of the first time; the
    /// numbers ascend.
    arrived: Vec<(u64, u64)>,
    /// Those that came after one that was published later.
    late: BTreeSet<u64>,
    /// Index in `arrived` of what comes next: its end, unless an instance goes through repeats.
    next: usize,
    /// An instance began, and nothing of this source has come since.
    may_repeat: bool,
}

impl Walk<'_> {
    fn handled(&mut self, receipt: &Receipt) {
        let may_repeat = std::mem::take(&mut self.may_repeat);
        let (number, sequence) = (receipt.number, receipt.sequence);
        match self.published.fate(number) {
            Some(Fate::Stored(told)) if told != sequence => self.account.misnumbered += 1,
            Some(Fate::Stored(_) | Fate::Unknown) => {}
            Some(Fate::Refused) | None => {
                self.account.invented += 1;
                return;
            }
        }
        let before = self.arrived.last().copied().unwrap_or((0, 0));
        if number > before.0 {
            self.account.disordered += u64::from(self.next != self.arrived.len());
            self.account.misnumbered += u64::from(sequence != before.1 + 1);
            self.arrived.push((number, sequence));
            self.next = self.arrived.len();
            return;
        }
        match self.arrived.binary_search_by_key(&number, |one| one.0) {
            Ok(index) => {
                let is_in_turn = index == self.next || (may_repeat && index < self.next);
                if receipt.attempt > 1 && is_in_turn {
                    self.account.repeats += 1;
                } else {
                    self.account.unexplained += 1;
                }
                self.account.misnumbered += u64::from(self.arrived[index].1 != sequence);
                self.next = index + 1;
            }
            Err(_) if self.late.insert(number) => self.account.disordered += 1,
            Err(_) => self.account.unexplained += 1,
        }
    }

    /// What is rejected must be new: nothing is rejected twice.
    fn rejected(&mut self, receipt: &Receipt) {
        self.account.rejected += 1;
        let last = self.arrived.last().map_or(0, |last| last.0);
        self.account.unexplained += u64::from(receipt.number <= last || receipt.attempt > 1);
    }

    fn end(mut self) -> Account {
        self.account.handled = (self.arrived.len() + self.late.len()) as u64;
        let batches = self.published.0.iter();
        for batch in batches.filter(|batch| matches!(batch.fate, Fate::Stored(_))) {
            let numbers = batch.first..batch.first + batch.count;
            let from = self.arrived.partition_point(|one| one.0 < numbers.start);
            let upto = self.arrived.partition_point(|one| one.0 < numbers.end);
            let here = (upto - from + self.late.range(numbers).count()) as u64;
            self.account.lost += batch.count.saturating_sub(here);
        }
        self.account
    }
}

#[cfg(test)]
mod tests;
