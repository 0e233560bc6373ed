//! What a microservice may know of the node that it runs on. Mirrors `haar:local/node`.

use std::time::Duration;

use crate::agent;

/// What does not change while an instance runs, but for its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Id of the node, derived from its key.
    pub id: String,
    /// Name of the node in its site.
    pub name: String,
    /// Id of the site.
    pub site: String,
    /// Labels of the node, sorted by name.
    pub labels: Vec<(String, String)>,
    /// Where the node stands, when that is configured on the device.
    pub location: Option<Location>,
}

impl Facts {
    /// The value of the label of this name.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(label, _)| label == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A place on earth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Location {
    /// Degrees north, WGS 84.
    pub latitude: f64,
    /// Degrees east, WGS 84.
    pub longitude: f64,
    /// Metres above the ellipsoid.
    pub altitude: Option<f64>,
}

/// The node's facts as they are now.
pub fn facts() -> Facts {
    agent::node_facts()
}

/// Time since the device was started.
pub fn uptime() -> Duration {
    Duration::from_millis(agent::node_uptime_ms())
}

/// Whether the device's clock is synchronised with another, as its kernel has it: whoever writes
/// times down may want to know.
pub fn clock_synchronised() -> bool {
    agent::node_clock_synchronised()
}
