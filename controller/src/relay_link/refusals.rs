//! Nodes that the embedded relay refuses: why, since when, and once as an event. The relay says it in
//! its log at each attempt; people look at the site.
//!
//! Anybody can say that they are a node. What no key has signed is noted only while the node is away,
//! and an event of the same kind is not repeated within an hour: so that nobody floods the events of a
//! node, or makes one that works look refused.

use std::collections::HashMap;

use haar_protocol::ids::NodeId;
use haar_protocol::proof::ProofError;
use haar_protocol::text::duration;
use haar_relay::{Refusal, RefusedNode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::db::observations::{self, RELAY_REFUSED};
use crate::db::{self, Database, Write};
use crate::failure::Failure;

/// Refusals that may wait; more are left out.
pub(super) const QUEUE_REFUSALS: usize = 256;
/// The same refusal of a node is an event once in this time.
const TOLD_EVERY_MS: u64 = 3_600_000;
/// Beyond this number of nodes, what was told is forgotten.
const TOLD_MAX: usize = 100_000;

/// When each kind of refusal of a node was last an event.
type ToldMs = HashMap<(NodeId, &'static str), u64>;

/// Notes refusals until `stop`.
pub(super) async fn run(
    database: Database,
    mut refused: mpsc::Receiver<RefusedNode>,
    stop: CancellationToken,
) {
    let mut told = ToldMs::new();
    let mut arrived = Vec::new();
    loop {
        let count = tokio::select! {
            () = stop.cancelled() => return,
            count = refused.recv_many(&mut arrived, QUEUE_REFUSALS) => count,
        };
        if count == 0 {
            return;
        }
        let batch = std::mem::take(&mut arrived);
        let mut known = told.clone();
        let work = move |write: &Write<'_>| {
            for refusal in &batch {
                note(write, refusal, &mut known)?;
            }
            Ok(known)
        };
        match database.write(work).await {
            Ok(known) => told = known,
            Err(failure) => tracing::error!(%failure, "refusals of nodes could not be noted"),
        }
        if told.len() > TOLD_MAX {
            told.clear();
        }
    }
}

/// What a refusal is, for programs, and whether the client has shown the node's key: only then it was
/// the node.
fn kind(refusal: &Refusal) -> (&'static str, bool) {
    match refusal {
        Refusal::Protocol => ("protocol", false),
        Refusal::NoIdentity | Refusal::Unknown => ("no_identity", false),
        Refusal::Proof(ProofError::OutOfTime { .. }) => (observations::CLOCK, true),
        Refusal::Proof(_) => ("bad_proof", false),
        Refusal::Replayed => ("replayed", true),
        Refusal::TooOften => ("too_often", true),
        Refusal::ForeignWill => ("foreign_will", true),
    }
}

/// Why a client was refused, for a person.
fn reason(refusal: &Refusal) -> String {
    let Refusal::Proof(ProofError::OutOfTime { skew_ms }) = refusal else {
        return refusal.to_string();
    };
    let direction = if *skew_ms < 0 { "behind" } else { "ahead of" };
    format!(
        "its clock is {} {direction} the controller's: set it (NTP), and it connects by itself",
        duration(skew_ms.unsigned_abs())
    )
}

fn note(write: &Write<'_>, refusal: &RefusedNode, told: &mut ToldMs) -> Result<(), Failure> {
    let Some(row) = db::nodes::by_id(&write.sql, &refusal.node)? else {
        return Ok(());
    };
    let (code, is_signed) = kind(&refusal.refusal);
    if row.online && !is_signed {
        return Ok(());
    }
    let (address, reason) = (refusal.peer.ip(), reason(&refusal.refusal));
    let message = match is_signed {
        true => format!("{reason} (from {address})"),
        false => format!("a client at {address} says it is this node: {reason}"),
    };
    observations::note(write, &row.id, RELAY_REFUSED, code, &message)?;
    let last_ms = told.get(&(row.id.clone(), code)).copied();
    let is_due =
        last_ms.is_none_or(|last_ms| write.now_ms.saturating_sub(last_ms) >= TOLD_EVERY_MS);
    if !is_due {
        return Ok(());
    }
    told.insert((row.id, code), write.now_ms);
    let message = format!("the site's relay refuses it: {message}");
    write.node_event(RELAY_REFUSED, row.name.as_str(), &message)
}
