//! A relay as `haar describe` shows it: what it is, and the state of each session that a node should
//! have with it.

use haar_protocol::relay::RelaySort;
use haar_protocol::rest::{RelayDetail, RelaySession};
use haar_protocol::status::RelayStatus;

use crate::commands::get;
use crate::output::{self, facts};

/// Everything about a relay, for people.
pub(super) fn described(detail: &RelayDetail) -> String {
    let relay = &detail.relay;
    let now = output::now_ms();
    let mut pairs = vec![
        ("Relay", relay.name.to_string()),
        ("Place", get::relay_place(relay)),
    ];
    if let Some(url) = &relay.url {
        pairs.push(("Address", url.to_string()));
    }
    pairs.push(("Carries", get::relay_role(relay.carries).to_owned()));
    if relay.place != RelaySort::Embedded || relay.controller_connected.is_some() {
        let state = get::relay_controller(relay);
        let state = match &relay.controller_reason {
            Some(reason) => format!("{state}: {}", output::printable(reason)),
            None => state.to_owned(),
        };
        pairs.push(("Controller", state));
    }
    pairs.push(("Preference", relay.preference.to_string()));
    let (connected, all) = (relay.nodes_connected, relay.nodes);
    pairs.push(("Connected nodes", format!("{connected} of {all}")));
    if let Some(problem) = &relay.problem {
        pairs.push(("Problem", output::printable(problem)));
    }
    let mut table = output::Table::new(&["NODE", "FOR", "STATE"]);
    for session in &detail.sessions {
        let what = match session.devices {
            true => "devices",
            false => "nodes and site",
        };
        table.row([
            session.node.to_string(),
            what.to_owned(),
            self::session(session, now),
        ]);
    }
    let table = table.render("No node needs it: none attaches to it, and no route names it.");
    format!("{}\n{table}", facts(&pairs))
}

/// What is known of a session. The last report of an offline node may be out of date.
pub(in crate::commands) fn session(session: &RelaySession, now_ms: u64) -> String {
    match (&session.status, session.node_online) {
        (None, true) => "not reported yet".to_owned(),
        (None, false) => "unknown: the node is offline".to_owned(),
        (Some(status), true) => state(status, now_ms),
        (Some(status), false) => {
            format!(
                "unknown: the node is offline; before, {}",
                state(status, now_ms)
            )
        }
    }
}

/// The state of a session as its node reports it.
pub(super) fn state(status: &RelayStatus, now_ms: u64) -> String {
    let since = status.since_ms.map_or_else(String::new, |since| {
        format!(" for {}", output::age(now_ms, since))
    });
    match (status.connected, &status.reason) {
        (true, None) => format!("connected{since}"),
        (true, Some(reason)) => format!("connected{since}, but {}", output::printable(reason)),
        (false, Some(reason)) => format!("not connected{since}: {}", output::printable(reason)),
        (false, None) => format!("not connected{since}"),
    }
}
