//! The log of durable routes when its process is killed, its power cut, or its disk fails, at every
//! operation that changes a file: whatever was answered is there, of what was not answered either all
//! is there or nothing, and nothing else.
//!
//! There is no model of the log here. What must be there is what the same steps leave on a disk that
//! never fails.

mod steps;

use std::path::Path;

use haar_faulty_disk::{Disk, Failure, Operation};
use haar_host::store::{Health, StatusSequence, Store};

use steps::{LONG, Logs, OUTLET, SHORT, State, Step, body};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

/// What is left after no step, after one, and so on, where nothing fails.
fn states(steps: &[Step]) -> Vec<State> {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let mut logs = Logs::open(directory.path()).await.unwrap();
        let mut states = vec![logs.state().await];
        for step in steps {
            logs.take(*step).await.unwrap();
            if matches!(step, Step::Restart) {
                logs.close();
                logs = Logs::open(directory.path()).await.unwrap();
            }
            states.push(logs.state().await);
        }
        logs.close();
        states
    })
}

/// Takes steps until one is not answered: then the process is killed, or goes on in vain before.
/// Returns how many were answered; all databases are closed.
async fn until_failure(directory: &Path, disk: &Disk, steps: &[Step], goes_on: bool) -> usize {
    let Ok(mut logs) = Logs::open(directory).await else {
        return 0;
    };
    for (answered, step) in steps.iter().enumerate() {
        if logs.take(*step).await.is_err() {
            let later = if goes_on { &steps[answered..] } else { &[] };
            for later in later {
                let outcome = logs.take(*later).await;
                // The others may find nothing to do.
                let changes = matches!(later, Step::Append(..) | Step::Keep(..));
                assert!(outcome.is_err() || !changes, "{later:?} after the end");
            }
            disk.kill();
            logs.close();
            return answered;
        }
        if matches!(step, Step::Restart) {
            logs.close();
            let Ok(opened) = Logs::open(directory).await else {
                return answered;
            };
            logs = opened;
        }
    }
    logs.close();
    steps.len()
}

async fn state_of(directory: &Path) -> State {
    let logs = Logs::open(directory).await.unwrap();
    let state = logs.state().await;
    logs.close();
    state
}

/// The operations of the steps on a disk that is well.
fn operations(steps: &[Step]) -> Vec<Operation> {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::of(directory.path());
    let answered = runtime().block_on(until_failure(directory.path(), &disk, steps, true));
    assert_eq!(answered, steps.len());
    disk.operations()
}

/// Ends the steps at an operation, and compares what is left with what was answered.
fn end_at(steps: &[Step], states: &[State], index: usize, failure: Failure, power: Option<u64>) {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::of(directory.path());
    disk.fail_at(index, failure);
    runtime().block_on(async {
        let answered = until_failure(directory.path(), &disk, steps, true).await;
        assert!(disk.has_failed());
        match power {
            Some(seed) => disk.cut_power(seed),
            None => disk.repair(),
        }
        let left = state_of(directory.path()).await;
        let next = states.get(answered + 1);
        assert!(
            left == states[answered] || Some(&left) == next,
            "operation {index}, {failure:?}, power {power:?}: {answered} steps were answered, then {:?}",
            steps.get(answered)
        );
    });
}

/// The operations where a long run is ended: all around syncs, and some of the rest.
fn chosen(operations: &[Operation]) -> Vec<usize> {
    let is_special = |index: usize| {
        let around = index.saturating_sub(2)..=index + 2;
        around
            .filter_map(|near| operations.get(near))
            .any(|near| *near != Operation::Write)
    };
    let indices = 0..operations.len();
    let chosen = indices.filter(|index| is_special(*index) || index % 127 == 0);
    chosen.collect()
}

/// Takes all steps, each again until it is answered. Returns how many times one was not; all
/// databases are closed.
async fn patiently(directory: &Path, steps: &[Step]) -> u32 {
    const TIMES: u32 = 3;
    let mut failures = 0;
    let mut open = async || {
        for _ in 0..TIMES {
            match Logs::open(directory).await {
                Ok(logs) => return logs,
                Err(_) => failures += 1,
            }
        }
        panic!("the logs can't be opened any more");
    };
    let mut logs = open().await;
    let mut failed = 0;
    for step in steps {
        let mut times = 0;
        while let Err(error) = logs.take(*step).await {
            times += 1;
            assert!(times < TIMES, "{step:?}: {error:#}");
        }
        failed += times;
        if matches!(step, Step::Restart) {
            logs.close();
            logs = open().await;
        }
    }
    logs.close();
    failures + failed
}

/// Has an operation fail once, goes on, and cuts the power at the end: everything must be there,
/// and nothing twice. Returns how many steps were not answered.
fn go_on_after(steps: &[Step], last: &State, index: usize, failure: Failure) -> u32 {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::of(directory.path());
    disk.fail_at(index, failure);
    runtime().block_on(async {
        let failures = patiently(directory.path(), steps).await;
        disk.cut_power(index as u64);
        let left = state_of(directory.path()).await;
        assert!(left == *last, "operation {index}, {failure:?}");
        failures
    })
}

/// The syncs of a run.
fn syncs(operations: &[Operation]) -> impl Iterator<Item = usize> {
    let indices = operations.iter().zip(0..);
    let syncs = indices.filter(|(operation, _)| **operation == Operation::Sync);
    syncs.map(|(_, index)| index)
}

#[test]
fn after_a_sync_that_failed_the_publisher_hears_of_it_and_the_log_goes_on() {
    for steps in [SHORT, LONG] {
        let states = states(steps);
        let last = states.last().unwrap();
        let failures = syncs(&operations(steps))
            .map(|index| go_on_after(steps, last, index, Failure::Sync))
            .sum::<u32>();
        assert!(failures as usize >= steps.len() / 2, "{failures}");
    }
}

