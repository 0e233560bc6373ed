//! What is done to the logs, and what is left of them.

use std::path::Path;
use std::sync::Arc;

use haar_host::bus::message::{Message, Source};
use haar_host::store::log::{Advance, Arrived, Consumer, LogId, LogName, OpenLog, WantedLog};
use haar_host::store::{Store, StoreThread};
use haar_protocol::assignment::MicroserviceName;

const EPOCH: u64 = 1_700_000_000_000;
pub const OUTLET: usize = 0;
const ARRIVAL: usize = 1;

/// What is done to the logs: the one of an outlet, and the one of a route from another node.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// Publishes so many messages of so many bytes.
    Append(u64, usize),
    /// Keeps so many messages of the other node.
    Keep(u64, usize),
    /// A consumer of a log needs nothing up to a position any more: what nobody needs is deleted.
    Advance(usize, usize, u64),
    /// The oldest messages of the outlet's log make room.
    Drop(u64),
    /// The outlet's log becomes another one.
    Renew,
    /// The agent ends in order, and starts again: the log of SQLite is emptied into the database.
    Restart,
}

/// Every change of a log, and more than once.
pub const SHORT: &[Step] = &[
    Step::Append(1, 10),
    Step::Append(3, 100),
    Step::Keep(2, 50),
    Step::Advance(OUTLET, 0, 2),
    Step::Append(2, 6_000),
    Step::Advance(OUTLET, 1, 3),
    Step::Keep(3, 20),
    Step::Restart,
    Step::Advance(ARRIVAL, 0, 4),
    Step::Append(20, 200),
    Step::Drop(2_000),
    Step::Renew,
    Step::Keep(1, 9_000),
    Step::Append(1, 10),
    Step::Advance(OUTLET, 0, 27),
    Step::Advance(OUTLET, 1, 26),
    Step::Restart,
    Step::Append(2, 10),
];

/// So much that a transaction does not fit into SQLite's cache, and that SQLite empties its log in
/// the middle of it all.
pub const LONG: &[Step] = &[
    Step::Append(4, 200_000),
    Step::Keep(2, 300_000),
    Step::Append(1, 1_500_000),
    Step::Advance(OUTLET, 0, 4),
    Step::Advance(OUTLET, 1, 4),
    Step::Append(3, 500_000),
    Step::Append(1, 10),
    Step::Advance(ARRIVAL, 0, 2),
    Step::Append(2, 1_000_000),
    Step::Append(1, 10),
];

fn consumer(route: u64) -> Consumer {
    Consumer {
        route,
        node: "naaaaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap(),
    }
}

fn owner() -> MicroserviceName {
    MicroserviceName {
        application: "app".parse().unwrap(),
        microservice: "both".parse().unwrap(),
    }
}

fn wanted() -> Vec<WantedLog> {
    let outlet = LogName::Outlet("out".parse().unwrap());
    let arrival = LogName::Arrival {
        route: 7,
        from: consumer(7).node,
    };
    let logs = [(outlet, vec![1, 2]), (arrival, vec![7])];
    let logs = logs.into_iter().map(|(name, routes)| WantedLog {
        owner: owner(),
        name,
        consumers: routes.into_iter().map(consumer).collect(),
    });
    logs.collect()
}

pub fn body(number: u64, size: usize) -> Vec<u8> {
    let mut body = number.to_string().into_bytes();
    body.resize(size.max(body.len()), number.to_le_bytes()[0]);
    body
}

/// The logs, in use.
pub struct Logs {
    pub store: Store,
    thread: StoreThread,
    opened: Vec<OpenLog>,
}

/// Everything that is in the logs: what they say of themselves, and position, sequence and body of
/// each message.
pub type State = Vec<(OpenLog, Vec<(u64, u64, Vec<u8>)>)>;

impl Logs {
    pub async fn open(directory: &Path) -> anyhow::Result<Self> {
        let (store, thread) = Store::open(directory)?;
        match store.open_logs(vec![owner()], wanted(), EPOCH).await {
            Ok(opened) => Ok(Self {
                store,
                thread,
                opened,
            }),
            Err(error) => {
                drop(store);
                thread.join();
                Err(error)
            }
        }
    }

    pub fn close(self) {
        drop(self.store);
        self.thread.join();
    }

    pub fn id(&self, log: usize) -> LogId {
        self.opened[log].id
    }

    /// Ok when it was answered: then it must stay.
    pub async fn take(&self, step: Step) -> anyhow::Result<()> {
        match step {
            Step::Append(count, size) => {
                let bodies = (0..count).map(|number| (vec![], body(number, size)));
                let (log, bodies) = (self.id(OUTLET), bodies.collect());
                self.store.append(log, 5, bodies, |_, _| {}).await?;
            }
            Step::Keep(count, size) => self.keep(count, size).await?,
            Step::Advance(log, index, base) => {
                let advance = Advance {
                    log: self.id(log),
                    consumer: wanted()[log].consumers[index].clone(),
                    base,
                };
                self.store.advance(vec![advance]).await?;
            }
            Step::Drop(bytes) => {
                self.store.drop_oldest(self.id(OUTLET), bytes).await?;
            }
            Step::Renew => self.store.renew_log(self.id(OUTLET), EPOCH + 1).await?,
            Step::Restart => {}
        }
        Ok(())
    }

    /// What comes follows what is there, as a link sees to.
    async fn keep(&self, count: u64, size: usize) -> anyhow::Result<()> {
        let opened = self.store.open_logs(vec![owner()], wanted(), EPOCH).await?;
        let after = opened[ARRIVAL].sequence;
        let messages = (after + 1..=after + count).map(|sequence| {
            Arc::new(Message {
                source: Arc::new(Source::default()),
                sequence,
                published_ms: 5,
                headers: vec![],
                body: body(sequence, size),
            })
        });
        let arrived = Arrived {
            log: self.id(ARRIVAL),
            epoch: EPOCH,
            messages: messages.collect(),
        };
        self.store.keep_arrived(vec![arrived], |_| {}).await
    }

    pub async fn state(&self) -> State {
        let opened = self.store.open_logs(vec![owner()], wanted(), EPOCH).await;
        let mut state = State::new();
        for mut log in opened.unwrap() {
            log.own_run = None; // each start draws its own
            let read = self.store.read_log(log.id, 0, u64::MAX, Arc::default());
            let read = read.await.unwrap().into_iter();
            let messages = read.map(|one| {
                let message = one.message;
                (one.position, message.sequence, message.body.clone())
            });
            state.push((log, messages.collect()));
        }
        state
    }
}
