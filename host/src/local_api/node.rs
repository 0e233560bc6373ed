//! `haar:local/node`: what a microservice may know of the node that it runs on.

use wasmtime::error::Context as _;

use super::bindings::imports::haar::local::node;
use super::state::State;

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
        uptime_ms(&text).context("the node's uptime is not what Linux writes")
    }

    fn clock_synchronised(&mut self) -> wasmtime::Result<bool> {
        Ok(clock_synchronised())
    }
}

/// Milliseconds from the first of the two numbers, which are seconds with hundredths.
fn uptime_ms(text: &str) -> Option<u64> {
    let (seconds, hundredths) = text.split_whitespace().next()?.split_once('.')?;
    let hundredths: u64 = match hundredths.len() {
        2 => hundredths.parse().ok()?,
        _ => return None,
    };
    let seconds: u64 = seconds.parse().ok()?;
    seconds.checked_mul(1_000)?.checked_add(hundredths * 10)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_read_to_the_millisecond_that_linux_writes() {
        assert_eq!(uptime_ms("350735.47 234388.90\n"), Some(350_735_470));
        assert_eq!(uptime_ms("0.05 0.00\n"), Some(50));
        for text in [
            "",
            "12",
            "12.5 1.0",
            "a.bc",
            "-1.00 1.00",
            "99999999999999999999.00",
        ] {
            assert_eq!(uptime_ms(text), None, "{text}");
        }
    }
}
