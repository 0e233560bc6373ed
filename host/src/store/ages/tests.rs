//! The clock of ages over boots whose wall clocks show anything.

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::NodeId;
use haar_protocol::keys::SecretKey;
use proptest::prelude::*;

use super::super::Store;
use super::super::log::batches::Room;
use super::super::log::{Consumer, LogId, LogName, WantedLog};
use super::*;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// A day in 2026.
const TODAY_MS: u64 = 1_800_000_000_000;

fn reading(boot: i64, up_ms: u64, wall_ms: u64, is_synchronised: bool) -> Reading {
    Reading {
        boot: Some(boot),
        up_ms,
        wall_ms,
        is_synchronised,
    }
}

#[test]
fn a_clock_that_is_set_while_the_agent_runs_or_is_down_makes_nothing_older() {
    let mut ages = Ages::resume(None, 0, &reading(1, 5_000, 0, false));
    // 1970, until the network is there.
    ages.look(&reading(1, 6_000, TODAY_MS, true));
    assert_eq!(ages.now_ms(7_000), 2_000);
    let kept = ages.keep(&reading(1, 7_000, TODAY_MS + 1_000, true));
    // The agent is started again in the same boot, and somebody sets the clock a year on.
    let later = reading(1, 9_000, TODAY_MS + 365 * DAY_MS, true);
    let again = Ages::resume(Some(kept), 0, &later);
    assert_eq!(again.now_ms(9_000), 4_000);
}

#[test]
fn time_while_the_system_was_down_counts_once_both_ends_are_known() {
    let mut ages = Ages::resume(None, 0, &reading(1, 0, TODAY_MS, true));
    let kept = ages.keep(&reading(1, HOUR_MS, TODAY_MS + HOUR_MS, true));
    // Two days later, without a battery.
    let mut ages = Ages::resume(Some(kept), 0, &reading(2, 10, 0, false));
    assert!(ages.lacks_time());
    assert_eq!(ages.now_ms(1_010), HOUR_MS + 1_000);
    // The agent is started once more before the network is there.
    let kept = ages.keep(&reading(2, 2_010, 2_000, false));
    let mut ages = Ages::resume(Some(kept), 0, &reading(2, 3_010, 3_000, false));
    assert_eq!(ages.now_ms(3_010), HOUR_MS + 3_000);
    ages.look(&reading(2, 4_010, TODAY_MS + 2 * DAY_MS, true));
    assert!(!ages.lacks_time());
    assert_eq!(ages.now_ms(4_010), 2 * DAY_MS);
}

#[test]
fn time_between_two_boots_that_never_knew_the_time_counts_as_none() {
    let mut ages = Ages::resume(None, 0, &reading(1, 0, 0, false));
    let kept = ages.keep(&reading(1, HOUR_MS, HOUR_MS, false));
    let mut ages = Ages::resume(Some(kept), 0, &reading(2, 0, TODAY_MS, false));
    assert!(!ages.lacks_time());
    ages.look(&reading(2, 5, TODAY_MS, true));
    assert_eq!(ages.now_ms(5), HOUR_MS + 5);
}

#[test]
fn after_a_power_cut_the_clock_is_never_before_what_was_stored() {
    let mut ages = Ages::resume(None, 0, &reading(1, 0, 0, false));
    let kept = ages.keep(&reading(1, 1_000, 0, false));
    let again = Ages::resume(Some(kept), 9_000, &reading(2, 0, 0, false));
    assert_eq!(again.now_ms(0), 9_000);
}

#[test]
fn the_clock_goes_on_over_restarts_on_the_disk() {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
             CREATE TABLE batch (id INTEGER PRIMARY KEY, stored_ms INTEGER NOT NULL) STRICT;",
        )
        .unwrap();
    let first = AgeClock::new();
    first.pass(DAY_MS);
    first.keep(&connection).unwrap();
    let second = AgeClock::new();
    assert!(second.now_ms() < DAY_MS);
    second.resume(&connection).unwrap();
    assert!((DAY_MS..2 * DAY_MS).contains(&second.now_ms()));
    connection
        .execute("INSERT INTO batch VALUES (1, ?1)", [integer(9 * DAY_MS)])
        .unwrap();
    second.resume(&connection).unwrap();
    assert!((9 * DAY_MS..10 * DAY_MS).contains(&second.now_ms()));
}

