//! Which retained messages of a broker this node has already: with each connection the broker sends
//! those of its topics again, and only what has changed meanwhile is news. In memory only: after a
//! start of the agent each comes once more, and says that it is retained.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher as _, RandomState};

/// How many topics are remembered. Retained messages of others arrive again with each connection.
const TOPICS_MAX: usize = 4_096;

/// A topic within one subscription: the broker sends each subscription its own copy.
pub(super) type Topic<'a> = (&'a str, Option<u32>);

/// The last retained message of each topic, as a hash under a random key.
#[derive(Debug, Default)]
pub(super) struct States {
    hasher: RandomState,
    last: HashMap<u64, u64>,
}

impl States {
    /// Remembers a message. Returns true when the broker had retained it and it is the one that is already
    /// remembered for its topic.
    pub(super) fn is_repeat(
        &mut self,
        topic: Topic<'_>,
        is_retained: bool,
        payload: &[u8],
    ) -> bool {
        let (is_full, message) = (self.last.len() >= TOPICS_MAX, self.hasher.hash_one(payload));
        match self.last.entry(self.hasher.hash_one(topic)) {
            Entry::Occupied(mut last) => last.insert(message) == message && is_retained,
            Entry::Vacant(place) => {
                if is_retained && !is_full {
                    place.insert(message);
                }
                false
            }
        }
    }

    /// Forgets the last message of the topic, which was not stored.
    pub(super) fn forget(&mut self, topic: Topic<'_>) {
        self.last.remove(&self.hasher.hash_one(topic));
    }

    /// Forgets everything, because other routes have received nothing yet.
    pub(super) fn clear(&mut self) {
        self.last.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retained_message_is_news_unless_it_was_the_last_of_its_topic() {
        let mut states = States::default();
        assert!(!states.is_repeat(("mode", None), true, b"on"));
        assert!(states.is_repeat(("mode", None), true, b"on"));
        assert!(!states.is_repeat(("mode", None), true, b"off"));
        assert!(
            !states.is_repeat(("mode", None), false, b"off"),
            "it was published"
        );
        assert!(!states.is_repeat(("mode", None), false, b"on"));
        assert!(states.is_repeat(("mode", None), true, b"on"));
        assert!(!states.is_repeat(("other", Some(1)), true, b"on"));
        states.forget(("mode", None));
        assert!(!states.is_repeat(("mode", None), true, b"on"));
    }

    #[test]
    fn topics_beyond_a_limit_are_not_remembered() {
        let mut states = States::default();
        for number in 0..=TOPICS_MAX {
            assert!(!states.is_repeat((&number.to_string(), None), true, b"on"));
        }
        assert_eq!(states.last.len(), TOPICS_MAX);
        assert!(states.is_repeat(("0", None), true, b"on"));
        assert!(!states.is_repeat((&TOPICS_MAX.to_string(), None), true, b"on"));
    }
}
