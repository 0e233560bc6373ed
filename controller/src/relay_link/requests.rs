//! Requests to nodes that wait for their answers. Who asks waits here, bounded in number and time;
//! what arrives for nobody who waits is dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use haar_protocol::ids::NodeId;
use haar_protocol::keys::PublicKey;
use haar_protocol::request::{Operation, Outcome, Request, RequestId, Response};
use haar_protocol::signed;
use haar_protocol::topics::Topic;
use haar_relay::{Outgoing, Session};
use tokio::sync::oneshot;

use crate::clock;
use crate::db::nodes::NodeRow;
use crate::failure::{Failure, Kind};
use crate::site::Site;

/// How long a node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that wait at one time.
const PENDING_MAX: usize = 256;

/// Somebody who waits for an answer.
struct Pending {
    /// The key of the node that is asked.
    key: PublicKey,
    answer: oneshot::Sender<Outcome>,
}

/// The requests that wait, by node. Taken by handlers that ask and by the intake of what nodes
/// send, for single lookups, never across an await.
#[derive(Clone, Default)]
pub(crate) struct Requests(Arc<Mutex<BTreeMap<(NodeId, RequestId), Pending>>>);

/// Takes a request out of the table when nobody waits for it any more.
struct Waiting<'r> {
    requests: &'r Requests,
    of: (NodeId, RequestId),
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.requests.lock().remove(&self.of);
    }
}

impl Requests {
    /// Asks a node and waits for its answer.
    ///
    /// # Errors
    /// When it is offline or does not answer in time, or too many requests wait.
    pub(super) async fn ask(
        &self,
        site: &Site,
        sessions: &[Session],
        node: &NodeRow,
        operation: Operation,
    ) -> Result<Outcome, Failure> {
        let id = random_id()?;
        let request = Request {
            site: site.id.clone(),
            node: node.id.clone(),
            id,
            issued_ms: clock::now_ms(),
            operation,
        };
        let envelope = signed::seal(&request, &site.key).map_err(Failure::internal)?;
        let (answer, answered) = oneshot::channel();
        let _waiting = self.enter(node, id, answer)?;
        let outgoing = Outgoing {
            topic: Topic::Request(node.id.clone()).text(&site.id),
            payload: envelope.into(),
            at_least_once: true,
            retain: false,
        };
        let asked = async {
            // The node is at one of them; a request that comes twice is answered once.
            for session in sessions {
                let sent = session.publish(outgoing.clone()).await;
                sent.map_err(Failure::internal)?;
            }
            answered.await.map_err(Failure::internal)
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::new(
                Kind::NodeTimeout,
                "node_did_not_answer",
                format!(
                    "node `{}` did not answer within {} s",
                    node.name,
                    ANSWER_TIMEOUT.as_secs()
                ),
            )
            .hint("try again; an agent of an earlier release does not answer at all")),
        }
    }

    fn enter(
        &self,
        node: &NodeRow,
        id: RequestId,
        answer: oneshot::Sender<Outcome>,
    ) -> Result<Waiting<'_>, Failure> {
        let of = (node.id.clone(), id);
        let mut pending = self.lock();
        if pending.len() >= PENDING_MAX {
            return Err(Failure::new(
                Kind::Overloaded,
                "too_many_requests",
                format!("{PENDING_MAX} requests to nodes wait already"),
            )
            .hint("try again in a few seconds"));
        }
        let key = node.key;
        pending.insert(of.clone(), Pending { key, answer });
        drop(pending);
        Ok(Waiting { requests: self, of })
    }

    /// Takes what came on the topic of answers of `node`. It counts when it is signed by the node
    /// and answers a request that waits.
    pub(super) fn answer(&self, site: &Site, node: &NodeId, payload: &[u8]) {
        let Some(key) = self.key_of(node) else {
            return; // nobody waits for it any more
        };
        let response: Response = match signed::open(payload, &key) {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(%node, %error, "an answer of a node was not taken");
                return;
            }
        };
        if response.site != site.id || &response.node != node {
            tracing::warn!(%node, "an answer speaks for another node or site than its topic");
            return;
        }
        let pending = self.lock().remove(&(node.clone(), response.id));
        if let Some(pending) = pending {
            let _ = pending.answer.send(response.outcome); // or who asked has just given up
        }
    }

    /// The key of a node that is waited for.
    fn key_of(&self, node: &NodeId) -> Option<PublicKey> {
        let first = (node.clone(), RequestId([0; 16]));
        let pending = self.lock();
        let (of, pending) = pending.range(first..).next()?;
        (&of.0 == node).then_some(pending.key)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(NodeId, RequestId), Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn random_id() -> Result<RequestId, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(Failure::internal)?;
    Ok(RequestId(bytes))
}
