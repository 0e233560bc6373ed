//! `wasi:config`: the values that the manifest gives a microservice.

use super::bindings::imports::wasi::config::store;
use super::state::State;

impl store::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, store::Error>> {
        Ok(Ok(self.configuration.get(&key).cloned()))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        Ok(Ok(self
            .configuration
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()))
    }
}
