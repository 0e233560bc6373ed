//! Pairs against a map in memory, and what is counted against the true sum.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LIMIT: u64 = 2_000;

fn bucket(owner: &str, name: &str) -> Bucket {
    Bucket {
        owner: MicroserviceName {
            application: "app".parse().unwrap(),
            microservice: owner.parse().unwrap(),
        },
        name: name.into(),
    }
}

fn open() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let (store, _thread) = Store::open(directory.path()).unwrap();
    (directory, store)
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

#[derive(Debug, Clone)]
enum Operation {
    Set(Vec<(usize, usize)>),
    Delete(Vec<usize>),
    Increment(usize, i64),
    Swap(usize, usize),
    Get(usize),
    Keys,
}

fn operation() -> impl Strategy<Value = Operation> {
    let (key, size) = (0..8usize, 0..700usize);
    let pair = (key.clone(), size.clone());
    prop_oneof![
        4 => proptest::collection::vec(pair, 1..4).prop_map(Operation::Set),
        2 => proptest::collection::vec(key.clone(), 1..4).prop_map(Operation::Delete),
        1 => (key.clone(), -3..3i64).prop_map(|(key, delta)| Operation::Increment(key, delta)),
        1 => (key.clone(), size).prop_map(|(key, size)| Operation::Swap(key, size)),
        1 => key.prop_map(Operation::Get),
        1 => Just(Operation::Keys),
    ]
}

type Model = BTreeMap<(usize, String), Vec<u8>>;

fn bytes(model: &Model) -> u64 {
    model
        .iter()
        .map(|((_, key), value)| (key.len() + value.len()) as u64 + PAIR_BYTES)
        .sum()
}

fn key(number: usize) -> String {
    "k".repeat(number + 1)
}

