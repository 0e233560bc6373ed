//! `haar:local/system` as the component imports it.

use std::time::Duration;

use super::bindings::haar::local::system;
use crate::system::{
    BlockDevice, FileSystem, Load, MemoryUse, NetworkInterface, ProcessorTime, Processors, Storage,
    SystemError, Temperature,
};

pub(crate) fn cpu() -> Result<Processors, SystemError> {
    let cpu = system::cpu().map_err(error)?;
    let cores = cpu.cores.iter();
    Ok(Processors {
        uptime: Duration::from_millis(cpu.uptime),
        booted_ms: cpu.booted,
        load: cpu.load.map(|load| Load {
            one_minute: load.one_minute,
            five_minutes: load.five_minutes,
            fifteen_minutes: load.fifteen_minutes,
        }),
        total: processor_time(&cpu.total),
        cores: cores
            .map(|(number, time)| (*number, processor_time(time)))
            .collect(),
    })
}

fn processor_time(time: &system::ProcessorTime) -> ProcessorTime {
    ProcessorTime {
        user: Duration::from_millis(time.user),
        nice: Duration::from_millis(time.nice),
        kernel: Duration::from_millis(time.kernel),
        idle: Duration::from_millis(time.idle),
        disk_wait: Duration::from_millis(time.disk_wait),
        interrupts: Duration::from_millis(time.interrupts),
        soft_interrupts: Duration::from_millis(time.soft_interrupts),
        stolen: Duration::from_millis(time.stolen),
    }
}

pub(crate) fn memory() -> Result<MemoryUse, SystemError> {
    let memory = system::memory().map_err(error)?;
    Ok(MemoryUse {
        total: memory.total,
        free: memory.free,
        available: memory.available,
        cached: memory.cached,
        swap_total: memory.swap_total,
        swap_free: memory.swap_free,
    })
}

pub(crate) fn network() -> Result<Vec<NetworkInterface>, SystemError> {
    let interfaces = system::network().map_err(error)?.into_iter();
    Ok(interfaces
        .map(|one| NetworkInterface {
            name: one.name,
            received_bytes: one.received_bytes,
            received_packets: one.received_packets,
            received_errors: one.received_errors,
            received_dropped: one.received_dropped,
            sent_bytes: one.sent_bytes,
            sent_packets: one.sent_packets,
            sent_errors: one.sent_errors,
            sent_dropped: one.sent_dropped,
        })
        .collect())
}

pub(crate) fn disks() -> Result<Storage, SystemError> {
    let storage = system::disks().map_err(error)?;
    let devices = storage.devices.into_iter().map(|one| BlockDevice {
        name: one.name,
        reads: one.reads,
        read_bytes: one.read_bytes,
        writes: one.writes,
        written_bytes: one.written_bytes,
        busy: Duration::from_millis(one.busy),
    });
    let file_systems = storage.file_systems.into_iter().map(|one| FileSystem {
        path: one.path,
        kind: one.kind,
        total_bytes: one.total_bytes,
        free_bytes: one.free_bytes,
        available_bytes: one.available_bytes,
        read_only: one.read_only,
    });
    Ok(Storage {
        devices: devices.collect(),
        file_systems: file_systems.collect(),
    })
}

pub(crate) fn temperatures() -> Result<Vec<Temperature>, SystemError> {
    let temperatures = system::temperatures().map_err(error)?.into_iter();
    Ok(temperatures
        .map(|one| Temperature {
            sensor: one.sensor,
            celsius: one.celsius,
        })
        .collect())
}

fn error(error: system::SystemError) -> SystemError {
    match error {
        system::SystemError::NotGranted => SystemError::NotGranted,
        system::SystemError::Unavailable(why) => SystemError::Unavailable(why),
    }
}
