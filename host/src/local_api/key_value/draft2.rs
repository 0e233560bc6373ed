//! `wasi:keyvalue@0.2.0-draft2`: cursors are keys, increments are signed, values can be swapped.

use wasmtime::component::{HasSelf, Linker, Resource};

use super::{Bucket, Refusal, Result, State, Swap};

#[allow(missing_docs, reason = "generated; the documentation stands in wit/")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package haar:host;
            world key-value-draft2 {
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
            }
        ",
        world: "haar:host/key-value-draft2",
        imports: { default: async | trappable },
        trappable_error_type: { "wasi:keyvalue/store@0.2.0-draft2.error" => crate::local_api::key_value::Refusal },
        with: {
            "wasi:keyvalue/store.bucket": crate::store::key_value::Bucket,
            "wasi:keyvalue/atomics.cas": crate::local_api::key_value::Swap,
        },
    });
}

use bindings::wasi::keyvalue0_2_0_draft2::{atomics, batch, store};

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    bindings::KeyValueDraft2::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
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
        cursor: Option<String>,
    ) -> Result<store::KeyResponse> {
        let (keys, more) = self.list_keys(&bucket, cursor).await?;
        let cursor = keys.last().filter(|_| more).cloned();
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
        delta: i64,
    ) -> Result<i64> {
        let range = i64::MIN.into()..=i64::MAX.into();
        let sum = self.increment(&bucket, key, delta.into(), range).await?;
        Ok(i64::try_from(sum).expect("the sum was checked to be in the range of this type"))
    }

    async fn swap(
        &mut self,
        cas: Resource<Swap>,
        value: Vec<u8>,
    ) -> wasmtime::Result<std::result::Result<(), atomics::CasError>> {
        match self.swap_pair(cas, value).await {
            Ok(Ok(())) => Ok(Ok(())),
            Ok(Err(newer)) => Ok(Err(atomics::CasError::CasFailed(newer))),
            Err(refusal) => {
                let error = store::Host::convert_error(self, refusal)?;
                Ok(Err(atomics::CasError::StoreError(error)))
            }
        }
    }
}

impl atomics::HostCas for State {
    async fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Resource<Swap>> {
        self.new_swap(&bucket, key).await
    }

    async fn current(&mut self, cas: Resource<Swap>) -> Result<Option<Vec<u8>>> {
        self.current(&cas).await
    }

    async fn drop(&mut self, cas: Resource<Swap>) -> wasmtime::Result<()> {
        self.drop_swap(cas).map(std::mem::drop)
    }
}

impl batch::Host for State {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<(String, Option<Vec<u8>>)>> {
        self.get_pairs(&bucket, keys).await
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
