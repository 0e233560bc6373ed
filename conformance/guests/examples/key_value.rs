//! Does to a bucket what the text of each message says, and logs `COMMAND -> ANSWER`:
//!
//! `get K`, `set K V`, `delete K`, `exists K`, `keys`, `increment K N`, `swap K OLD NEW` (`-` for no
//! value), `get-many K…`, `set-many K V…`, `delete-many K…`, `fill K BYTES`, `fill-many BYTES K…`,
//! `hold N` (opens so many buckets at one time), `count K N` (increments N times),
//! `race K N` (adds 1 N times by comparing and swapping). `in B COMMAND` does it in bucket B.

use haar_guest::key_value::{self, Bucket, KeyValueError};
use haar_guest::{Message, Microservice, Rejection, log};

#[derive(Default)]
struct KeyValue;

impl Microservice for KeyValue {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let text = message.text()?;
        let words: Vec<&str> = text.split(' ').collect();
        let answer = match words.as_slice() {
            ["in", name, command @ ..] => act(name, command),
            command => act("", command),
        };
        let answer = answer.unwrap_or_else(|error| format!("{error:?}"));
        log::info!("{text} -> {answer}");
        Ok(())
    }
}

fn act(name: &str, command: &[&str]) -> Result<String, KeyValueError> {
    let bucket = key_value::open(name)?;
    let done = |()| "done".to_owned();
    Ok(match command {
        ["get", key] => show(bucket.get(key)?),
        ["set", key, value] => done(bucket.set(key, value)?),
        ["delete", key] => done(bucket.delete(key)?),
        ["exists", key] => bucket.exists(key)?.to_string(),
        ["keys"] => bucket.keys()?.join(","),
        ["increment", key, delta] => bucket.increment(key, number(delta)?)?.to_string(),
        ["swap", key, old, new] => {
            let old = (*old != "-").then_some(old.as_bytes());
            bucket.compare_and_swap(key, old, new)?.to_string()
        }
        ["get-many", keys @ ..] => {
            let values = bucket.get_many(keys)?.into_iter().map(show);
            values.collect::<Vec<_>>().join(",")
        }
        ["set-many", pairs @ ..] => {
            let pairs: Vec<_> = pairs
                .chunks_exact(2)
                .map(|pair| (pair[0], pair[1].as_bytes()))
                .collect();
            done(bucket.set_many(&pairs)?)
        }
        ["delete-many", keys @ ..] => done(bucket.delete_many(keys)?),
        ["fill", key, bytes] => done(bucket.set(key, vec![0; number(bytes)?])?),
        ["fill-many", bytes, keys @ ..] => {
            let value = vec![0; number(bytes)?];
            let pairs: Vec<_> = keys.iter().map(|key| (*key, value.as_slice())).collect();
            done(bucket.set_many(&pairs)?)
        }
        ["hold", count] => hold(number(count)?)?.len().to_string(),
        ["count", key, count] => {
            for _ in 0..number(count)? {
                bucket.increment(key, 1)?;
            }
            show(bucket.get(key)?)
        }
        ["race", key, count] => {
            for _ in 0..number(count)? {
                add_by_swapping(&bucket, key)?;
            }
            show(bucket.get(key)?)
        }
        _ => "not understood".to_owned(),
    })
}

fn hold(count: usize) -> Result<Vec<Bucket>, KeyValueError> {
    (0..count).map(|_| key_value::open("")).collect()
}

/// Tries until nobody came between.
fn add_by_swapping(bucket: &Bucket, key: &str) -> Result<(), KeyValueError> {
    loop {
        let old = bucket.get(key)?;
        let sum = match &old {
            None => 1,
            Some(old) => number::<u64>(&show(Some(old.clone())))? + 1,
        };
        if bucket.compare_and_swap(key, old.as_deref(), sum.to_string())? {
            return Ok(());
        }
    }
}

fn show(value: Option<Vec<u8>>) -> String {
    value.map_or("none".to_owned(), |value| {
        String::from_utf8_lossy(&value).into_owned()
    })
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, KeyValueError> {
    text.parse()
        .map_err(|_| KeyValueError::Other(format!("`{text}` is not a number")))
}

haar_guest::export!(KeyValue);