#[test]
fn when_no_sync_succeeds_any_more_nothing_is_answered_that_is_not_there() {
    let states = states(SHORT);
    for index in syncs(&operations(SHORT)) {
        end_at(
            SHORT,
            &states,
            index,
            Failure::EverySync,
            Some(index as u64),
        );
    }
}

#[test]
fn what_was_refused_because_a_sync_failed_is_not_there_when_the_process_is_killed() {
    let states = states(SHORT);
    for index in syncs(&operations(SHORT)) {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::of(directory.path());
        disk.fail_at(index, Failure::EverySync);
        runtime().block_on(async {
            let answered = until_failure(directory.path(), &disk, SHORT, false).await;
            disk.repair();
            let left = state_of(directory.path()).await;
            assert!(left == states[answered], "sync at {index}: {answered}");
        });
    }
}

#[test]
fn a_log_goes_on_after_a_full_disk_as_if_nothing_had_been() {
    let states = states(SHORT);
    let last = states.last().unwrap();
    let operations = operations(SHORT);
    for (index, operation) in operations.iter().enumerate() {
        if *operation == Operation::Write {
            go_on_after(SHORT, last, index, Failure::Full);
        }
    }
}

#[test]
fn a_store_whose_process_was_killed_is_opened_on_a_full_disk() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::of(directory.path());
    runtime().block_on(async {
        let logs = Logs::open(directory.path()).await.unwrap();
        logs.take(Step::Append(2, 500)).await.unwrap();
        logs.store.set_assignment(7, vec![1, 2]).await.unwrap();
        disk.kill();
        logs.close();
        disk.repair();
        disk.fail_at(disk.operations().len(), Failure::EveryFull);
        let (store, thread) = Store::open(directory.path()).unwrap();
        assert_eq!(store.assignments().await, [[1, 2], [1, 2]]);
        assert!(store.set_assignment(8, vec![3]).await.is_err());
        let failing = store.health().borrow().clone();
        assert!(matches!(failing, Health::Failing(_)), "{failing:?}");
        // Statuses say so, and need no database.
        let mut statuses = StatusSequence::default();
        assert_eq!(statuses.peek(&store).await, 1);
        disk.repair();
        store.set_assignment(8, vec![3]).await.unwrap();
        assert_eq!(*store.health().borrow(), Health::Well);
        drop(store);
        thread.join();
        assert_eq!(state_of(directory.path()).await[OUTLET].1.len(), 2);
    });
}

#[test]
fn a_log_that_is_killed_at_any_operation_has_what_was_answered() {
    let states = states(SHORT);
    for index in 0..operations(SHORT).len() {
        end_at(SHORT, &states, index, Failure::Death, None);
        end_at(SHORT, &states, index, Failure::TornDeath, None);
    }
}

#[test]
fn a_log_whose_power_is_cut_at_any_operation_has_what_was_answered() {
    let states = states(SHORT);
    for index in 0..operations(SHORT).len() {
        for seed in 0..3 {
            let seed = Some(index as u64 * 3 + seed);
            end_at(SHORT, &states, index, Failure::Death, seed);
        }
    }
}

#[test]
fn large_transactions_and_checkpoints_are_cut_anywhere_too() {
    let states = states(LONG);
    for index in chosen(&operations(LONG)) {
        end_at(LONG, &states, index, Failure::TornDeath, None);
        end_at(LONG, &states, index, Failure::Death, Some(index as u64));
    }
}

/// Publishers that wait at the same time share a transaction. Each publishes two messages, three
/// times.
const PUBLISHERS: u64 = 6;

/// What the publishers were answered: the first sequence, and which messages that are.
async fn together(logs: &Logs) -> Vec<(u64, u64)> {
    let mut answered = Vec::new();
    for round in 0..3 {
        let publish = async |publisher: u64| {
            let number = (round * PUBLISHERS + publisher) * 2;
            let bodies = [number, number + 1].map(|number| (vec![], body(number, 300)));
            let appended = logs
                .store
                .append(logs.id(OUTLET), 5, bodies.into(), |_, _| {});
            appended.await.ok().map(|first| (first, number))
        };
        let publishers = (0..PUBLISHERS).map(publish);
        answered.extend(
            futures_util::future::join_all(publishers)
                .await
                .into_iter()
                .flatten(),
        );
    }
    answered
}

#[test]
fn publishers_that_share_a_commit_find_what_they_were_answered() {
    let run = async |directory: &Path, disk: &Disk| {
        let logs = Logs::open(directory).await.unwrap();
        let before = disk.operations().len();
        let answered = together(&logs).await;
        disk.kill();
        logs.close();
        (before, answered)
    };
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::of(directory.path());
    let (before, all) = runtime().block_on(run(directory.path(), &disk));
    assert_eq!(all.len() as u64, PUBLISHERS * 3);
    for index in before..disk.operations().len() {
        for failure in [Failure::Death, Failure::Sync, Failure::EverySync] {
            let directory = tempfile::tempdir().unwrap();
            let disk = Disk::of(directory.path());
            disk.fail_at(index, failure);
            runtime().block_on(async {
                let (_, answered) = run(directory.path(), &disk).await;
                disk.cut_power(index as u64);
                let (log, messages) = state_of(directory.path()).await.remove(OUTLET);
                assert_eq!(log.head, messages.len() as u64, "sequences have no gaps");
                for (first, number) in answered {
                    for (sequence, number) in [(first, number), (first + 1, number + 1)] {
                        let kept = messages
                            .iter()
                            .any(|one| *one == (sequence, sequence, body(number, 300)));
                        assert!(kept, "{sequence} is missing: {index}, {failure:?}");
                    }
                }
            });
        }
    }
}
