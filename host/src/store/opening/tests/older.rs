//! A database that is an older copy of itself: nothing is wrong with it, so nothing of it is lost.

use std::sync::Arc;

use haar_protocol::ids::NodeId;
use haar_protocol::keys::SecretKey;

use super::super::super::log::Arrived;
use super::*;
use crate::bus::message::Message;

/// A number that no message has reached.
const NUMBERS: u64 = 1_000_000;

fn sender() -> NodeId {
    NodeId::of(&SecretKey::from_seed([4; 32]).public())
}

async fn open_arrivals(store: &Store) -> OpenLog {
    let wanted = WantedLog {
        owner: MicroserviceName {
            microservice: "receiver".parse().unwrap(),
            ..name()
        },
        name: LogName::Arrival {
            route: 8,
            from: sender(),
        },
        consumers: vec![Consumer {
            route: 8,
            node: sender(),
        }],
    };
    let opened = store.open_logs(vec![wanted.owner.clone()], vec![wanted], 5);
    opened.await.unwrap()[0].clone()
}

/// Messages of two runs of another node, each with three.
async fn keep_arrivals(store: &Store, log: &OpenLog) {
    for epoch in [20, 30] {
        let message = |sequence| {
            Arc::new(Message {
                source: Arc::default(),
                sequence,
                published_ms: 1,
                headers: vec![],
                body: body(sequence),
            })
        };
        let arrived = Arrived {
            log: log.id,
            epoch,
            messages: (1..=3).map(message).collect(),
        };
        store.keep_arrived(vec![arrived], |_| {}).await.unwrap();
    }
}

#[tokio::test]
async fn an_older_copy_loses_nothing_and_numbers_what_waits_again() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    filled(data).await;
    let opened = Store::open(data).unwrap();
    let arrivals = open_arrivals(&opened.0).await;
    keep_arrivals(&opened.0, &arrivals).await;
    close(opened);
    let essentials = Essentials::new(data);
    essentials
        .set_number(KeptNumber::Noted.file(), NUMBERS)
        .unwrap();
    // There is no room for a second database.
    std::fs::create_dir(with_suffix(data, ".part")).unwrap();
    for start in ["the first", "the next"] {
        let opened = Store::open(data).unwrap();
        let store = &opened.0;
        assert_eq!(store.damage(), None, "{start}");
        let log = open_log(store).await;
        let expected = (1..=MESSAGES).map(|number| (NUMBERS + number, body(number)));
        let expected: Vec<_> = expected.collect();
        assert_eq!(waiting(store, &log).await, expected, "{start}");
        // Its receivers take them for messages that they never had.
        assert!(log.runs.last().is_some_and(|run| run.epoch > 5), "{start}");
        assert_eq!(store.kept_timers(&name()).await.unwrap().len(), 100);
        assert!(store.key_value_bytes(&name()).await.unwrap() > 0);
        assert!(store.past(0, None).await.unwrap().retired >= NUMBERS);
        // What came from another node stays as it was, and does not come twice.
        let arrivals = open_arrivals(store).await;
        keep_arrivals(store, &arrivals).await;
        let positions = waiting(store, &arrivals).await.into_iter();
        let positions: Vec<_> = positions.map(|(position, _)| position).collect();
        assert_eq!(positions, [1, 2, 3, 4, 5, 6], "{start}");
        close(opened);
    }
    assert_eq!(set_aside_numbers(data).unwrap(), [0; 0]);
}

#[tokio::test]
async fn an_older_copy_that_can_not_be_written_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    filled(data).await;
    let full = "CREATE TRIGGER full BEFORE UPDATE ON log
                BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    let connection = Connection::open(path(data)).unwrap();
    connection.execute_batch(full).unwrap();
    drop(connection);
    let essentials = Essentials::new(data);
    essentials
        .set_number(KeptNumber::Noted.file(), NUMBERS)
        .unwrap();
    let error = format!("{:#}", Store::open(data).unwrap_err());
    assert!(error.contains("the disk is full"), "{error}");
    assert_eq!(set_aside_numbers(data).unwrap(), [0; 0]);

    let connection = Connection::open(path(data)).unwrap();
    connection.execute_batch("DROP TRIGGER full").unwrap();
    drop(connection);
    let opened = Store::open(data).unwrap();
    let log = open_log(&opened.0).await;
    assert_eq!(waiting(&opened.0, &log).await.len() as u64, MESSAGES);
    close(opened);
}
