//! Rates of the network from counters that only grow.

use std::time::Duration;

use haar_guest::system::NetworkInterface;

/// Bytes over the network since the node started, all interfaces together, loopback left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// What came in.
    pub(crate) received: u64,
    /// What went out.
    pub(crate) sent: u64,
}

impl Traffic {
    /// The sum. `None` where there is no interface but loopback.
    pub(crate) fn of(interfaces: &[NetworkInterface]) -> Option<Self> {
        let outward = interfaces.iter().filter(|one| one.name != "lo");
        let sum = |sum: Self, one: &NetworkInterface| Self {
            received: sum.received.saturating_add(one.received_bytes),
            sent: sum.sent.saturating_add(one.sent_bytes),
        };
        outward.fold(None, |so_far, one| {
            Some(sum(so_far.unwrap_or_default(), one))
        })
    }

    /// Bytes per second in and out. `None` where no time has passed, or where the counters have gone
    /// back because an interface was taken away.
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
    pub(crate) fn rates_since(self, before: Self, elapsed: Duration) -> Option<(f64, f64)> {
        let received = self.received.checked_sub(before.received)?;
        let sent = self.sent.checked_sub(before.sent)?;
        let seconds = elapsed.as_secs_f64();
        (seconds > 0.0).then(|| (received as f64 / seconds, sent as f64 / seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, received_bytes: u64, sent_bytes: u64) -> NetworkInterface {
        NetworkInterface {
            name: name.to_owned(),
            received_bytes,
            sent_bytes,
            ..NetworkInterface::default()
        }
    }

    #[test]
    fn traffic_is_summed_over_interfaces_without_loopback() {
        let all = [
            interface("lo", 9, 9),
            interface("eth0", 5, 1),
            interface("wlan0", 2, 3),
        ];
        assert_eq!(
            Traffic::of(&all),
            Some(Traffic {
                received: 7,
                sent: 4
            })
        );
        assert_eq!(Traffic::of(&all[..1]), None);
    }

    #[test]
    fn rates_are_bytes_per_second_and_counters_that_went_back_give_none() {
        let (before, now) = (
            Traffic::default(),
            Traffic {
                received: 10,
                sent: 2,
            },
        );
        assert_eq!(
            now.rates_since(before, Duration::from_secs(2)),
            Some((5.0, 1.0))
        );
        assert_eq!(before.rates_since(now, Duration::from_secs(2)), None);
        assert_eq!(now.rates_since(before, Duration::ZERO), None);
    }
}
