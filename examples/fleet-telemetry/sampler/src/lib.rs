//! The sampler of the fleet-telemetry example, on every node: asks the node once a second what it
//! measures, through the grant `system`, and publishes one reading on the outlet `readings`.
//!
//! | key | meaning | default |
//! | --- | --- | --- |
//! | `interval_ms` | time between two readings | 1000 |
//! | `spike.NODE` | each new value has the sampler on that node publish four readings of a node in trouble, marked `spike`: a drill for the detector | none |

mod rates;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fleet_types::{Reading, rounded};
use haar_guest::system::{self, ProcessorTime, SystemError};
use haar_guest::{Microservice, Tick, config, json, log, node, timers};
use rates::Traffic;

const TIMER: &str = "sample";
/// How long a spike is: short enough that the detector's mean hardly follows it.
const SPIKE_READINGS: u32 = 4;

/// The sampler. Rates need two samples, so it keeps what the last one counted.
#[derive(Debug, Default)]
pub struct Sampler {
    cpu_time: Option<ProcessorTime>,
    traffic: Option<(Traffic, Instant)>,
    lacking: BTreeSet<&'static str>,
    /// The value of `spike.NODE` for this node.
    spike: Option<String>,
    /// Readings of the spike that are still to come.
    spike_left: u32,
}

impl Microservice for Sampler {
    fn start(&mut self) -> Result<(), String> {
        self.configuration_changed()?;
        self.spike_left = 0; // an old order: an instance that starts again does not repeat it
        self.sample(Instant::now());
        Ok(())
    }

    fn configuration_changed(&mut self) -> Result<(), String> {
        let spike = config::get(&format!("spike.{}", node::facts().name))?;
        if spike != self.spike {
            self.spike_left = spike.as_ref().map_or(0, |_| SPIKE_READINGS);
            self.spike = spike;
        }
        let interval_ms = config::parse("interval_ms")?.unwrap_or(1_000);
        Ok(timers::every(TIMER, Duration::from_millis(interval_ms))?)
    }

    fn tick(&mut self, _tick: Tick) -> Result<(), String> {
        let mut reading = self.sample(Instant::now());
        if self.spike_left > 0 {
            self.spike_left -= 1;
            reading = in_trouble(reading);
        }
        json::publish("readings", &reading)?;
        Ok(())
    }
}

impl Sampler {
    fn sample(&mut self, now: Instant) -> Reading {
        let cpu = self.has("cpu", system::cpu());
        let memory = self.has("memory", system::memory());
        let temperatures = self.has("temperatures", system::temperatures());
        let rates = self.rates(now);
        Reading {
            load: cpu
                .as_ref()
                .and_then(|cpu| cpu.load)
                .map(|load| load.one_minute),
            cpu_percent: self.cpu_percent(cpu.map(|cpu| cpu.total)).map(rounded),
            memory_total_bytes: memory.map(|memory| memory.total),
            memory_available_bytes: memory.and_then(|memory| memory.available),
            received_bytes_per_second: rates.map(|(received, _)| rounded(received)),
            sent_bytes_per_second: rates.map(|(_, sent)| rounded(sent)),
            temperatures_celsius: temperatures.map_or_else(BTreeMap::new, |all| {
                all.into_iter()
                    .map(|one| (one.sensor, one.celsius))
                    .collect()
            }),
            spike: false,
        }
    }

    fn cpu_percent(&mut self, now: Option<ProcessorTime>) -> Option<f64> {
        let before = std::mem::replace(&mut self.cpu_time, now);
        now?.busy_percent_since(&before?)
    }

    fn rates(&mut self, now: Instant) -> Option<(f64, f64)> {
        let network = self.has("network", system::network());
        let traffic = network.and_then(|network| Traffic::of(&network));
        let before = std::mem::replace(&mut self.traffic, traffic.map(|traffic| (traffic, now)));
        let (before, then) = before?;
        traffic?.rates_since(before, now.duration_since(then))
    }

    /// What the node measures. Says once, and not every second, what it does not.
    fn has<T>(&mut self, part: &'static str, measured: Result<T, SystemError>) -> Option<T> {
        match measured {
            Ok(value) => Some(value),
            Err(error) => {
                if self.lacking.insert(part) {
                    log::warn!("`{part}` is left out: {error}");
                }
                None
            }
        }
    }
}

