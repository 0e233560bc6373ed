//! What has more than a manifest lets it have from now on.

use std::collections::BTreeMap;

use haar_protocol::demand::Demand;
use haar_protocol::ids::NodeId;
use haar_protocol::limits::Limits;
use haar_protocol::manifest::{Delivery, Manifest, Route};
use haar_protocol::quantity::ByteSize;
use haar_protocol::status::MicroserviceStatus;

use crate::db::nodes::NodeRow;
use crate::db::statuses::StatusRow;

/// True when a manifest takes some room away from what another one has.
pub(crate) fn lowers(before: &Manifest, after: &Manifest) -> bool {
    let bounds = |manifest: &Manifest| {
        let microservices = manifest.microservices.iter().map(|one| {
            let Limits {
                memory,
                key_value_size,
                files_size,
                ..
            } = one.limits;
            (one.name.to_string(), [memory, key_value_size, files_size])
        });
        let routes = manifest.routes.iter().map(|route| {
            let size = route.backlog.clone().unwrap_or_default().size;
            (format!("{} -> {}", route.from, route.to), [size; 3])
        });
        microservices.chain(routes).collect::<BTreeMap<_, _>>()
    };
    let before = bounds(before);
    bounds(after).iter().any(|(name, after)| {
        let pairs = before.get(name).into_iter().flatten().zip(after);
        pairs.into_iter().any(|(before, after)| after < before)
    })
}

/// Microservices that have more than they may have from now on, for people.
pub(crate) fn outgrown(
    before: &Manifest,
    after: &Manifest,
    nodes: &[NodeRow],
    statuses: &BTreeMap<NodeId, StatusRow>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    for one in &after.microservices {
        let mut known = before.microservices.iter();
        let Some(known) = known.find(|other| other.name == one.name) else {
            continue;
        };
        for node in nodes {
            let reported = statuses.get(&node.id).into_iter();
            let mut reported = reported.flat_map(|row| &row.status.microservices);
            let is_it = |status: &&MicroserviceStatus| {
                status.name.application == after.name && status.name.microservice == one.name
            };
            let Some(status) = reported.find(is_it) else {
                continue;
            };
            let (old, new) = (&known.limits, &one.limits);
            let writes = "it stays, and nothing is added";
            for (what, held, old, new, then) in [
                (
                    "memory",
                    status.memory_bytes,
                    old.memory,
                    new.memory,
                    "it is restarted",
                ),
                (
                    "pairs",
                    status.key_value_bytes,
                    old.key_value_size,
                    new.key_value_size,
                    writes,
                ),
                (
                    "files",
                    status.files_bytes,
                    old.files_size,
                    new.files_size,
                    writes,
                ),
            ] {
                if new < old && held > new.0 {
                    warnings.push(format!(
                        "{} on {} has {} of {what}, more than its limit from now on ({new}): {then}",
                        one.name,
                        node.name,
                        ByteSize(held)
                    ));
                }
            }
        }
    }
    for (node, row) in nodes
        .iter()
        .filter_map(|node| Some((node, statuses.get(&node.id)?)))
    {
        let logs = row.status.backlogs.iter();
        for log in logs.filter(|log| log.name.application == after.name) {
            let is_its = |route: &&Route| {
                let port = route.from.port();
                route.delivery == Delivery::Durable
                    && port.is_some_and(|port| {
                        port.microservice == log.name.microservice && port.port == log.outlet
                    })
            };
            let routes = after.routes.iter().filter(is_its);
            let sizes = routes.map(|route| route.backlog.clone().unwrap_or_default().size);
            let new = Demand::of_outlet_log(sizes).storage;
            if new > 0 && new < log.bytes_max && log.bytes > new {
                warnings.push(format!(
                    "{} wait in the backlog of {}.{} on {}, more than its limit from now on ({}): \
                     as `when_full` says, the oldest make room or nothing more is taken",
                    ByteSize(log.bytes),
                    log.name.microservice,
                    log.outlet,
                    node.name,
                    ByteSize(new)
                ));
            }
        }
    }
    warnings
}
