//! The detector of the fleet-telemetry example, on a gateway: takes the readings of all nodes on the
//! inlet `readings`, publishes an alert on the outlet `alerts` when a value leaves its usual band and
//! when it comes back, and a summary on the outlet `summaries` every ten seconds.
//!
//! | key | meaning | default |
//! | --- | --- | --- |
//! | `sigmas` | width of a band in standard deviations | 4 |
//! | `warm_up` | readings of a node before its first alert | 30 |
//! | `window` | readings that the expectation looks back on, about | 120 |
//! | `minimum_deviation.QUANTITY` | least width of a band; naming a quantity makes it watched | load 1, cpu_percent 20, memory_used_percent 5, temperature_celsius 5 |

mod fleet;

mod band;
mod settings;

use std::time::Duration;

use fleet::Fleet;
use fleet_types::{Change, Reading};
use haar_guest::{Message, Microservice, Rejection, Tick, json, log, timers};
use settings::Settings;

const TIMER: &str = "summarise";
const SUMMARY_PERIOD: Duration = Duration::from_secs(10);

/// The detector.
#[derive(Debug, Default)]
pub struct Detector {
    settings: Settings,
    fleet: Fleet,
}

impl Microservice for Detector {
    fn start(&mut self) -> Result<(), String> {
        self.settings = Settings::read()?;
        Ok(timers::every(TIMER, SUMMARY_PERIOD)?)
    }

    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let reading: Reading = message.json()?;
        for alert in self
            .fleet
            .observe(&message.source.node, &reading, &self.settings)
        {
            match alert.change {
                Change::Left => log::warn!(
                    "{} of {} is {}, expected {} ± {}",
                    alert.quantity,
                    alert.node,
                    alert.value,
                    alert.mean,
                    alert.band
                ),
                Change::Returned => log::info!(
                    "{} of {} is back at {}",
                    alert.quantity,
                    alert.node,
                    alert.value
                ),
            }
            json::publish("alerts", &alert)?;
        }
        Ok(())
    }

    fn tick(&mut self, _tick: Tick) -> Result<(), String> {
        json::publish("summaries", &self.fleet.summarise())?;
        Ok(())
    }

    fn configuration_changed(&mut self) -> Result<(), String> {
        let settings = Settings::read()?;
        if settings != self.settings {
            self.settings = settings;
            self.fleet.forget_bands();
            log::info!("the bands are learnt anew, with the new configuration");
        }
        Ok(())
    }
}

haar_guest::export!(Detector);

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_types::{Alert, Summary};
    use haar_guest::testing::{Harness, message};

    fn detector() -> Harness<Detector> {
        Harness::new()
            .configure("warm_up", "5")
            .configure("minimum_deviation.load", "0.5")
    }

    fn send(harness: &mut Harness<Detector>, load: f64, count: usize) {
        for _ in 0..count {
            harness
                .deliver(message("readings", format!(r#"{{"load":{load}}}"#)))
                .unwrap();
        }
    }

    #[test]
    fn a_step_publishes_one_alert_when_it_comes_and_one_when_it_is_usual() {
        let mut harness = detector();
        send(&mut harness, 0.2, 10);
        assert_eq!(harness.published(), []);

        send(&mut harness, 9.0, 500);
        let alerts: Vec<Alert> = harness
            .published()
            .iter()
            .map(|alert| alert.json())
            .collect();
        assert_eq!(
            alerts.iter().map(|alert| alert.change).collect::<Vec<_>>(),
            [Change::Left, Change::Returned]
        );
        let expected = Alert {
            node: "node-1".to_owned(),
            quantity: "load".to_owned(),
            change: Change::Left,
            value: 9.0,
            mean: 0.2,
            band: 0.5,
        };
        assert_eq!(alerts[0], expected);
        assert_eq!(
            harness.logs()[0].text,
            "load of node-1 is 9, expected 0.2 ± 0.5"
        );
    }

    #[test]
    fn a_summary_goes_out_with_the_timer_also_when_nothing_came_in() {
        let mut harness = detector();
        harness.tick(TIMER).unwrap();
        send(&mut harness, 0.2, 10);
        harness.tick(TIMER).unwrap();
        let summaries: Vec<Summary> = harness
            .published()
            .iter()
            .map(|summary| summary.json())
            .collect();
        assert_eq!(summaries[0], Summary::default());
        assert_eq!(
            (summaries[1].readings, summaries[1].nodes["node-1"].readings),
            (10, 10)
        );
    }

    #[test]
    fn a_message_that_is_no_reading_is_discarded_and_changes_nothing() {
        let mut harness = detector();
        let rejection = harness.deliver(message("readings", "no json")).unwrap_err();
        assert!(matches!(rejection, Rejection::Discard(_)));
        harness.tick(TIMER).unwrap();
        assert_eq!(harness.published()[0].json::<Summary>(), Summary::default());
    }

    #[test]
    fn a_quantity_without_a_minimum_deviation_is_not_watched() {
        let mut harness = detector();
        for sent in [0, 0, 0, 0, 0, 0, 0, 0, 1_000_000] {
            harness
                .deliver(message(
                    "readings",
                    format!(r#"{{"sent_bytes_per_second":{sent}}}"#),
                ))
                .unwrap();
        }
        assert_eq!(harness.published(), []);
    }

    #[test]
    fn configuration_that_makes_no_band_is_refused_by_name() {
        for (key, value) in [
            ("sigmas", "NaN"),
            ("window", "0"),
            ("warm_up", "-1"),
            ("minimum_deviation.load", "0"),
        ] {
            let error = Harness::<Detector>::new()
                .configure(key, value)
                .start()
                .unwrap_err();
            assert!(
                error.contains(&format!("`{key}` cannot be `{value}`")),
                "{error}"
            );
        }
    }

    #[test]
    fn new_configuration_learns_anew_and_a_bad_one_keeps_the_old() {
        let mut harness = detector();
        send(&mut harness, 0.2, 10);
        harness.reconfigure("sigmas", "many").unwrap_err();
        harness.reconfigure("sigmas", "3").unwrap();
        send(&mut harness, 9.0, 5);
        assert_eq!(harness.published(), [], "a new warm-up");
    }
}
