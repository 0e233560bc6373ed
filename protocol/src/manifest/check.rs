//! What must hold between the values of a manifest, and how large each may be. Pure: works on the
//! types alone and names what is wrong by its key; the parser finds the line.

pub(super) mod ranges;
mod grants;
mod configuration;

use std::collections::HashMap;

use crate::ids;

use super::errors::{KeyPath, Problem};
use super::routes::check_routes;
use super::{Manifest, Microservice, Place};

/// Most microservices of one application.
pub const MICROSERVICES_MAX: usize = 256;
/// Most routes of one application.
pub const ROUTES_MAX: usize = 4_096;
/// Most outlets, and most inlets, of one microservice.
pub const PORTS_MAX: usize = 64;
/// Most directories granted to one microservice.
pub const DIRECTORIES_MAX: usize = 64;
/// Most labels of one place.
pub const LABELS_MAX: usize = 64;
/// Most keys of one microservice's configuration.
pub const CONFIGURATION_KEYS_MAX: usize = 4_096;
/// Longest key of a configuration, in bytes.
pub const CONFIGURATION_KEY_BYTES_MAX: usize = 256;
/// Longest value of a configuration, in bytes.
pub const CONFIGURATION_VALUE_BYTES_MAX: usize = 64 << 10;
/// Longest configuration of one microservice, keys and values together, in bytes.
pub const CONFIGURATION_BYTES_MAX: usize = 256 << 10;
/// Most values that one key of a configuration's schema may offer.
pub const CONFIGURATION_CHOICES_MAX: usize = 256;

/// Everything that is wrong with the manifest as a whole.
pub(super) fn check(manifest: &Manifest) -> Vec<Problem> {
    let mut problems = Vec::new();
    let at = KeyPath::default().key("microservices");
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (index, microservice) in manifest.microservices.iter().enumerate() {
        let at = at.index(index);
        if let Some(other) = first.get(microservice.name.as_str()) {
            let message = format!(
                "the name `{}` belongs to microservices[{other}] already",
                microservice.name
            );
            problems.push(Problem::with_hint(
                &at.key("name"),
                message,
                "give each microservice its own name",
            ));
        } else {
            first.insert(microservice.name.as_str(), index);
        }
        check_microservice(microservice, &at, &mut problems);
    }
    check_routes(manifest, &mut problems);
    problems
}

fn check_microservice(microservice: &Microservice, at: &KeyPath, problems: &mut Vec<Problem>) {
    check_place(&microservice.place, &at.key("place"), problems);
    ranges::check_limits(&microservice.limits, &at.key("limits"), problems);
    ranges::check_restart(&microservice.restart, &at.key("restart"), problems);
    ranges::check_retry(&microservice.retry, &at.key("retry"), problems);
    for (key, ports) in [
        ("outlets", &microservice.outlets),
        ("inlets", &microservice.inlets),
    ] {
        for (name, port) in ports {
            if let Some(history) = &port.history {
                let at = at.key(key).key(name.as_str()).key("history");
                ranges::check_retention(history, &at, problems);
            }
        }
    }
    grants::check_grants(&microservice.grants, &at.key("grants"), problems);
    configuration::check_schema(microservice, &at.key("configuration_schema"), problems);
    configuration::check_values(microservice, &at.key("configuration"), problems);
}

pub(super) fn check_place(place: &Place, at: &KeyPath, problems: &mut Vec<Problem>) {
    let hint = "write `node: NAME` for one node, `labels: {KEY: VALUE}` for the nodes with these labels, or `labels: {}` for every node";
    match (&place.node, &place.labels) {
        (None, None) => problems.push(Problem::with_hint(at, "says no place", hint)),
        (Some(_), Some(_)) => {
            problems.push(Problem::with_hint(at, "has both `node` and `labels`", hint))
        }
        _ => {}
    }
    for (key, value) in place.labels.iter().flatten() {
        if let Err(error) = ids::check_label(key, value) {
            problems.push(Problem::new(&at.key("labels").key(key), error.0));
        }
    }
    match place.count {
        Some(0) => {
            problems.push(Problem::with_hint(
                &at.key("count"),
                "must be at least 1",
                "leave it out to run on all nodes with the labels",
            ));
        }
        Some(_) if place.labels.is_none() && place.node.is_some() => {
            problems.push(Problem::with_hint(
                &at.key("count"),
                "goes with `labels` only",
                "leave it out: `node` names one node",
            ));
        }
        _ => {}
    }
}
