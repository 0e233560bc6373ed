//! Databases damaged in every way that a card has: the store opens, works, says what became of it, and
//! has what could be read.

mod older;

use haar_protocol::assignment::MicroserviceName;

use super::super::key_value::Bucket;
use super::super::log::{Consumer, LogName, OpenLog, WantedLog};
use super::super::timers::KeptTimer;
use super::super::{Health, StatusSequence, Store, StoreThread};
use super::*;

const MESSAGES: u64 = 300;
const PAGE: usize = 4_096;

fn name() -> MicroserviceName {
    MicroserviceName {
        application: "app".parse().unwrap(),
        microservice: "it".parse().unwrap(),
    }
}

fn bucket() -> Bucket {
    Bucket {
        owner: name(),
        name: "default".into(),
    }
}

fn body(number: u64) -> Vec<u8> {
    let length = 20 + usize::try_from(number * 37 % 900).unwrap();
    let pattern = (0..=u8::MAX).cycle().take(length);
    pattern.map(|byte| byte ^ number.to_le_bytes()[0]).collect()
}

async fn open_log(store: &Store) -> OpenLog {
    let consumer = Consumer {
        route: 7,
        node: haar_protocol::ids::NodeId::of(
            &haar_protocol::keys::SecretKey::from_seed([3; 32]).public(),
        ),
    };
    let wanted = WantedLog {
        owner: name(),
        name: LogName::Outlet("out".parse().unwrap()),
        consumers: vec![consumer],
    };
    store
        .open_logs(vec![name()], vec![wanted], 5)
        .await
        .unwrap()[0]
        .clone()
}

/// Positions and bodies of what waits.
async fn waiting(store: &Store, log: &OpenLog) -> Vec<(u64, Vec<u8>)> {
    let base = log.consumers[0].0;
    let source = std::sync::Arc::default();
    let read = store
        .read_log(log.id, base, u64::MAX, source)
        .await
        .unwrap();
    read.into_iter()
        .map(|one| (one.position, one.message.body.clone()))
        .collect()
}

fn close((store, thread): (Store, StoreThread)) {
    drop(store);
    thread.join();
}

/// A data directory with some of everything in its database, all of it in `agent.db` itself.
async fn filled(directory: &Path) {
    let opened = Store::open(directory).unwrap();
    let store = &opened.0;
    store.set_assignment(3, vec![9; 3_000]).await.unwrap();
    let log = open_log(store).await;
    for number in 1..=MESSAGES {
        let first = store.append(log.id, 1, vec![(vec![], body(number))], |_, _| {});
        assert_eq!(first.await.unwrap(), number);
    }
    for number in 0..100 {
        let pair = (format!("key {number}"), body(number));
        store
            .set_pairs(bucket(), vec![pair], 1 << 20)
            .await
            .unwrap();
        let timer = KeptTimer {
            name: format!("timer {number}"),
            scheduled_ms: number,
            period_ms: None,
        };
        store.keep_timer(&name(), timer).await.unwrap();
    }
    close(opened);
    let connection = Connection::open(path(directory)).unwrap();
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
}

/// The same with the bytes of the database changed.
fn damaged(original: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut bytes = original.to_vec();
    change(&mut bytes);
    std::fs::write(path(directory.path()), bytes).unwrap();
    Essentials::new(directory.path())
        .set_assignment(&[9; 3_000])
        .unwrap();
    directory
}

/// Opens what is left, uses it as an agent does, and returns what it says of its damage and what waits.
async fn use_it(directory: &Path, what: &str) -> (Option<StoreDamage>, Vec<(u64, Vec<u8>)>) {
    let opened = Store::open(directory).unwrap_or_else(|error| panic!("{what}: {error:#}"));
    let store = &opened.0;
    assert_eq!(store.assignments().await[0], [9; 3_000], "{what}");
    let log = open_log(store).await;
    let found = waiting(store, &log).await;
    for (position, found) in &found {
        assert_eq!(*found, body(*position), "{what}: message {position}");
    }
    // It goes on.
    let appended = store.append(log.id, 1, vec![(vec![], body(0))], |_, _| {});
    let position = appended.await.unwrap();
    assert!(found.iter().all(|(other, _)| *other < position), "{what}");
    store.key_value_bytes(&name()).await.unwrap();
    let pair = ("another".to_owned(), vec![1]);
    store
        .set_pairs(bucket(), vec![pair], 1 << 20)
        .await
        .unwrap();
    store.kept_timers(&name()).await.unwrap();
    store.follow_owners(vec![name()]).await.unwrap();
    assert_eq!(*store.health().borrow(), Health::Well, "{what}");
    let damage = store.damage().cloned();
    close(opened);
    // It is reported until there is another damage.
    let again = Store::open(directory).unwrap();
    assert_eq!(again.0.damage().cloned(), damage, "{what}");
    close(again);
    (damage, found)
}

