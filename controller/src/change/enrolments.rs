//! A device joins the site: token, proof of its key, name, first assignment.

use std::collections::BTreeMap;

use haar_protocol::ids::{Name, NodeId, check_label};
use haar_protocol::proof::{self, Audience, ProofError};
use haar_protocol::rest::EnrolmentRequest;

use super::replan;
use crate::db::enrolments::EnrolmentToken;
use crate::db::nodes::NodeRow;
use crate::db::{self, Write};
use crate::failure::{Failure, Kind};
use crate::site::{Site, sha256};

const NODES_MAX: usize = 100_000;
const LABELS_MAX: usize = 64;

/// The node that has joined.
pub(crate) struct Joining {
    /// Its id.
    pub(crate) node: NodeId,
    /// Its name.
    pub(crate) name: Name,
}

/// Enrols the device that sends `request`. The token is used up only if everything is right; the
/// same device may send the same request again, should the answer have been lost.
///
/// # Errors
/// When the token, the proof or the name is refused; nothing has changed then.
pub(crate) fn enrol(
    write: &Write<'_>,
    site: &Site,
    request: &EnrolmentRequest,
) -> Result<Joining, Failure> {
    let node = NodeId::of(&request.key);
    let hash = sha256(request.secret.as_bytes());
    let token = db::enrolments::get(&write.sql, &hash)?.ok_or_else(|| {
        Failure::new(
            Kind::Unauthenticated,
            "unknown_token",
            "this enrolment token is not one of this site",
        )
        .hint("make a new one: `haar node token`")
    })?;
    let present = db::nodes::by_id(&write.sql, &node)?;
    check_token(&token, &node, present.is_some(), write.now_ms)?;
    proof::check(
        &request.proof,
        &request.key,
        Audience::Controller,
        &site.id,
        node.as_str(),
        None,
        write.now_ms,
    )
    .map_err(proof_failure)?;
    if let (Some(present), true) = (&present, token.used_by.is_some()) {
        return Ok(Joining {
            node,
            name: present.name.clone(),
        });
    }
    let had = present.as_ref().map(|present| &present.labels);
    let labels = merged_labels(had, &request.labels, &token.labels)?;
    let name = choose_name(write, &token, request, present.as_ref(), &node)?;
    if present.is_none() && db::nodes::keys(&write.sql)?.len() >= NODES_MAX {
        return Err(Failure::new(
            Kind::Overloaded,
            "too_many_nodes",
            format!("the site has {NODES_MAX} nodes already"),
        ));
    }
    db::nodes::put(
        write,
        &NodeRow {
            id: node.clone(),
            name: name.clone(),
            key: request.key,
            labels,
            budget: request.budget.clone(),
            agent_version: clipped(&request.agent_version),
            target: clipped(&request.target),
            enrolled_ms: write.now_ms,
            link_key: None,
            link_key_generation: 0,
            online: false,
            last_seen_ms: None,
        },
    )?;
    db::statuses::delete(&write.sql, &node)?;
    db::enrolments::mark_used(&write.sql, &hash, &node)?;
    replan(write, site, None)?;
    let what = if present.is_some() {
        "enrolled again with the same key"
    } else {
        "joined the site"
    };
    write.event("node_enrolled", name.as_str(), &format!("{node} {what}"))?;
    Ok(Joining { node, name })
}

fn check_token(
    token: &EnrolmentToken,
    node: &NodeId,
    is_enrolled: bool,
    now_ms: u64,
) -> Result<(), Failure> {
    let make = "make a new one: `haar node token`";
    match &token.used_by {
        Some(user) if user == node && is_enrolled => Ok(()),
        Some(_) => Err(Failure::new(
            Kind::Conflict,
            "token_used",
            "this enrolment token was used already",
        )
        .hint(make)),
        None if token.expires_ms <= now_ms => Err(Failure::new(
            Kind::Forbidden,
            "token_expired",
            format!(
                "this enrolment token expired {} s ago",
                (now_ms - token.expires_ms) / 1_000
            ),
        )
        .hint(make)),
        None => Ok(()),
    }
}

/// How a refused proof is told. Also for nodes that fetch modules.
pub(crate) fn proof_failure(error: ProofError) -> Failure {
    match error {
        ProofError::OutOfTime { skew_ms } => {
            let direction = if skew_ms < 0 { "behind" } else { "ahead of" };
            let seconds = skew_ms.unsigned_abs() / 1_000;
            Failure::new(
                Kind::Forbidden,
                "clock_skew",
                format!("the clock of the device is {seconds} s {direction} that of the site"),
            )
            .hint("set the device's clock, best by NTP, and try again; the token is still good")
        }
        other => Failure::new(Kind::Unauthenticated, "bad_proof", other.to_string())
            .hint("the proof must be fresh, for this site, and made with the key that is enrolled"),
    }
}

/// The labels that the node has stay where neither device nor token says others.
fn merged_labels(
    had: Option<&BTreeMap<String, String>>,
    of_device: &BTreeMap<String, String>,
    of_token: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Failure> {
    let all = had.into_iter().chain([of_device, of_token]).flatten();
    let labels = all.map(|(key, value)| (key.clone(), value.clone()));
    let labels = labels.collect();
    check_labels(&labels)?;
    Ok(labels)
}

/// Labels must be few, short and printable.
///
/// # Errors
/// Names the first label that is not.
pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Failure> {
    if labels.len() > LABELS_MAX {
        return Err(Failure::new(
            Kind::Invalid,
            "bad_label",
            format!("{} labels are more than {LABELS_MAX}", labels.len()),
        ));
    }
    for (key, value) in labels {
        check_label(key, value)
            .map_err(|error| Failure::new(Kind::Invalid, "bad_label", error.0))?;
    }
    Ok(())
}

/// The token's name wins, then the device's wish, then the name that it had, then one of its id.
fn choose_name(
    write: &Write<'_>,
    token: &EnrolmentToken,
    request: &EnrolmentRequest,
    present: Option<&NodeRow>,
    node: &NodeId,
) -> Result<Name, Failure> {
    let wish = token
        .name
        .as_ref()
        .or(request.name.as_ref())
        .or(present.map(|present| &present.name));
    let name = match wish {
        Some(name) => name.clone(),
        None => format!("node-{}", &node.as_str()[1..9])
            .parse()
            .map_err(Failure::internal)?,
    };
    match db::nodes::by_name(&write.sql, name.as_str())? {
        Some(other) if &other.id != node => Err(Failure::new(
            Kind::Conflict,
            "name_taken",
            format!("another node of this site is called `{name}` ({})", other.id),
        )
        .hint(format!(
            "choose another name, or delete the other node first if this device replaces it: `haar node delete {name}`"
        ))),
        _ => Ok(name),
    }
}

/// A text of a device, no longer than anybody shows.
pub(crate) fn clipped(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(100)
        .collect()
}
