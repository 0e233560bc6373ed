//! Relays as people see them, and what a broker that is not ours must know of the site's nodes.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::ids::{Name, NodeId};
use haar_protocol::manifest::Credentials;
use haar_protocol::relay::{
    RelayCredentials, RelayInfo, RelayRole, RelaySort, RelayUrl, RelayUser, device_user, trial_user,
};
use haar_protocol::rest::{RelayDetail, RelaySession, RelayTrial};
use haar_protocol::status::RelayStatus;
use haar_protocol::topics;

use crate::db::statuses::StatusRow;
use crate::failure::{Failure, Kind};
use crate::plan::{Fleet, Relay, RelayPlace, relays_of, topic_rights};
use crate::site::{HANDED_OUT_LIFE_MS, Site};

/// What relays are judged by.
pub(crate) struct View<'a> {
    /// The site as it should be.
    pub(crate) fleet: &'a Fleet,
    /// What nodes said last.
    pub(crate) statuses: &'a BTreeMap<NodeId, StatusRow>,
    /// The nodes that are connected to the site.
    pub(crate) online: &'a BTreeSet<NodeId>,
    /// The relays to which the controller itself connects, and why it is not connected.
    pub(crate) own: &'a BTreeMap<Name, Option<String>>,
    /// The controller's clock.
    pub(crate) now_ms: u64,
}

impl View<'_> {
    /// All relays, by preference.
    pub(crate) fn relays(&self) -> Vec<RelayDetail> {
        let relays = self.fleet.relays.iter();
        let mut found: Vec<RelayDetail> = relays.map(|relay| self.relay(relay)).collect();
        found.sort_by(|one, other| {
            let key = |detail: &RelayDetail| (detail.relay.preference, detail.relay.name.clone());
            key(one).cmp(&key(other))
        });
        found
    }

    fn relay(&self, relay: &Relay) -> RelayDetail {
        let sessions = self.sessions(relay);
        let mut nodes: BTreeMap<&Name, bool> = BTreeMap::new();
        for session in &sessions {
            *nodes.entry(&session.node).or_insert(true) &= session.is_connected();
        }
        let own = self.own.get(&relay.name);
        let mut info = RelayInfo {
            name: relay.name.clone(),
            place: RelaySort::Embedded,
            url: None,
            node: None,
            carries: relay.role,
            preference: relay.preference,
            controller_connected: own.map(Option::is_none),
            controller_reason: own.cloned().flatten(),
            nodes: nodes.len() as u64,
            nodes_connected: nodes.values().filter(|connected| **connected).count() as u64,
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
                info.problem = problem_of_certificate(relay, *issued_until_ms, self.now_ms);
            }
            RelayPlace::Neighbourhood { node, address, .. } => {
                info.place = RelaySort::Neighbourhood;
                info.node = Some(node.clone());
                info.url = Some(RelayUrl {
                    encrypted: true,
                    address: address.clone(),
                });
                info.problem = problem_of_host(self.fleet, self.statuses, relay, node);
            }
        }
        let of_controller = info.controller_reason.as_ref();
        let of_controller = of_controller.map(|reason| format!("the controller: {reason}"));
        let of_sessions = || problem_of_sessions(&sessions);
        info.problem = info.problem.or(of_controller).or_else(of_sessions);
        RelayDetail {
            relay: info,
            sessions,
        }
    }

    /// The sessions that nodes are to have with a relay, by the nodes' names.
    fn sessions(&self, relay: &Relay) -> Vec<RelaySession> {
        let rights = topic_rights(self.fleet, &self.fleet.placements, &relay.name);
        let mut sessions = Vec::new();
        for (id, node) in &self.fleet.nodes {
            let status = self.statuses.get(id).map(|row| &row.status);
            let mut add = |devices: bool, said: Option<&Vec<RelayStatus>>| {
                let said = said.and_then(|said| said.iter().find(|one| one.name == relay.name));
                sessions.push(RelaySession {
                    node: node.name.clone(),
                    node_online: self.online.contains(id),
                    devices,
                    status: said.cloned(),
                });
            };
            let own = relays_of(self.fleet, node);
            if own.iter().any(|own| own.name == relay.name) {
                add(false, status.map(|status| &status.relays));
            }
            if rights.contains_key(id) {
                add(true, status.map(|status| &status.brokers));
            }
        }
        sessions.sort_by(|one, other| (&one.node, one.devices).cmp(&(&other.node, other.devices)));
        sessions
    }
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