proptest! {
    /// Whatever wall clocks show: ages never go back, and while the kernel calls no clock right they
    /// count exactly the time for which the system was up.
    #[test]
    fn ages_grow_with_the_time_that_the_system_is_up(
        boots in proptest::collection::vec(
            (proptest::collection::vec((0..DAY_MS, any::<u64>(), any::<bool>()), 1..6), any::<bool>()), 1..6)
    ) {
        let (mut kept, mut last_ms) = (None, 0);
        let (mut up_in_all_ms, mut has_synchronised) = (0, false);
        for (boot, (looks, is_restarted)) in (1..).zip(boots) {
            let mut up_ms = 0;
            let mut ages = Ages::resume(kept, 0, &reading(boot, up_ms, 0, false));
            for (passed_ms, wall_ms, is_synchronised) in looks {
                up_ms += passed_ms;
                up_in_all_ms += passed_ms;
                has_synchronised |= is_synchronised;
                let now = reading(boot, up_ms, wall_ms >> 1, is_synchronised);
                if is_restarted {
                    ages = Ages::resume(kept.filter(|one: &Kept| one.boot == Some(boot)).or(Some(ages.keep(&now))), 0, &now);
                }
                ages.look(&now);
                prop_assert!(ages.now_ms(up_ms) >= last_ms);
                last_ms = ages.now_ms(up_ms);
                if !has_synchronised {
                    prop_assert_eq!(last_ms, up_in_all_ms);
                }
            }
            kept = Some(ages.keep(&reading(boot, up_ms, 0, false)));
        }
    }
}

/// Whatever publishers' clocks show, a message is as old as this node has had it: in its batch, filed,
/// and after a restart.
#[tokio::test]
async fn what_is_read_from_the_disk_is_as_old_as_the_node_has_had_it() {
    for batches_bytes in [0, 1 << 20] {
        let room = || Room {
            batches_bytes,
            ..Room::default()
        };
        let directory = tempfile::tempdir().unwrap();
        let (store, thread) = Store::open_with(directory.path(), room()).unwrap();
        let log = open_log(&store).await;
        for published_ms in [0, TODAY_MS, TODAY_MS + 10 * 365 * DAY_MS] {
            let message = (vec![], b"x".to_vec());
            let appended = store.append(log, published_ms, vec![message], |_, _| {});
            appended.await.unwrap();
            store.ages().pass(HOUR_MS);
        }
        store.keep_ages().await.unwrap();
        drop(store);
        thread.join();
        let (store, _thread) = Store::open_with(directory.path(), room()).unwrap();
        let now_ms = store.ages().now_ms();
        let source = std::sync::Arc::default();
        let read = store.read_log(log, 0, u64::MAX, source).await.unwrap();
        let older = |age_ms: u64| {
            let older = read.iter().filter(|one| one.is_older(age_ms, now_ms));
            older.count()
        };
        let counts = [0, 1, 2, 3, 4].map(|hours| older(hours * HOUR_MS + HOUR_MS / 2));
        assert_eq!(counts, [3, 2, 1, 0, 0]);
    }
}

async fn open_log(store: &Store) -> LogId {
    let owner = MicroserviceName {
        application: "app".parse().unwrap(),
        microservice: "it".parse().unwrap(),
    };
    let wanted = WantedLog {
        owner: owner.clone(),
        name: LogName::Outlet("out".parse().unwrap()),
        consumers: vec![Consumer {
            route: 1,
            node: NodeId::of(&SecretKey::from_seed([1; 32]).public()),
        }],
    };
    store.open_logs(vec![owner], vec![wanted], 1).await.unwrap()[0].id
}