async fn original() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    std::fs::read(path(directory.path())).unwrap()
}

#[tokio::test]
async fn every_page_may_be_overwritten_and_what_the_others_have_is_there() {
    let original = original().await;
    let pages = original.len() / PAGE;
    assert!(pages > 30, "{pages}");
    let (mut set_aside, mut messages) = (0, 0);
    for page in 0..pages {
        let directory = damaged(&original, |bytes| {
            let noise = (0..PAGE as u64).map(|byte| ((byte * 2_654_435_761) >> 7).to_le_bytes()[0]);
            bytes.splice(page * PAGE..(page + 1) * PAGE, noise);
        });
        let what = format!("page {} of {pages}", page + 1);
        let (damage, found) = use_it(directory.path(), &what).await;
        match damage {
            Some(damage) => {
                set_aside += 1;
                assert_eq!(damage.messages, found.len() as u64, "{what}");
                assert!(!damage.reason.is_empty(), "{what}");
                let kept = directory.path().join("agent.db.damaged-1");
                assert_eq!(
                    std::fs::metadata(kept).unwrap().len(),
                    original.len() as u64
                );
            }
            // A page that is not in use.
            None => assert_eq!(found.len() as u64, MESSAGES, "{what}"),
        }
        messages += found.len();
    }
    assert!(set_aside * 10 >= pages * 8, "{set_aside} of {pages}");
    // One page takes what is on it, not what is beside it.
    let all = pages * usize::try_from(MESSAGES).unwrap();
    assert!(messages * 10 >= all * 7, "{messages} of {all}");
}

#[tokio::test]
async fn a_file_that_is_cut_empty_gone_or_something_else_is_replaced_and_reported() {
    let original = original().await;
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 6] = [
        ("half of it", |bytes| bytes.truncate(bytes.len() / 2)),
        ("half a page", |bytes| bytes.truncate(PAGE / 2)),
        ("nothing", Vec::clear),
        ("zeros", |bytes| bytes.fill(0)),
        ("text", |bytes| *bytes = b"hello".repeat(10_000)),
        ("noise in the second half", |bytes| {
            let half = bytes.len() / 2;
            bytes[half..].fill(0xa5);
        }),
    ];
    for (what, change) in changes {
        let directory = damaged(&original, change);
        let (damage, _) = use_it(directory.path(), what).await;
        assert!(damage.is_some(), "{what}");
    }
    let directory = damaged(&original, |_| {});
    std::fs::remove_file(path(directory.path())).unwrap();
    let (damage, _) = use_it(directory.path(), "gone").await;
    assert_eq!(damage.unwrap().missing, ["everything"]);
}

#[tokio::test]
async fn a_write_ahead_log_of_noise_takes_nothing_of_the_file_along() {
    let original = original().await;
    let directory = damaged(&original, |_| {});
    let noise =
        |seed: u64| (0..100_000).map(move |byte: u64| ((byte * seed) >> 5).to_le_bytes()[0]);
    for suffix in ["-wal", "-shm"] {
        let file = with_suffix(directory.path(), suffix);
        std::fs::write(file, noise(2_654_435_761).collect::<Vec<_>>()).unwrap();
    }
    let (_, found) = use_it(directory.path(), "noise").await;
    assert_eq!(found.len() as u64, MESSAGES);
}

#[tokio::test]
async fn a_log_that_lost_messages_becomes_another_one_so_that_receivers_take_what_follows() {
    let original = original().await;
    let directory = damaged(&original, |bytes| {
        let half = bytes.len() / 2;
        bytes[half..].fill(0xa5);
    });
    let opened = Store::open(directory.path()).unwrap();
    assert!(opened.0.damage().is_some());
    let runs = open_log(&opened.0).await.runs;
    assert!(runs.last().is_some_and(|run| run.epoch > 5), "{runs:?}");
    close(opened);
}

