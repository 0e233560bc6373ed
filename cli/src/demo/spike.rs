//! The spike that a key makes: a new value in the configuration of the sampler, applied to the site
//! like any other change of a manifest. The sampler on one node then publishes what a node in
//! trouble would, and the rest of the pipeline does not know the difference.

use std::time::{Duration, Instant};

use haar_protocol::manifest::Manifest;

use super::watch::View;
use crate::client::Client;
use crate::error::{CommandError, Result};

/// The node whose sampler has it: nothing else runs there.
const NODE: &str = "sensor";
const SAMPLER: &str = "sampler";
const DETECTOR: &str = "detector";
/// Readings that the detector learns from when its configuration does not say.
const WARM_UP: u64 = 30;
/// How long a spike is told of.
const TOLD: Duration = Duration::from_secs(5);

/// The spikes of one demo.
pub(super) struct Spike {
    manifest: Manifest,
    /// Readings of the node that the detector learns from.
    warm_up: u64,
    /// How many there were.
    count: u64,
    is_wanted: bool,
    sent: Option<Instant>,
}

/// What is shown of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) node: &'static str,
    pub(super) state: State,
}

/// What a key would do, or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The detector needs so many readings more before anything can be unusual.
    Learning { readings: u64, is_wanted: bool },
    /// A key makes a spike.
    Ready,
    /// One was made.
    Sent(Duration),
}

impl Spike {
    pub(super) fn new(manifest: Manifest) -> Self {
        let detector = manifest
            .microservices
            .iter()
            .find(|one| one.name.as_str() == DETECTOR);
        let warm_up = detector
            .and_then(|detector| detector.configuration.get("warm_up")?.parse().ok())
            .unwrap_or(WARM_UP);
        Self {
            manifest,
            warm_up,
            count: 0,
            is_wanted: false,
            sent: None,
        }
    }

    /// Somebody wants one.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Makes the spike that is wanted, as soon as the detector can tell it from what is usual.
    pub(super) fn make(&mut self, client: &Client, view: &View) -> Result<()> {
        if !self.is_wanted || self.to_learn(view) > 0 {
            return Ok(());
        }
        self.count += 1;
        let manifest = self.ordered()?;
        let name = &self.manifest.name;
        client.put_manifest(&format!("applications/{name}?dry_run=false"), &manifest)?;
        self.is_wanted = false;
        self.sent = Some(Instant::now());
        Ok(())
    }

    pub(super) fn shown(&self, view: &View) -> Shown {
        let sent = self.sent.map(|sent| sent.elapsed());
        let state = match (self.to_learn(view), sent) {
            (0, Some(sent)) if sent < TOLD => State::Sent(sent),
            (0, _) => State::Ready,
            (readings, _) => State::Learning {
                readings,
                is_wanted: self.is_wanted,
            },
        };
        Shown { node: NODE, state }
    }

    /// Readings of the node that the detector has yet to learn from.
    fn to_learn(&self, view: &View) -> u64 {
        let readings = &view.recorded.readings.count_by_node;
        // The recorder's count stands for the detector's, which may lag by one.
        (self.warm_up + 1).saturating_sub(readings.get(NODE).copied().unwrap_or_default())
    }

    /// The manifest with the spike in it. JSON is YAML.
    fn ordered(&self) -> Result<String> {
        let mut manifest = self.manifest.clone();
        for one in &mut manifest.microservices {
            if one.name.as_str() == SAMPLER {
                one.configuration
                    .insert(format!("spike.{NODE}"), self.count.to_string());
            }
        }
        serde_json::to_string(&manifest).map_err(|error| {
            CommandError::failure(format!("can't write the application's manifest: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::screen::tests::view;
    use super::*;
    use haar_protocol::manifest;

    fn spike() -> Spike {
        let example = include_str!("../../../examples/fleet-telemetry/application.yaml");
        Spike::new(manifest::parse(example, "application.yaml").unwrap())
    }

    #[test]
    fn a_spike_changes_the_configuration_of_the_sampler_and_nothing_else() {
        let mut spike = spike();
        spike.count = 3;
        let mut ordered = manifest::parse(&spike.ordered().unwrap(), "ordered").unwrap();
        assert_ne!(ordered, spike.manifest);
        let value = ordered.microservices[0]
            .configuration
            .remove("spike.sensor");
        assert_eq!(value.as_deref(), Some("3"));
        assert_eq!(ordered, spike.manifest);
    }

    #[test]
    fn a_spike_waits_until_the_detector_has_learnt() {
        let (mut spike, mut view) = (spike(), view("running"));
        spike.warm_up = 20;
        let state = |spike: &Spike, view: &View| spike.shown(view).state;
        assert_eq!(
            state(&spike, &view),
            State::Learning {
                readings: 2,
                is_wanted: false
            }
        );
        spike.want();
        assert_eq!(
            state(&spike, &view),
            State::Learning {
                readings: 2,
                is_wanted: true
            }
        );
        view.recorded.readings.count_by_node.insert(NODE.into(), 21);
        assert_eq!(state(&spike, &view), State::Ready);
    }
}
