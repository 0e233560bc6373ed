//! Agents of one identity: one, or two while a copy of its directory runs beside it.

use std::collections::BTreeSet;

use super::dice::Dice;

/// One of them.
pub(super) struct Agent<T> {
    pub(super) node: T,
    pub(super) connected: bool,
    /// What its guests were told is stored, and was not dropped by policy since: stream and tag.
    pub(super) expected: BTreeSet<(u64, u64)>,
}

/// Both.
pub(super) struct Agents<T> {
    agents: Vec<Agent<T>>,
    /// A relay serves the one that connected last.
    relays: u64,
    copies: u64,
}

impl<T> Agents<T> {
    pub(super) fn new(node: T, relays: u64) -> Self {
        let agent = Agent {
            node,
            connected: false,
            expected: BTreeSet::new(),
        };
        Self {
            agents: vec![agent],
            relays,
            copies: 0,
        }
    }

    pub(super) fn are_two(&self) -> bool {
        self.agents.len() > 1
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Agent<T>> {
        self.agents.iter()
    }

    /// The first of them.
    pub(super) fn one(&mut self) -> &mut Agent<T> {
        &mut self.agents[0]
    }

    pub(super) fn any(&mut self, dice: &mut Dice) -> &mut Agent<T> {
        let index = dice.roll(self.agents.len() as u64);
        &mut self.agents[usize::try_from(index).unwrap()]
    }

    /// A message need not arrive. One of the common past that either agent drops is passed over for
    /// both: the receiver hears that it will never come. Returns 1 when somebody expected it.
    pub(super) fn forget(&mut self, message: (u64, u64)) -> u64 {
        let agents = self.agents.iter_mut();
        let expected = agents.map(|one| u64::from(one.expected.remove(&message)));
        expected.max().unwrap_or(0)
    }

    /// One of those that are connected.
    pub(super) fn connected(&mut self, dice: &mut Dice) -> Option<&mut Agent<T>> {
        let mut connected: Vec<_> = self.agents.iter_mut().filter(|one| one.connected).collect();
        match connected.len() {
            0 => None,
            some => Some(connected.swap_remove(usize::try_from(dice.roll(some as u64)).unwrap())),
        }
    }

    /// Another one starts from a copy of the disk.
    pub(super) fn copy(&mut self, copy: impl FnOnce(&T, u64) -> T) {
        self.copies += 1;
        let first = &self.agents[0];
        let agent = Agent {
            node: copy(&first.node, self.copies),
            connected: false,
            expected: first.expected.clone(),
        };
        self.agents.push(agent);
    }

    /// One of two stops.
    pub(super) fn end(&mut self, dice: &mut Dice) -> Agent<T> {
        let index = usize::try_from(dice.roll(2)).unwrap();
        self.agents.remove(index)
    }

    /// One of them connects, or is cut off now and then; who connects may be served in the place of the other.
    pub(super) fn toggle(&mut self, dice: &mut Dice, tell: impl Fn(&mut Agent<T>)) {
        let index = usize::try_from(dice.roll(self.agents.len() as u64)).unwrap();
        let agent = &mut self.agents[index];
        if agent.connected && dice.chance(80) {
            return;
        }
        agent.connected = !agent.connected;
        tell(agent);
        let is_served = agent.connected && self.relays == 1;
        for (_, other) in self
            .agents
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| *at != index)
        {
            if is_served && other.connected {
                other.connected = false;
                tell(other);
            }
        }
    }
}
