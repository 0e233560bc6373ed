//! Long calls go on in the background: on threads of a lower priority, so that who computes for long
//! never keeps waiting who has just got a message.
//!
//! ```text
//!             one call has used LONG_CALL_NS
//! foreground ────────────────────────────────► background
//!            ◄────────────────────────────────
//!              the call has ended, or a share was set
//! ```
//!
//! The task of an instance stays where it was spawned, and ends there: only its turns are taken
//! elsewhere. An instance that has a share of the processor stays in the foreground: its share is
//! what the node has set aside for it, and bounds it.

use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::cpu::Metered;

/// How much the background lets others go first (`nice`).
pub(super) const NICENESS: i32 = 10;

/// The task of an instance, wherever its turns are taken. Whoever drops it has dropped the task.
pub(super) struct Anywhere<F: Future> {
    task: Arc<Lent<F>>,
    background: Handle,
    /// Where its turns are taken while they are taken in the background.
    away: JoinSet<Return<F::Output>>,
}

/// Taken for one turn by who takes it, and by who drops the task in the foreground, who waits for
/// the end of that turn. Empty when the task was dropped.
struct Lent<F: Future>(Mutex<Option<Metered<F>>>);

/// How a task comes back from the background.
enum Return<T> {
    /// It has ended.
    Ended(T),
    /// Its long call has.
    Unfinished,
}

impl<F: Future> Lent<F> {
    fn take_turn(&self, context: &mut Context<'_>) -> Option<(Poll<F::Output>, bool)> {
        let mut lent = self.lock();
        let task = lent.as_mut()?;
        let outcome = Pin::new(&mut *task).poll(context);
        Some((outcome, task.is_in_long_call()))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Metered<F>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Anywhere<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// A task that begins in the foreground.
    pub(super) fn new(task: Metered<F>, background: Handle) -> Self {
        Self {
            task: Arc::new(Lent(Mutex::new(Some(task)))),
            background,
            away: JoinSet::new(),
        }
    }

    fn go_on_in_background(&mut self) {
        let task = Arc::clone(&self.task);
        let turns = poll_fn(move |context| match task.take_turn(context) {
            None => Poll::Ready(Return::Unfinished), // dropped: nobody waits for it
            Some((Poll::Ready(outcome), _)) => Poll::Ready(Return::Ended(outcome)),
            Some((Poll::Pending, true)) => Poll::Pending,
            Some((Poll::Pending, false)) => Poll::Ready(Return::Unfinished),
        });
        self.away.spawn_on(turns, &self.background);
    }
}

impl<F> Future for Anywhere<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        loop {
            if !self.away.is_empty() {
                match ready!(self.away.poll_join_next(context)) {
                    Some(Ok(Return::Ended(outcome))) => return Poll::Ready(outcome),
                    Some(Err(error)) => match error.try_into_panic() {
                        Ok(panic) => resume_unwind(panic),
                        Err(_) => return Poll::Pending, // the threads have ended: so will this task
                    },
                    Some(Ok(Return::Unfinished)) | None => {}
                }
            }
            match self.task.take_turn(context) {
                None => return Poll::Pending,
                Some((Poll::Ready(outcome), _)) => return Poll::Ready(outcome),
                Some((Poll::Pending, false)) => return Poll::Pending,
                Some((Poll::Pending, true)) => self.go_on_in_background(),
            }
        }
    }
}

impl<F: Future> Drop for Anywhere<F> {
    fn drop(&mut self) {
        drop(self.task.lock().take());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::cpu::{LONG_CALL_NS, Share};
    use super::super::guest::Counters;
    use super::*;

    /// Computes until it has used `ns` of its thread, giving way every now and then.
    async fn compute(counters: &Counters, ns: u64) {
        let end = counters.cpu_ns.load(Ordering::Relaxed) + ns;
        while counters.cpu_ns.load(Ordering::Relaxed) < end {
            let burnt: u64 = (0..20_000).map(std::hint::black_box).sum();
            std::hint::black_box(burnt);
            tokio::task::yield_now().await;
        }
    }

    fn thread() -> Option<String> {
        std::thread::current().name().map(str::to_owned)
    }

    /// Where a task was after a long call, and after its end.
    fn places(share: Option<u32>) -> (Option<String>, Option<String>) {
        let background = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("background")
            .build()
            .unwrap();
        let counters: Arc<Counters> = Arc::default();
        let bounds: Arc<Share> = Arc::default();
        bounds.set(share);
        let task = {
            let counters = Arc::clone(&counters);
            async move {
                compute(&counters, 2 * LONG_CALL_NS).await;
                let during = thread();
                counters.calls.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                (during, thread())
            }
        };
        let metered = Metered::new(task, bounds, counters);
        let foreground = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let places = foreground
            .block_on(async { Anywhere::new(metered, background.handle().clone()).await });
        background.shutdown_background();
        places
    }

    #[test]
    fn a_long_call_goes_on_in_the_background_and_comes_back_when_it_has_ended() {
        let (during, after) = places(None);
        assert_eq!(during.as_deref(), Some("background"));
        assert_eq!(after, thread());
    }

    #[test]
    fn who_has_a_share_stays_in_the_foreground() {
        let (during, after) = places(Some(100));
        assert_eq!((during, after), (thread(), thread()));
    }

    #[tokio::test]
    async fn a_task_that_is_dropped_while_it_is_away_is_gone_at_once() {
        let background = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let counters: Arc<Counters> = Arc::default();
        let held = Arc::new(());
        let task = {
            let (counters, held) = (Arc::clone(&counters), Arc::clone(&held));
            async move {
                compute(&counters, u64::MAX / 2).await;
                drop(held);
            }
        };
        let metered = Metered::new(task, Arc::default(), Arc::clone(&counters));
        let mut anywhere = Box::pin(Anywhere::new(metered, background.handle().clone()));
        poll_fn(|context| {
            assert!(anywhere.as_mut().poll(context).is_pending());
            match anywhere.away.is_empty() {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
        drop(anywhere);
        assert_eq!(Arc::strong_count(&held), 1);
        background.shutdown_background();
    }
}
