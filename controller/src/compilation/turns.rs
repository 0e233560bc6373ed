//! What is being compiled, and whose turn it is: first what somebody waits for, then what was pushed
//! for the fleet; each in the order in which it came. No more at once than the machine has processors
//! for; what somebody waits for does not wait for the others, which the kernel lets share.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Job, Outcome};

/// The jobs under way.
#[derive(Debug)]
pub(super) struct Turns {
    at_once: usize,
    /// Taken for one look-up each.
    jobs: Mutex<Jobs>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Jobs {
    entries: BTreeMap<Job, Entry>,
    came: u64,
}

#[derive(Debug)]
struct Entry {
    /// When somebody asked for it last.
    asked: Option<Instant>,
    /// When it came, compared with others.
    order: u64,
    phase: Phase,
    outcome: watch::Receiver<Outcome>,
}

#[derive(Debug)]
enum Phase {
    Waiting,
    Compiling { since: Instant },
    Pausing { until: Instant, why: String },
}

impl Entry {
    fn is_wanted(&self) -> bool {
        self.asked.is_some()
    }

    fn compiles(&self) -> bool {
        matches!(self.phase, Phase::Compiling { .. })
    }

    fn waits(&self) -> bool {
        matches!(self.phase, Phase::Waiting)
    }

    /// For people, after "it has been" or alone.
    fn progress(&self, now: Instant) -> String {
        match &self.phase {
            Phase::Waiting => "waiting for its turn to be compiled".to_owned(),
            Phase::Compiling { since } => format!("compiling for {} s", (now - *since).as_secs()),
            Phase::Pausing { until, why } => {
                let seconds = until.saturating_duration_since(now).as_secs_f64().ceil();
                format!("{why}; tried again in {seconds} s")
            }
        }
    }
}

impl Turns {
    pub(super) fn new(at_once: usize) -> Self {
        Self {
            at_once,
            jobs: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Where the outcome of `job` will be told, and, when the job was not under way, where to tell it.
    pub(super) fn join(
        &self,
        job: &Job,
        wanted: bool,
    ) -> (watch::Receiver<Outcome>, Option<watch::Sender<Outcome>>) {
        let asked = wanted.then(Instant::now);
        let mut jobs = self.jobs();
        let (receiver, sender) = match jobs.entries.get_mut(job) {
            Some(entry) => {
                entry.asked = asked.or(entry.asked);
                (entry.outcome.clone(), None)
            }
            None => {
                let (sender, receiver) = watch::channel(None);
                jobs.came += 1;
                let entry = Entry {
                    asked,
                    order: jobs.came,
                    phase: Phase::Waiting,
                    outcome: receiver.clone(),
                };
                jobs.entries.insert(job.clone(), entry);
                (receiver, Some(sender))
            }
        };
        drop(jobs);
        self.changed.notify_waiters();
        (receiver, sender)
    }

    /// Waits until it is the turn of `job`, which is compiling from then on.
    pub(super) async fn turn(&self, job: &Job) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.jobs().begin(job, self.at_once) {
                self.changed.notify_waiters(); // the next in line may have looked before
                return;
            }
            changed.await;
        }
    }

    /// `job` did not succeed and waits for `pause` before it has a turn again.
    pub(super) async fn pause(&self, job: &Job, pause: Duration, why: String) {
        let until = Instant::now() + pause;
        self.set(job, Phase::Pausing { until, why });
        tokio::time::sleep_until(until).await;
        self.set(job, Phase::Waiting);
    }

    /// `job` has an outcome.
    pub(super) fn leave(&self, job: &Job) {
        self.jobs().entries.remove(job);
        self.changed.notify_waiters();
    }

    /// How far the jobs are that `is_one` picks.
    pub(super) fn progress(&self, is_one: impl Fn(&Job) -> bool) -> Vec<(Job, String)> {
        let now = Instant::now();
        let jobs = self.jobs();
        let found = jobs.entries.iter().filter(|(job, _)| is_one(job));
        found
            .map(|(job, entry)| (job.clone(), entry.progress(now)))
            .collect()
    }

    /// True when somebody has asked for `job` within `time` before `now`.
    pub(super) fn was_asked_for(&self, job: &Job, time: Duration, now: Instant) -> bool {
        let jobs = self.jobs();
        let asked = jobs.entries.get(job).and_then(|entry| entry.asked);
        asked.is_some_and(|asked| now.saturating_duration_since(asked) <= time)
    }

    /// True while `job` waits because its compiler could not do its work.
    pub(super) fn pauses(&self, job: &Job) -> bool {
        let jobs = self.jobs();
        let entry = jobs.entries.get(job);
        entry.is_some_and(|entry| matches!(entry.phase, Phase::Pausing { .. }))
    }

