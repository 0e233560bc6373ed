//! What must hold between the values of a manifest, and how large each may be. Pure: works on the
//! types alone and names what is wrong by its key; the parser finds the line.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::ops::RangeInclusive;

use crate::grants::Grants;
use crate::ids;
use crate::limits::{self, Limits};
use crate::quantity::{ByteSize, Millis};

use super::errors::{KeyPath, Problem, quotable};
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
/// Longest path of a grant, in bytes (PATH_MAX of Linux without its NUL).
const PATH_BYTES_MAX: usize = 4_095;

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
    check_limits(&microservice.limits, &at.key("limits"), problems);
    check_grants(
        &microservice.grants,
        &at.key("grants").key("directories"),
        problems,
    );
    check_configuration(microservice, &at.key("configuration"), problems);
}

fn check_place(place: &Place, at: &KeyPath, problems: &mut Vec<Problem>) {
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

fn check_limits(limits: &Limits, at: &KeyPath, problems: &mut Vec<Problem>) {
    let mut check = |key: &str, value: u64, range: RangeInclusive<u64>, show: fn(u64) -> String| {
        if !range.contains(&value) {
            let message = format!(
                "{} is out of range: from {} to {}",
                show(value),
                show(*range.start()),
                show(*range.end())
            );
            problems.push(Problem::new(&at.key(key), message));
        }
    };
    let wide = |range: RangeInclusive<u32>| u64::from(*range.start())..=u64::from(*range.end());
    check("memory", limits.memory.0, limits::MEMORY_BYTES, bytes);
    check(
        "fuel_per_call",
        limits.fuel_per_call,
        limits::FUEL_PER_CALL,
        shown,
    );
    check(
        "call_timeout",
        limits.call_timeout.0,
        limits::CALL_TIMEOUT_MS,
        millis,
    );
    check(
        "inbox_messages",
        limits.inbox_messages.into(),
        wide(limits::INBOX_MESSAGES),
        shown,
    );
    check(
        "message_size",
        limits.message_size.0,
        limits::MESSAGE_BYTES,
        bytes,
    );
    check(
        "publish_per_second",
        limits.publish_per_second.into(),
        wide(limits::PUBLISH_PER_SECOND),
        shown,
    );
    check(
        "log_lines_per_second",
        limits.log_lines_per_second.into(),
        wide(limits::LOG_LINES_PER_SECOND),
        shown,
    );
    check("timers", limits.timers.into(), wide(limits::TIMERS), shown);
}

fn bytes(amount: u64) -> String {
    shown(ByteSize(amount))
}

fn millis(amount: u64) -> String {
    shown(Millis(amount))
}

fn shown(value: impl Display) -> String {
    value.to_string()
}

fn check_grants(grants: &Grants, at: &KeyPath, problems: &mut Vec<Problem>) {
    let mut guests = HashSet::new();
    for (index, directory) in grants.directories.iter().enumerate() {
        let at = at.index(index);
        for (key, path) in [("host", &directory.host), ("guest", &directory.guest)] {
            if let Err(reason) = check_path(path) {
                problems.push(Problem::new(
                    &at.key(key),
                    format!("the path `{}` {reason}", quotable(path)),
                ));
            }
        }
        let guest: Vec<&str> = directory
            .guest
            .split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .collect();
        if !guests.insert(guest) {
            let message = format!("`{}` is granted twice", quotable(&directory.guest));
            problems.push(Problem::with_hint(
                &at.key("guest"),
                message,
                "give each directory its own path in the guest",
            ));
        }
    }
}

/// Whether a path may stand in a grant: absolute, and the same wherever it is read.
fn check_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        Err("must be absolute: begin it with `/`")
    } else if path.split('/').any(|part| part == "..") {
        Err("must not contain `..`")
    } else if path.contains('\0') {
        Err("must not contain a NUL")
    } else if path.len() > PATH_BYTES_MAX {
        Err("is longer than 4095 bytes")
    } else {
        Ok(())
    }
}

fn check_configuration(microservice: &Microservice, at: &KeyPath, problems: &mut Vec<Problem>) {
    let mut total = 0;
    for (key, value) in &microservice.configuration {
        total += key.len() + value.len();
        if key.is_empty() || key.len() > CONFIGURATION_KEY_BYTES_MAX {
            let message = format!(
                "a key must have 1 to {CONFIGURATION_KEY_BYTES_MAX} bytes, and this has {}",
                key.len()
            );
            problems.push(Problem::new(&at.key(key), message));
        }
        if value.len() > CONFIGURATION_VALUE_BYTES_MAX {
            let message = format!(
                "{} bytes are more than the limit of {CONFIGURATION_VALUE_BYTES_MAX} for one value",
                value.len()
            );
            problems.push(Problem::with_hint(
                &at.key(key),
                message,
                "put large things into a granted directory",
            ));
        }
    }
    if total > CONFIGURATION_BYTES_MAX {
        let message = format!(
            "{total} bytes are more than the limit of {CONFIGURATION_BYTES_MAX} for a whole configuration"
        );
        problems.push(Problem::with_hint(
            at,
            message,
            "put large things into a granted directory",
        ));
    }
}
