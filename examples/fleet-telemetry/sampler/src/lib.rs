//! The sampler of the fleet-telemetry example, on every node: reads `/proc` through a read-only
//! grant once a second and publishes one reading on the outlet `readings`.
//!
//! | key | meaning | default |
//! | --- | --- | --- |
//! | `interval_ms` | time between two readings | 1000 |
//! | `proc_path` | where the grant of the node's `/proc` shows | `/proc` |
//! | `thermal_path` | where a grant of the node's thermal zones shows | none |

mod proc;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fleet_types::{Reading, rounded};
use haar_guest::{Microservice, Tick, config, json, log, timers};
use proc::{CpuTime, Traffic};

const TIMER: &str = "sample";

/// The sampler. Rates need two samples, so it keeps what the last one counted.
#[derive(Debug, Default)]
pub struct Sampler {
    proc_path: PathBuf,
    thermal_path: Option<PathBuf>,
    cpu_time: Option<CpuTime>,
    traffic: Option<(Traffic, Instant)>,
    unreadable: BTreeSet<PathBuf>,
}

impl Microservice for Sampler {
    fn start(&mut self) -> Result<(), String> {
        self.configuration_changed()?;
        self.sample(Instant::now());
        Ok(())
    }

    fn configuration_changed(&mut self) -> Result<(), String> {
        let interval_ms = config::parse("interval_ms")?.unwrap_or(1_000);
        self.proc_path = config::get("proc_path")?
            .unwrap_or_else(|| "/proc".to_owned())
            .into();
        self.thermal_path = config::get("thermal_path")?.map(PathBuf::from);
        Ok(timers::every(TIMER, Duration::from_millis(interval_ms))?)
    }

    fn tick(&mut self, _tick: Tick) -> Result<(), String> {
        let reading = self.sample(Instant::now());
        json::publish("readings", &reading)?;
        Ok(())
    }
}

impl Sampler {
    fn sample(&mut self, now: Instant) -> Reading {
        let (memory_total_bytes, memory_available_bytes) = self
            .read("meminfo")
            .map_or((None, None), |text| proc::memory(&text));
        let rates = self.rates(now);
        Reading {
            load: self.read("loadavg").and_then(|text| proc::load(&text)),
            cpu_percent: self.cpu_percent().map(rounded),
            memory_total_bytes,
            memory_available_bytes,
            received_bytes_per_second: rates.map(|(received, _)| rounded(received)),
            sent_bytes_per_second: rates.map(|(_, sent)| rounded(sent)),
            temperatures_celsius: self.temperatures(),
        }
    }

    fn cpu_percent(&mut self) -> Option<f64> {
        let now = self.read("stat").and_then(|text| proc::cpu_time(&text));
        let before = std::mem::replace(&mut self.cpu_time, now);
        proc::cpu_percent(before?, now?)
    }

    fn rates(&mut self, now: Instant) -> Option<(f64, f64)> {
        // `net` is a link to `self/net`, and `self` one to the agent's own directory: both stay in
        // the grant, and the agent's network is the node's.
        let traffic = self
            .read("self/net/dev")
            .and_then(|text| proc::traffic(&text));
        let before = std::mem::replace(&mut self.traffic, traffic.map(|traffic| (traffic, now)));
        let (before, then) = before?;
        proc::rates(before, traffic?, now.duration_since(then))
    }

    /// Temperatures of all thermal zones, by the zone's type, such as `cpu-thermal`.
    fn temperatures(&self) -> BTreeMap<String, f64> {
        let Some(entries) = self
            .thermal_path
            .as_ref()
            .and_then(|path| std::fs::read_dir(path).ok())
        else {
            return BTreeMap::new();
        };
        entries
            .filter_map(|entry| zone(&entry.ok()?.path()))
            .collect()
    }

    /// The text of a file of `/proc`. Says once, and not every second, when it cannot be read.
    fn read(&mut self, file: &str) -> Option<String> {
        let path = self.proc_path.join(file);
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) => {
                if !self.unreadable.contains(&path) {
                    log::warn!(
                        "{} cannot be read, its values are left out: {error}",
                        path.display()
                    );
                    self.unreadable.insert(path);
                }
                None
            }
        }
    }
}

fn zone(path: &Path) -> Option<(String, f64)> {
    let celsius = proc::temperature(&std::fs::read_to_string(path.join("temp")).ok()?)?;
    let name = std::fs::read_to_string(path.join("type")).ok()?;
    Some((name.trim().to_owned(), celsius))
}

haar_guest::export!(Sampler);

#[cfg(test)]
mod tests {
    use super::*;
    use haar_guest::testing::{Harness, Timer};

    fn data(folder: &str) -> String {
        format!("{}/tests/data/{folder}", env!("CARGO_MANIFEST_DIR"))
    }

    fn sampler() -> Harness<Sampler> {
        Harness::new().configure("proc_path", &data("first"))
    }

    fn reading(harness: &mut Harness<Sampler>) -> Reading {
        harness.tick(TIMER).unwrap();
        let mut published = harness.published();
        assert_eq!(published.len(), 1);
        assert_eq!(published[0].outlet, "readings");
        published.remove(0).json()
    }

    #[test]
    fn a_reading_has_everything_that_proc_has() {
        let mut harness = sampler().configure("thermal_path", &data("first/thermal"));
        harness.start().unwrap();
        harness.reconfigure("proc_path", &data("second")).unwrap();

        let reading = reading(&mut harness);

        assert_eq!(reading.load, Some(0.61));
        assert_eq!(reading.cpu_percent, Some(25.0));
        assert_eq!(reading.memory_total_bytes, Some(948_304 * 1024));
        assert_eq!(reading.memory_available_bytes, Some(612_880 * 1024));
        assert!(reading.received_bytes_per_second > reading.sent_bytes_per_second);
        assert_eq!(
            reading.temperatures_celsius,
            BTreeMap::from([("cpu-thermal".to_owned(), 48.312)])
        );
        assert_eq!(harness.logs(), []);
    }

    #[test]
    fn without_a_proc_the_readings_are_empty_and_the_log_says_so_once() {
        let mut harness = Harness::new().configure("proc_path", "/nothing/here");
        assert_eq!(reading(&mut harness), Reading::default());
        assert_eq!(reading(&mut harness), Reading::default());
        assert_eq!(harness.logs().len(), 4, "one line for each file");
    }

    #[test]
    fn without_a_grant_of_thermal_zones_there_are_no_temperatures() {
        let mut harness = sampler().configure("thermal_path", "/nothing/here");
        assert_eq!(reading(&mut harness).temperatures_celsius, BTreeMap::new());
        assert_eq!(harness.logs(), []);
    }

    #[test]
    fn the_interval_is_configuration_and_changes_live() {
        let mut harness = sampler();
        harness.start().unwrap();
        assert_eq!(
            harness.timers()[TIMER],
            Timer::Every(Duration::from_secs(1))
        );
        harness.reconfigure("interval_ms", "250").unwrap();
        assert_eq!(
            harness.timers()[TIMER],
            Timer::Every(Duration::from_millis(250))
        );
    }

    #[test]
    fn an_interval_that_is_no_number_stops_the_start_with_a_text_that_names_it() {
        let error = sampler()
            .configure("interval_ms", "often")
            .start()
            .unwrap_err();
        assert!(error.contains("`interval_ms` cannot be `often`"), "{error}");
    }
}