    fn set(&self, job: &Job, phase: Phase) {
        if let Some(entry) = self.jobs().entries.get_mut(job) {
            entry.phase = phase;
        }
        self.changed.notify_waiters();
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Jobs {
    fn begin(&mut self, job: &Job, at_once: usize) -> bool {
        let entries = &self.entries;
        let Some(entry) = entries.get(job) else {
            return true; // nobody keeps account of it any more
        };
        let first = entries
            .values()
            .filter(|other| other.waits())
            .max_by_key(|other| (other.is_wanted(), std::cmp::Reverse(other.order)));
        let at_work = entries
            .values()
            .filter(|other| other.compiles() && (other.is_wanted() || !entry.is_wanted()))
            .count();
        let is_first = first.is_some_and(|first| first.order == entry.order);
        let begins = is_first && at_work < at_once;
        if begins && let Some(entry) = self.entries.get_mut(job) {
            entry.phase = Phase::Compiling {
                since: Instant::now(),
            };
        }
        begins
    }
}

#[cfg(test)]
mod tests {
    use haar_protocol::ids::Digest;

    use super::super::Platform;
    use super::*;

    fn job(name: &str) -> Job {
        let platform = Platform::new(&"ab".repeat(32), "x86_64-linux").unwrap();
        (Digest::of(name.as_bytes()), platform)
    }

    /// Which of the jobs would begin now.
    fn next(turns: &Turns, names: &[&str]) -> Vec<String> {
        let mut begun = Vec::new();
        loop {
            let mut jobs = turns.jobs();
            let found = names
                .iter()
                .find(|name| {
                    let job = job(name);
                    let waits = jobs.entries.get(&job).is_some_and(Entry::waits);
                    waits && jobs.begin(&job, turns.at_once)
                })
                .map(|name| (*name).to_owned());
            drop(jobs);
            match found {
                Some(name) => begun.push(name),
                None => return begun,
            }
        }
    }

    #[test]
    fn what_somebody_waits_for_goes_first_and_does_not_wait_for_the_others() {
        let names = ["a", "b", "c", "d"];
        let turns = Turns::new(1);
        for name in ["a", "b"] {
            let (_, sender) = turns.join(&job(name), false);
            assert!(sender.is_some());
        }
        assert_eq!(next(&turns, &names), ["a"]);
        turns.join(&job("c"), true);
        assert_eq!(next(&turns, &names), ["c"], "beside `a`, before `b`");
        turns.join(&job("d"), true);
        assert_eq!(next(&turns, &names), [""; 0]);
        // Somebody asks for what was pushed, too: it keeps its place among those.
        let (_, sender) = turns.join(&job("b"), true);
        assert!(sender.is_none(), "it is under way");
        turns.leave(&job("c"));
        assert_eq!(next(&turns, &names), ["b"]);
        turns.leave(&job("b"));
        assert_eq!(next(&turns, &names), ["d"]);
    }

    #[test]
    fn a_job_that_nobody_asks_for_any_more_is_known_as_such() {
        let (turns, time) = (Turns::new(1), Duration::from_secs(600));
        let is_asked_for = |now| turns.was_asked_for(&job("a"), time, now);
        turns.join(&job("a"), false);
        assert!(!is_asked_for(Instant::now()), "it was pushed only");
        turns.join(&job("a"), true);
        let asked = Instant::now();
        turns.join(&job("a"), false);
        assert!(is_asked_for(asked));
        assert!(!is_asked_for(asked + time + Duration::from_secs(1)));
    }

    #[test]
    fn a_job_says_how_far_it_is_and_pauses_in_the_way_of_nobody() {
        let turns = Turns::new(1);
        for name in ["a", "b"] {
            turns.join(&job(name), false);
        }
        assert_eq!(next(&turns, &["a", "b"]), ["a"]);
        let told = |name: &str, later: u64| {
            let now = Instant::now() + Duration::from_secs(later);
            let jobs = turns.jobs();
            jobs.entries[&job(name)].progress(now)
        };
        assert_eq!(told("a", 12), "compiling for 12 s");
        assert_eq!(told("b", 12), "waiting for its turn to be compiled");
        let until = Instant::now();
        let why = "it was killed".to_owned();
        turns.set(&job("a"), Phase::Pausing { until, why });
        assert_eq!(told("a", 0), "it was killed; tried again in 0 s");
        assert_eq!(
            (turns.pauses(&job("a")), turns.pauses(&job("b"))),
            (true, false)
        );
        assert_eq!(next(&turns, &["a", "b"]), ["b"]);
        turns.set(&job("a"), Phase::Waiting);
        assert_eq!(next(&turns, &["a", "b"]), [""; 0]);
        turns.leave(&job("b"));
        assert_eq!(next(&turns, &["a"]), ["a"]);
    }
}
