//! Relays as people see them, and what a broker that is not ours must know of the site's nodes.
//! Pure.

use std::collections::BTreeMap;

use haar_protocol::ids::{Name, NodeId};
use haar_protocol::manifest::Credentials;
use haar_protocol::relay::{
    RelayCredentials, RelayInfo, RelayRole, RelaySort, RelayUrl, RelayUser, device_user,
    former_device_user,
};
use haar_protocol::topics;

use crate::db::statuses::StatusRow;
use crate::failure::{Failure, Kind};
use crate::plan::{Fleet, Relay, RelayPlace, relays_of, topic_rights};
use crate::site::{HANDED_OUT_LIFE_MS, Site};

/// All relays, by preference. `connected` says to which the controller itself is connected.
pub(crate) fn infos(
    fleet: &Fleet,
    statuses: &BTreeMap<NodeId, StatusRow>,
    connected: &BTreeMap<Name, bool>,
    now_ms: u64,
) -> Vec<RelayInfo> {
    let mut infos: Vec<RelayInfo> = fleet
        .relays
        .iter()
        .map(|relay| info(fleet, statuses, connected, relay, now_ms))
        .collect();
    infos.sort_by(|one, other| (one.preference, &one.name).cmp(&(other.preference, &other.name)));
    infos
}

fn info(
    fleet: &Fleet,
    statuses: &BTreeMap<NodeId, StatusRow>,
    connected: &BTreeMap<Name, bool>,
    relay: &Relay,
    now_ms: u64,
) -> RelayInfo {
    let mut info = RelayInfo {
        name: relay.name.clone(),
        place: RelaySort::Embedded,
        url: None,
        node: None,
        carries: relay.role,
        preference: relay.preference,
        controller_connected: connected.get(&relay.name).copied(),
        nodes: 0,
        nodes_connected: 0,
        problem: None,
    };
    match &relay.place {
        RelayPlace::Embedded => {}
        RelayPlace::External {
            url,
            issued_until_ms,
            ..
        } => {
            info.place = RelaySort::External;
            info.url = Some(url.clone());
            info.problem = problem_of_certificate(relay, *issued_until_ms, now_ms)
                .or_else(|| problem_of_routes(statuses, relay));
        }
        RelayPlace::Neighbourhood { node, address, .. } => {
            info.place = RelaySort::Neighbourhood;
            info.node = Some(node.clone());
            info.url = Some(RelayUrl {
                encrypted: true,
                address: address.clone(),
            });
            info.problem = problem_of_host(fleet, statuses, relay, node);
        }
    }
    for (id, node) in &fleet.nodes {
        if !relays_of(fleet, node)
            .iter()
            .any(|own| own.name == relay.name)
        {
            continue;
        }
        info.nodes += 1;
        let status = statuses.get(id).map(|row| &row.status);
        let is_connected = status.is_some_and(|status| {
            status
                .relays
                .iter()
                .any(|one| one.name == relay.name && one.connected)
        });
        info.nodes_connected += u64::from(is_connected);
    }
    info
}

/// The certificate that the site issued for a broker is in its last third. Nobody but the person who
/// looks after the broker can replace it.
fn problem_of_certificate(relay: &Relay, until_ms: Option<u64>, now_ms: u64) -> Option<String> {
    let left_ms = until_ms?.saturating_sub(now_ms);
    let (name, days) = (&relay.name, left_ms / 86_400_000);
    (left_ms < HANDED_OUT_LIFE_MS / 3).then(|| {
        format!(
            "the certificate that the site issued for it ends in {days} days: write another with `haar relay credentials {name} --out DIR --certificate`"
        )
    })
}

/// Routes from or to its topics do less than their manifests say.
fn problem_of_routes(statuses: &BTreeMap<NodeId, StatusRow>, relay: &Relay) -> Option<String> {
    let routes = statuses.values().flat_map(|row| &row.status.routes);
    let problems = routes.filter(|route| route.peer == relay.name && route.topic.is_some());
    let problems: Vec<&String> = problems.filter_map(|one| one.problem.as_ref()).collect();
    let first = problems.first()?;
    let more = match problems.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more: `haar get routes`)"),
    };
    Some(format!("{first}{more}"))
}

