//! What the detector knows of the nodes: a band per node and quantity, and what it has seen since
//! its last summary. Bounded: of more than `NODES_MAX` nodes it forgets the longest silent one, and
//! of one reading it watches `QUANTITIES_MAX` quantities. Pure.

use std::collections::BTreeMap;

use fleet_types::{Alert, NodeSummary, QuantitySummary, Reading, Summary, rounded};

use crate::band::{Band, Rules};
use crate::settings::Settings;

/// Nodes that are watched at one time.
pub(crate) const NODES_MAX: usize = 512;
/// Quantities that are watched of one node.
pub(crate) const QUANTITIES_MAX: usize = 32;

/// Everything that the detector knows.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    nodes: BTreeMap<String, Node>,
    /// Counts readings; a node's last number says how long it has been silent.
    clock: u64,
    readings: u64,
    alerts: u64,
}

#[derive(Debug, Default)]
struct Node {
    last_seen: u64,
    readings: u64,
    quantities: BTreeMap<String, Quantity>,
}

#[derive(Debug)]
struct Quantity {
    band: Band,
    /// Least and greatest value since the last summary; none when there was no value.
    range: Option<(f64, f64)>,
}

impl Fleet {
    /// Takes in one reading of `node`. Returns the alerts that it causes.
    pub(crate) fn observe(
        &mut self,
        node: &str,
        reading: &Reading,
        settings: &Settings,
    ) -> Vec<Alert> {
        self.clock += 1;
        self.readings += 1;
        if !self.nodes.contains_key(node) && self.nodes.len() >= NODES_MAX {
            self.forget_longest_silent();
        }
        let known = self.nodes.entry(node.to_owned()).or_default();
        known.last_seen = self.clock;
        known.readings += 1;
        let mut alerts = Vec::new();
        for (name, value) in reading.quantities() {
            let Some(minimum) = settings
                .minimum_deviation(&name)
                .filter(|_| value.is_finite())
            else {
                continue;
            };
            alerts.extend(known.observe(node, name, value, minimum, &settings.rules));
        }
        self.alerts += alerts.len() as u64;
        alerts
    }

    /// What was seen since this was last asked.
    pub(crate) fn summarise(&mut self) -> Summary {
        let nodes = self
            .nodes
            .iter_mut()
            .filter(|(_, node)| node.readings > 0)
            .map(|(name, node)| (name.clone(), node.summarise()))
            .collect();
        Summary {
            readings: std::mem::take(&mut self.readings),
            alerts: std::mem::take(&mut self.alerts),
            nodes,
        }
    }

    /// Forgets all bands: for settings that make other ones.
    pub(crate) fn forget_bands(&mut self) {
        for node in self.nodes.values_mut() {
            node.quantities.clear();
        }
    }

    fn forget_longest_silent(&mut self) {
        let silent = self
            .nodes
            .iter()
            .min_by_key(|(_, node)| node.last_seen)
            .map(|(name, _)| name.clone());
        if let Some(name) = silent {
            self.nodes.remove(&name);
        }
    }
}

impl Node {
    fn observe(
        &mut self,
        node: &str,
        name: String,
        value: f64,
        minimum: f64,
        rules: &Rules,
    ) -> Option<Alert> {
        if !self.quantities.contains_key(&name) && self.quantities.len() >= QUANTITIES_MAX {
            return None;
        }
        let quantity = self
            .quantities
            .entry(name.clone())
            .or_insert_with(|| Quantity {
                band: Band::new(minimum),
                range: None,
            });
        let (least, greatest) = quantity.range.unwrap_or((value, value));
        quantity.range = Some((least.min(value), greatest.max(value)));
        // The alert shows the band that the value was held against, which is the one before it.
        let (mean, width) = (quantity.band.mean(), quantity.band.width(rules));
        let change = quantity.band.observe(value, rules)?;
        Some(Alert {
            node: node.to_owned(),
            quantity: name,
            change,
            value: rounded(value),
            mean: rounded(mean),
            band: rounded(width),
        })
    }

    fn summarise(&mut self) -> NodeSummary {
        let quantities = self
            .quantities
            .iter_mut()
            .filter_map(|(name, quantity)| Some((name.clone(), quantity.summarise()?)))
            .collect();
        NodeSummary {
            readings: std::mem::take(&mut self.readings),
            quantities,
        }
    }
}

impl Quantity {
    fn summarise(&mut self) -> Option<QuantitySummary> {
        let (least, greatest) = self.range.take()?;
        Some(QuantitySummary {
            least: rounded(least),
            greatest: rounded(greatest),
            mean: rounded(self.band.mean()),
            outside: self.band.is_outside(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_types::Change;

    fn reading(load: f64) -> Reading {
        Reading {
            load: Some(load),
            ..Reading::default()
        }
    }

    fn settings() -> Settings {
        let mut settings = Settings::default();
        settings.rules = Rules {
            sigmas: 3.0,
            warm_up: 5,
            window: 10,
        };
        settings
    }

    #[test]
    fn nodes_are_judged_apart() {
        let (mut fleet, settings) = (Fleet::default(), settings());
        for _ in 0..20 {
            assert_eq!(fleet.observe("calm", &reading(0.1), &settings), []);
            assert_eq!(fleet.observe("busy", &reading(8.0), &settings), []);
        }
        let alerts = fleet.observe("calm", &reading(8.0), &settings);
        assert_eq!(alerts.len(), 1);
        assert_eq!(
            (alerts[0].node.as_str(), alerts[0].quantity.as_str()),
            ("calm", "load")
        );
        assert_eq!(
            (alerts[0].change, alerts[0].value, alerts[0].mean),
            (Change::Left, 8.0, 0.1)
        );
    }

    #[test]
    fn a_summary_counts_from_the_one_before() {
        let (mut fleet, settings) = (Fleet::default(), settings());
        for load in [1.0, 3.0, 2.0] {
            fleet.observe("sensor", &reading(load), &settings);
        }
        let summary = fleet.summarise();
        assert_eq!(
            (summary.readings, summary.alerts, summary.nodes.len()),
            (3, 0, 1)
        );
        let load = summary.nodes["sensor"].quantities["load"];
        assert_eq!((load.least, load.greatest, load.mean), (1.0, 3.0, 2.0));

        assert_eq!(
            fleet.summarise(),
            Summary::default(),
            "nothing happened since"
        );
    }

    #[test]
    fn of_too_many_nodes_the_longest_silent_is_forgotten() {
        let (mut fleet, settings) = (Fleet::default(), settings());
        for index in 0..NODES_MAX {
            fleet.observe(&format!("node-{index}"), &reading(1.0), &settings);
        }
        fleet.observe("node-0", &reading(1.0), &settings);
        fleet.observe("one-more", &reading(1.0), &settings);
        assert_eq!(fleet.nodes.len(), NODES_MAX);
        assert!(fleet.nodes.contains_key("node-0") && !fleet.nodes.contains_key("node-1"));
    }

    #[test]
    fn a_node_with_endless_quantities_is_watched_for_the_first_ones() {
        let (mut fleet, settings) = (Fleet::default(), settings());
        let temperatures_celsius = (0..1_000)
            .map(|index| (format!("zone-{index}"), 20.0))
            .collect();
        fleet.observe(
            "sensor",
            &Reading {
                temperatures_celsius,
                ..Reading::default()
            },
            &settings,
        );
        assert_eq!(fleet.nodes["sensor"].quantities.len(), QUANTITIES_MAX);
    }
}
