//! The texts of Linux's `/proc`, read into numbers (proc(5)). Pure: no files, no clock. A text that
//! is not as expected gives `None`, never an error: other kernels leave things out.

use std::time::Duration;

/// Load average over one minute, from `/proc/loadavg`.
pub(crate) fn load(text: &str) -> Option<f64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Total and available memory in bytes, from `/proc/meminfo`.
pub(crate) fn memory(text: &str) -> (Option<u64>, Option<u64>) {
    let bytes = |name: &str| -> Option<u64> {
        let rest = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kibibytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kibibytes.checked_mul(1024)
    };
    (bytes("MemTotal"), bytes("MemAvailable"))
}

/// Processor time since the node started, in ticks of its clock, all processors together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpuTime {
    /// Time in which something ran.
    pub(crate) busy: u64,
    /// All time.
    pub(crate) total: u64,
}

/// Processor time from the first line of `/proc/stat`. Waiting for a disk counts as idle. The
/// columns of guests are left out: their time is in the columns before already.
pub(crate) fn cpu_time(text: &str) -> Option<CpuTime> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let columns: Vec<u64> = line
        .split_ascii_whitespace()
        .take(8)
        .map(|column| column.parse().ok())
        .collect::<Option<_>>()?;
    let idle = columns
        .get(3)?
        .saturating_add(*columns.get(4).unwrap_or(&0));
    let total = columns
        .iter()
        .fold(0u64, |sum, column| sum.saturating_add(*column));
    Some(CpuTime {
        busy: total.saturating_sub(idle),
        total,
    })
}

/// Share of processor time that was used between two moments. `None` where no time has passed.
#[allow(clippy::cast_precision_loss, reason = "a percentage needs no 53 bits")]
pub(crate) fn cpu_percent(before: CpuTime, now: CpuTime) -> Option<f64> {
    let total = now
        .total
        .checked_sub(before.total)
        .filter(|total| *total > 0)?;
    let busy = now.busy.saturating_sub(before.busy).min(total);
    Some(100.0 * busy as f64 / total as f64)
}

/// Bytes over the network since the node started, all interfaces together, loopback left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// What came in.
    pub(crate) received: u64,
    /// What went out.
    pub(crate) sent: u64,
}

/// Traffic from `/proc/net/dev`. `None` where there is no interface but loopback.
pub(crate) fn traffic(text: &str) -> Option<Traffic> {
    let mut sum = None;
    for line in text.lines().skip(2) {
        let (interface, columns) = line.split_once(':')?;
        if interface.trim() == "lo" {
            continue;
        }
        let columns: Vec<&str> = columns.split_ascii_whitespace().collect();
        let so_far: Traffic = sum.unwrap_or_default();
        sum = Some(Traffic {
            received: so_far
                .received
                .saturating_add(columns.first()?.parse().ok()?),
            sent: so_far.sent.saturating_add(columns.get(8)?.parse().ok()?),
        });
    }
    sum
}

/// Bytes per second in and out between two moments. `None` where no time has passed, or where
/// the counters have gone back because an interface was taken away.
#[allow(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
pub(crate) fn rates(before: Traffic, now: Traffic, elapsed: Duration) -> Option<(f64, f64)> {
    let received = now.received.checked_sub(before.received)?;
    let sent = now.sent.checked_sub(before.sent)?;
    let seconds = elapsed.as_secs_f64();
    (seconds > 0.0).then(|| (received as f64 / seconds, sent as f64 / seconds))
}

/// Degrees Celsius from a file `thermal_zone*/temp`, which has thousandths.
pub(crate) fn temperature(text: &str) -> Option<f64> {
    let millidegrees: i32 = text.trim().parse().ok()?;
    Some(f64::from(millidegrees) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = include_str!("../tests/data/first/stat");
    const STAT_LATER: &str = include_str!("../tests/data/second/stat");
    const NET_DEV: &str = include_str!("../tests/data/first/self/net/dev");
    const NET_DEV_LATER: &str = include_str!("../tests/data/second/self/net/dev");

    #[test]
    fn the_load_is_the_first_number() {
        assert_eq!(load("0.52 0.58 0.59 1/467 12345\n"), Some(0.52));
        assert_eq!(load(""), None);
        assert_eq!(load("none"), None);
    }

    #[test]
    fn memory_is_read_from_the_lines_of_these_names() {
        let text = include_str!("../tests/data/first/meminfo");
        assert_eq!(memory(text), (Some(948_304 * 1024), Some(612_880 * 1024)));
    }

    #[test]
    fn a_kernel_that_does_not_know_available_memory_gives_the_total_only() {
        assert_eq!(
            memory("MemTotal:  100 kB\nMemFree:  50 kB\n"),
            (Some(102_400), None)
        );
        assert_eq!(memory("MemTotal:  a lot\n"), (None, None));
    }

    #[test]
    fn cpu_time_counts_waiting_for_the_disk_as_idle_and_guests_once() {
        assert_eq!(
            cpu_time("cpu  10 20 30 400 50 6 7 8 10 0\ncpu0 1 2 3 4\n"),
            Some(CpuTime {
                busy: 81,
                total: 531
            })
        );
        assert_eq!(
            cpu_time("cpu  1 2 3 4\n"),
            Some(CpuTime { busy: 6, total: 10 })
        );
        assert_eq!(cpu_time("cpu  1 2\n"), None);
        assert_eq!(cpu_time("cpu  a b c d\n"), None);
        assert_eq!(cpu_time(""), None);
    }

    #[test]
    fn utilisation_is_the_busy_share_of_the_time_between_two_samples() {
        let (before, now) = (cpu_time(STAT).unwrap(), cpu_time(STAT_LATER).unwrap());
        assert_eq!(cpu_percent(before, now), Some(25.0));
    }

    #[test]
    fn no_time_between_two_samples_gives_no_utilisation() {
        let sample = cpu_time(STAT).unwrap();
        assert_eq!(cpu_percent(sample, sample), None);
        assert_eq!(cpu_percent(cpu_time(STAT_LATER).unwrap(), sample), None);
    }

    #[test]
    fn traffic_is_summed_over_interfaces_without_loopback() {
        assert_eq!(
            traffic(NET_DEV),
            Some(Traffic {
                received: 1_500_000,
                sent: 250_000
            })
        );
    }

    #[test]
    fn a_node_with_nothing_but_loopback_has_no_traffic() {
        let heading = "Inter-|   Receive |  Transmit\n face |bytes |bytes\n";
        assert_eq!(
            traffic(&format!(
                "{heading}    lo: 1 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0\n"
            )),
            None
        );
        assert_eq!(traffic(heading), None);
        assert_eq!(traffic(&format!("{heading}  eth0: 1 2\n")), None);
    }

    #[test]
    fn rates_are_bytes_per_second() {
        let (before, now) = (traffic(NET_DEV).unwrap(), traffic(NET_DEV_LATER).unwrap());
        assert_eq!(
            rates(before, now, Duration::from_secs(2)),
            Some((5_000.0, 1_000.0))
        );
    }

    #[test]
    fn counters_that_went_back_give_no_rate() {
        let (before, now) = (traffic(NET_DEV_LATER).unwrap(), traffic(NET_DEV).unwrap());
        assert_eq!(rates(before, now, Duration::from_secs(1)), None);
        assert_eq!(rates(before, before, Duration::ZERO), None);
    }

    #[test]
    fn temperatures_are_thousandths_of_degrees() {
        assert_eq!(temperature("48312\n"), Some(48.312));
        assert_eq!(temperature("-5000"), Some(-5.0));
        assert_eq!(temperature("hot"), None);
    }
}
