//! Relays as people see them, and what a broker that is not ours must know of the site's nodes.
//! Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use haar_protocol::ids::{Name, NodeId};
use haar_protocol::manifest::Credentials;
use haar_protocol::relay::{
    RelayCredentials, RelayInfo, RelayRole, RelaySort, RelayUrl, RelayUser, device_user,
    former_device_user, trial_user,
};
use haar_protocol::rest::{HealthState, RelayDetail, RelaySession, RelayTrial};
use haar_protocol::status::RelayStatus;
use haar_protocol::topics;

use crate::db::nodes::NodeRow;
use crate::db::statuses::StatusRow;
use crate::failure::{Failure, Kind};
use crate::health::{self, RelayFacts};
use crate::overview::View;
use crate::plan::{self, Fleet, Relay, RelayPlace, relays_of, topic_rights};
use crate::site::{HANDED_OUT_LIFE_MS, Site};

/// All relays, by preference, with the sessions that nodes are to have with them. `own` are those to
/// which the controller itself connects, with why it is not connected; `presence` says which nodes are
/// at those.
pub(crate) fn relays(
    view: &View,
    own: &BTreeMap<Name, Option<String>>,
    presence: &HashMap<NodeId, BTreeSet<Name>>,
) -> Vec<RelayDetail> {
    let relays = view.fleet.relays.iter();
    let mut found: Vec<RelayDetail> = relays
        .map(|relay| detail(view, own.get(&relay.name), presence, relay))
        .collect();
    found.sort_by(|one, other| {
        let key = |detail: &RelayDetail| (detail.relay.preference, detail.relay.name.clone());
        key(one).cmp(&key(other))
    });
    found
}

