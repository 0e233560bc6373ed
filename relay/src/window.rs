//! Which publishes of one connection still wait for their PUBACK. Pure bookkeeping: the session
//! asks it for room before it hands a message to rumqttc, and gets back what is unacknowledged when
//! the connection ends.
//!
//! rumqttc 0.25.1 reuses packet ids in a ring as large as its in-flight limit and deadlocks when an
//! id that it needs is still waiting. So the window counts from the oldest unacknowledged message,
//! acknowledged ones behind it included, and stays strictly below that limit.

use std::collections::VecDeque;

/// Publishes that are handed to rumqttc before it reports that it took one.
pub(crate) const HANDED_MAX: usize = 16;

#[derive(Debug)]
enum Progress {
    /// In rumqttc's request queue; its packet id is not known yet.
    Handed,
    /// Written to the network under this packet id.
    Sent(u16),
    /// The relay has it.
    Acknowledged,
}

/// The publishes of one connection, oldest first. `M` is what the caller keeps of each until it is
/// acknowledged: the message, or what names it.
#[derive(Debug)]
pub(crate) struct Window<M> {
    span_max: usize,
    at_least_once: VecDeque<(Progress, M)>,
    handed: usize,
}

impl<M: Clone> Window<M> {
    /// `ids` is how many packet ids rumqttc goes around with, at least 1.
    pub(crate) fn new(ids: u16) -> Self {
        let span_max = usize::from(ids.saturating_sub(1)).max(1);
        Self {
            span_max,
            at_least_once: VecDeque::new(),
            handed: 0,
        }
    }

    /// True when another publish may be handed over.
    pub(crate) fn has_room(&self) -> bool {
        self.at_least_once.len() < self.span_max && self.handed < HANDED_MAX
    }

    /// Notes that a message was handed over: one that is acknowledged, or another.
    pub(crate) fn handed(&mut self, acknowledged: Option<M>) {
        self.handed += 1;
        if let Some(message) = acknowledged {
            self.at_least_once.push_back((Progress::Handed, message));
        }
    }

    /// Notes that rumqttc wrote its next publish, under `packet_id`; 0 for one without PUBACK.
    pub(crate) fn sent(&mut self, packet_id: u16) {
        self.handed = self.handed.saturating_sub(1);
        if packet_id == 0 {
            return;
        }
        let next = self
            .at_least_once
            .iter_mut()
            .find(|(progress, _)| matches!(progress, Progress::Handed));
        if let Some((progress, _)) = next {
            *progress = Progress::Sent(packet_id);
        }
    }

    /// Notes the PUBACK of `packet_id` and returns what was published.
    pub(crate) fn acknowledged(&mut self, packet_id: u16) -> Option<M> {
        let (progress, message) = self
            .at_least_once
            .iter_mut()
            .find(|(progress, _)| matches!(progress, Progress::Sent(id) if *id == packet_id))?;
        *progress = Progress::Acknowledged;
        let message = message.clone();
        while let Some((Progress::Acknowledged, _)) = self.at_least_once.front() {
            self.at_least_once.pop_front();
        }
        Some(message)
    }

    /// True when nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.at_least_once.is_empty() && self.handed == 0
    }

    /// What the relay has not acknowledged, in the order of publishing.
    pub(crate) fn into_unacknowledged(self) -> VecDeque<M> {
        self.at_least_once
            .into_iter()
            .filter(|(progress, _)| !matches!(progress, Progress::Acknowledged))
            .map(|(_, message)| message)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_acknowledgement_out_of_order_does_not_open_the_window() {
        let mut window = Window::new(4);
        for number in 0..3 {
            assert!(window.has_room());
            window.handed(Some(number));
            window.sent(u16::try_from(number).unwrap() + 1);
        }
        assert!(!window.has_room());
        assert_eq!(window.acknowledged(2), Some(1));
        assert!(!window.has_room(), "packet id 1 is still in use");
        assert_eq!(window.acknowledged(1), Some(0));
        assert!(window.has_room());
        assert_eq!(
            window.acknowledged(1),
            None,
            "a repeated acknowledgement means nothing"
        );
    }

    proptest! {
        /// A model of rumqttc's ring of ids: whatever the relay acknowledges and in which order,
        /// no id is asked for while it waits, and what is handed back is what was not acknowledged.
        #[test]
        fn the_ring_of_packet_ids_never_collides(
            ids in 2u16..20,
            steps in prop::collection::vec((any::<bool>(), any::<u8>()), 0..300),
        ) {
            let mut window = Window::new(ids);
            let mut waiting: Vec<(u16, usize)> = Vec::new();
            let (mut last_id, mut number) = (0u16, 0usize);
            for (publish, pick) in steps {
                if publish && window.has_room() {
                    window.handed(Some(number));
                    let id = last_id + 1;
                    last_id = if id == ids { 0 } else { id };
                    prop_assert!(!waiting.iter().any(|(waiting, _)| *waiting == id));
                    window.sent(id);
                    waiting.push((id, number));
                    number += 1;
                } else if !waiting.is_empty() {
                    let (id, number) = waiting.remove(usize::from(pick) % waiting.len());
                    prop_assert_eq!(window.acknowledged(id), Some(number));
                }
            }
            let left: Vec<usize> = window.into_unacknowledged().into();
            let expected: Vec<usize> = waiting.iter().map(|(_, number)| *number).collect();
            prop_assert_eq!(left, expected);
        }
    }
}
