//! Which faults a run has, and in which order: from a seed, so that a run can be repeated.

use std::time::Duration;

/// Which end of the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// The node of the publishers.
    Sender,
    /// The node of the receiver.
    Receiver,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The connection between a node and the relay ends with RST.
    Reset,
    /// It ends with FIN.
    Finish,
    /// It stays, and carries nothing.
    HalfOpen,
    /// It carries everything later.
    Delay,
    /// It carries little.
    Throttle,
    /// `kill -9` of an agent.
    KillAgent,
    /// `kill -9` of the controller with its relay.
    KillRelay,
    /// `kill -9` of everything at once.
    KillAll,
    /// The disk of a node is full.
    DiskFull,
    /// The disk of a node is full, and its agent is killed.
    DiskFullKill,
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What is done.
    pub(crate) kind: Kind,
    /// Where; no matter for what hits all.
    pub(crate) end: End,
    /// For how long.
    pub(crate) time: Duration,
    /// A half-open connection is left for the agent to notice.
    pub(crate) is_left: bool,
    /// It begins when the one before it has ended: nothing has recovered from that.
    pub(crate) follows_at_once: bool,
}

impl Fault {
    /// What is counted together.
    pub(crate) fn name(&self) -> &'static str {
        let sender = self.end == End::Sender;
        match self.kind {
            Kind::Reset if sender => "sender: connection reset",
            Kind::Reset => "receiver: connection reset",
            Kind::Finish if sender => "sender: connection closed",
            Kind::Finish => "receiver: connection closed",
            Kind::HalfOpen if sender => "sender: half-open",
            Kind::HalfOpen => "receiver: half-open",
            Kind::Delay if sender => "sender: delay",
            Kind::Delay => "receiver: delay",
            Kind::Throttle if sender => "sender: throttle",
            Kind::Throttle => "receiver: throttle",
            Kind::KillAgent if sender => "sender: kill -9",
            Kind::KillAgent => "receiver: kill -9",
            Kind::KillRelay => "relay and controller: kill -9",
            Kind::KillAll => "everything: kill -9",
            Kind::DiskFull if sender => "sender: disk full",
            Kind::DiskFull => "receiver: disk full",
            Kind::DiskFullKill if sender => "sender: disk full, kill -9",
            Kind::DiskFullKill => "receiver: disk full, kill -9",
        }
    }
}

/// Numbers by chance that are the same for the same seed (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    /// Those of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }

    /// A time between two.
    fn between_ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least + 1))
    }
}

/// The faults of a seed: every kind as often as any other, in any order. Those of disks only where
/// disks can be filled.
pub(crate) fn faults(seed: u64, count: usize, disks: bool) -> Vec<Fault> {
    let mut chance = Chance::new(seed);
    let mut faults = Vec::with_capacity(count);
    while faults.len() < count {
        let mut deck = deck(disks);
        while faults.len() < count && !deck.is_empty() {
            let at = chance.below(deck.len() as u64);
            let (kind, end) = deck.swap_remove(usize::try_from(at).unwrap_or(0));
            faults.push(Fault {
                kind,
                end,
                time: time(kind, &mut chance),
                is_left: false,
                follows_at_once: chance.below(4) == 0,
            });
        }
    }
    // To notice takes an agent up to 40 seconds: once is enough, and too much for a short run.
    if count >= 50
        && let Some(fault) = faults.iter_mut().find(|one| one.kind == Kind::HalfOpen)
    {
        fault.is_left = true;
    }
    faults
}

fn deck(disks: bool) -> Vec<(Kind, End)> {
    let mut deck = vec![(Kind::KillRelay, End::Sender), (Kind::KillAll, End::Sender)];
    for end in [End::Sender, End::Receiver] {
        for kind in [
            Kind::Reset,
            Kind::Finish,
            Kind::HalfOpen,
            Kind::Delay,
            Kind::Throttle,
            Kind::KillAgent,
        ] {
            deck.push((kind, end));
        }
        if disks {
            deck.push((Kind::DiskFull, end));
            deck.push((Kind::DiskFullKill, end));
        }
    }
    deck
}

fn time(kind: Kind, chance: &mut Chance) -> Duration {
    match kind {
        Kind::Reset | Kind::Finish => Duration::ZERO,
        Kind::HalfOpen => chance.between_ms(200, 3_000),
        Kind::Delay | Kind::Throttle => chance.between_ms(300, 2_000),
        // How long they are down.
        Kind::KillAgent | Kind::KillRelay | Kind::KillAll => chance.between_ms(0, 1_000),
        Kind::DiskFull | Kind::DiskFullKill => chance.between_ms(500, 2_500),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_plan_with_every_kind_in_it() {
        let plan = faults(7, 100, true);
        assert_eq!(plan, faults(7, 100, true));
        assert_ne!(plan, faults(8, 100, true));
        for (kind, end) in deck(true) {
            let times = plan.iter().filter(|one| (one.kind, one.end) == (kind, end));
            assert!(times.count() >= 5, "{kind:?} {end:?}");
        }
        assert_eq!(plan.iter().filter(|one| one.is_left).count(), 1);
    }

    #[test]
    fn without_small_disks_none_is_filled() {
        let plan = faults(7, 60, false);
        let is_of_disk = |one: &Fault| matches!(one.kind, Kind::DiskFull | Kind::DiskFullKill);
        assert_eq!((plan.len(), plan.iter().any(is_of_disk)), (60, false));
    }
}
