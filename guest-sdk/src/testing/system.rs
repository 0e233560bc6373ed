//! The node's measurements as a test sets them.

use super::imports::world;
use crate::system::{MemoryUse, NetworkInterface, Processors, Storage, SystemError, Temperature};

/// What the node of a test measures: an `Err` stands for a part that is not granted or can't be had.
/// Without a test's own values nothing is granted.
#[derive(Debug, Clone)]
pub struct Measurements {
    /// Load, processor time, uptime.
    pub cpu: Result<Processors, SystemError>,
    /// Memory and swap space.
    pub memory: Result<MemoryUse, SystemError>,
    /// Network interfaces.
    pub network: Result<Vec<NetworkInterface>, SystemError>,
    /// Disks and file systems.
    pub disks: Result<Storage, SystemError>,
    /// Temperatures.
    pub temperatures: Result<Vec<Temperature>, SystemError>,
}

impl Default for Measurements {
    fn default() -> Self {
        Self {
            cpu: Err(SystemError::NotGranted),
            memory: Err(SystemError::NotGranted),
            network: Err(SystemError::NotGranted),
            disks: Err(SystemError::NotGranted),
            temperatures: Err(SystemError::NotGranted),
        }
    }
}

pub(crate) fn cpu() -> Result<Processors, SystemError> {
    world("system::cpu", |world| world.measurements.cpu.clone())
}

pub(crate) fn memory() -> Result<MemoryUse, SystemError> {
    world("system::memory", |world| world.measurements.memory.clone())
}

pub(crate) fn network() -> Result<Vec<NetworkInterface>, SystemError> {
    world("system::network", |world| {
        world.measurements.network.clone()
    })
}

pub(crate) fn disks() -> Result<Storage, SystemError> {
    world("system::disks", |world| world.measurements.disks.clone())
}

pub(crate) fn temperatures() -> Result<Vec<Temperature>, SystemError> {
    world("system::temperatures", |world| {
        world.measurements.temperatures.clone()
    })
}
