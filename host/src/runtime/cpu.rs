//! Processor time of instances: measured, and held to a share. The task of an instance is wrapped
//! in [`Metered`], which measures each of its turns by the clock of the thread it runs on. A share
//! is a token bucket of processor time: an instance that has used up its share waits until time has
//! passed; one that others have kept from its share catches up with longer turns.
//!
//! Guests give way about every tenth of a millisecond ([`super::YIELD_FUEL`]), so a turn never
//! overdraws the bucket by much. What one call has used without a share decides where it goes on:
//! see [`super::background`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, Sleep};

use super::guest::Counters;

/// A bucket holds the share of so many nanoseconds.
const PERIOD_NS: u64 = 100_000_000;
/// The longest turn of an instance that catches up.
const TURN_NS_MAX: u64 = 1_000_000;
/// Less than this is a turn of an instance that has nothing to do. Simple loops burn the fuel of a
/// turn in less than 20 microseconds.
const IDLE_TURN_NS: u64 = 3_000;
/// An instance that waits for its share waits until it has at least so much of it: not for every
/// microsecond, which would cost more than it gives.
const WAKE_NS: i64 = 100_000;

/// A call that has used more than this is a long one. Handlers of messages take microseconds.
pub(super) const LONG_CALL_NS: u64 = 2_000_000;

/// The share of one microservice, in percent of one core. Zero means that none is set.
#[derive(Debug, Default)]
pub struct Share(AtomicU32);

impl Share {
    /// Changes it, in the middle of a call too.
    pub fn set(&self, percent: Option<u32>) {
        self.0.store(percent.unwrap_or(0), Ordering::Relaxed);
    }

    fn percent(&self) -> Option<u64> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            percent => Some(percent.into()),
        }
    }
}

/// Processor time that an instance may use now. It may be overdrawn.
#[derive(Debug)]
struct Bucket {
    balance_ns: i64,
    filled: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self {
            balance_ns: 0,
            filled: now,
        }
    }

    fn fill(&mut self, percent: u64, now: Instant) {
        let elapsed = u64::try_from((now - self.filled).as_nanos()).unwrap_or(u64::MAX);
        let full = PERIOD_NS * percent / 100;
        // A long pause fills the bucket; more does not fit.
        let gained = elapsed.min(100 * full) * percent / 100;
        self.filled = now;
        self.balance_ns = self
            .balance_ns
            .saturating_add_unsigned(gained)
            .min(signed(full));
    }

    /// How long to wait until there is enough to go on; nothing when there is something now.
    fn wait(&self, percent: u64) -> Option<Duration> {
        if self.balance_ns > 0 {
            return None;
        }
        let lacking = WAKE_NS.saturating_sub(self.balance_ns).unsigned_abs();
        Some(Duration::from_nanos(lacking.saturating_mul(100) / percent))
    }
}

/// A task whose processor time is measured and bounded.
pub struct Metered<F> {
    task: Pin<Box<F>>,
    share: Arc<Share>,
    counters: Arc<Counters>,
    bucket: Bucket,
    pause: Option<Pin<Box<Sleep>>>,
    /// Calls that had ended when `used_in_call_ns` was zero.
    calls: u64,
    used_in_call_ns: u64,
}

impl<F: Future> Metered<F> {
    /// Wraps `task`. It must run where tokio's timers are.
    pub fn new(task: F, share: Arc<Share>, counters: Arc<Counters>) -> Self {
        Self {
            task: Box::pin(task),
            share,
            counters,
            bucket: Bucket::new(Instant::now()),
            pause: None,
            calls: 0,
            used_in_call_ns: 0,
        }
    }

    /// True when the call that it is in has used much, and no share bounds it.
    pub(super) fn is_in_long_call(&self) -> bool {
        self.used_in_call_ns > LONG_CALL_NS && self.share.percent().is_none()
    }

    /// One turn of the task, measured.
    fn turn(&mut self, context: &mut Context<'_>) -> (Poll<F::Output>, u64) {
        let before = thread_time_ns();
        let outcome = self.task.as_mut().poll(context);
        let used = thread_time_ns().saturating_sub(before);
        self.counters.cpu_ns.fetch_add(used, Ordering::Relaxed);
        let calls = self.counters.calls.load(Ordering::Relaxed);
        if calls == self.calls {
            self.used_in_call_ns += used;
        } else {
            (self.calls, self.used_in_call_ns) = (calls, 0);
        }
        (outcome, used)
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if let Some(pause) = &mut this.pause {
            if pause.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            this.pause = None;
        }
        let Some(percent) = this.share.percent() else {
            return this.turn(context).0;
        };
        this.bucket.fill(percent, Instant::now());
        let mut used_in_turn = 0;
        loop {
            let (outcome, used) = this.turn(context);
            if outcome.is_ready() {
                return outcome;
            }
            used_in_turn += used;
            this.bucket.balance_ns = this.bucket.balance_ns.saturating_sub_unsigned(used);
            if let Some(wait) = this.bucket.wait(percent) {
                let exceeded = &this.counters.exceeded.cpu;
                exceeded.fetch_add(1, Ordering::Relaxed);
                let mut pause = Box::pin(tokio::time::sleep(wait));
                if pause.as_mut().poll(context).is_pending() {
                    this.pause = Some(pause);
                    return Poll::Pending;
                }
                this.bucket.fill(percent, Instant::now());
            }
            // It gave way in the middle of work, and has been kept from its share: on it goes.
            let has_more = used >= IDLE_TURN_NS;
            let is_behind = this.bucket.balance_ns > signed(TURN_NS_MAX);
            if !(has_more && is_behind) || used_in_turn >= TURN_NS_MAX {
                return Poll::Pending;
            }
        }
    }
}

/// Processor time that this thread has used. The kernel's clock is of the thread: what other
/// threads and processes do in the meantime does not count.
fn thread_time_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_by_its_share_of_the_time_and_no_further_than_its_size() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        bucket.fill(10, start + Duration::from_millis(10));
        assert_eq!(bucket.balance_ns, 1_000_000);
        bucket.fill(10, start + Duration::from_secs(3_600));
        assert_eq!(bucket.balance_ns, 10_000_000);
        bucket.fill(1, start + Duration::from_secs(3_600));
        assert_eq!(
            bucket.balance_ns, 1_000_000,
            "a smaller share holds at once"
        );
    }

    #[test]
    fn who_has_overdrawn_waits_for_as_long_as_the_share_takes_to_pay_it_back() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        bucket.balance_ns = -900_000;
        assert_eq!(bucket.wait(10), Some(Duration::from_millis(10)));
        bucket.fill(10, start + Duration::from_millis(10));
        assert_eq!(bucket.wait(10), None);
    }

    #[tokio::test]
    async fn what_a_task_uses_is_counted() {
        let counters: Arc<Counters> = Arc::default();
        let task = async {
            let before = thread_time_ns();
            while thread_time_ns() - before < 2_000_000 {}
        };
        Metered::new(task, Arc::default(), Arc::clone(&counters)).await;
        assert!(counters.cpu_ns.load(Ordering::Relaxed) >= 2_000_000);
    }
}
