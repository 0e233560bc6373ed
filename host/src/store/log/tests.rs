//! The log against a model of it, through restarts; and what is forgotten when.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::store::StoreThread;

pub(super) const EPOCH: u64 = 1_700_000_000_000;

pub(super) fn name(microservice: &str) -> MicroserviceName {
    MicroserviceName {
        application: "app".parse().unwrap(),
        microservice: microservice.parse().unwrap(),
    }
}

pub(super) fn consumer(route: u64) -> Consumer {
    Consumer {
        route,
        node: "naaaaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap(),
    }
}

fn outlet(routes: &[u64]) -> WantedLog {
    WantedLog {
        owner: name("publisher"),
        name: LogName::Outlet("out".parse().unwrap()),
        consumers: routes.iter().copied().map(consumer).collect(),
    }
}

pub(super) fn arrival(route: u64) -> WantedLog {
    WantedLog {
        owner: name("receiver"),
        name: LogName::Arrival {
            route,
            from: consumer(0).node,
        },
        consumers: vec![consumer(route)],
    }
}

pub(super) fn source() -> Arc<Source> {
    let text = |text: &str| text.to_owned();
    Arc::new(Source {
        site: text("site"),
        node: text("node"),
        application: text("app"),
        microservice: text("publisher"),
        outlet: text("out"),
    })
}

pub(super) fn body(number: u64) -> (Headers, Vec<u8>) {
    let headers = match number % 3 {
        0 => vec![("name".to_owned(), format!("value {number}"))],
        _ => vec![],
    };
    (headers, number.to_string().into_bytes())
}

pub(super) fn message(sequence: u64) -> Arc<Message> {
    let (headers, body) = body(sequence);
    Arc::new(Message {
        source: source(),
        sequence,
        published_ms: 5,
        headers,
        body,
    })
}

async fn open_one(store: &Store, wanted: &WantedLog) -> OpenLog {
    let owners = vec![name("publisher"), name("receiver")];
    let opened = store.open_logs(owners, vec![wanted.clone()], EPOCH).await;
    opened.unwrap().remove(0)
}

fn open_store(directory: &Path) -> (Store, StoreThread) {
    Store::open(directory).unwrap()
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

type Messages = Vec<(Headers, Vec<u8>)>;

/// Appends, and tells what was told of the commit.
async fn append(store: &Store, log: LogId, messages: Messages) -> anyhow::Result<(u64, Messages)> {
    let (told, tells) = std::sync::mpsc::sync_channel(1);
    let committed = move |first, messages| told.send((first, messages)).unwrap();
    let first = store.append(log, 5, messages, committed).await?;
    let committed = tells.try_recv()?;
    assert_eq!(committed.0, first);
    Ok(committed)
}

/// Keeps, and tells the positions that were told of the commit.
async fn keep_arrived(store: &Store, arrived: Vec<Arrived>) -> Vec<u64> {
    let (told, tells) = std::sync::mpsc::sync_channel(1);
    let committed = move |kept: Vec<(u64, Arrived)>| {
        let positions = kept.iter().map(|(first, _)| *first);
        told.send(positions.collect()).unwrap();
    };
    store.keep_arrived(arrived, committed).await.unwrap();
    tells.try_recv().unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Append(u8),
    Advance(usize, u64),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..5u8).prop_map(Step::Append),
        4 => (0..2usize, 0..40u64).prop_map(|(consumer, base)| Step::Advance(consumer, base)),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What must be in the log.
#[derive(Default)]
struct Model {
    messages: BTreeMap<u64, (Headers, Vec<u8>)>,
    head: u64,
    bases: [u64; 2],
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_log_gives_sequences_without_gaps_and_keeps_what_any_consumer_needs(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let (mut store, mut thread) = open_store(directory.path());
            let wanted = outlet(&[1, u64::MAX]);
            let log = open_one(&store, &wanted).await;
            assert_eq!((log.own_run, log.head), (Some(EPOCH), 0));
            let mut model = Model::default();
            for step in steps {
                match step {
                    Step::Append(count) => {
                        let first = model.head + 1;
                        let messages: Vec<_> = (first..).take(count.into()).map(body).collect();
                        let (given, same) =
                            append(&store, log.id, messages.clone()).await.unwrap();
                        assert_eq!((given, &same), (first, &messages));
                        model.head += u64::from(count);
                        model.messages.extend((first..).zip(messages));
                    }
                    Step::Advance(index, base) => {
                        let base = base.min(model.head);
                        let consumer = wanted.consumers[index].clone();
                        let advance = Advance { log: log.id, consumer, base };
                        store.advance(vec![advance]).await.unwrap();
                        model.bases[index] = model.bases[index].max(base);
                        let unneeded = model.bases[0].min(model.bases[1]);
                        model.messages.retain(|position, _| *position > unneeded);
                    }
                    Step::Restart => {
                        drop(store);
                        thread.join();
                        (store, thread) = open_store(directory.path());
                        let owners = vec![name("publisher")];
                        let opened = store.open_logs(owners, vec![wanted.clone()], EPOCH + 1).await;
                        let opened = opened.unwrap().remove(0);
                        let bytes = |base: u64| {
                            let beyond = model.messages.range(base + 1..);
                            beyond
                                .map(|(_, (headers, body))| message_bytes(headers, body.len()))
                                .sum::<u64>()
                        };
                        let consumers = model.bases.map(|base| (base, bytes(base))).to_vec();
                        assert_eq!((opened.id, opened.head, opened.deleted), (log.id, model.head, 0));
                        assert_eq!((opened.sequence, &opened.consumers), (model.head, &consumers));
                        // What is appended from now on is another run.
                        let known = |epoch| opened.runs.upto(epoch).is_some();
                        assert!(opened.own_run.is_some_and(|run| !known(run)));
                        let last = opened.runs.last().map_or(0, |run| run.upto);
                        assert_eq!(last, model.head);
                    }
                }
                let read = store.read_log(log.id, 0, u64::MAX, source()).await.unwrap();
                let read: BTreeMap<_, _> = read
                    .into_iter()
                    .map(|one| {
                        assert_eq!(one.position, one.message.sequence);
                        (one.position, (one.message.headers.clone(), one.message.body.clone()))
                    })
                    .collect();
                assert_eq!(read, model.messages);
            }
        });
    }
}

