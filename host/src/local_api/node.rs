//! `haar:local/node`: what a microservice may know of the node that it runs on.

use wasmtime::error::Context as _;

use super::bindings::imports::haar::local::node;
use super::state::State;
use super::system::parse;

/// Where the kernel tells how long it has run, sleep included (`proc_uptime(5)`).
const UPTIME: &str = "/proc/uptime";
/// The largest error, in microseconds, of a clock that is synchronised: where it is reached, the
/// kernel takes the clock for unsynchronised (`NTP_PHASE_LIMIT`). The error is looked at and not
/// the flag `STA_UNSYNC`, because there are time services that leave the flag set so that the
/// kernel does not write the hardware's clock (chrony without `rtcsync`; systemd's `timedated` looks
/// at the error for the same reason).
const CLOCK_ERROR_US_LIMIT: u64 = 16_000_000;

impl node::Host for State {
    fn get(&mut self) -> wasmtime::Result<node::Facts> {
        let facts = self.surroundings.facts.load();
        Ok(node::Facts {
            id: facts.id.clone(),
            name: facts.name.clone(),
            site: facts.site.clone(),
            labels: facts
                .labels
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            location: facts.location.map(|location| node::Location {
                latitude: location.latitude,
                longitude: location.longitude,
                altitude: location.altitude,
            }),
        })
    }

    fn uptime(&mut self) -> wasmtime::Result<u64> {
        let text = std::fs::read_to_string(UPTIME).context("the node's uptime can't be read")?;
        parse::uptime_ms(&text).context("the node's uptime is not what Linux writes")
    }

    fn clock_synchronised(&mut self) -> wasmtime::Result<bool> {
        Ok(clock_synchronised())
    }
}

/// True when the kernel takes the clock for synchronised. False too where it does not tell: in some
/// containers, and on systems that are not Linux.
#[cfg(target_os = "linux")]
pub(crate) fn clock_synchronised() -> bool {
    kernel_clock()
        .and_then(|clock| u64::try_from(clock.maxerror).ok())
        .is_some_and(|error_us| error_us < CLOCK_ERROR_US_LIMIT)
}

/// What the kernel says of its clock.
#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "no well-kept library offers this call: rustix and nix do not have it"
)]
fn kernel_clock() -> Option<libc::timex> {
    // SAFETY: `timex` is a C structure of integers, of which all zero is a value, and one that asks
    // and changes nothing (adjtimex(2)). The call writes into the structure only.
    unsafe {
        let mut clock: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut clock) != -1).then_some(clock)
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn clock_synchronised() -> bool {
    false
}
