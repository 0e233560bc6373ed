//! `wasi:keyvalue@0.2.0-draft`: cursors are numbers, increments are unsigned, nothing is swapped.

use wasmtime::component::{HasSelf, Linker, Resource};

use super::{Bucket, Refusal, Result, State};

#[allow(missing_docs, reason = "generated; the documentation stands in wit/")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package haar:host;
            world key-value-draft {
                import wasi:keyvalue/store@0.2.0-draft;
                import wasi:keyvalue/atomics@0.2.0-draft;
                import wasi:keyvalue/batch@0.2.0-draft;
            }
        ",
        world: "haar:host/key-value-draft",
        imports: { default: async | trappable },
        trappable_error_type: { "wasi:keyvalue/store@0.2.0-draft.error" => crate::local_api::key_value::Refusal },
        with: { "wasi:keyvalue/store.bucket": crate::store::key_value::Bucket },
    });
}

use bindings::wasi::keyvalue0_2_0_draft::{atomics, batch, store};

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    bindings::KeyValueDraft::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl store::Host for State {
    async fn open(&mut self, identifier: String) -> Result<Resource<Bucket>> {
        self.open_bucket(&identifier).await
    }

    fn convert_error(&mut self, refusal: Refusal) -> wasmtime::Result<store::Error> {
        match refusal {
            Refusal::NoSuchStore => Ok(store::Error::NoSuchStore),
            Refusal::Other(reason) => Ok(store::Error::Other(reason)),
            Refusal::Trap(error) => Err(error),
        }
    }
}

impl store::HostBucket for State {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>> {
        self.get_pair(&bucket, key).await
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<()> {
        self.set_pairs(&bucket, vec![(key, value)]).await
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<()> {
        self.delete_pairs(&bucket, vec![key]).await
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Result<bool> {
        self.pair_exists(&bucket, key).await
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> Result<store::KeyResponse> {
        let name = self.key_value.table.get(&bucket)?.name.clone();
        let after = cursor
            .map(|cursor| self.key_value.recall(&name, cursor))
            .transpose()?;
        let (keys, more) = self.list_keys(&bucket, after).await?;
        let cursor = keys
            .last()
            .filter(|_| more)
            .map(|last| self.key_value.remember(name, last.clone()));
        Ok(store::KeyResponse { keys, cursor })
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.close_bucket(bucket)
    }
}

impl atomics::Host for State {
    async fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: u64,
    ) -> Result<u64> {
        let range = 0..=i128::from(u64::MAX);
        let sum = self.increment(&bucket, key, delta.into(), range).await?;
        Ok(u64::try_from(sum).expect("the sum was checked to be in the range of this type"))
    }
}

impl batch::Host for State {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>> {
        let pairs = self.get_pairs(&bucket, keys).await?;
        let present = |(key, value): (String, Option<Vec<u8>>)| value.map(|value| (key, value));
        Ok(pairs.into_iter().map(present).collect())
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> Result<()> {
        self.set_pairs(&bucket, pairs).await
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<()> {
        self.delete_pairs(&bucket, keys).await
    }
}
