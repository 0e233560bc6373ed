//! `haar:local/timers`: timers of an instance. A repeating timer that comes late ticks once and
//! reports what it missed; it never ticks in a burst. Those that are kept stand in the store too:
//! written before `set` answers, brought up to date now and then, read when an instance starts.

mod schedule;

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::log::Level;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};
use wasmtime::error::Context as _;

use super::bindings::imports::haar::local::timers::{self, Lifetime, TimerError};
use super::state::{State, now_ms};
use crate::bus::message::count;
use crate::store::Store;
use schedule::{DELAY_MS_MAX, Timer};
pub use schedule::{DueTick, Timers};

/// The shortest period of a repeating timer in milliseconds.
const PERIOD_MS_MIN: u64 = 1;
/// Bytes of a name. As in `wit/timers.wit`.
const NAME_BYTES_MAX: u32 = 128;
/// How often in a second an instance may set timers that are kept: each one wears the flash. As in
/// `wit/timers.wit`.
const KEPT_PER_SECOND: u32 = 20;
/// What is stored of a repeating timer is as old as this at most.
const SAVE_PAUSE: Duration = Duration::from_secs(60);

/// The timers that a new instance finds set.
///
/// # Errors
/// When the store can't be read.
pub async fn load(store: &Store, name: &MicroserviceName) -> anyhow::Result<Timers> {
    let kept = store.kept_timers(name).await?;
    Ok(Timers::resume(kept, Instant::now(), now_ms()))
}

/// To be called when the handler of a tick has returned: what ticked for the last time is no longer
/// kept, and what goes on is brought up to date.
pub async fn ticked(state: &mut State, tick: &DueTick) {
    let outcome = if let Some(name) = state.timers.take_ticked() {
        state
            .surroundings
            .store
            .drop_timer(&state.name, &name)
            .await
    } else if let Some(timer) =
        state
            .timers
            .take_unsaved(&tick.name, SAVE_PAUSE, Instant::now(), now_ms())
    {
        state
            .surroundings
            .store
            .keep_timer(&state.name, timer)
            .await
    } else {
        Ok(())
    };
    if let Err(error) = outcome {
        let text = format!(
            "what is kept of the timer `{}` can't be changed, so a new instance will see old ticks again: {error:#}",
            tick.name
        );
        state.logger.agent(Level::Warn, &text);
    }
}

/// To be called when an instance has ended, in whatever way: the next one goes on where it was.
pub async fn save(state: &mut State) {
    let unsaved = state.timers.take_all_unsaved(Instant::now(), now_ms());
    let mut writes = JoinSet::new(); // at once, so that they are committed at once
    for timer in unsaved {
        let (store, name) = (state.surroundings.store.clone(), state.name.clone());
        writes.spawn(async move { store.keep_timer(&name, timer).await });
    }
    for outcome in writes.join_all().await {
        if let Err(error) = outcome {
            let text = format!("a kept timer can't be brought up to date: {error:#}");
            state.logger.agent(Level::Warn, &text);
        }
    }
}

impl timers::Host for State {
    async fn set_once(
        &mut self,
        name: String,
        delay: u64,
        lifetime: Lifetime,
    ) -> wasmtime::Result<Result<(), TimerError>> {
        Ok(self.set_timer(name, delay, None, lifetime).await)
    }

    async fn set_repeating(
        &mut self,
        name: String,
        period: u64,
        lifetime: Lifetime,
    ) -> wasmtime::Result<Result<(), TimerError>> {
        if period < PERIOD_MS_MIN {
            return Ok(Err(TimerError::TooShort(PERIOD_MS_MIN)));
        }
        Ok(self.set_timer(name, period, Some(period), lifetime).await)
    }

    async fn cancel(&mut self, name: String) -> wasmtime::Result<bool> {
        if self.timers.is_stored(&name) {
            let dropped = self.surroundings.store.drop_timer(&self.name, &name).await;
            // There is no answer that says so, and "removed" would be a lie.
            dropped
                .map_err(|error| wasmtime::Error::msg(format!("{error:#}")))
                .with_context(|| format!("the kept timer `{name}` can't be removed"))?;
        }
        Ok(self.timers.remove(&name))
    }
}

impl State {
    async fn set_timer(
        &mut self,
        name: String,
        delay_ms: u64,
        period_ms: Option<u64>,
        lifetime: Lifetime,
    ) -> Result<(), TimerError> {
        if name.len() > NAME_BYTES_MAX as usize {
            return Err(TimerError::NameTooLong(NAME_BYTES_MAX));
        }
        if !self.timers.has_room(&name, self.limits.timers) {
            count(&self.counters.exceeded.timers);
            return Err(TimerError::TooMany(self.limits.timers));
        }
        // A repeating one is first due after its period.
        if delay_ms > DELAY_MS_MAX {
            return Err(TimerError::NotStored(format!(
                "{delay_ms} ms is more than a year: {DELAY_MS_MAX} ms at most"
            )));
        }
        let now = Instant::now();
        let is_kept = matches!(lifetime, Lifetime::Kept);
        if self.timers.goes_on(&name, period_ms, is_kept) {
            return Ok(());
        }
        let mut timer = Timer::new(delay_ms, period_ms, now, now_ms());
        let store = &self.surroundings.store;
        let stored = match lifetime {
            Lifetime::Kept => {
                if self.timers.kept_changes.take(KEPT_PER_SECOND).is_err() {
                    count(&self.counters.exceeded.timers);
                    return Err(TimerError::NotStored(format!(
                        "kept timers may be set {KEPT_PER_SECOND} times in a second"
                    )));
                }
                timer = timer.stored(now);
                let kept = timer.to_kept(&name);
                store.keep_timer(&self.name, kept).await
            }
            // One that was kept is replaced by one that is not.
            Lifetime::Instance if self.timers.is_stored(&name) => {
                store.drop_timer(&self.name, &name).await
            }
            Lifetime::Instance => Ok(()),
        };
        stored.map_err(|error| TimerError::NotStored(format!("{error:#}")))?;
        self.timers.set(name, timer);
        Ok(())
    }
}
