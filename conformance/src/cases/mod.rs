//! All cases, one file for each group of requirements, and the guests with the cases that run them.

mod messaging;
mod durable;
mod copied;
mod relays;
mod devices;
mod history;
mod lifecycle;
mod timers;
mod key_value;
mod logging;
mod files;
mod node;
mod system;
mod limits;
mod failure;
mod trust;
mod policy;
mod code;
mod offline;
mod budget;
mod hostile;
mod hostile_files;
mod malformed;
mod languages;

use haar_conformance_artifacts::Guest;

use crate::case::Case;

/// All cases, in the order in which they run.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    let groups: [&'static [&'static Case]; 24] = [
        messaging::CASES,
        durable::CASES,
        copied::CASES,
        relays::CASES,
        devices::CASES,
        history::CASES,
        lifecycle::CASES,
        timers::CASES,
        key_value::CASES,
        logging::CASES,
        files::CASES,
        node::CASES,
        system::CASES,
        limits::CASES,
        failure::CASES,
        trust::CASES,
        policy::CASES,
        code::CASES,
        offline::CASES,
        budget::CASES,
        hostile::CASES,
        hostile_files::CASES,
        malformed::CASES,
        languages::CASES,
    ];
    groups.into_iter().flatten().copied()
}

/// A part of the cases that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Set {
    /// Every case, but those in languages whose toolchains have hundreds of megabytes
    All,
    /// One or two of each group: what is proved again on every kind of machine, under an emulator
    /// within minutes
    Core,
    /// What an agent proves that can run no module: enrolment, assignments, statuses, refusals
    Site,
    /// Components of other toolchains, which are installed below the target folder: Rust without our
    /// SDK, C, Python, JavaScript
    Languages,
}

impl Set {
    /// The cases in it, in the order in which they run.
    pub(crate) fn cases(self) -> Vec<&'static Case> {
        match self {
            Self::All => {
                let is_small = |case: &&Case| !languages::is_large(case);
                all().filter(is_small).collect()
            }
            Self::Languages => languages::CASES.to_vec(),
            Self::Core => vec![
                &messaging::ORDER,
                &messaging::SOURCE,
                &messaging::TYPED_ERRORS,
                &messaging::REJECTED,
                &durable::KILLED,
                &history::QUERIES,
                &lifecycle::CONFIGURATION,
                &lifecycle::UPDATE,
                &timers::TICKS,
                &key_value::OPERATIONS,
                &key_value::QUOTA,
                &logging::STREAMS,
                &files::GRANTS,
                &node::FACTS,
                &limits::FUEL,
                &limits::DEADLINE,
                &limits::PARKED,
                &limits::MEMORY,
                &limits::STACKS,
                &failure::BACK_OFF,
                &trust::DISTRUSTED,
                &policy::DIRECTORIES,
                &trust::TOKEN,
                &offline::WITHOUT_NETWORK,
                &offline::STATUS,
                &offline::TAKEN,
            ],
            Self::Site => vec![
                &messaging::WRONG_TYPE,
                &trust::REFUSED_AT_PUSH,
                &trust::NOT_GRANTED,
                &trust::TOKEN,
                &offline::TAKEN,
                &malformed::UNKNOWN_IMPORT,
            ],
        }
    }
}

/// Whether a case is meant by the text of a filter.
pub(crate) fn matches(case: &Case, filter: &str) -> bool {
    case.name.contains(filter) || case.requirements.iter().any(|id| id.contains(filter))
}

/// The cases that run a guest. A new guest does not compile before it stands here.
pub(crate) fn of(guest: Guest) -> Vec<&'static Case> {
    match guest {
        Guest::Batch => vec![&messaging::BATCH],
        Guest::Compute => vec![&limits::SHARE],
        Guest::ConfigVersions => vec![&lifecycle::VERSIONS],
        Guest::Costs => vec![&lifecycle::IMPORTS],
        Guest::History => vec![&history::QUERIES, &history::PAGES, &history::RETENTION],
        Guest::Ledger => vec![&durable::KILLED, &durable::ACROSS],
        Guest::Journal | Guest::Numbering => vec![&durable::SILENT_CUT, &relays::BROKER],
        Guest::KeyValue => vec![&key_value::OPERATIONS, &key_value::KEPT, &key_value::QUOTA],
        Guest::KeyValueDraft => vec![&key_value::DRAFTS],
        Guest::KeyValueFlood => vec![&hostile::KEY_VALUES],
        Guest::NodeFacts => vec![&node::FACTS, &node::CLOCKS],
        Guest::KeptTimers => vec![&timers::KEPT],
        Guest::Levels => vec![&logging::LEVEL],
        Guest::Quiet => vec![&messaging::ACKNOWLEDGED],
        Guest::Requester | Guest::Responder => vec![&messaging::REQUESTS],
        Guest::Stopper => vec![&lifecycle::GRACE],
        Guest::Abi => vec![&hostile::HUGE_LISTS],
        Guest::Config => vec![&lifecycle::CONFIGURATION, &offline::WITHOUT_NETWORK],
        Guest::Driver => vec![&messaging::SOURCE],
        Guest::Echo => vec![&messaging::SOURCE, &lifecycle::UPDATE],
        Guest::Files => vec![&files::GRANTS, &files::ESCAPES],
        Guest::Flood => vec![&hostile::LOGS, &hostile::MESSAGES, &hostile::TIMERS],
        Guest::Limits => vec![&messaging::TYPED_ERRORS, &timers::TOO_MANY, &logging::RATE],
        Guest::Mute => vec![&failure::MUTE],
        Guest::System => vec![&system::GRANTED, &system::REFUSED],
        Guest::Memory => vec![&limits::MEMORY, &hostile::MEMORY],
        Guest::Plain => vec![&languages::RUST],
        Guest::Probe => vec![&hostile::SPIN],
        Guest::Race => vec![&files::RENAME_RACE],
        Guest::Recurse => vec![&limits::STACKS, &hostile::RECURSION],
        Guest::Reject => vec![&messaging::REJECTED],
        Guest::Sink => vec![&messaging::ORDER, &messaging::NO_ROUTE],
        Guest::Sleeper => vec![&limits::PARKED, &hostile::PARKED],
        Guest::Sockets => vec![&trust::SOCKETS],
        Guest::Source => vec![&messaging::ORDER, &messaging::BETWEEN_NODES],
        Guest::Spin => vec![&limits::FUEL, &limits::DEADLINE, &hostile::SPIN],
        Guest::Stdio => vec![&logging::STREAMS],
        Guest::Timers => vec![&timers::TICKS, &timers::MISSED],
        Guest::Trap => vec![&failure::BACK_OFF, &lifecycle::STOP],
        Guest::Witness => vec![&devices::ARRIVES, &devices::BURSTS],
    }
}
