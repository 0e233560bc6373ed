//! A key-value store in the memory of a test.

#![allow(
    clippy::unnecessary_wraps,
    reason = "the agent can fail where a test cannot"
)]

use std::collections::BTreeMap;

use super::imports::world;
use super::world::World;
use crate::key_value::KeyValueError;

/// A bucket that is open.
#[derive(Debug)]
pub(crate) struct Handle {
    name: String,
}

type Pairs = BTreeMap<String, Vec<u8>>;
type Result<T> = std::result::Result<T, KeyValueError>;

impl World {
    /// The pairs of a bucket. `""` and `"default"` are one.
    pub(super) fn bucket(&mut self, name: &str) -> &mut Pairs {
        let name = if name.is_empty() { "default" } else { name };
        self.pairs.entry(name.to_owned()).or_default()
    }
}

impl Handle {
    pub(crate) fn open(name: &str) -> Result<Self> {
        let handle = Self {
            name: name.to_owned(),
        };
        handle.with(|_| ());
        Ok(handle)
    }

    fn with<R>(&self, act: impl FnOnce(&mut Pairs) -> R) -> R {
        world("key_value", |world| act(world.bucket(&self.name)))
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.with(|pairs| pairs.get(key).cloned()))
    }

    pub(crate) fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        self.with(|pairs| pairs.insert(key.to_owned(), value.to_vec()));
        Ok(())
    }

    pub(crate) fn delete(&self, key: &str) -> Result<()> {
        self.with(|pairs| pairs.remove(key));
        Ok(())
    }

    pub(crate) fn exists(&self, key: &str) -> Result<bool> {
        Ok(self.with(|pairs| pairs.contains_key(key)))
    }

    pub(crate) fn keys(&self, _cursor: Option<&str>) -> Result<(Vec<String>, Option<String>)> {
        Ok((self.with(|pairs| pairs.keys().cloned().collect()), None))
    }

    pub(crate) fn increment(&self, key: &str, delta: i64) -> Result<i64> {
        let not_a_number = || KeyValueError::Other("the value is not a number".to_owned());
        self.with(|pairs| {
            let value = pairs.get(key);
            let text = value.and_then(|value| std::str::from_utf8(value).ok()?.parse::<i64>().ok());
            let bytes = value.and_then(|value| value.as_slice().try_into().ok());
            let (number, is_bytes) = match (value, text, bytes) {
                (None, ..) => (0, false),
                (_, Some(number), _) => (number, false),
                (_, _, Some(bytes)) => (i64::from_le_bytes(bytes), true),
                _ => return Err(not_a_number()),
            };
            let sum = number.checked_add(delta).ok_or_else(not_a_number)?;
            let value = match is_bytes {
                true => sum.to_le_bytes().to_vec(),
                false => sum.to_string().into_bytes(),
            };
            pairs.insert(key.to_owned(), value);
            Ok(sum)
        })
    }

    pub(crate) fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<&[u8]>,
        value: &[u8],
    ) -> Result<bool> {
        Ok(self.with(|pairs| {
            let as_expected = pairs.get(key).map(Vec::as_slice) == expected;
            if as_expected {
                pairs.insert(key.to_owned(), value.to_vec());
            }
            as_expected
        }))
    }

    pub(crate) fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    pub(crate) fn set_many(&self, pairs: &[(&str, &[u8])]) -> Result<()> {
        pairs
            .iter()
            .try_for_each(|(key, value)| self.set(key, value))
    }

    pub(crate) fn delete_many(&self, keys: &[&str]) -> Result<()> {
        keys.iter().try_for_each(|key| self.delete(key))
    }
}
