//! `wasi:keyvalue`: what both drafts of it share. The drafts themselves are thin: they differ in
//! a few signatures. Linked only for microservices with the grant `key_value`.

mod draft;
mod draft2;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use haar_protocol::assignment::Microservice;
use wasmtime::component::{Linker, Resource, ResourceTable};

use super::state::State;
use crate::bus::message::count;
use crate::runtime::guest::Counters;
use crate::runtime::rate::{Pace, Rate};
use crate::store::Store;
use crate::store::key_value::{Bucket, KeyValueError, Swapped, Version};

/// The longest name of a bucket, in characters.
const BUCKET_CHARACTERS_MAX: usize = 64;
/// The bucket that the name `""` means.
const DEFAULT_BUCKET: &str = "default";
/// The longest key in bytes.
const KEY_BYTES_MAX: usize = 512;
/// Keys in one batch, and in one page of keys, at most.
const BATCH_KEYS_MAX: u32 = 1_000;
/// Bytes of the values that one batch may get.
const BATCH_BYTES_MAX: u64 = 4 << 20;
/// Buckets and values to be swapped that an instance may hold at one time. Languages with a garbage
/// collector drop them late.
const HANDLES_MAX: u32 = 1_024;
/// Pages of keys in the older draft whose place is remembered.
const CURSORS_MAX: usize = 64;

/// What is kept for one instance.
#[derive(Debug, Default)]
pub struct KeyValue {
    rate: Rate,
    writes: Pace,
    /// What it holds, apart from the resources of `wasi:*`, which have a limit of their own.
    table: ResourceTable,
    handles: u32,
    /// Where listings stand that go on by number: the number, the bucket, and the last key.
    cursors: VecDeque<(u64, Arc<str>, String)>,
    last_cursor: u64,
}

/// A key with the version of its value that was taken note of.
#[derive(Debug, Clone)]
pub struct Swap {
    bucket: Bucket,
    key: String,
    version: Version,
}

/// Why something was not done: each draft has the same three words for it.
#[derive(Debug)]
pub enum Refusal {
    /// There can't be a bucket of this name.
    NoSuchStore,
    /// Anything else, for people.
    Other(String),
    /// The agent's mistake: the instance ends.
    Trap(wasmtime::Error),
}

impl From<KeyValueError> for Refusal {
    fn from(error: KeyValueError) -> Self {
        Refusal::Other(error.to_string())
    }
}

impl From<wasmtime::component::ResourceTableError> for Refusal {
    fn from(error: wasmtime::component::ResourceTableError) -> Self {
        Refusal::Trap(error.into())
    }
}

type Result<T> = std::result::Result<T, Refusal>;

/// Links both drafts.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    draft::add_to_linker(linker)?;
    draft2::add_to_linker(linker)
}

/// Counts what a microservice has stored, before it stores more.
pub async fn count_bytes(spec: &Microservice, store: &Store, counters: &Counters) {
    if !spec.grants.key_value {
        return;
    }
    match store.key_value_bytes(&spec.name).await {
        Ok(bytes) => counters.key_value_bytes.store(bytes, Ordering::Relaxed),
        Err(error) => tracing::warn!("{}: its pairs can't be counted: {error}", spec.name),
    }
}

impl State {
    fn store(&self) -> Store {
        self.surroundings.store.clone()
    }

    async fn open_bucket(&mut self, identifier: &str) -> Result<Resource<Bucket>> {
        self.spend(1)?;
        let name = match identifier {
            "" => DEFAULT_BUCKET,
            name => name,
        };
        if name.chars().count() > BUCKET_CHARACTERS_MAX || name.chars().any(char::is_control) {
            return Err(Refusal::NoSuchStore);
        }
        let bucket = Bucket {
            owner: self.name.clone(),
            name: name.into(),
        };
        self.store().open_bucket(bucket.clone()).await?;
        self.hold()?;
        Ok(self.key_value.table.push(bucket)?)
    }

    fn close_bucket(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.key_value.table.delete(bucket)?;
        self.key_value.handles -= 1;
        Ok(())
    }

