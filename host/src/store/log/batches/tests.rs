//! Several logs that share commits, against a model of them, with so little room that nearly every
//! commit deletes or files; what is on the disk beside what is needed; and databases of earlier
//! releases.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::store::log::tests::{EPOCH, arrival, body, consumer, message, name, runtime, source};
use crate::store::log::{Advance, LogName, Logged, OpenLog, WantedLog};
use crate::store::{Store, StoreThread, schema};

const SMALL: Room = Room {
    batches_bytes: 600,
    unneeded_bytes: 150,
    commit_bytes: 100,
};
const LOGS: usize = 3;
const ARRIVAL: usize = 2;

fn outlet(name_of_it: &str, routes: &[u64]) -> WantedLog {
    WantedLog {
        owner: name("publisher"),
        name: LogName::Outlet(name_of_it.parse().unwrap()),
        consumers: routes.iter().copied().map(consumer).collect(),
    }
}

fn wanted() -> [WantedLog; LOGS] {
    [outlet("one", &[1, 2]), outlet("two", &[3]), arrival(7)]
}

async fn open(store: &Store) -> Vec<OpenLog> {
    let owners = vec![name("publisher"), name("receiver")];
    let opened = store.open_logs(owners, wanted().into(), EPOCH).await;
    opened.unwrap()
}

fn start(directory: &Path) -> (Store, StoreThread) {
    Store::open_with(directory, SMALL).unwrap()
}

/// A message as it was published, or read.
type Plain = (u64, Headers, Vec<u8>);

/// A log as it must be.
#[derive(Debug, Default)]
struct Model {
    messages: Vec<Plain>,
    head: u64,
    bases: Vec<u64>,
}

impl Model {
    fn add(&mut self, number: u64) {
        self.head += 1;
        let (headers, body) = body(number);
        self.messages.push((self.head, headers, body));
    }

