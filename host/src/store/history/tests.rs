//! Histories against lists in memory.

use haar_protocol::limits::Retention;
use haar_protocol::quantity::{ByteSize, Millis};
use proptest::prelude::*;

use super::*;
use crate::bus::message::Source;

const SIZE: u64 = 1_000;
const AGE_MS: u64 = 100_000_000;

fn open() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let (store, _thread) = Store::open(directory.path()).unwrap();
    (directory, store)
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

fn port(name: &str) -> HistoryPort {
    HistoryPort {
        owner: MicroserviceName {
            application: "app".parse().unwrap(),
            microservice: "it".parse().unwrap(),
        },
        direction: Direction::Inlet,
        port: name.parse().unwrap(),
    }
}

fn recorder(name: &str, size: u64, age_ms: u64) -> Arc<Recorder> {
    let retention = Retention {
        size: ByteSize(size),
        age: Millis(age_ms),
    };
    let content_type = "text/plain".parse().unwrap();
    Arc::new(Recorder::new(
        port(name),
        retention,
        content_type,
        Arc::default(),
    ))
}

fn message(sequence: u64, published_ms: u64, body_bytes: usize) -> Arc<Message> {
    let source = Source {
        site: "s-1".into(),
        node: format!("node-{}", sequence % 2),
        application: "app".into(),
        microservice: format!("source-{}", sequence % 3),
        outlet: "out".into(),
    };
    Arc::new(Message {
        source: source.into(),
        sequence,
        published_ms,
        headers: vec![("k".into(), "v".into())],
        body: vec![b'x'; body_bytes],
    })
}

fn everything() -> Query {
    Query {
        limit: 1_000,
        bytes_max: u64::MAX,
        site: "s-1".into(),
        ..Query::default()
    }
}

/// All pages of a query: sequences, and how many pages there were.
async fn read(store: &Store, recorder: &Arc<Recorder>, query: Query) -> (Vec<u64>, u32) {
    let (mut sequences, mut pages, mut query) = (Vec::new(), 0, query);
    loop {
        let page = store
            .recall(Arc::clone(recorder), query.clone())
            .await
            .unwrap();
        assert!(page.messages.len() <= query.limit);
        sequences.extend(page.messages.iter().map(|(message, _)| message.sequence));
        pages += 1;
        let Some(next) = page.next else {
            return (sequences, pages);
        };
        query.after = Some(next);
    }
}

fn query() -> impl Strategy<Value = Query> {
    let time = || proptest::option::of(0..200u64);
    let sequence = || proptest::option::of(0..40u64);
    let node = proptest::option::of(0..3u64).prop_map(|node| node.map(|n| format!("node-{n}")));
    let from = proptest::option::of(0..4u64)
        .prop_map(|from| from.map(|from| ("app".to_owned(), format!("source-{from}"))));
    let shape = (any::<bool>(), 1..9usize, 1..700u64);
    (time(), time(), sequence(), sequence(), node, from, shape).prop_map(
        |(since_ms, until_ms, first_sequence, last_sequence, node, microservice, shape)| Query {
            since_ms,
            until_ms,
            node,
            microservice,
            first_sequence,
            last_sequence,
            newest_first: shape.0,
            limit: shape.1,
            bytes_max: shape.2,
            ..everything()
        },
    )
}

