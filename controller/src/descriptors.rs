//! Who gets how many of the process's file descriptors, so that no crowd of connections takes those
//! of the database and of uploads.

use haar_relay::{BrokerLimits, DoorLimits};

/// For the database, module files, compilers and the log.
const OWN: u64 = 256;
/// A connection to the API, and the module that it is sent or sends.
const PER_API_CONNECTION: usize = 2;

/// What a relay for 10,000 nodes and a full API take.
const API_LIMITS: DoorLimits = DoorLimits {
    admitted_max: 1_024,
    admitted_per_address_max: 512,
    strangers_max: 256,
    strangers_per_address_max: 64,
};

/// How many connections each listener keeps.
#[derive(Debug, Clone)]
pub(crate) struct Shares {
    pub(crate) api: DoorLimits,
    pub(crate) relay: BrokerLimits,
}

/// Divides what the process may open: a quarter for the API, the rest for the relay.
pub(crate) fn share(limit: Option<u64>) -> Shares {
    let left = limit.map_or(u64::MAX, |limit| limit.saturating_sub(OWN));
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    let for_api = left / 4;
    let strangers_max = API_LIMITS
        .strangers_max
        .min(for_api / (4 * PER_API_CONNECTION))
        .max(1);
    let admitted_max = (for_api / PER_API_CONNECTION).saturating_sub(strangers_max);
    Shares {
        api: DoorLimits {
            admitted_max: API_LIMITS.admitted_max.min(admitted_max).max(1),
            strangers_max,
            strangers_per_address_max: API_LIMITS.strangers_per_address_max.min(strangers_max),
            ..API_LIMITS
        },
        relay: BrokerLimits::default().within(left - for_api),
    }
}

/// Raises the limit of this process, divides it, and says so when it is too small for all.
pub(crate) fn claim() -> Shares {
    let limit = haar_relay::raise_descriptor_limit();
    let shares = share(limit);
    let wanted = BrokerLimits::default().connections_max;
    if shares.relay.connections_max < wanted || shares.api.admitted_max < API_LIMITS.admitted_max {
        tracing::warn!(
            limit,
            relay = shares.relay.connections_max,
            api = shares.api.admitted_max,
            "the limit of open files allows fewer connections than the {wanted} that a relay is for: raise it (`ulimit -Hn`, or LimitNOFILE= in the service's unit)"
        );
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All descriptors that connections can take with these limits.
    fn taken(shares: &Shares) -> u64 {
        let api = (shares.api.admitted_max + shares.api.strangers_max) * PER_API_CONNECTION;
        let relay = shares.relay.connections_max + 2 * shares.relay.strangers_max;
        u64::try_from(api + relay).unwrap()
    }

    #[test]
    fn connections_leave_descriptors_for_the_database_whatever_the_limit() {
        for limit in [300, 1_024, 4_096, 16_384, 524_288] {
            let shares = share(Some(limit));
            assert!(
                taken(&shares) + OWN <= limit.max(OWN + 8),
                "{limit}: {shares:?}"
            );
        }
        let shares = share(Some(1_024));
        assert!(shares.relay.connections_max > 300 && shares.api.admitted_max > 50);
    }

    #[test]
    fn a_usual_hard_limit_allows_everything() {
        for limit in [Some(524_288), None] {
            let shares = share(limit);
            assert_eq!(shares.relay.connections_max, 10_000);
            assert_eq!(
                shares.relay.strangers_max,
                BrokerLimits::default().strangers_max
            );
            assert_eq!(shares.api.admitted_max, API_LIMITS.admitted_max);
        }
    }
}
