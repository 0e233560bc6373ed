//! Many requests share one commit, and what belongs to nobody goes in time.

use std::collections::BTreeMap;
use std::sync::mpsc::{SyncSender, sync_channel};

use haar_protocol::assignment::MicroserviceName;

use super::dead_letters::DeadLetter;
use super::key_value::Bucket;
use super::timers::KeptTimer;
use super::*;
use crate::bus::message::Source;

const HOUR_MS: u64 = 3_600_000;

fn open() -> (tempfile::TempDir, Store, StoreThread) {
    let directory = tempfile::tempdir().unwrap();
    let (store, thread) = Store::open(directory.path()).unwrap();
    (directory, store, thread)
}

fn name(microservice: &str) -> MicroserviceName {
    MicroserviceName {
        application: "app".parse().unwrap(),
        microservice: microservice.parse().unwrap(),
    }
}

/// Holds the thread up until something is sent: what is asked meanwhile is done together.
async fn hold_up(store: &Store) -> (SyncSender<()>, impl Future<Output = ()>) {
    let (release, released) = sync_channel(1);
    let (holding, held) = sync_channel(1);
    let waiting = {
        let store = store.clone();
        async move {
            let wait = move |_: &Connection| {
                holding.send(())?;
                Ok(released.recv()?)
            };
            store.run(wait).await.unwrap();
        }
    };
    let mut waiting = Box::pin(waiting);
    tokio::select! {
        biased;
        () = &mut waiting => unreachable!("nothing was released"),
        () = std::future::ready(()) => {}
    }
    held.recv().unwrap();
    (release, waiting)
}

async fn count(store: &Store, value: i64) -> anyhow::Result<()> {
    store
        .run(move |connection| {
            let name = format!("test {value}");
            connection.execute("INSERT INTO counter VALUES (?1, ?2)", (name, value))?;
            anyhow::ensure!(value >= 0, "negative");
            Ok(())
        })
        .await
}

