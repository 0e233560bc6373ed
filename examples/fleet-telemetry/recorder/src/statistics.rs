//! Counts of what came from every source. Bounded: of more than `SOURCES_MAX` sources the longest
//! silent one is forgotten, its counts stay in the totals. Pure.

use std::collections::BTreeMap;

use haar_guest::Source;
use serde::Serialize;

/// Sources whose sequence is followed at one time.
pub(crate) const SOURCES_MAX: usize = 1_024;

/// Everything counted so far.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    followed: BTreeMap<Key, Followed>,
    messages: u64,
    missing: u64,
}

/// Node, microservice and outlet of a source.
type Key = (String, String, String);

#[derive(Debug)]
struct Followed {
    sequence: u64,
    /// The count of all messages when the last one of this source came.
    last_seen: u64,
}

/// The totals, as they are logged.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    /// Sources that are followed.
    pub(crate) sources: usize,
    /// Messages of all sources.
    pub(crate) messages: u64,
    /// Messages that were jumped over in the sequences.
    pub(crate) missing: u64,
}

impl Statistics {
    /// Counts one message of `source`. The first one of a source, and one that begins its sequence
    /// again because its node was set up anew, miss nothing.
    pub(crate) fn count(&mut self, source: &Source, sequence: u64) {
        self.messages += 1;
        let key = (
            source.node.clone(),
            source.microservice.clone(),
            source.outlet.clone(),
        );
        let now = Followed {
            sequence,
            last_seen: self.messages,
        };
        if let Some(before) = self.followed.insert(key, now) {
            self.missing += sequence.saturating_sub(before.sequence.saturating_add(1));
        } else if self.followed.len() > SOURCES_MAX {
            self.forget_longest_silent();
        }
    }

    /// The totals so far.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            sources: self.followed.len(),
            messages: self.messages,
            missing: self.missing,
        }
    }

    fn forget_longest_silent(&mut self) {
        let silent = self
            .followed
            .iter()
            .min_by_key(|(_, followed)| followed.last_seen)
            .map(|(key, _)| key.clone());
        if let Some(key) = silent {
            self.followed.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_guest::testing::message;

    fn from(node: &str) -> Source {
        Source {
            node: node.to_owned(),
            ..message("readings", "").source.as_ref().clone()
        }
    }

    #[test]
    fn gaps_are_counted_for_each_source_by_itself() {
        let mut statistics = Statistics::default();
        for (node, sequence) in [("a", 1), ("b", 10), ("a", 2), ("b", 13), ("a", 3)] {
            statistics.count(&from(node), sequence);
        }
        assert_eq!(
            statistics.totals(),
            Totals {
                sources: 2,
                messages: 5,
                missing: 2
            }
        );
    }

    #[test]
    fn a_sequence_that_begins_again_misses_nothing() {
        let mut statistics = Statistics::default();
        for sequence in [100, 1, 2] {
            statistics.count(&from("a"), sequence);
        }
        assert_eq!(statistics.totals().missing, 0);
    }

    #[test]
    fn the_longest_silent_source_makes_room() {
        let mut statistics = Statistics::default();
        for index in 0..=SOURCES_MAX {
            statistics.count(&from(&format!("node-{index}")), 1);
        }
        assert_eq!(statistics.totals().sources, SOURCES_MAX);
        let first = ("node-0".to_owned(), "sender".to_owned(), "out".to_owned());
        assert!(!statistics.followed.contains_key(&first));
    }
}