/// Does the operation to the store and to the model, and compares what they say.
async fn apply(store: &Store, model: &mut Model, index: usize, operation: Operation) {
    let bucket = bucket("it", ["default", "other"][index]);
    let before = bytes(model);
    let mut wanted = model.clone();
    let fits = |wanted: &Model| bytes(wanted) <= LIMIT || bytes(wanted) <= before;
    match operation {
        Operation::Set(pairs) => {
            let pairs: Vec<_> = pairs
                .into_iter()
                .map(|(number, size)| (key(number), vec![b'v'; size]))
                .collect();
            for (key, value) in &pairs {
                wanted.insert((index, key.clone()), value.clone());
            }
            let outcome = store.set_pairs(bucket, pairs, LIMIT).await;
            if fits(&wanted) {
                assert_eq!(outcome.unwrap(), bytes(&wanted));
                *model = wanted;
            } else {
                assert!(matches!(outcome, Err(KeyValueError::Full(LIMIT))));
            }
        }
        Operation::Delete(keys) => {
            let keys: Vec<String> = keys.into_iter().map(key).collect();
            for key in &keys {
                model.remove(&(index, key.clone()));
            }
            let outcome = store.delete_pairs(bucket, keys).await;
            assert_eq!(outcome.unwrap(), bytes(model));
        }
        Operation::Increment(number, delta) => {
            let place = (index, key(number));
            let range = i128::from(i64::MIN)..=i128::from(i64::MAX);
            let outcome = store
                .increment_pair(bucket, key(number), delta.into(), range, LIMIT)
                .await;
            let text = model.get(&place).map_or("0".into(), |value| {
                String::from_utf8(value.clone()).unwrap()
            });
            match (text.parse::<i64>(), outcome) {
                (Ok(old), outcome) => {
                    let new = (old + delta).to_string().into_bytes();
                    wanted.insert(place, new);
                    if fits(&wanted) {
                        let expected = (i128::from(old + delta), bytes(&wanted));
                        assert_eq!(outcome.unwrap(), expected);
                        *model = wanted;
                    } else {
                        assert!(matches!(outcome, Err(KeyValueError::Full(LIMIT))));
                    }
                }
                // Eight letters are a number too, in the other notation.
                (Err(_), Ok((sum, _))) => {
                    let old = model[&place].clone().try_into().unwrap();
                    let new = i64::from_le_bytes(old) + delta;
                    assert_eq!(sum, i128::from(new));
                    model.insert(place, new.to_le_bytes().to_vec());
                }
                (Err(_), Err(error)) => {
                    assert!(matches!(error, KeyValueError::NotANumber), "{error}");
                }
            }
        }
        Operation::Swap(number, size) => {
            let version = store
                .pair_version(bucket.clone(), key(number))
                .await
                .unwrap();
            let value = vec![b's'; size];
            wanted.insert((index, key(number)), value.clone());
            let outcome = store
                .swap_pair(bucket.clone(), key(number), version, value.clone(), LIMIT)
                .await;
            if fits(&wanted) {
                assert_eq!(outcome.unwrap(), Swapped::Done(bytes(&wanted)));
                *model = wanted;
                let again = store
                    .swap_pair(bucket, key(number), version, value, LIMIT)
                    .await;
                assert!(matches!(again.unwrap(), Swapped::Changed(Some(_))));
            } else {
                assert!(matches!(outcome, Err(KeyValueError::Full(LIMIT))));
            }
        }
        Operation::Get(number) => {
            let value = store.get_pair(bucket, key(number)).await.unwrap();
            assert_eq!(
                value.map(|(_, value)| value).as_ref(),
                model.get(&(index, key(number)))
            );
        }
        Operation::Keys => {
            let mut keys = Vec::new();
            loop {
                let after = keys.last().cloned();
                let page = store.keys(bucket.clone(), after, 3).await.unwrap();
                if page.is_empty() {
                    break;
                }
                keys.extend(page);
            }
            let expected: Vec<String> = model
                .keys()
                .filter(|(bucket, _)| *bucket == index)
                .map(|(_, key)| key.clone())
                .collect();
            assert_eq!(keys, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pairs_are_as_a_map_has_them_and_what_they_take_is_the_true_sum(
        operations in proptest::collection::vec((0..2usize, operation()), 1..40)
    ) {
        block_on(async {
            let (_directory, store) = open();
            let mut model = Model::new();
            for (bucket, operation) in operations {
                apply(&store, &mut model, bucket, operation).await;
                let counted = store.key_value_bytes(&self::bucket("it", "x").owner).await;
                assert_eq!(counted.unwrap(), bytes(&model));
            }
        });
    }
}

#[test]
fn numbers_are_text_or_eight_bytes_and_stay_what_they_are() {
    let signed = i128::from(i64::MIN)..=i128::from(i64::MAX);
    let unsigned = 0..=i128::from(u64::MAX);
    let sum = |value: Option<&[u8]>, delta| increased(value, delta, &signed).unwrap();
    assert_eq!(sum(None, 5), (5, b"5".to_vec()));
    assert_eq!(sum(Some(b"-2"), 5), (3, b"3".to_vec()));
    assert_eq!(
        sum(Some(&7i64.to_le_bytes()), -9),
        (-2, (-2i64).to_le_bytes().to_vec())
    );
    let refused =
        |value: &[u8], delta, range: &_| increased(Some(value), delta, range).unwrap_err();
    assert!(matches!(
        refused(b"seven", 1, &signed),
        KeyValueError::NotANumber
    ));
    let most = i64::MAX.to_string();
    assert!(matches!(
        refused(most.as_bytes(), 1, &signed),
        KeyValueError::OutOfRange
    ));
    assert_eq!(
        increased(Some(most.as_bytes()), 1, &unsigned).unwrap().0,
        i128::from(i64::MAX) + 1
    );
    assert!(matches!(
        refused(b"-1", 0, &unsigned),
        KeyValueError::OutOfRange
    ));
}

#[test]
fn a_bucket_too_many_is_refused_and_an_empty_one_makes_room() {
    block_on(async {
        let (_directory, store) = open();
        let numbered = |number: u32| bucket("it", &format!("b{number}"));
        let pair = || vec![("key".to_owned(), vec![1])];
        for number in 0..BUCKETS_MAX {
            store
                .set_pairs(numbered(number), pair(), LIMIT)
                .await
                .unwrap();
        }
        let one_more = numbered(BUCKETS_MAX);
        let refused = store.open_bucket(one_more.clone()).await.unwrap_err();
        assert!(
            matches!(refused, KeyValueError::TooManyBuckets),
            "{refused}"
        );
        let refused = store.set_pairs(one_more.clone(), pair(), LIMIT).await;
        assert!(matches!(refused, Err(KeyValueError::TooManyBuckets)));
        store.open_bucket(numbered(3)).await.unwrap();
        store.open_bucket(bucket("another", "b99")).await.unwrap();
        store
            .delete_pairs(numbered(3), vec!["key".into()])
            .await
            .unwrap();
        store.set_pairs(one_more, pair(), LIMIT).await.unwrap();
        let refused = store.set_pairs(numbered(3), pair(), LIMIT).await;
        assert!(matches!(refused, Err(KeyValueError::TooManyBuckets)));
    });
}

#[test]
fn a_lowered_limit_lets_a_store_shrink_and_not_grow() {
    block_on(async {
        let (_directory, store) = open();
        let bucket = bucket("it", "default");
        let set = async |key: &str, size, limit| {
            let pairs = vec![(key.to_owned(), vec![0; size])];
            store.set_pairs(bucket.clone(), pairs, limit).await
        };
        set("a", 1_000, LIMIT).await.unwrap();
        assert!(matches!(
            set("b", 0, 500).await,
            Err(KeyValueError::Full(500))
        ));
        set("a", 900, 500).await.unwrap();
        assert!(matches!(
            set("a", 901, 500).await,
            Err(KeyValueError::Full(500))
        ));
        assert_eq!(
            store
                .get_pair(bucket, "a".into())
                .await
                .unwrap()
                .unwrap()
                .1
                .len(),
            900
        );
    });
}

#[test]
fn what_is_asked_for_at_once_is_bounded() {
    block_on(async {
        let (_directory, store) = open();
        let bucket = bucket("it", "default");
        let pairs = vec![("a".to_owned(), vec![0; 600])];
        store.set_pairs(bucket.clone(), pairs, LIMIT).await.unwrap();
        let keys = vec!["a".to_owned(), "none".to_owned(), "a".to_owned()];
        let got = store
            .get_pairs(bucket.clone(), keys.clone(), 1_200)
            .await
            .unwrap();
        let lengths: Vec<_> = got
            .iter()
            .map(|(_, value)| value.as_ref().map(Vec::len))
            .collect();
        assert_eq!(lengths, [Some(600), None, Some(600)]);
        let refused = store.get_pairs(bucket, keys, 1_199).await;
        assert!(matches!(refused, Err(KeyValueError::TooMuch(1_199))));
    });
}
