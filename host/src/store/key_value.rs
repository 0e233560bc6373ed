//! Pairs of key and value in buckets of a microservice. Each operation is one request of the
//! database thread, so it is atomic whoever else asks; what all pairs of a microservice take is
//! counted in the same transaction.

mod pairs;

use std::ops::RangeInclusive;
use std::sync::Arc;

use haar_protocol::assignment::MicroserviceName;
use rusqlite::Connection;

use super::{Store, natural, owners};
use pairs::Pairs;

/// Buckets with pairs in them that one microservice may have.
pub const BUCKETS_MAX: u32 = 16;
/// Bytes that a pair costs beside its key and its value.
pub const PAIR_BYTES: u64 = 64;

/// A bucket of a microservice. It need not exist: it does as soon as it has a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Whose it is.
    pub owner: MicroserviceName,
    /// What it is called among the owner's buckets.
    pub name: Arc<str>,
}

/// Tells one value of a key from every other that it had or will have; none while there is none.
pub type Version = Option<u64>;

/// What a swap came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swapped {
    /// The value is stored; all pairs of the microservice take so many bytes now.
    Done(u64),
    /// The key's value is another one, of this version.
    Changed(Version),
}

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum KeyValueError {
    /// The microservice may not store so much. Nothing was changed.
    #[error("the limit `key_value_size` of {0} bytes is reached")]
    Full(u64),
    /// The microservice has as many buckets as it may have.
    #[error("a microservice has no more than {BUCKETS_MAX} buckets")]
    TooManyBuckets,
    /// The value to be increased is no number.
    #[error("the value is neither a decimal number nor one of 8 bytes")]
    NotANumber,
    /// The sum is not a number of this size.
    #[error("the sum does not fit into 64 bits")]
    OutOfRange,
    /// The values that were asked for are too large together, in bytes.
    #[error("the values are larger than {0} bytes together: ask for fewer of them")]
    TooMuch(u64),
    /// The database failed.
    #[error("{0:#}")]
    Unavailable(anyhow::Error),
}

impl From<anyhow::Error> for KeyValueError {
    fn from(error: anyhow::Error) -> Self {
        error.downcast().unwrap_or_else(Self::Unavailable)
    }
}

type Result<T> = std::result::Result<T, KeyValueError>;

impl Store {
    /// Checks that the owner has the bucket, or may have one more.
    ///
    /// # Errors
    /// When it may not, or the database can't be read.
    pub async fn open_bucket(&self, bucket: Bucket) -> Result<()> {
        self.pairs(bucket, |pairs| pairs.check_room_for_bucket())
            .await
    }

    /// Bytes that all pairs of a microservice take.
    ///
    /// # Errors
    /// When the database can't be read; so for all below, beside what is named there.
    pub async fn key_value_bytes(&self, owner: &MicroserviceName) -> Result<u64> {
        let owner = owner.clone();
        let bytes = self
            .run(move |connection| match owners::find(connection, &owner)? {
                None => Ok(0),
                Some(owner) => Ok(connection
                    .prepare_cached("SELECT key_value_bytes FROM owner WHERE id = ?1")?
                    .query_row([owner], |row| row.get(0).map(natural))?),
            })
            .await?;
        Ok(bytes)
    }

    /// The value of a key, with its version.
    pub async fn get_pair(&self, bucket: Bucket, key: String) -> Result<Option<(u64, Vec<u8>)>> {
        self.pairs(bucket, move |pairs| pairs.get(&key)).await
    }

    /// The version of a key's value: also tells whether there is one.
    pub async fn pair_version(&self, bucket: Bucket, key: String) -> Result<Version> {
        self.pairs(bucket, move |pairs| {
            Ok(pairs.size(&key)?.map(|(version, _)| version))
        })
        .await
    }

    /// The values of keys, in the order given.
    ///
    /// # Errors
    /// When they are larger than `bytes_max` together.
    pub async fn get_pairs(
        &self,
        bucket: Bucket,
        keys: Vec<String>,
        bytes_max: u64,
    ) -> Result<Vec<(String, Option<Vec<u8>>)>> {
        self.pairs(bucket, move |pairs| {
            let mut bytes = 0;
            let sized = keys.into_iter().map(|key| {
                bytes += pairs.size(&key)?.map_or(0, |(_, size)| size);
                if bytes > bytes_max {
                    return Err(KeyValueError::TooMuch(bytes_max).into());
                }
                let value = pairs.get(&key)?.map(|(_, value)| value);
                Ok((key, value))
            });
            sized.collect()
        })
        .await
    }