fn is_wanted(query: &Query, message: &Message) -> bool {
    let source = &message.source;
    let from = (source.application.clone(), source.microservice.clone());
    query.since_ms.unwrap_or(0) <= message.published_ms
        && message.published_ms < query.until_ms.unwrap_or(u64::MAX)
        && query.first_sequence.unwrap_or(0) <= message.sequence
        && message.sequence <= query.last_sequence.unwrap_or(u64::MAX)
        && query.node.clone().unwrap_or(source.node.clone()) == source.node
        && query.microservice.clone().unwrap_or(from.clone()) == from
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Batches of messages, each stored at a later time: what is kept are the newest within size
    /// and age, and what is counted is what is kept.
    #[test]
    fn the_newest_within_size_and_age_are_kept(
        batches in proptest::collection::vec(
            proptest::collection::vec((any::<u64>(), 0..1_200usize), 0..8), 1..8)
    ) {
        block_on(async {
            let (_directory, store) = open();
            let recorder = recorder("in", SIZE, AGE_MS);
            let mut model: Vec<(usize, Arc<Message>)> = Vec::new();
            let mut recorded = 0;
            for (step, batch) in batches.into_iter().enumerate() {
                store.ages().pass(AGE_MS / 5 * 2);
                // Whatever the clocks of publishers showed.
                for (published_ms, body_bytes) in batch {
                    let message = message(recorded, published_ms >> 1, body_bytes);
                    recorder.record(&message);
                    model.push((step, message));
                    recorded += 1;
                }
                model.retain(|(stored, _)| step - stored <= 2);
                while model.iter().map(|(_, one)| history::bytes(one)).sum::<u64>() > SIZE {
                    model.remove(0);
                }
                store.remember(vec![Arc::clone(&recorder)]).await.unwrap();
                let expected: Vec<u64> = model.iter().map(|(_, one)| one.sequence).collect();
                let (kept, _) = read(&store, &recorder, everything()).await;
                assert_eq!(kept, expected);
                let counts = store.run(|connection| {
                    let sql = "SELECT coalesce((SELECT bytes FROM history), 0),
                        (SELECT coalesce(sum(bytes), 0) FROM remembered)";
                    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
                    Ok(connection.query_row(sql, [], read)?)
                });
                let (counted, kept): (i64, i64) = counts.await.unwrap();
                assert_eq!(counted, kept);
                assert!(natural(kept) <= SIZE);
            }
        });
    }

    /// Whatever is asked, all pages together are what a filter over the list gives.
    #[test]
    fn pages_together_are_what_was_asked_for(
        published in proptest::collection::vec((0..200u64, 0..300usize), 0..40), query in query()
    ) {
        block_on(async {
            let (_directory, store) = open();
            let recorder = recorder("in", 1 << 20, AGE_MS);
            let messages: Vec<_> = (0..)
                .zip(&published)
                .map(|(sequence, (at_ms, bytes))| message(sequence, *at_ms, *bytes))
                .collect();
            for message in &messages {
                recorder.record(message);
            }
            let mut expected: Vec<u64> = messages
                .iter()
                .filter(|message| is_wanted(&query, message))
                .map(|message| message.sequence)
                .collect();
            if query.newest_first {
                expected.reverse();
            }
            let (found, _) = read(&store, &recorder, query).await;
            assert_eq!(found, expected);
        });
    }
}

#[test]
fn a_query_sees_what_was_recorded_before_it_and_messages_come_back_whole() {
    block_on(async {
        let (_directory, store) = open();
        let recorder = recorder("in", 1 << 20, AGE_MS);
        let sent = message(3, 4, 5);
        recorder.record(&sent);
        let page = store.recall(recorder, everything()).await.unwrap();
        let (back, content_type) = &page.messages[0];
        assert_eq!(*back.source, *sent.source);
        assert_eq!((back.sequence, back.published_ms), (3, 4));
        assert_eq!((&back.headers, &back.body), (&sent.headers, &sent.body));
        assert_eq!(content_type, "text/plain");
    });
}

#[test]
fn a_smaller_retention_shrinks_what_is_kept_and_none_forgets_it() {
    block_on(async {
        let (_directory, store) = open();
        let (large, other) = (
            recorder("in", 1 << 20, AGE_MS),
            recorder("other", 1 << 20, AGE_MS),
        );
        for sequence in 0..9 {
            large.record(&message(sequence, 1, 100));
            other.record(&message(sequence, 1, 100));
        }
        let both = vec![Arc::clone(&large), Arc::clone(&other)];
        store.remember(both).await.unwrap();
        let small = recorder("in", 400, AGE_MS);
        store.remember(vec![Arc::clone(&small)]).await.unwrap();
        assert_eq!(read(&store, &small, everything()).await.0, [7, 8]);

        let owners = vec![large.port.owner.clone()];
        store
            .follow_histories(owners, vec![port("in")])
            .await
            .unwrap();
        assert_eq!(read(&store, &small, everything()).await.0, [7, 8]);
        assert_eq!(read(&store, &other, everything()).await.0, [0; 0]);
    });
}

#[test]
fn what_waits_is_bounded_and_the_oldest_is_dropped_and_counted() {
    let recorder = recorder("in", 1 << 20, AGE_MS);
    for sequence in 0..100 {
        recorder.record(&message(sequence, 1, 10_000));
    }
    let waiting = recorder.take();
    assert_eq!(waiting.back().unwrap().sequence, 99);
    let dropped = recorder.dropped.load(Ordering::Relaxed);
    assert_eq!(waiting.front().unwrap().sequence, dropped);
    assert!((20..30).contains(&waiting.len()), "{}", waiting.len());
    recorder.record(&message(100, 1, 1 << 20));
    assert_eq!(
        recorder.take().len(),
        1,
        "one message waits whatever its size"
    );
}