    fn pass(&mut self, consumer: usize, base: u64) {
        self.bases[consumer] = self.bases[consumer].max(base);
        let unneeded = self.bases.iter().min().copied().unwrap();
        self.messages.retain(|(position, ..)| *position > unneeded);
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Each log is given so many messages, together.
    Add([u8; LOGS]),
    Advance(usize, usize, u64),
    DropOldest(usize, u64),
    /// A request that changes much, and fails in the end, beside one that does not.
    Fail(usize),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let log = 0..LOGS;
    let step = prop_oneof![
        6 => proptest::array::uniform(0..4_u8).prop_map(Step::Add),
        4 => (log.clone(), 0..2_usize, 0..90_u64)
            .prop_map(|(log, consumer, base)| Step::Advance(log, consumer, base)),
        1 => (log.clone(), 0..300_u64).prop_map(|(log, bytes)| Step::DropOldest(log, bytes)),
        1 => log.prop_map(Step::Fail),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

/// Adds messages to all logs at once.
async fn add(store: &Store, opened: &[OpenLog], models: &mut [Model], counts: [u8; LOGS]) {
    let numbers = |log: usize| {
        let first = models[log].head + 1;
        first..first + u64::from(counts[log])
    };
    let append = |log: usize| {
        let messages = numbers(log).map(body).collect();
        store.append(opened[log].id, 5, messages, |_, _| {})
    };
    let arrived = Arrived {
        log: opened[ARRIVAL].id,
        epoch: EPOCH,
        messages: numbers(ARRIVAL).map(message).collect(),
    };
    let (one, two, kept) = tokio::join!(
        append(0),
        append(1),
        store.keep_arrived(vec![arrived], |_| {})
    );
    assert_eq!(one.unwrap(), models[0].head + 1);
    assert_eq!(two.unwrap(), models[1].head + 1);
    kept.unwrap();
    for (model, count) in models.iter_mut().zip(counts) {
        (0..count).for_each(|_| model.add(model.head + 1));
    }
}

/// Everything is changed, and then not.
async fn fail(store: &Store, log: LogId) {
    let failing = store.run_logs(move |connection, batches| {
        let index = batches.index(connection)?;
        rows::drop_oldest(connection, index, log, u64::MAX)?;
        rows::renew(connection, batches, log, EPOCH + 9)?;
        batches.delete_all_unneeded(connection)?;
        anyhow::bail!("on purpose")
    });
    let (failed, beside) = tokio::join!(failing, store.append(log, 5, vec![], |_, _| {}));
    let failed: anyhow::Result<()> = failed;
    assert_eq!(failed.unwrap_err().to_string(), "on purpose");
    beside.unwrap();
}

async fn read(store: &Store, log: LogId, after: u64, bytes: u64) -> Vec<Plain> {
    let read = store.read_log(log, after, bytes, source()).await.unwrap();
    let plain = |one: Logged| {
        assert_eq!(one.position, one.message.sequence);
        let message = &one.message;
        (one.position, message.headers.clone(), message.body.clone())
    };
    read.into_iter().map(plain).collect()
}

/// Reads all of a log, in pages.
async fn read_all(store: &Store, log: LogId) -> Vec<Plain> {
    let mut all: Vec<Plain> = Vec::new();
    loop {
        let after = all.last().map_or(0, |(position, ..)| *position);
        let page = read(store, log, after, 200).await;
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn logs_that_share_batches_are_each_as_if_they_were_alone(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let (mut store, mut thread) = start(directory.path());
            let opened = open(&store).await;
            let mut models: Vec<Model> = opened
                .iter()
                .map(|log| Model { bases: vec![0; log.consumers.len()], ..Model::default() })
                .collect();
            for step in steps {
                match step {
                    Step::Add(counts) => add(&store, &opened, &mut models, counts).await,
                    Step::Advance(log, index, base) => {
                        let index = index.min(models[log].bases.len() - 1);
                        let base = base.min(models[log].head);
                        let consumer = wanted()[log].consumers[index].clone();
                        let advance = Advance { log: opened[log].id, consumer, base };
                        store.advance(vec![advance]).await.unwrap();
                        models[log].pass(index, base);
                    }
                    Step::DropOldest(log, bytes) => {
                        let dropped = store.drop_oldest(opened[log].id, bytes).await.unwrap();
                        for consumer in 0..models[log].bases.len() {
                            models[log].pass(consumer, dropped.upto);
                        }
                    }
                    Step::Fail(log) => fail(&store, opened[log].id).await,
                    Step::Restart => {
                        drop(store);
                        thread.join();
                        (store, thread) = start(directory.path());
                        for (opened, model) in open(&store).await.iter().zip(&models) {
                            assert_eq!((opened.head, opened.sequence), (model.head, model.head));
                            assert_eq!(opened.deleted, 0);
                            let bases: Vec<u64> =
                                opened.consumers.iter().map(|(base, _)| *base).collect();
                            assert_eq!(bases, model.bases);
                        }
                    }
                }
                for (opened, model) in opened.iter().zip(&models) {
                    assert_eq!(read_all(&store, opened.id).await, model.messages);
                }
            }
        });
    }
}

/// What a table has, as another process sees it: rows, and bytes.
fn table(directory: &Path, rows_and_bytes: &str) -> (u64, u64) {
    let connection = Connection::open(directory.join("agent.db")).unwrap();
    connection
        .query_row(rows_and_bytes, [], |row| {
            Ok((natural(row.get(0)?), natural(row.get(1)?)))
        })
        .unwrap()
}

#[tokio::test]
async fn a_consumer_that_is_away_keeps_its_own_messages_and_nothing_of_others() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _thread) = start(directory.path());
    let opened = open(&store).await;
    let (slow, fast) = (opened[0].id, opened[1].id);
    for round in 1..=200 {
        let slow = store.append(slow, 5, vec![(vec![], vec![1; 10])], |_, _| {});
        let fast = store.append(fast, 5, vec![(vec![], vec![2; 90])], |_, _| {});
        let (slow, fast) = tokio::join!(slow, fast);
        assert_eq!((slow.unwrap(), fast.unwrap()), (round, round));
        let advance = Advance {
            log: opened[1].id,
            consumer: consumer(3),
            base: round,
        };
        let deleted = store.advance(vec![advance]).await.unwrap();
        assert_eq!(deleted[0].bytes, 90 + 64);
    }
    let batches = "SELECT count(*), coalesce(sum(length(messages)), 0) FROM batch";
    let (_, bytes) = table(directory.path(), batches);
    assert!(bytes <= SMALL.batches_bytes, "{bytes}");
    let filed = "SELECT count(*), coalesce(sum(length(body)), 0) FROM logged";
    let (messages, bytes) = table(directory.path(), filed);
    assert!(
        messages > 150 && bytes == messages * 10,
        "{messages}, {bytes}"
    );
    assert_eq!(read_all(&store, slow).await.len(), 200);
}