fn problem_of_host(
    fleet: &Fleet,
    statuses: &BTreeMap<NodeId, StatusRow>,
    relay: &Relay,
    host: &Name,
) -> Option<String> {
    let Some((id, _)) = fleet.nodes.iter().find(|(_, node)| &node.name == host) else {
        return Some(format!("the node `{host}`, which is to run it, is gone"));
    };
    let status = statuses.get(id)?;
    let served = &status.status.serves;
    served
        .iter()
        .find(|one| one.name == relay.name)?
        .reason
        .clone()
}

/// Who may do what at `relay`.
///
/// # Errors
/// When the relay needs no such list.
pub(crate) fn credentials(
    site: &Site,
    fleet: &Fleet,
    relay: &Relay,
) -> Result<RelayCredentials, Failure> {
    let RelayPlace::External {
        url, credentials, ..
    } = &relay.place
    else {
        return Err(Failure::new(
            Kind::Conflict,
            "no_credentials",
            format!(
                "relay `{}` is one of ours: it knows the nodes by their keys",
                relay.name
            ),
        ));
    };
    if credentials != &Credentials::Generated {
        return Err(Failure::new(
            Kind::Conflict,
            "no_credentials",
            format!(
                "the manifest of relay `{}` says how to connect to it",
                relay.name
            ),
        )
        .hint("write `credentials: generated` there for a password of each node"));
    }
    let everything = relay.role == RelayRole::Everything;
    let own = site.key.shared_with(&site.key.public());
    let mut users = Vec::new();
    if everything {
        users.push(RelayUser {
            user: site.id.to_string(),
            password: own.relay_password(&relay.name),
            name: format!("the controller of {}", site.name),
            publish: topics::site_publications(&site.id),
            subscribe: topics::site_subscriptions(&site.id),
        });
    }
    let mut nodes: Vec<_> = fleet.nodes.iter().collect();
    nodes.sort_by_key(|(_, node)| &node.name);
    for (id, node) in nodes {
        let is_attached = relays_of(fleet, node)
            .iter()
            .any(|own| own.name == relay.name);
        if is_attached {
            users.push(RelayUser {
                user: id.to_string(),
                password: site.key.shared_with(&node.key).relay_password(&relay.name),
                name: node.name.to_string(),
                publish: topics::node_publications(&site.id, id),
                subscribe: topics::node_subscriptions(&site.id, id),
            });
        }
    }
    users.extend(device_users(site, fleet, relay));
    Ok(RelayCredentials {
        site: site.id.clone(),
        relay: relay.name.clone(),
        url: url.clone(),
        ca_pem: site.ca_pem.clone(),
        certificate: None,
        users,
    })
}

/// The users as whom nodes talk to devices: what their topic routes need, and nothing else.
fn device_users(site: &Site, fleet: &Fleet, relay: &Relay) -> Vec<RelayUser> {
    let rights = topic_rights(fleet, &fleet.placements, &relay.name);
    let mut nodes: Vec<_> = rights
        .into_iter()
        .filter_map(|(id, rights)| Some((fleet.nodes.get(&id)?, id, rights)))
        .collect();
    nodes.sort_by(|(one, ..), (other, ..)| one.name.cmp(&other.name));
    let users = nodes.into_iter().map(|(node, id, rights)| {
        let present = RelayUser {
            user: device_user(&id, &relay.name),
            password: site.key.shared_with(&node.key).relay_password(&relay.name),
            name: format!("{}, for devices", node.name),
            publish: rights.writes.iter().map(ToString::to_string).collect(),
            subscribe: rights.reads.iter().map(ToString::to_string).collect(),
        };
        let former = RelayUser {
            user: former_device_user(&id),
            name: format!(
                "{}, for devices, with agents of earlier releases",
                node.name
            ),
            ..present.clone()
        };
        [present, former]
    });
    users.flatten().collect()
}
