//! Takes over what nodes report of themselves and plans depend on (budgets, keys for links, how far
//! they have counted). A new plan takes long on a large site and a node can ask for one with every
//! status, so the intake only notes which nodes have news, and this task acts on them:
//!
//! - many nodes at a time, with one plan for all;
//! - each node once a minute; what it says last counts, and the database has it until then;
//! - after a plan, four times as long as it took, the database is free for others.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use haar_protocol::ids::NodeId;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::db::{self, Database};
use crate::failure::Failure;
use crate::site::Site;
use crate::{change, intake};

/// How often news of one node are taken over.
const NODE_INTERVAL: Duration = Duration::from_secs(60);
/// How many times as long as a plan took no other one is made because of nodes.
const REST_FACTOR: u32 = 4;
/// How long to wait after a failure of the database.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// The nodes with news, each with the generation of its key for links that the site asks for. Filled
/// by the intakes of all relays and emptied by the task; taken for single look-ups.
#[derive(Clone, Default)]
pub(super) struct Newsworthy {
    nodes: Arc<Mutex<BTreeMap<NodeId, u64>>>,
    wake: Arc<Notify>,
}

impl Newsworthy {
    /// Notes that a node has news.
    pub(super) fn note(&self, node: &NodeId, link_key_generation: u64) {
        self.lock().insert(node.clone(), link_key_generation);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, u64>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When news of a node were last taken over.
#[derive(Debug, Clone, Copy)]
struct Taken {
    at: Instant,
    /// The generation of its key for links that the site asked for afterwards.
    link_key_generation: u64,
}

/// Decides when. Pure.
#[derive(Debug)]
struct Schedule {
    taken: HashMap<NodeId, Taken>,
    rests_until: Instant,
}

impl Schedule {
    fn new(now: Instant) -> Self {
        Self {
            taken: HashMap::new(),
            rests_until: now,
        }
    }

    /// When to act next for `nodes`.
    fn next(&self, nodes: &BTreeMap<NodeId, u64>) -> Option<Instant> {
        let due = nodes
            .iter()
            .map(|(node, generation)| self.due(node, *generation));
        due.min()
    }

    /// When news of a node may be taken over. A key that the site has asked for since the last time
    /// is not made to wait.
    fn due(&self, node: &NodeId, link_key_generation: u64) -> Instant {
        let due = match self.taken.get(node) {
            Some(taken) if taken.link_key_generation >= link_key_generation => {
                taken.at + NODE_INTERVAL
            }
            _ => self.rests_until,
        };
        due.max(self.rests_until)
    }

    /// Takes those of `nodes` out that are due.
    fn take_due(&mut self, nodes: &mut BTreeMap<NodeId, u64>, now: Instant) -> Vec<NodeId> {
        self.taken.retain(|_, taken| taken.at + NODE_INTERVAL > now);
        let due = nodes.extract_if(.., |node, generation| self.due(node, *generation) <= now);
        due.map(|(node, _)| node).collect()
    }

    /// News of nodes were taken over, with the generations that the site asks for now.
    fn done(&mut self, generations: BTreeMap<NodeId, u64>, begin: Instant, end: Instant) {
        self.rests_until = end + end.saturating_duration_since(begin) * REST_FACTOR;
        for (node, link_key_generation) in generations {
            let taken = Taken {
                at: end,
                link_key_generation,
            };
            self.taken.insert(node, taken);
        }
    }
}

/// The task.
pub(super) struct Adoption {
    site: Arc<Site>,
    database: Database,
    newsworthy: Newsworthy,
    schedule: Schedule,
}

impl Adoption {
    pub(super) fn new(site: &Arc<Site>, database: &Database, newsworthy: &Newsworthy) -> Self {
        Self {
            site: Arc::clone(site),
            database: database.clone(),
            newsworthy: newsworthy.clone(),
            schedule: Schedule::new(Instant::now()),
        }
    }

    /// Runs until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        if let Err(failure) = self.recall().await {
            tracing::error!(%failure, "what was left of the last run could not be read");
        }
        let wake = Arc::clone(&self.newsworthy.wake);
        loop {
            let next = self.schedule.next(&self.newsworthy.lock());
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = due => self.adopt().await,
                () = wake.notified() => {}
            }
        }
    }

    /// Finds what the last run of the controller did not get to.
    async fn recall(&self) -> Result<(), Failure> {
        let site = Arc::clone(&self.site);
        self.database
            .write(move |write| change::clear_revoked(write, &site))
            .await?;
        let newsworthy = self.newsworthy.clone();
        self.database
            .read(move |sql| {
                let statuses = db::statuses::all(sql)?;
                let numbers = db::assignments::numbers(sql)?;
                for row in db::nodes::list(sql)? {
                    let number = numbers.get(&row.id).copied().unwrap_or(0);
                    let last = statuses.get(&row.id);
                    if last
                        .and_then(|last| intake::news(&row, &last.status, number))
                        .is_some()
                    {
                        newsworthy.note(&row.id, row.link_key_generation);
                    }
                }
                Ok(())
            })
            .await
    }

    async fn adopt(&mut self) {
        let begin = Instant::now();
        let nodes = self.schedule.take_due(&mut self.newsworthy.lock(), begin);
        let (site, due) = (Arc::clone(&self.site), nodes.clone());
        let adopted = self
            .database
            .write(move |write| change::adopt(write, &site, &due))
            .await;
        match adopted {
            Ok(generations) => self.schedule.done(generations, begin, Instant::now()),
            Err(failure) => {
                tracing::error!(%failure, nodes = nodes.len(), "what nodes report of themselves is not taken over yet");
                self.schedule.rests_until = Instant::now() + RETRY_DELAY;
                for node in nodes {
                    // Whatever it is: it is tried again after the rest.
                    self.newsworthy.lock().entry(node).or_insert(u64::MAX);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use haar_protocol::keys::SecretKey;

    use super::*;

    fn node(seed: u8) -> NodeId {
        NodeId::of(&SecretKey::from_seed([seed; 32]).public())
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_node_that_was_noted_twice_is_one_with_its_newest_generation() {
        let newsworthy = Newsworthy::default();
        newsworthy.note(&node(1), 0);
        newsworthy.note(&node(1), 2);
        newsworthy.note(&node(2), 0);
        let noted: Vec<u64> = newsworthy.lock().values().copied().collect();
        assert_eq!(noted.len(), 2);
        assert!(noted.contains(&2));
    }

    #[test]
    fn news_of_a_node_are_taken_once_a_minute_and_are_not_lost() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let mut nodes = BTreeMap::from([(node(1), 0), (node(2), 0)]);
        assert_eq!(schedule.next(&nodes), Some(start));
        assert_eq!(schedule.take_due(&mut nodes, start).len(), 2, "together");
        assert_eq!(schedule.next(&nodes), None);
        schedule.done(BTreeMap::from([(node(1), 0), (node(2), 0)]), start, start);
        nodes.insert(node(1), 0);
        nodes.insert(node(3), 0);
        assert_eq!(schedule.take_due(&mut nodes, start + seconds(1)), [node(3)]);
        assert_eq!(schedule.next(&nodes), Some(start + seconds(60)));
        assert!(
            schedule
                .take_due(&mut nodes, start + seconds(59))
                .is_empty()
        );
        assert_eq!(
            schedule.take_due(&mut nodes, start + seconds(60)),
            [node(1)]
        );
    }

    #[test]
    fn a_key_that_the_site_asked_for_does_not_wait() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.done(BTreeMap::from([(node(1), 4)]), start, start);
        let mut nodes = BTreeMap::from([(node(1), 4)]);
        assert!(schedule.take_due(&mut nodes, start + seconds(1)).is_empty());
        nodes.insert(node(1), 5);
        assert_eq!(schedule.take_due(&mut nodes, start + seconds(1)), [node(1)]);
    }

    #[test]
    fn after_a_plan_that_took_long_the_database_is_free_for_others() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let end = start + seconds(3);
        schedule.done(BTreeMap::from([(node(1), 0)]), start, end);
        let nodes = BTreeMap::from([(node(2), 0)]);
        assert_eq!(schedule.next(&nodes), Some(end + seconds(12)));
    }
}