#[tokio::test]
async fn pages_have_as_many_bytes_as_asked_for_and_one_message_at_least() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _thread) = open_store(directory.path());
    let log = open_one(&store, &outlet(&[1])).await;
    let messages = vec![(vec![], vec![0; 1_000]); 10];
    append(&store, log.id, messages).await.unwrap();
    let positions = |messages: Vec<Logged>| {
        let positions = messages.iter().map(|one| one.position);
        positions.collect::<Vec<_>>()
    };
    let read = store.read_log(log.id, 3, 0, source()).await.unwrap();
    assert_eq!(positions(read), [4]);
    let read = store.read_log(log.id, 3, 2_500, source()).await.unwrap();
    assert_eq!(positions(read), [4, 5]);
    let read = store.read_log(log.id, 10, 2_500, source()).await.unwrap();
    assert_eq!(positions(read), [0; 0]);
}

#[tokio::test]
async fn what_came_from_another_node_has_positions_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _thread) = open_store(directory.path());
    let log = open_one(&store, &arrival(7)).await;
    assert_eq!((log.own_run, log.sequence), (None, 0));
    let arrived = |epoch, sequences: &[u64]| Arrived {
        log: log.id,
        epoch,
        messages: sequences.iter().copied().map(message).collect(),
    };
    let both = vec![arrived(9, &[3, 4, 8]), arrived(9, &[9])];
    assert_eq!(keep_arrived(&store, both).await, [1, 4]);
    // The other node has lost its log, and counts from the start again.
    let again = keep_arrived(&store, vec![arrived(10, &[1])]).await;
    assert_eq!(again, [5]);
    // What is there already of a run is not kept twice, whichever run came last.
    let repeated = vec![arrived(10, &[1]), arrived(9, &[9])];
    assert_eq!(keep_arrived(&store, repeated).await, [6, 6]);
    let opened = open_one(&store, &arrival(7)).await;
    assert_eq!((opened.sequence, opened.head), (1, 5));
    let runs: Vec<_> = opened
        .runs
        .iter()
        .map(|run| (run.epoch, run.upto))
        .collect();
    assert_eq!(runs, [(9, 9), (10, 1)]);
    let read = store.read_log(log.id, 0, u64::MAX, source()).await.unwrap();
    let read: Vec<_> = read
        .iter()
        .map(|one| (one.position, one.message.sequence))
        .collect();
    assert_eq!(read, [(1, 3), (2, 4), (3, 8), (4, 9), (5, 1)]);
}

