//! {{name}}: passes a number on when it has changed enough. Takes numbers as text on the inlet `in`,
//! and publishes on the outlet `out` those that differ from the last published one by at least the
//! configuration `step`.

use haar_guest::{Message, Microservice, Rejection, config, log, publish};

#[derive(Default)]
struct Filter {
    step: f64,
    last: Option<f64>,
}

impl Microservice for Filter {
    /// The first call. An error stops the instance, and its text shows in the node's status.
    fn start(&mut self) -> Result<(), String> {
        self.configuration_changed()
    }

    /// Configuration changes live, without a restart.
    fn configuration_changed(&mut self) -> Result<(), String> {
        self.step = config::parse("step")?.unwrap_or(1.0);
        log::info!("numbers pass when they change by {}", self.step);
        Ok(())
    }

    /// One call for each message, in the order in which its source published them.
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let value: f64 =
            message.text()?.trim().parse().map_err(|error| {
                Rejection::discard(format!("the message is no number: {error}"))
            })?;
        let passes = self
            .last
            .is_none_or(|last| (value - last).abs() >= self.step);
        if passes {
            publish("out", value.to_string(), &[])?;
            self.last = Some(value);
        }
        Ok(())
    }
}

haar_guest::export!(Filter);

#[cfg(test)]
mod tests {
    use super::*;
    use haar_guest::testing::{Harness, message};

    fn passed(harness: &mut Harness<Filter>, numbers: &[&str]) -> Vec<String> {
        for number in numbers {
            harness.deliver(message("in", number)).unwrap();
        }
        harness
            .published()
            .iter()
            .map(|message| message.text())
            .collect()
    }

    #[test]
    fn small_changes_stay_and_large_ones_pass() {
        let mut harness = Harness::new().configure("step", "0.5");
        assert_eq!(
            passed(&mut harness, &["20", "20.4", "20.5", "20.1", "19"]),
            ["20", "20.5", "19"]
        );
    }

    #[test]
    fn the_step_changes_live() {
        let mut harness = Harness::new();
        assert_eq!(passed(&mut harness, &["1", "1.5"]), ["1"]);
        harness.reconfigure("step", "0.1").unwrap();
        assert_eq!(passed(&mut harness, &["1.5"]), ["1.5"]);
    }

    #[test]
    fn what_is_no_number_is_discarded() {
        let rejection = Harness::<Filter>::new()
            .deliver(message("in", "warm"))
            .unwrap_err();
        assert!(matches!(rejection, Rejection::Discard(_)));
    }
}
