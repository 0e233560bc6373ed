//! Relays as people see them, and what a broker that is not ours must know of the site's nodes.
//! Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use haar_protocol::ids::{Name, NodeId};
use haar_protocol::manifest::Credentials;
use haar_protocol::relay::{
    RelayCredentials, RelayInfo, RelayRole, RelaySort, RelayUrl, RelayUser, device_user,
};
use haar_protocol::rest::HealthState;
use haar_protocol::topics;

use crate::failure::{Failure, Kind};
use crate::health::{self, RelayFacts};
use crate::overview::View;
use crate::plan::{self, Fleet, Relay, RelayPlace, relays_of, topic_rights};
use crate::site::{HANDED_OUT_LIFE_MS, Site};

/// All relays, by preference. `connected` says to which the controller itself is connected, and
/// `presence` which nodes are at those.
pub(crate) fn infos(
    view: &View,
    connected: &BTreeMap<Name, bool>,
    presence: &HashMap<NodeId, BTreeSet<Name>>,
) -> Vec<RelayInfo> {
    let relays = view.fleet.relays.iter();
    let mut infos: Vec<RelayInfo> = relays
        .map(|relay| info(view, connected, presence, relay))
        .collect();
    infos.sort_by(|one, other| (one.preference, &one.name).cmp(&(other.preference, &other.name)));
    infos
}

fn info(
    view: &View,
    connected: &BTreeMap<Name, bool>,
    presence: &HashMap<NodeId, BTreeSet<Name>>,
    relay: &Relay,
) -> RelayInfo {
    let mut facts = RelayFacts {
        controller_connected: connected.get(&relay.name).copied(),
        ..RelayFacts::default()
    };
    let (place, url, host) = match &relay.place {
        RelayPlace::Embedded => (RelaySort::Embedded, None, None),
        RelayPlace::External {
            url,
            issued_until_ms,
            ..
        } => {
            facts.certificate = problem_of_certificate(relay, *issued_until_ms, view.now_ms);
            (RelaySort::External, Some(url.clone()), None)
        }
        RelayPlace::Neighbourhood { node, address, .. } => {
            host_facts(view, relay, node, &mut facts);
            let url = RelayUrl {
                encrypted: true,
                address: address.clone(),
            };
            (RelaySort::Neighbourhood, Some(url), Some(node.clone()))
        }
    };
    for row in &view.nodes {
        let attached = plan::attached_relays(&view.fleet.relays, &row.name, &row.labels);
        if !attached.iter().any(|own| own.name == relay.name) {
            continue;
        }
        facts.nodes += 1;
        let is_at = presence
            .get(&row.id)
            .is_some_and(|at| at.contains(&relay.name));
        match health::is_connected(&view.facts(row), &relay.name) {
            _ if facts.controller_connected == Some(true) => {
                facts.nodes_connected += u64::from(is_at);
                facts.nodes_away += u64::from(!is_at && row.online);
            }
            Some(true) => facts.nodes_connected += 1,
            Some(false) => facts.nodes_away += 1,
            None => facts.nodes_unknown += 1,
        }
    }
    RelayInfo {
        name: relay.name.clone(),
        place,
        url,
        node: host,
        carries: relay.role,
        preference: relay.preference,
        controller_connected: facts.controller_connected,
        nodes: facts.nodes,
        nodes_connected: facts.nodes_connected,
        nodes_unknown: facts.nodes_unknown,
        health: health::relay(&facts),
        problem: facts.does_not_run.or(facts.certificate),
    }
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

/// What is known of a relay that a node runs.
fn host_facts(view: &View, relay: &Relay, host: &Name, facts: &mut RelayFacts) {
    let Some(row) = view.nodes.iter().find(|row| &row.name == host) else {
        let gone = format!("the node `{host}`, which is to run it, is gone");
        facts.does_not_run = Some(gone);
        return;
    };
    let node = view.facts(row);
    let health = health::node(&node);
    let serves = node.status.map(|row| &row.status.serves);
    let serves = serves.filter(|_| health.state != HealthState::Unknown);
    let mut serves = serves.into_iter().flatten();
    let served = serves.find(|one| one.name == relay.name);
    facts.does_not_run = served.and_then(|one| one.reason.clone());
    facts.host = Some(health);
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
    nodes
        .into_iter()
        .map(|(node, id, rights)| RelayUser {
            user: device_user(&id),
            password: site.key.shared_with(&node.key).relay_password(&relay.name),
            name: format!("{}, for devices", node.name),
            publish: rights.writes.iter().map(ToString::to_string).collect(),
            subscribe: rights.reads.iter().map(ToString::to_string).collect(),
        })
        .collect()
}
