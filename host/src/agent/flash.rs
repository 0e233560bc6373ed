//! How much the agent writes: flash wears by it. Counted by the kernel, told in status, compared with what
//! the owner of the device wants. Nothing stops when it is more.

use haar_protocol::number;
use haar_protocol::quantity::ByteSize;
use haar_protocol::status::FlashStatus;

const DAY_MS: u64 = 86_400_000;

/// What was written, by day.
#[derive(Debug)]
pub(super) struct Flash {
    budget: Option<ByteSize>,
    /// Days since the Unix epoch.
    day: u64,
    /// What had been written when it began.
    before_today: u64,
    has_warned: bool,
}

impl Flash {
    /// With what a day should take at most.
    pub(super) fn new(budget: Option<ByteSize>, now_ms: u64) -> Self {
        Self {
            budget,
            day: now_ms / DAY_MS,
            before_today: 0,
            has_warned: false,
        }
    }

    /// What to tell of so many bytes that were written since the agent started. Warns once a day.
    pub(super) fn status(&mut self, written_bytes: u64, now_ms: u64) -> FlashStatus {
        let day = now_ms / DAY_MS;
        if day != self.day {
            (self.day, self.before_today, self.has_warned) = (day, written_bytes, false);
        }
        let status = FlashStatus {
            written_bytes: number::capped(written_bytes),
            today_bytes: number::capped(written_bytes.saturating_sub(self.before_today)),
            budget_bytes: self.budget.map(|budget| budget.0),
        };
        if status.is_over_budget() && !self.has_warned {
            self.has_warned = true;
            let today = ByteSize(status.today_bytes);
            tracing::warn!("{today} were written today, more than the `flash_budget`");
        }
        status
    }
}

/// Bytes that this process has given to disks since it started; none where the kernel does not count.
/// What compilers write, in processes of their own, is not among it.
pub(super) fn written_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_day_is_counted_by_itself_and_compared_with_the_budget() {
        let noon = 20_000 * DAY_MS + DAY_MS / 2;
        let mut flash = Flash::new(Some(ByteSize(1_000)), noon);
        assert!(!flash.status(1_000, noon).is_over_budget());
        assert!(flash.status(1_001, noon + 1).is_over_budget());
        let tomorrow = flash.status(1_500, noon + DAY_MS);
        assert_eq!((tomorrow.written_bytes, tomorrow.today_bytes), (1_500, 0));
        let later = flash.status(1_900, noon + DAY_MS + 1);
        assert_eq!(later.today_bytes, 400);
        assert!(!later.is_over_budget());
    }
}
