//! `haar:local/system`: what the node measures of itself, for microservices with the grant `system`,
//! in place of a grant of `/proc`.

pub(super) mod parse;
mod reading;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use haar_protocol::grants::SystemPart;
use wasmtime::component::{HasSelf, Linker};

use super::bindings::system::Measuring;
use super::bindings::system::haar::local::system as wit;
use super::state::State;

pub use reading::Measurements;

/// Links the interface.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    Measuring::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

/// What a guest is answered.
type Answer<T> = wasmtime::Result<Result<T, wit::SystemError>>;

impl State {
    /// The node's measurements, when this part of them is granted.
    fn measurements(&self, part: SystemPart) -> Result<Arc<Measurements>, wit::SystemError> {
        match self.system.contains(&part) {
            true => Ok(Arc::clone(&self.surroundings.measurements)),
            false => Err(wit::SystemError::NotGranted),
        }
    }
}

/// What was read, or why not.
fn answer<T: Clone>(read: Result<Arc<T>, String>) -> Result<T, wit::SystemError> {
    match read {
        Ok(value) => Ok(T::clone(&value)),
        Err(reason) => Err(wit::SystemError::Unavailable(reason)),
    }
}

impl wit::Host for State {
    async fn cpu(&mut self) -> Answer<wit::Processors> {
        Ok(match self.measurements(SystemPart::Cpu) {
            Ok(measurements) => answer(measurements.cpu.read(reading::cpu).await),
            Err(error) => Err(error),
        })
    }

    async fn memory(&mut self) -> Answer<wit::MemoryUse> {
        Ok(match self.measurements(SystemPart::Memory) {
            Ok(measurements) => answer(measurements.memory.read(reading::memory).await),
            Err(error) => Err(error),
        })
    }

    async fn network(&mut self) -> Answer<Vec<wit::NetworkInterface>> {
        Ok(match self.measurements(SystemPart::Network) {
            Ok(measurements) => answer(measurements.network.read(reading::network).await),
            Err(error) => Err(error),
        })
    }

    async fn disks(&mut self) -> Answer<wit::Storage> {
        Ok(match self.measurements(SystemPart::Disks) {
            Ok(measurements) => answer(measurements.disks.read(reading::disks).await),
            Err(error) => Err(error),
        })
    }

    async fn temperatures(&mut self) -> Answer<Vec<wit::Temperature>> {
        Ok(match self.measurements(SystemPart::Temperatures) {
            Ok(measurements) => answer(measurements.temperatures.read(reading::temperatures).await),
            Err(error) => Err(error),
        })
    }
}
