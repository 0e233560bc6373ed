//! `wasi:keyvalue` as the component imports it.

use super::bindings::wasi::keyvalue0_2_0_draft2::{atomics, batch, store};
use crate::key_value::KeyValueError;

/// A bucket that is open.
#[derive(Debug)]
pub(crate) struct Handle(store::Bucket);

type Result<T> = std::result::Result<T, KeyValueError>;

impl From<store::Error> for KeyValueError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::NoSuchStore => KeyValueError::NoSuchStore,
            store::Error::AccessDenied => KeyValueError::AccessDenied,
            store::Error::Other(reason) => KeyValueError::Other(reason),
        }
    }
}

impl Handle {
    pub(crate) fn open(name: &str) -> Result<Self> {
        Ok(Self(store::open(name)?))
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(key)?)
    }

    pub(crate) fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        Ok(self.0.set(key, value)?)
    }

    pub(crate) fn delete(&self, key: &str) -> Result<()> {
        Ok(self.0.delete(key)?)
    }

    pub(crate) fn exists(&self, key: &str) -> Result<bool> {
        Ok(self.0.exists(key)?)
    }

    /// A page of keys, and where the next one begins.
    pub(crate) fn keys(&self, cursor: Option<&str>) -> Result<(Vec<String>, Option<String>)> {
        let page = self.0.list_keys(cursor)?;
        Ok((page.keys, page.cursor))
    }

    pub(crate) fn increment(&self, key: &str, delta: i64) -> Result<i64> {
        Ok(atomics::increment(&self.0, key, delta)?)
    }

    pub(crate) fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<&[u8]>,
        value: &[u8],
    ) -> Result<bool> {
        let cas = atomics::Cas::new(&self.0, key)?;
        if cas.current()?.as_deref() != expected {
            return Ok(false);
        }
        match atomics::swap(cas, value) {
            Ok(()) => Ok(true),
            Err(atomics::CasError::CasFailed(_)) => Ok(false),
            Err(atomics::CasError::StoreError(error)) => Err(error.into()),
        }
    }

    pub(crate) fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
        let pairs = batch::get_many(&self.0, keys)?;
        Ok(pairs.into_iter().map(|(_, value)| value).collect())
    }

    pub(crate) fn set_many(&self, pairs: &[(&str, &[u8])]) -> Result<()> {
        Ok(batch::set_many(&self.0, pairs)?)
    }

    pub(crate) fn delete_many(&self, keys: &[&str]) -> Result<()> {
        Ok(batch::delete_many(&self.0, keys)?)
    }
}
