//! What microservices set aside of a node, and whether the node has it. The controller asks when it
//! places them, the node when it is assigned them: both count alike and say the same.

use std::fmt;

use crate::grants::Grants;
use crate::limits::{Budget, Limits, Retention};
use crate::quantity::{ByteSize, in_one_unit};

/// Bytes that may wait for an inlet from one other node on a durable route: the other node keeps the
/// rest.
pub const ARRIVAL_LOG_BYTES: u64 = 4 << 20;

/// What one microservice sets aside, or several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Bytes of memory.
    pub memory: u64,
    /// How many they are.
    pub microservices: u64,
    /// Of processors, in percent of one core: of those only that name their share.
    pub cpu_percent: u64,
    /// Bytes that they may store.
    pub storage: u64,
}

impl Demand {
    /// What one microservice sets aside.
    pub fn of<'a>(
        limits: &Limits,
        grants: &Grants,
        histories: impl Iterator<Item = &'a Retention>,
    ) -> Self {
        Self {
            memory: limits.memory.0,
            microservices: 1,
            cpu_percent: limits.cpu.map_or(0, |cpu| cpu.0.into()),
            storage: storage_bytes(limits, grants, histories),
        }
    }

    /// What the log of an outlet sets aside. The durable routes of the outlet share it, and the
    /// largest backlog of them counts; without any there is no log.
    pub fn of_outlet_log(backlogs: impl Iterator<Item = ByteSize>) -> Self {
        Self::of_storage(backlogs.map(|size| size.0).max().unwrap_or(0))
    }

    /// What a durable route sets aside where it ends, for each other node that it comes from.
    pub fn of_arrivals() -> Self {
        Self::of_storage(ARRIVAL_LOG_BYTES)
    }

    fn of_storage(bytes: u64) -> Self {
        Self {
            storage: bytes,
            ..Self::default()
        }
    }

    /// Both together.
    pub fn plus(self, other: Demand) -> Self {
        Self {
            memory: self.memory.saturating_add(other.memory),
            microservices: self.microservices.saturating_add(other.microservices),
            cpu_percent: self.cpu_percent.saturating_add(other.cpu_percent),
            storage: self.storage.saturating_add(other.storage),
        }
    }
}

/// Bytes that a microservice may store on a node in all: key-value data, private files, histories.
fn storage_bytes<'a>(
    limits: &Limits,
    grants: &Grants,
    histories: impl Iterator<Item = &'a Retention>,
) -> u64 {
    let granted = |granted: bool, bytes: u64| if granted { bytes } else { 0 };
    histories
        .map(|retention| retention.size.0)
        .chain([
            granted(grants.key_value, limits.key_value_size.0),
            granted(grants.data_directory.is_some(), limits.files_size.0),
        ])
        .fold(0, u64::saturating_add)
}

/// Something that a node has too little of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// What it is, such as `memory`.
    pub what: &'static str,
    /// How much is wanted, for people.
    pub wanted: String,
    /// How much is there for it, for people.
    pub free: String,
    /// How much the node has in all, for people.
    pub budget: String,
    /// The difference of what is wanted and what is there, for people.
    pub over: String,
}

impl fmt::Display for Shortage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortage {
            what,
            wanted,
            free,
            budget,
            over,
        } = self;
        write!(
            formatter,
            "{what}: {wanted} wanted, {free} of {budget} free: over by {over}"
        )
    }
}

/// Of one thing: its name, how much the node has, how much is given already, how much more is
/// wanted, and how people read such amounts.
type Row = (&'static str, u64, u64, u64, Show);

/// How people read amounts that belong together.
type Show = fn([u64; 4]) -> [String; 4];

impl Budget {
    /// What the node lacks to take `more` beside what it has given already; nothing when it fits.
    pub fn shortages(&self, given: &Demand, more: &Demand) -> Vec<Shortage> {
        let percent: Show = |amounts| amounts.map(|amount| format!("{amount}%"));
        let plain: Show = |amounts| amounts.map(|amount| amount.to_string());
        let bytes: Show = |amounts @ [wanted, _, _, over]| in_one_unit(wanted.min(over), amounts);
        let rows: [Row; 4] = [
            ("memory", self.memory.0, given.memory, more.memory, bytes),
            (
                "microservices",
                self.microservices.into(),
                given.microservices,
                more.microservices,
                plain,
            ),
            (
                "cpu",
                self.cpu_percent.into(),
                given.cpu_percent,
                more.cpu_percent,
                percent,
            ),
            (
                "storage",
                self.storage.0,
                given.storage,
                more.storage,
                bytes,
            ),
        ];
        rows.into_iter()
            .filter_map(|(what, budget, given, more, show)| {
                let free = budget.saturating_sub(given);
                (more > free).then(|| {
                    let [wanted, free, budget, over] = show([more, free, budget, more - free]);
                    Shortage {
                        what,
                        wanted,
                        free,
                        budget,
                        over,
                    }
                })
            })
            .collect()
    }
}