/// What [`count`] has left in the file, as another process sees it.
fn counted(directory: &tempfile::TempDir) -> Vec<i64> {
    let connection = Connection::open(directory.path().join("agent.db")).unwrap();
    let mut statement = connection
        .prepare("SELECT value FROM counter WHERE name LIKE 'test %' ORDER BY value")
        .unwrap();
    let values = statement.query_map([], |row| row.get(0)).unwrap();
    values.collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn a_request_that_fails_leaves_nothing_and_spoils_no_other() {
    let (directory, store, _thread) = open();
    let (release, held) = hold_up(&store).await;
    let requests = async {
        let (one, bad, two) = tokio::join!(count(&store, 1), count(&store, -1), count(&store, 2));
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(bad.unwrap_err().to_string(), "negative");
    };
    let release = async { release.send(()).unwrap() };
    tokio::join!(requests, held, release);
    assert_eq!(counted(&directory), [1, 2]);
}

#[tokio::test]
async fn when_the_commit_fails_everybody_is_told_and_nothing_is_kept() {
    let (directory, store, _thread) = open();
    let (release, held) = hold_up(&store).await;
    let spoil = store.run(|connection| {
        // Checked at the commit only, which then fails.
        connection.execute_batch(
            "PRAGMA defer_foreign_keys = ON; INSERT INTO bucket (owner, name) VALUES (99, 'x')",
        )?;
        Ok(())
    });
    let requests = async {
        let (one, bad, two) = tokio::join!(count(&store, 1), spoil, count(&store, 2));
        for outcome in [one, bad, two] {
            let reason = outcome.unwrap_err().to_string();
            assert!(reason.contains("FOREIGN KEY"), "{reason}");
        }
    };
    let release = async { release.send(()).unwrap() };
    tokio::join!(requests, held, release);
    assert_eq!(counted(&directory), [0; 0]);
    count(&store, 3).await.unwrap();
    assert_eq!(counted(&directory), [3]);
}

#[tokio::test]
async fn a_transaction_that_the_database_gave_up_is_an_error_for_those_in_it_only() {
    let (directory, store, _thread) = open();
    let (release, held) = hold_up(&store).await;
    let give_up = store.run(|connection| Ok(connection.execute_batch("ROLLBACK")?));
    let requests = async {
        let (one, bad, two) = tokio::join!(count(&store, 1), give_up, count(&store, 2));
        assert!(one.is_err() && bad.is_err());
        two.unwrap();
    };
    let release = async { release.send(()).unwrap() };
    tokio::join!(requests, held, release);
    assert_eq!(counted(&directory), [2]);
}

fn letter(owner: &str, sequence: u64, body_bytes: usize) -> DeadLetter {
    DeadLetter {
        owner: name(owner),
        inlet: "in".into(),
        source: Source {
            site: "s-1".into(),
            node: "node".into(),
            application: "app".into(),
            microservice: "source".into(),
            outlet: "out".into(),
        },
        sequence,
        published_ms: 7,
        content_type: "text/plain".into(),
        headers: vec![("a".into(), "ä\"".into())],
        body: vec![b'x'; body_bytes],
        attempts: 5,
        reason: "no".into(),
        died_ms: 9,
    }
}

#[tokio::test]
async fn dead_letters_are_kept_whole_and_the_oldest_make_room() {
    let (_directory, store, _thread) = open();
    for sequence in 1..=3 {
        let dropped = store.add_dead_letter(letter("a", sequence, 10), 2).await;
        assert_eq!(dropped.unwrap(), u64::from(sequence == 3));
    }
    assert_eq!(
        store.add_dead_letter(letter("b", 1, 0), 0).await.unwrap(),
        1
    );
    store.add_dead_letter(letter("b", 2, 0), 9).await.unwrap();
    let all = store.dead_letters(None, None, 0, 10).await.unwrap();
    let found: Vec<_> = all
        .iter()
        .map(|one| {
            (
                one.letter.owner.clone(),
                one.letter.sequence,
                one.body_bytes,
            )
        })
        .collect();
    assert_eq!(
        found,
        [(name("a"), 2, 10), (name("a"), 3, 10), (name("b"), 2, 0)]
    );
    assert!(all[0].letter.body.is_empty());
    assert!(all.is_sorted_by(|one, other| one.id < other.id));

    let whole = store.dead_letter(all[1].id).await.unwrap().unwrap();
    assert_eq!(whole.letter, letter("a", 3, 10));
    let page = store
        .dead_letters(None, Some("app".into()), all[0].id, 1)
        .await
        .unwrap();
    assert_eq!(page, [all[1].clone()]);
    let none = store
        .dead_letters(None, Some("other".into()), 0, 9)
        .await
        .unwrap();
    assert_eq!(none, []);
    let of_b = store
        .dead_letters(Some(name("b")), None, 0, 9)
        .await
        .unwrap();
    assert_eq!(of_b, [all[2].clone()]);

    assert!(store.drop_dead_letter(all[0].id).await.unwrap());
    assert!(!store.drop_dead_letter(all[0].id).await.unwrap());
    let counts = BTreeMap::from([(name("a"), 1), (name("b"), 1)]);
    assert_eq!(store.count_dead_letters().await.unwrap(), counts);
    assert_eq!(store.drop_dead_letters(name("b")).await.unwrap(), 1);
    store.add_dead_letter(letter("b", 4, 0), 9).await.unwrap();
    let newest = store
        .dead_letters(Some(name("b")), None, 0, 9)
        .await
        .unwrap();
    assert!(newest[0].id > all[2].id, "an id was used twice");
}

#[tokio::test]
async fn dead_letters_of_one_microservice_take_no_more_than_their_share() {
    let (_directory, store, _thread) = open();
    let mut dropped = 0;
    for sequence in 1..=9 {
        let large = letter("a", sequence, 512 << 10);
        dropped += store.add_dead_letter(large, 100).await.unwrap();
    }
    assert_eq!(dropped, 2);
    let kept = store.dead_letters(None, None, 0, 100).await.unwrap();
    assert_eq!(kept.first().unwrap().letter.sequence, 3);
}

#[tokio::test]
async fn a_kept_timer_is_there_after_the_database_is_opened_again() {
    let (directory, store, thread) = open();
    let timer = |period_ms| KeptTimer {
        name: "t".into(),
        scheduled_ms: 5,
        period_ms,
    };
    store.keep_timer(&name("a"), timer(None)).await.unwrap();
    store.keep_timer(&name("a"), timer(Some(3))).await.unwrap();
    store.keep_timer(&name("b"), timer(None)).await.unwrap();
    store.drop_timer(&name("b"), "t").await.unwrap();
    drop(store);
    thread.join();
    let (store, _thread) = Store::open(directory.path()).unwrap();
    assert_eq!(
        store.kept_timers(&name("a")).await.unwrap(),
        [timer(Some(3))]
    );
    assert_eq!(store.kept_timers(&name("b")).await.unwrap(), []);
}

/// Stores something of every kind for a microservice.
async fn fill(store: &Store, owner: &str) {
    let bucket = bucket(owner);
    let pairs = (0..1_500)
        .map(|number| (number.to_string(), vec![1]))
        .collect();
    store.set_pairs(bucket, pairs, 1 << 20).await.unwrap();
    let timer = KeptTimer {
        name: "t".into(),
        scheduled_ms: 5,
        period_ms: None,
    };
    store.keep_timer(&name(owner), timer).await.unwrap();
    store.add_dead_letter(letter(owner, 1, 0), 9).await.unwrap();
}

fn bucket(owner: &str) -> Bucket {
    Bucket {
        owner: name(owner),
        name: "default".into(),
    }
}

async fn bytes_of(store: &Store, owner: &str) -> u64 {
    store.key_value_bytes(&name(owner)).await.unwrap()
}

#[tokio::test]
async fn data_of_a_microservice_is_deleted_when_it_has_been_gone_for_a_day_and_not_earlier() {
    let (_directory, store, _thread) = open();
    let both = || vec![name("comes"), name("goes")];
    fill(&store, "comes").await;
    fill(&store, "goes").await;
    store.follow_owners(both()).await.unwrap();
    let look_an_hour_later = async |wanted: Vec<MicroserviceName>| {
        store.ages().pass(HOUR_MS);
        store.follow_owners(wanted).await.unwrap()
    };
    for _ in 1..=20 {
        assert_eq!(look_an_hour_later(vec![]).await, []);
    }
    assert_eq!(look_an_hour_later(vec![name("comes")]).await, []);
    for _ in 22..=24 {
        assert_eq!(look_an_hour_later(vec![]).await, []);
    }
    assert_eq!(look_an_hour_later(vec![]).await, [name("goes")]);
    assert_eq!(look_an_hour_later(vec![]).await, []);

    assert!(
        bytes_of(&store, "comes").await > 0,
        "it was back in between"
    );
    assert_eq!(bytes_of(&store, "goes").await, 0);
    assert_eq!(
        store.get_pair(bucket("goes"), "7".into()).await.unwrap(),
        None
    );
    assert_eq!(store.kept_timers(&name("goes")).await.unwrap(), []);
    let counts = BTreeMap::from([(name("comes"), 1)]);
    assert_eq!(store.count_dead_letters().await.unwrap(), counts);
    let rows = store.run(|connection| {
        let rows = connection.query_row("SELECT count(*) FROM pair", [], |row| row.get(0))?;
        Ok::<i64, anyhow::Error>(rows)
    });
    assert_eq!(rows.await.unwrap(), 1_500);
}

#[tokio::test]
async fn an_agent_that_was_down_for_years_deletes_nothing_at_its_first_look() {
    let (_directory, store, _thread) = open();
    fill(&store, "goes").await;
    for _ in 0..3 {
        store.ages().pass(50 * 365 * 24 * HOUR_MS);
        assert_eq!(store.follow_owners(vec![]).await.unwrap(), []);
    }
    assert!(bytes_of(&store, "goes").await > 0);
}

#[tokio::test]
async fn increments_and_swaps_of_two_at_one_time_are_all_counted() {
    let (_directory, store, _thread) = open();
    let increment = async || {
        for _ in 0..50 {
            let range = 0..=1_000;
            let key = "sum".to_owned();
            let done = store
                .increment_pair(bucket("a"), key, 1, range, 1_000)
                .await;
            done.unwrap();
        }
    };
    let swap = async || {
        let mut done = 0;
        while done < 50 {
            let found = store.get_pair(bucket("a"), "swapped".into()).await.unwrap();
            let (version, value) = match found {
                None => (None, vec![0]),
                Some((version, value)) => (Some(version), value),
            };
            let key = "swapped".to_owned();
            let value = vec![value[0] + 1];
            let swapped = store
                .swap_pair(bucket("a"), key, version, value, 1_000)
                .await;
            done += u64::from(matches!(swapped, Ok(key_value::Swapped::Done(_))));
        }
    };
    tokio::join!(increment(), increment(), swap(), swap());
    let get = async |key: &str| {
        store
            .get_pair(bucket("a"), key.into())
            .await
            .unwrap()
            .unwrap()
            .1
    };
    assert_eq!(get("sum").await, b"100");
    assert_eq!(get("swapped").await, [100]);
}