    async fn get_pair(
        &mut self,
        bucket: &Resource<Bucket>,
        key: String,
    ) -> Result<Option<Vec<u8>>> {
        let bucket = self.begin(bucket, [&key])?;
        let found = self.store().get_pair(bucket, key).await?;
        Ok(found.map(|(_, value)| value))
    }

    async fn pair_exists(&mut self, bucket: &Resource<Bucket>, key: String) -> Result<bool> {
        let bucket = self.begin(bucket, [&key])?;
        Ok(self.store().pair_version(bucket, key).await?.is_some())
    }

    async fn get_pairs(
        &mut self,
        bucket: &Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<(String, Option<Vec<u8>>)>> {
        let bucket = self.begin(bucket, &keys)?;
        let store = self.store();
        Ok(store.get_pairs(bucket, keys, BATCH_BYTES_MAX).await?)
    }

    async fn set_pairs(
        &mut self,
        bucket: &Resource<Bucket>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> Result<()> {
        let bucket = self.begin(bucket, pairs.iter().map(|(key, _)| key))?;
        self.pace_write().await;
        let limit = self.limits.key_value_size.0;
        let outcome = self.store().set_pairs(bucket, pairs, limit).await;
        let bytes = self.counted(outcome)?;
        self.note_bytes(bytes);
        Ok(())
    }

    async fn delete_pairs(&mut self, bucket: &Resource<Bucket>, keys: Vec<String>) -> Result<()> {
        let bucket = self.begin(bucket, &keys)?;
        self.pace_write().await;
        let bytes = self.store().delete_pairs(bucket, keys).await?;
        self.note_bytes(bytes);
        Ok(())
    }

    /// A page of keys, and whether there are more.
    async fn list_keys(
        &mut self,
        bucket: &Resource<Bucket>,
        after: Option<String>,
    ) -> Result<(Vec<String>, bool)> {
        let bucket = self.begin(bucket, &after)?;
        let most = BATCH_KEYS_MAX + 1;
        let mut keys = self.store().keys(bucket, after, most).await?;
        let more = keys.len() > BATCH_KEYS_MAX as usize;
        keys.truncate(BATCH_KEYS_MAX as usize);
        Ok((keys, more))
    }

    async fn increment(
        &mut self,
        bucket: &Resource<Bucket>,
        key: String,
        delta: i128,
        range: RangeInclusive<i128>,
    ) -> Result<i128> {
        let bucket = self.begin(bucket, [&key])?;
        self.pace_write().await;
        let limit = self.limits.key_value_size.0;
        let store = self.store();
        let outcome = store.increment_pair(bucket, key, delta, range, limit).await;
        let (sum, bytes) = self.counted(outcome)?;
        self.note_bytes(bytes);
        Ok(sum)
    }

    async fn new_swap(&mut self, bucket: &Resource<Bucket>, key: String) -> Result<Resource<Swap>> {
        let bucket = self.begin(bucket, [&key])?;
        let (wanted_bucket, wanted_key) = (bucket.clone(), key.clone());
        let version = self.store().pair_version(wanted_bucket, wanted_key).await?;
        self.hold()?;
        Ok(self.key_value.table.push(Swap {
            bucket,
            key,
            version,
        })?)
    }

    fn drop_swap(&mut self, swap: Resource<Swap>) -> wasmtime::Result<Swap> {
        let swap = self.key_value.table.delete(swap)?;
        self.key_value.handles -= 1;
        Ok(swap)
    }

    /// The value of now, which is the one that is taken note of: what the guest has seen is what
    /// it means to swap, and no value need be held for it.
    async fn current(&mut self, swap: &Resource<Swap>) -> Result<Option<Vec<u8>>> {
        self.spend(1)?;
        let Swap { bucket, key, .. } = self.key_value.table.get(swap)?.clone();
        let found = self.store().get_pair(bucket, key).await?;
        self.key_value.table.get_mut(swap)?.version = found.as_ref().map(|(version, _)| *version);
        Ok(found.map(|(_, value)| value))
    }

    /// Swaps the value. Where it is not what it was, returns a new handle with the value of now.
    async fn swap_pair(
        &mut self,
        swap: Resource<Swap>,
        value: Vec<u8>,
    ) -> Result<std::result::Result<(), Resource<Swap>>> {
        let mut swap = self.drop_swap(swap).map_err(Refusal::Trap)?;
        self.spend(1)?;
        self.pace_write().await;
        let limit = self.limits.key_value_size.0;
        let (bucket, key) = (swap.bucket.clone(), swap.key.clone());
        let store = self.store();
        let outcome = store
            .swap_pair(bucket, key, swap.version, value, limit)
            .await;
        match self.counted(outcome)? {
            Swapped::Done(bytes) => {
                self.note_bytes(bytes);
                Ok(Ok(()))
            }
            Swapped::Changed(version) => {
                swap.version = version;
                self.hold()?;
                Ok(Err(self.key_value.table.push(swap)?))
            }
        }
    }

    /// Checks what every operation checks: the keys, their number, and the rate.
    fn begin<'a>(
        &mut self,
        bucket: &Resource<Bucket>,
        keys: impl IntoIterator<Item = &'a String>,
    ) -> Result<Bucket> {
        let mut operations = 0;
        for key in keys {
            operations += 1;
            if key.is_empty() || key.len() > KEY_BYTES_MAX {
                let reason = format!("a key has 1 to {KEY_BYTES_MAX} bytes, not {}", key.len());
                return Err(Refusal::Other(reason));
            }
            if operations > BATCH_KEYS_MAX {
                let reason = format!("a batch has no more than {BATCH_KEYS_MAX} keys");
                return Err(Refusal::Other(reason));
            }
        }
        self.spend(operations.max(1))?;
        Ok(self.key_value.table.get(bucket)?.clone())
    }

    fn spend(&mut self, operations: u32) -> Result<()> {
        let limit = self.limits.key_value_per_second;
        let Err(wait_ms) = self.key_value.rate.take_many(limit, operations) else {
            return Ok(());
        };
        count(&self.counters.exceeded.key_value_per_second);
        Err(Refusal::Other(if operations > limit {
            format!(
                "{operations} operations are more than the limit `key_value_per_second` of {limit}"
            )
        } else {
            format!("too many operations: try again in {wait_ms} ms")
        }))
    }

    /// Waits until the next write may be made.
    async fn pace_write(&mut self) {
        let limit = self.limits.key_value_writes_per_second;
        if let Some(wait) = self.key_value.writes.take(limit) {
            count(&self.counters.exceeded.key_value_writes_per_second);
            tokio::time::sleep(wait).await;
        }
    }

    fn hold(&mut self) -> Result<()> {
        if self.key_value.handles >= HANDLES_MAX {
            let reason = format!(
                "{HANDLES_MAX} handles of buckets and swaps are open, which is the limit: open a bucket once and keep it, or drop what is not needed"
            );
            return Err(Refusal::Other(reason));
        }
        self.key_value.handles += 1;
        Ok(())
    }

    /// Counts an outcome that says that the store is full.
    fn counted<T>(&self, outcome: std::result::Result<T, KeyValueError>) -> Result<T> {
        if matches!(outcome, Err(KeyValueError::Full(_))) {
            count(&self.counters.exceeded.key_value_size);
        }
        Ok(outcome?)
    }

    fn note_bytes(&self, bytes: u64) {
        self.counters
            .key_value_bytes
            .store(bytes, Ordering::Relaxed);
    }
}

impl KeyValue {
    /// Remembers where a listing stands, under a number.
    fn remember(&mut self, bucket: Arc<str>, last: String) -> u64 {
        self.last_cursor += 1;
        self.cursors.push_back((self.last_cursor, bucket, last));
        if self.cursors.len() > CURSORS_MAX {
            self.cursors.pop_front();
        }
        self.last_cursor
    }

    /// The key after which a listing goes on.
    fn recall(&self, bucket: &str, cursor: u64) -> Result<String> {
        self.cursors
            .iter()
            .find(|(number, of, _)| *number == cursor && **of == *bucket)
            .map(|(_, _, last)| last.clone())
            .ok_or_else(|| {
                Refusal::Other(format!(
                    "the cursor is not one of the last {CURSORS_MAX} of this bucket"
                ))
            })
    }
}