    /// At most `most` keys of a bucket in their order, those after `after`.
    pub async fn keys(
        &self,
        bucket: Bucket,
        after: Option<String>,
        most: u32,
    ) -> Result<Vec<String>> {
        self.pairs(bucket, move |pairs| pairs.keys(after.as_deref(), most))
            .await
    }

    /// Stores pairs, all of them or, on an error, none. Returns what all pairs of the microservice
    /// take then, in bytes.
    ///
    /// # Errors
    /// When that were more than `limit`, or the bucket were one too many.
    pub async fn set_pairs(
        &self,
        bucket: Bucket,
        new: Vec<(String, Vec<u8>)>,
        limit: u64,
    ) -> Result<u64> {
        self.pairs(bucket, move |pairs| {
            for (key, value) in &new {
                pairs.set(key, value)?;
            }
            pairs.settle(Some(limit))
        })
        .await
    }

    /// Removes pairs; keys that are not there are passed over. Returns what all pairs of the
    /// microservice take then, in bytes.
    pub async fn delete_pairs(&self, bucket: Bucket, keys: Vec<String>) -> Result<u64> {
        self.pairs(bucket, move |pairs| {
            for key in &keys {
                pairs.delete(key)?;
            }
            pairs.settle(None)
        })
        .await
    }

    /// Adds to the number that a key holds: 0 where there is none. Returns the sum, and what all
    /// pairs of the microservice take then, in bytes.
    ///
    /// The specification does not say what a number looks like. Hosts differ: wasmtime and Redis
    /// keep decimal text, Spin keeps 8 bytes, little-endian. Both are understood, and stay as they
    /// are; a new one is text.
    ///
    /// # Errors
    /// When the value is no number, the sum is not in `range`, or it takes more than `limit`.
    pub async fn increment_pair(
        &self,
        bucket: Bucket,
        key: String,
        delta: i128,
        range: RangeInclusive<i128>,
        limit: u64,
    ) -> Result<(i128, u64)> {
        self.pairs(bucket, move |pairs| {
            let value = pairs.get(&key)?.map(|(_, value)| value);
            let (sum, value) = increased(value.as_deref(), delta, &range)?;
            pairs.set(&key, &value)?;
            Ok((sum, pairs.settle(Some(limit))?))
        })
        .await
    }

    /// Stores a value if the one that is there is of `version`.
    ///
    /// # Errors
    /// When it takes more than `limit`.
    pub async fn swap_pair(
        &self,
        bucket: Bucket,
        key: String,
        version: Version,
        value: Vec<u8>,
        limit: u64,
    ) -> Result<Swapped> {
        self.pairs(bucket, move |pairs| {
            let current = pairs.size(&key)?.map(|(version, _)| version);
            if current != version {
                return Ok(Swapped::Changed(current));
            }
            pairs.set(&key, &value)?;
            Ok(Swapped::Done(pairs.settle(Some(limit))?))
        })
        .await
    }

    async fn pairs<T: Send + 'static>(
        &self,
        bucket: Bucket,
        work: impl FnOnce(&mut Pairs<'_>) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T> {
        let run = move |connection: &Connection| work(&mut Pairs::of(connection, &bucket)?);
        Ok(self.run(run).await?)
    }
}

/// The sum, and the value that holds it.
fn increased(
    value: Option<&[u8]>,
    delta: i128,
    range: &RangeInclusive<i128>,
) -> Result<(i128, Vec<u8>)> {
    let text = |value: &[u8]| std::str::from_utf8(value).ok()?.parse::<i128>().ok();
    let in_range = |sum: i128| {
        let fits = range.contains(&sum);
        fits.then_some(sum).ok_or(KeyValueError::OutOfRange)
    };
    let Some(value) = value else {
        let sum = in_range(delta)?;
        return Ok((sum, sum.to_string().into_bytes()));
    };
    if let Some(number) = text(value) {
        let sum = in_range(number.checked_add(delta).ok_or(KeyValueError::OutOfRange)?)?;
        return Ok((sum, sum.to_string().into_bytes()));
    }
    let bytes: [u8; 8] = value.try_into().map_err(|_| KeyValueError::NotANumber)?;
    let sum = in_range(i128::from(i64::from_le_bytes(bytes)) + delta)?;
    let value = i64::try_from(sum).map_err(|_| KeyValueError::OutOfRange)?;
    Ok((sum, value.to_le_bytes().to_vec()))
}

#[cfg(test)]
mod tests;
