//! Logs what its node measures, one line for each part, such as `memory total=948304 free=...`; for a
//! part that it does not get, `memory error: WHY`.

use haar_guest::system::{self, SystemError};
use haar_guest::{Microservice, log};

#[derive(Default)]
struct System;

impl Microservice for System {
    fn start(&mut self) -> Result<(), String> {
        tell("cpu", system::cpu(), |cpu| {
            let (uptime, cores) = (cpu.uptime.as_millis(), cpu.cores.len());
            let used = cpu.total.busy().as_millis();
            format!(
                "uptime_ms={uptime} cores={cores} busy_ms={used} load={}",
                cpu.load.is_some()
            )
        });
        tell("memory", system::memory(), |memory| {
            format!("total={} free={}", memory.total, memory.free)
        });
        tell("network", system::network(), |interfaces| {
            let names: Vec<&str> = interfaces.iter().map(|one| one.name.as_str()).collect();
            format!("interfaces={}", names.join(","))
        });
        tell("disks", system::disks(), |storage| {
            format!(
                "devices={} file_systems={}",
                storage.devices.len(),
                storage.file_systems.len()
            )
        });
        tell("temperatures", system::temperatures(), |all| {
            format!("sensors={}", all.len())
        });
        Ok(())
    }
}

fn tell<T>(part: &str, measured: Result<T, SystemError>, show: impl Fn(&T) -> String) {
    match measured {
        Ok(value) => log::info!("{part} {}", show(&value)),
        Err(error) => log::info!("{part} error: {error}"),
    }
}

haar_guest::export!(System);