#[tokio::test]
async fn a_withdrawn_route_and_a_withdrawn_log_take_their_messages_along() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _thread) = open_store(directory.path());
    let log = open_one(&store, &outlet(&[1, 2])).await;
    let messages = (1..=4).map(body).collect();
    append(&store, log.id, messages).await.unwrap();
    let advance = |route, base| Advance {
        log: log.id,
        consumer: consumer(route),
        base,
    };
    store.advance(vec![advance(1, 3)]).await.unwrap();
    let left = || async {
        store
            .read_log(log.id, 0, u64::MAX, source())
            .await
            .unwrap()
            .len()
    };
    assert_eq!(left().await, 4, "route 2 needs them");
    let opened = open_one(&store, &outlet(&[1])).await;
    assert_eq!((opened.id, left().await), (log.id, 1));
    // A route that is new wants what comes from now on.
    let opened = open_one(&store, &outlet(&[1, 2])).await;
    assert_eq!(opened.consumers, [(3, MESSAGE_BYTES + 1), (4, 0)]);
    let other = open_one(&store, &arrival(7)).await;
    assert_ne!(other.id, log.id);
    assert_eq!(left().await, 0);
    let again = open_one(&store, &outlet(&[1])).await;
    assert!(
        again.id > other.id && again.consumers == [(4, 0)],
        "{again:?}"
    );
    assert_eq!(again.head, 4, "its numbers go on");
    let past = store.past(0, None).await.unwrap();
    // Four when route 2 was withdrawn, one of route 1 with the log.
    let discarded = (past.discarded.episodes, past.discarded.messages);
    assert_eq!((past.retired, discarded), (4, (2, 5)));
    assert!(
        append(&store, log.id, vec![body(1)]).await.is_err(),
        "it is gone"
    );
}

/// Sequences and run of what two starts of the agent, each from the same disk, append.
#[tokio::test]
async fn two_agents_with_copies_of_one_disk_append_different_runs() {
    let directory = tempfile::tempdir().unwrap();
    let (store, thread) = open_store(directory.path());
    let log = open_one(&store, &outlet(&[1])).await;
    append(&store, log.id, (1..=3).map(body).collect())
        .await
        .unwrap();
    drop(store);
    thread.join();
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(
        directory.path().join("agent.db"),
        copy.path().join("agent.db"),
    )
    .unwrap();
    let mut runs = Vec::new();
    for (directory, random) in [(directory.path(), 1), (copy.path(), 2)] {
        let (store, thread) = open_store(directory);
        let wanted = vec![outlet(&[1])];
        let opened = store
            .open_logs(vec![name("publisher")], wanted, EPOCH << 20 | random)
            .await
            .unwrap()
            .remove(0);
        assert_eq!(opened.runs.last().unwrap().upto, 3, "the common past");
        let (first, _) = append(&store, opened.id, vec![body(4)]).await.unwrap();
        assert_eq!(first, 4);
        drop(store);
        thread.join();
        let (store, _thread) = open_store(directory);
        let opened = open_one(&store, &outlet(&[1])).await;
        runs.push(opened.runs.iter().collect::<Vec<_>>());
    }
    assert_eq!(runs[0][0], runs[1][0]);
    assert_eq!((runs[0][1].upto, runs[1][1].upto), (4, 4));
    assert_ne!(runs[0][1].epoch, runs[1][1].epoch);
}

#[tokio::test]
async fn runs_survive_their_batches() {
    let directory = tempfile::tempdir().unwrap();
    let wanted = arrival(7);
    for start in 1..=3 {
        let (store, thread) = open_store(directory.path());
        let log = open_one(&store, &wanted).await;
        let messages = (1..=40).map(|sequence| {
            Arc::new(Message {
                source: source(),
                sequence,
                published_ms: 5,
                headers: vec![],
                body: vec![0; 4_000],
            })
        });
        let arrived = Arrived {
            log: log.id,
            epoch: start,
            messages: messages.collect(),
        };
        keep_arrived(&store, vec![arrived]).await;
        // All of it is handled, and its batch is deleted.
        let advance = Advance {
            log: log.id,
            consumer: consumer(7),
            base: 40 * start,
        };
        store.advance(vec![advance]).await.unwrap();
        drop(store);
        thread.join();
    }
    let database = Connection::open(directory.path().join("agent.db")).unwrap();
    let batches: i64 = database
        .query_row("SELECT count(*) FROM batch", [], |row| row.get(0))
        .unwrap();
    assert_eq!(batches, 0);
    let (store, _thread) = open_store(directory.path());
    let opened = open_one(&store, &wanted).await;
    let runs: Vec<_> = opened
        .runs
        .iter()
        .map(|run| (run.epoch, run.upto))
        .collect();
    assert_eq!(runs, [(1, 40), (2, 40), (3, 40)]);
}