#[tokio::test]
async fn the_newest_damaged_file_is_kept_and_older_ones_are_not() {
    let original = original().await;
    let directory = damaged(&original, |_| {});
    for number in 1..=3 {
        std::fs::write(
            path(directory.path()),
            format!("damage {number}").repeat(900),
        )
        .unwrap();
        close(Store::open(directory.path()).unwrap());
    }
    assert_eq!(set_aside_numbers(directory.path()).unwrap(), [3]);
}

#[tokio::test]
async fn a_power_cut_while_a_file_is_set_aside_loses_nothing_of_the_copy() {
    let original = original().await;
    for cut in ["before", "between"] {
        let directory = damaged(&original, |bytes| bytes[PAGE * 9..PAGE * 10].fill(0xa5));
        let data = directory.path();
        close(Store::open(data).unwrap());
        let copied = std::fs::read(path(data)).unwrap();
        // As it was when the copy was complete, or one rename later.
        std::fs::rename(path(data), with_suffix(data, ".ready")).unwrap();
        if cut == "before" {
            std::fs::rename(with_suffix(data, ".damaged-1"), path(data)).unwrap();
        }
        std::fs::write(with_suffix(data, ".part"), b"an earlier attempt").unwrap();
        close(Store::open(data).unwrap());
        assert_eq!(set_aside_numbers(data).unwrap(), [1], "{cut}");
        assert_eq!(
            std::fs::read(path(data)).unwrap().len(),
            copied.len(),
            "{cut}"
        );
    }
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_left_alone_and_the_agent_has_its_assignment() {
    let original = original().await;
    let directory = damaged(&original, |_| {});
    let version = |data: &Path| -> i64 {
        let connection = Connection::open(path(data)).unwrap();
        connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap()
    };
    let connection = Connection::open(path(directory.path())).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = format!("{:#}", Store::open(directory.path()).unwrap_err());
    assert!(error.contains("update haar-agent"), "{error}");
    let opened = Store::open_or_lack(directory.path()).unwrap();
    let store = &opened.0;
    assert!(matches!(*store.health().borrow(), Health::Absent(_)));
    assert_eq!(store.assignments().await, [[9; 3_000]]);
    store.set_assignment(4, vec![8]).await.unwrap();
    assert_eq!(store.assignments().await, [[8]]);
    let error = store.keep_ages().await.unwrap_err().to_string();
    assert!(error.contains("update haar-agent"), "{error}");
    let mut statuses = StatusSequence::default();
    assert_eq!(statuses.peek(store).await, 1);
    close(opened);
    assert_eq!(version(directory.path()), 99);
    assert_eq!(set_aside_numbers(directory.path()).unwrap(), [0; 0]);
}

#[tokio::test]
async fn damage_that_is_found_later_is_reported_and_the_next_start_has_what_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    let opened = Store::open(directory.path()).unwrap();
    let damage = opened.0.run(|_| -> anyhow::Result<()> {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        Err(rusqlite::Error::SqliteFailure(code, None).into())
    });
    damage.await.unwrap_err();
    let mut health = opened.0.health();
    let health = health.wait_for(|health| health.problem().is_some()).await;
    assert!(matches!(*health.unwrap(), Health::Damaged(_)));
    close(opened);
    set_aside(directory.path(), "a page that nobody looked at").unwrap();
    let (damage, found) = use_it(directory.path(), "later").await;
    let damage = damage.unwrap();
    assert_eq!(damage.reason, "a page that nobody looked at");
    assert_eq!((damage.missing, damage.messages_missing), (vec![], 0));
    assert_eq!((damage.messages, found.len() as u64), (MESSAGES, MESSAGES));
}

#[tokio::test]
async fn a_panic_of_the_thread_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let opened = Store::open(directory.path()).unwrap();
    let mut health = opened.0.health();
    let poisoned = opened
        .0
        .run(|_| -> anyhow::Result<()> { panic!("poisoned") });
    poisoned.await.unwrap_err();
    health
        .wait_for(|health| *health == Health::Dead)
        .await
        .unwrap();
    assert!(opened.0.keep_ages().await.is_err());
    close(opened);
}