/// The reading as if eight more processes wanted to run, and as many again as do. The processors
/// may be busy already; the load of a busy node stands out nevertheless.
fn in_trouble(reading: Reading) -> Reading {
    Reading {
        load: Some(rounded(2.0 * reading.load.unwrap_or_default() + 8.0)),
        cpu_percent: Some(100.0),
        spike: true,
        ..reading
    }
}

haar_guest::export!(Sampler);

#[cfg(test)]
mod tests {
    use super::*;
    use haar_guest::system::{Load, MemoryUse, NetworkInterface, Processors, Temperature};
    use haar_guest::testing::{Harness, Measurements, Timer};

    /// A node after so many seconds, of which a processor was busy in a quarter.
    fn measurements(seconds: u64) -> Measurements {
        let time = |share: u64| Duration::from_secs(seconds) * u32::try_from(share).unwrap() / 4;
        Measurements {
            cpu: Ok(Processors {
                load: Some(Load {
                    one_minute: 0.61,
                    ..Load::default()
                }),
                total: ProcessorTime {
                    user: time(1),
                    idle: time(2),
                    disk_wait: time(1),
                    ..ProcessorTime::default()
                },
                ..Processors::default()
            }),
            memory: Ok(MemoryUse {
                total: 1_000,
                available: Some(600),
                ..MemoryUse::default()
            }),
            network: Ok(vec![NetworkInterface {
                name: "eth0".to_owned(),
                received_bytes: 1_000 * seconds,
                sent_bytes: 10 * seconds,
                ..NetworkInterface::default()
            }]),
            temperatures: Ok(vec![Temperature {
                sensor: "cpu-thermal".to_owned(),
                celsius: 48.312,
            }]),
            ..Measurements::default()
        }
    }

    fn reading(harness: &mut Harness<Sampler>) -> Reading {
        harness.tick(TIMER).unwrap();
        let mut published = harness.published();
        assert_eq!(published.len(), 1);
        assert_eq!(published[0].outlet, "readings");
        published.remove(0).json()
    }

    #[test]
    fn a_reading_has_everything_that_the_node_measures() {
        let mut harness = Harness::<Sampler>::new();
        harness.set_measurements(measurements(100));
        harness.start().unwrap();
        harness.set_measurements(measurements(200));

        let reading = reading(&mut harness);

        assert_eq!(reading.load, Some(0.61));
        assert_eq!(reading.cpu_percent, Some(25.0));
        assert_eq!(reading.memory_total_bytes, Some(1_000));
        assert_eq!(reading.memory_available_bytes, Some(600));
        assert!(reading.received_bytes_per_second > reading.sent_bytes_per_second);
        assert_eq!(
            reading.temperatures_celsius,
            BTreeMap::from([("cpu-thermal".to_owned(), 48.312)])
        );
        assert_eq!(harness.logs(), []);
    }

    #[test]
    fn without_the_grant_readings_are_empty_and_the_log_says_so_once() {
        let mut harness = Harness::new();
        assert_eq!(reading(&mut harness), Reading::default());
        assert_eq!(reading(&mut harness), Reading::default());
        assert_eq!(harness.logs().len(), 4, "one line for each part");
    }

    #[test]
    fn the_interval_is_configuration_and_changes_live() {
        let mut harness = Harness::<Sampler>::new();
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
    fn a_new_order_for_this_node_makes_one_spike_and_an_old_one_makes_none() {
        let mut harness = Harness::<Sampler>::new().configure("spike.node-1", "1");
        harness.set_measurements(measurements(100));
        harness.start().unwrap();
        let spikes = |harness: &mut Harness<Sampler>| -> Vec<bool> {
            (0..6).map(|_| reading(harness).spike).collect()
        };
        assert_eq!(spikes(&mut harness), [false; 6]);

        harness.reconfigure("spike.node-1", "2").unwrap();
        let first = reading(&mut harness);
        assert_eq!((first.load, first.cpu_percent), (Some(9.22), Some(100.0)));
        assert_eq!(
            spikes(&mut harness),
            [true, true, true, false, false, false]
        );

        harness.reconfigure("spike.node-2", "1").unwrap();
        harness.reconfigure("interval_ms", "250").unwrap();
        assert_eq!(spikes(&mut harness), [false; 6]);
    }

    #[test]
    fn an_interval_that_is_no_number_stops_the_start_with_a_text_that_names_it() {
        let error = Harness::<Sampler>::new()
            .configure("interval_ms", "often")
            .start()
            .unwrap_err();
        assert!(error.contains("`interval_ms` cannot be `often`"), "{error}");
    }
}