fn detail(
    view: &View,
    own: Option<&Option<String>>,
    presence: &HashMap<NodeId, BTreeSet<Name>>,
    relay: &Relay,
) -> RelayDetail {
    let mut facts = RelayFacts {
        controller_connected: own.map(Option::is_none),
        controller_reason: own.cloned().flatten(),
        ..RelayFacts::default()
    };
    let sessions = sessions(view, relay);
    facts.trouble = problem_of_sessions(&sessions);
    let (place, url, host) = match &relay.place {
        RelayPlace::Embedded => (RelaySort::Embedded, None, None),
        RelayPlace::External {
            url,
            issued_until_ms,
            ..
        } => {
            facts.certificate = problem_of_certificate(relay, *issued_until_ms, view.now_ms);
            let routes = problem_of_routes(&view.statuses, relay);
            facts.trouble = facts.trouble.or(routes);
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
    let rows: BTreeMap<&Name, &NodeRow> = view.nodes.iter().map(|row| (&row.name, row)).collect();
    for its in sessions.chunk_by(|one, other| one.node == other.node) {
        let Some(row) = its.first().and_then(|session| rows.get(&session.node)) else {
            continue;
        };
        let is_at = presence
            .get(&row.id)
            .is_some_and(|at| at.contains(&relay.name));
        let standing = |session: &RelaySession| {
            let seen =
                (facts.controller_connected == Some(true) && !session.devices).then_some(is_at);
            standing(view, row, session, seen)
        };
        facts.nodes += 1;
        match its.iter().map(standing).max() {
            Some(Standing::Connected) => facts.nodes_connected += 1,
            Some(Standing::Offline) | None => {}
            Some(Standing::Unknown) => facts.nodes_unknown += 1,
            Some(Standing::Away) => facts.nodes_away += 1,
        }
    }
    let of_controller = facts.controller_reason.as_ref();
    let of_controller = of_controller.map(|reason| format!("the controller: {reason}"));
    let relay = RelayInfo {
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
        controller_reason: facts.controller_reason,
        problem: facts
            .does_not_run
            .or(facts.certificate)
            .or(of_controller)
            .or(facts.trouble),
    };
    RelayDetail { relay, sessions }
}

/// How it stands with a session; later is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Connected,
    /// The node is not connected to anything that the site sees.
    Offline,
    /// The node is not heard, or has said nothing of it.
    Unknown,
    /// The node is heard, and does not have it.
    Away,
}

/// How it stands with a session of a node. `seen` says whether the controller itself sees it, where it
/// can.
fn standing(view: &View, row: &NodeRow, session: &RelaySession, seen: Option<bool>) -> Standing {
    let said = session.status.as_ref().map(|status| status.connected);
    match (
        seen,
        health::is_heard(&view.facts(row)).then_some(said).flatten(),
    ) {
        (Some(true), _) | (None, Some(true)) => Standing::Connected,
        (Some(false), _) if !row.online => Standing::Offline,
        (Some(false), _) | (None, Some(false)) => Standing::Away,
        (None, None) => Standing::Unknown,
    }
}

/// The sessions that nodes are to have with a relay, by the nodes' names.
fn sessions(view: &View, relay: &Relay) -> Vec<RelaySession> {
    let fleet = &view.fleet;
    let rights = topic_rights(fleet, &fleet.placements, &relay.name);
    let mut sessions = Vec::new();
    for row in &view.nodes {
        let status = view.statuses.get(&row.id).map(|row| &row.status);
        let mut add = |devices: bool, said: Option<&Vec<RelayStatus>>| {
            let said = said.and_then(|said| said.iter().find(|one| one.name == relay.name));
            sessions.push(RelaySession {
                node: row.name.clone(),
                node_online: row.online,
                devices,
                status: said.cloned(),
            });
        };
        let own = plan::attached_relays(&fleet.relays, &row.name, &row.labels);
        if own.iter().any(|own| own.name == relay.name) {
            add(false, status.map(|status| &status.relays));
        }
        if rights.contains_key(&row.id) {
            add(true, status.map(|status| &status.brokers));
        }
    }
    sessions.sort_by(|one, other| (&one.node, one.devices).cmp(&(&other.node, other.devices)));
    sessions
}

/// What the first node says that has something to say, and how many others do.
fn problem_of_sessions(sessions: &[RelaySession]) -> Option<String> {
    let online = sessions.iter().filter(|session| session.node_online);
    let mut troubled = online.filter_map(|session| Some((session, session.reason()?)));
    let (first, reason) = troubled.next()?;
    let node = &first.node;
    Some(match troubled.count() {
        0 => format!("{node}: {reason}"),
        others => format!("{node}: {reason} (and {others} more)"),
    })
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
    users.extend(trial_users(site, relay));
    Ok(RelayCredentials {
        site: site.id.clone(),
        relay: relay.name.clone(),
        url: url.clone(),
        ca_pem: site.ca_pem.clone(),
        certificate: None,
        users,
    })
}

/// What it takes to try `relay`.
///
/// # Errors
/// When it is one of ours, which need no trial.
pub(crate) fn trial(site: &Site, relay: &Relay) -> Result<RelayTrial, Failure> {
    let RelayPlace::External {
        url,
        ca_pem,
        credentials,
        client,
        ..
    } = &relay.place
    else {
        return Err(Failure::new(
            Kind::Conflict,
            "own_relay",
            format!(
                "relay `{}` is one of ours: it does what Haar asks for",
                relay.name
            ),
        ));
    };
    Ok(RelayTrial {
        url: url.clone(),
        ca_pem: ca_pem.as_ref().unwrap_or(&site.ca_pem).clone(),
        users: match credentials {
            Credentials::Generated => trial_users(site, relay).into(),
            Credentials::Given { .. } | Credentials::Anonymous => Vec::new(),
        },
        shared_user: match credentials {
            Credentials::Given { user, .. } => Some(user.clone()),
            Credentials::Generated | Credentials::Anonymous => None,
        },
        client_certificate: client.is_some(),
    })
}

/// The two as whom `haar relay check` tries the broker. They see nothing but what they try.
fn trial_users(site: &Site, relay: &Relay) -> [RelayUser; 2] {
    let own = site.key.shared_with(&site.key.public());
    let topics = ["$haar-check/#", "haar-check/#"].map(str::to_owned);
    [1, 2].map(|number| RelayUser {
        user: trial_user(&site.id, number),
        password: own.trial_password(&relay.name),
        name: format!("`haar relay check`, {number}"),
        publish: topics.to_vec(),
        subscribe: topics.to_vec(),
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
