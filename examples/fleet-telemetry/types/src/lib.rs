//! The messages of the fleet-telemetry example: what the sampler publishes and the detector and the
//! recorder read. Their JSON forms are the media types `application/vnd.haar.reading+json`,
//! `…alert+json` and `…summary+json`.
//!
//! Readers ignore fields that they do not know, so that microservices can be updated one by one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What one node measured at one moment. What it cannot measure is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reading {
    /// Processes that run or wait for a processor, averaged over a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// Share of all processors' time that was used since the reading before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// Memory of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// Memory that programs could still get without swapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_available_bytes: Option<u64>,
    /// What came in over the network since the reading before, loopback left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_bytes_per_second: Option<f64>,
    /// What went out over the network since the reading before, loopback left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_bytes_per_second: Option<f64>,
    /// Temperatures by the name of their zone.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub temperatures_celsius: BTreeMap<String, f64>,
    /// Load and processor are those of a spike that somebody ordered, not measured.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub spike: bool,
}

impl Reading {
    /// Memory that is not available, in percent of all.
    #[allow(
        clippy::cast_precision_loss,
        reason = "a percentage of bytes needs no 53 bits"
    )]
    pub fn memory_used_percent(&self) -> Option<f64> {
        let total = self.memory_total_bytes.filter(|total| *total > 0)?;
        let available = self.memory_available_bytes?.min(total);
        Some(100.0 * (total - available) as f64 / total as f64)
    }

    /// Everything in it that may be watched, as pairs of the quantity's name and its value.
    /// Temperatures are named `temperature_celsius.ZONE`.
    pub fn quantities(&self) -> Vec<(String, f64)> {
        let plain = [
            ("load", self.load),
            ("cpu_percent", self.cpu_percent),
            ("memory_used_percent", self.memory_used_percent()),
            ("received_bytes_per_second", self.received_bytes_per_second),
            ("sent_bytes_per_second", self.sent_bytes_per_second),
        ];
        let temperatures = self
            .temperatures_celsius
            .iter()
            .map(|(zone, value)| (format!("temperature_celsius.{zone}"), *value));
        plain
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .chain(temperatures)
            .collect()
    }
}

/// A value has left its band, or come back into it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Node whose reading it is about.
    pub node: String,
    /// Name of the quantity, as in [`Reading::quantities`].
    pub quantity: String,
    /// What happened.
    pub change: Change,
    /// The value that did it.
    pub value: f64,
    /// Middle of the band.
    pub mean: f64,
    /// How far a value may be from the middle.
    pub band: f64,
}

/// What happened to a value that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It has left its band.
    Left,
    /// It is back in its band.
    Returned,
}

/// What the detector saw since its summary before.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many readings came in.
    pub readings: u64,
    /// How many alerts went out.
    pub alerts: u64,
    /// The nodes that sent readings, by name.
    pub nodes: BTreeMap<String, NodeSummary>,
}

/// What the detector saw of one node since its summary before.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeSummary {
    /// How many readings came in.
    pub readings: u64,
    /// The watched quantities, by name.
    pub quantities: BTreeMap<String, QuantitySummary>,
}

/// One quantity of one node since the summary before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct QuantitySummary {
    /// The least value.
    pub least: f64,
    /// The greatest value.
    pub greatest: f64,
    /// What is expected: the middle of the band.
    pub mean: f64,
    /// Whether the last value was outside of the band.
    pub outside: bool,
}

/// Rounds to two decimals: enough for people, and short in JSON.
pub fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_without_values_is_an_empty_object() {
        assert_eq!(serde_json::to_string(&Reading::default()).unwrap(), "{}");
    }

    #[test]
    fn fields_of_a_newer_release_are_ignored() {
        let reading: Reading =
            serde_json::from_str(r#"{"load":1.5,"humidity_percent":40}"#).unwrap();
        assert_eq!(
            reading,
            Reading {
                load: Some(1.5),
                ..Reading::default()
            }
        );
    }

    #[test]
    fn quantities_name_everything_that_was_measured_and_nothing_else() {
        let reading = Reading {
            memory_total_bytes: Some(1_000),
            memory_available_bytes: Some(250),
            temperatures_celsius: BTreeMap::from([("cpu".to_owned(), 51.5)]),
            ..Reading::default()
        };
        let expected = [
            ("memory_used_percent".to_owned(), 75.0),
            ("temperature_celsius.cpu".to_owned(), 51.5),
        ];
        assert_eq!(reading.quantities(), expected);
    }

    #[test]
    fn memory_without_a_total_gives_no_percentage() {
        let reading = Reading {
            memory_total_bytes: Some(0),
            memory_available_bytes: Some(0),
            ..Reading::default()
        };
        assert_eq!(reading.memory_used_percent(), None);
    }
}