/// A database as the release before batches has left it: an outlet's log with two messages that the
/// slower of two consumers needs, and one message that arrived.
fn earlier_release(directory: &Path) {
    let mut connection = Connection::open(directory.join("agent.db")).unwrap();
    schema::prepare_as(&mut connection, 3).unwrap();
    connection
        .execute_batch(
            "INSERT INTO owner (id, application, microservice)
                 VALUES (1, 'app', 'publisher'), (2, 'app', 'receiver');
             INSERT INTO log (id, owner, name, epoch, head, sequence)
                 VALUES (4, 1, 'outlet one', 77, 3, 3),
                     (5, 2, 'arrival 0000000000000007 naaaaaaaaaaaaaaaaaaaaaaaaaa', 88, 1, 6);
             INSERT INTO consumer (log, route, node, base)
                 VALUES (4, 1, 'naaaaaaaaaaaaaaaaaaaaaaaaaa', 1),
                     (4, 2, 'naaaaaaaaaaaaaaaaaaaaaaaaaa', 2),
                     (5, 7, 'naaaaaaaaaaaaaaaaaaaaaaaaaa', 0);",
        )
        .unwrap();
    for (log, position, sequence) in [(4, 2, 2), (4, 3, 3), (5, 1, 6)] {
        let (headers, body) = body(sequence);
        let bytes = integer(crate::store::log::message_bytes(&headers, body.len()));
        let headers = match headers.is_empty() {
            true => Vec::new(),
            false => postcard::to_stdvec(&headers).unwrap(),
        };
        connection
            .execute(
                "INSERT INTO logged (key, sequence, published_ms, bytes, headers, body)
                 VALUES (?1 << 43 | ?2, ?3, 5, ?4, ?5, ?6)",
                (log, position, integer(sequence), bytes, headers, body),
            )
            .unwrap();
    }
}

#[tokio::test]
async fn logs_of_an_earlier_release_go_on_with_all_their_messages() {
    let directory = tempfile::tempdir().unwrap();
    earlier_release(directory.path());
    let (store, thread) = Store::open(directory.path()).unwrap();
    let opened = open(&store).await;
    let (outlet, arrival) = (&opened[0], &opened[ARRIVAL]);
    assert_eq!((outlet.id, outlet.head), (LogId(4), 3));
    let runs = |log: &OpenLog| {
        log.runs
            .iter()
            .map(|run| (run.epoch, run.upto))
            .collect::<Vec<_>>()
    };
    assert_eq!(runs(outlet), [(77, 3)]);
    assert!(outlet.own_run.is_some_and(|run| run > 77));
    assert_eq!((outlet.sequence, outlet.deleted), (3, 0));
    let bytes = |sequence| {
        let (headers, body) = body(sequence);
        crate::store::log::message_bytes(&headers, body.len())
    };
    let backlogs = [(1, bytes(2) + bytes(3)), (2, bytes(3))];
    assert_eq!(outlet.consumers, backlogs);
    assert_eq!((arrival.head, arrival.sequence), (1, 6));
    assert_eq!(runs(arrival), [(88, 6)]);
    let first = store.append(outlet.id, 5, vec![body(4), body(5)], |_, _| {});
    assert_eq!(first.await.unwrap(), 4);
    let messages = |sequences: std::ops::RangeInclusive<u64>| {
        let message = |sequence| {
            let (headers, body) = body(sequence);
            (sequence, headers, body)
        };
        sequences.map(message).collect::<Vec<Plain>>()
    };
    assert_eq!(read_all(&store, outlet.id).await, messages(2..=5));
    for (route, left) in [(1, 3..=5), (2, 5..=5)] {
        let advance = Advance {
            log: outlet.id,
            consumer: consumer(route),
            base: 4,
        };
        store.advance(vec![advance]).await.unwrap();
        assert_eq!(read_all(&store, outlet.id).await, messages(left));
    }
    let arrived = store.read_log(arrival.id, 0, u64::MAX, source()).await;
    let arrived = arrived.unwrap().remove(0);
    assert_eq!((arrived.position, arrived.message.sequence), (1, 6));
    drop(store);
    thread.join();
    let (_, filed) = table(
        directory.path(),
        "SELECT 0, count(*) FROM logged WHERE key < 5 << 43",
    );
    assert_eq!(filed, 0);
}
