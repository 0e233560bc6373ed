//! Outlets that come, go, change and publish, on a node whose agent and database fail in every order.

mod failing;
mod wanted;

use std::path::Path;

use haar_protocol::manifest::Delivery;
use proptest::prelude::*;

use self::wanted::{OUTLETS, Wanted, name, wanted};
use super::*;
use crate::bus::{Bus, PortCache, durable};
use crate::store::owners::Lives;
use crate::store::{StoreThread, set_aside};

const FILES: [&str; 2] = ["agent.db", "agent.db-wal"];

#[derive(Debug, Clone)]
enum Step {
    Assign(Wanted),
    Publish(usize, u8),
    /// The agent ends, in order or not; another assignment may come before it is back.
    Restart(bool, Option<Wanted>),
    /// The database is copied while no agent runs.
    Copy,
    /// The last copy takes the place of the database.
    Restore,
    /// The database is damaged: the newest messages are lost.
    Damage,
    /// Nobody has wanted the microservice for a day.
    Day,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => wanted().prop_map(Step::Assign),
        6 => (0..2usize, 1..20u8).prop_map(|(outlet, count)| Step::Publish(outlet, count)),
        2 => (any::<bool>(), proptest::option::of(wanted()))
            .prop_map(|(in_order, wanted)| Step::Restart(in_order, wanted)),
        1 => Just(Step::Copy),
        1 => Just(Step::Restore),
        1 => Just(Step::Damage),
        1 => Just(Step::Day),
    ]
}

/// What runs between two starts.
struct Running {
    store: Store,
    thread: StoreThread,
    registry: Registry,
    numbers: Numbers,
    bus: Bus,
}

struct Node {
    directory: tempfile::TempDir,
    copy: Option<Vec<(&'static str, Vec<u8>)>>,
    wanted: Wanted,
    /// The last number of each outlet.
    last: [u64; 2],
}

impl Node {
    fn new(routes: [Option<Delivery>; 2]) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            copy: None,
            wanted: Wanted {
                life: Some(0),
                routes,
            },
            last: [0; 2],
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    async fn start(&self) -> Running {
        let mut running = Running::with(Store::open(self.path()).unwrap());
        running.assign(&self.wanted).await;
        running
    }

    async fn publish(&mut self, running: &Running, index: usize, count: u8) {
        let (outlet, mut cache) = (OUTLETS[index], PortCache::default());
        let Running { bus, store, .. } = running;
        let Ok(durable) = bus.durable_outlet(&mut cache, &name(), outlet) else {
            return; // the microservice is not there
        };
        let messages = vec![(vec![], b"x".to_vec()); usize::from(count)];
        let is_durable = self.wanted.routes[index] == Some(Delivery::Durable);
        assert_eq!(durable.is_some(), is_durable);
        let first = match durable {
            Some(outlet) => durable::publish(store, outlet, messages, 1).await.unwrap(),
            None => bus
                .publish_batch(&mut cache, &name(), outlet, messages, 1)
                .unwrap(),
        };
        let last = &mut self.last[index];
        assert!(first > *last, "{outlet}: {first} after {last}");
        *last = first + u64::from(count) - 1;
    }

    /// What no agent does: the disk, and whoever has root.
    fn tamper(&mut self, step: &Step) {
        match step {
            Step::Copy => {
                let read = |file| Some((file, std::fs::read(self.path().join(file)).ok()?));
                self.copy = Some(FILES.into_iter().filter_map(read).collect());
            }
            Step::Restore => {
                let Some(copy) = &self.copy else {
                    return;
                };
                for file in FILES {
                    let _ = std::fs::remove_file(self.path().join(file));
                }
                for (file, bytes) in copy {
                    std::fs::write(self.path().join(file), bytes).unwrap();
                }
            }
            Step::Damage => {
                let database = rusqlite::Connection::open(self.path().join("agent.db")).unwrap();
                database
                    .execute_batch("DELETE FROM batch; UPDATE log SET head = 0, sequence = 0;")
                    .unwrap();
                drop(database);
                set_aside(self.path(), "the newest pages are damaged").unwrap();
            }
            _ => {}
        }
    }
}

impl Running {
    fn with((store, thread): (Store, StoreThread)) -> Self {
        Self {
            store,
            thread,
            registry: Registry::default(),
            numbers: Numbers::default(),
            bus: Bus::default(),
        }
    }

    async fn assign(&mut self, wanted: &Wanted) -> Overflow {
        let lives = Lives::of(&wanted.assignment());
        let over = self.store.follow_lives(lives.clone(), vec![]).await;
        let over = over.unwrap();
        self.store.follow_lives(lives, over).await.unwrap();
        self.open(wanted).await.unwrap()
    }

    async fn open(&mut self, wanted: &Wanted) -> anyhow::Result<Overflow> {
        let assignment = wanted.assignment();
        let (store, registry) = (&self.store, &mut self.registry);
        let opened = self.numbers.open_logs(store, registry, &assignment).await;
        let table = self.registry.compile(&assignment);
        self.bus.set_table(table);
        opened
    }

    async fn end(mut self, in_order: bool) {
        if in_order {
            self.numbers.end(&self.store, &self.registry).await;
        }
        let Self { store, thread, .. } = self;
        drop(store);
        thread.join();
    }
}

async fn play(steps: Vec<Step>) {
    let mut node = Node::new([Some(Delivery::Durable), Some(Delivery::Live)]);
    let mut running = node.start().await;
    for step in steps {
        match step {
            Step::Assign(wanted) => {
                running.assign(&wanted).await;
                node.wanted = wanted;
            }
            Step::Publish(outlet, count) => node.publish(&running, outlet, count).await,
            Step::Restart(in_order, wanted) => {
                running.end(in_order).await;
                node.wanted = wanted.unwrap_or(node.wanted);
                running = node.start().await;
            }
            Step::Copy | Step::Restore | Step::Damage => {
                running.end(true).await;
                node.tamper(&step);
                running = node.start().await;
            }
            Step::Day => {
                if node.wanted.life.is_none() {
                    for _ in 0..14 {
                        running.store.ages().pass(2 * 3_600_000);
                        running.store.follow_owners(vec![]).await.unwrap();
                    }
                }
            }
        }
    }
    running.end(true).await;
}

fn play_all(steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(play(steps));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn numbers_never_go_back(steps in proptest::collection::vec(step(), 1..24)) {
        play_all(steps);
    }
}

#[tokio::test]
async fn what_was_handled_does_not_go_with_its_route() {
    let mut node = Node::new([Some(Delivery::Durable), None]);
    let mut running = node.start().await;
    node.publish(&running, 0, 10).await;
    let mut cache = PortCache::default();
    let outlet = running.bus.durable_outlet(&mut cache, &name(), "a");
    let outlet = outlet.unwrap().unwrap();
    // The store does not know yet.
    outlet.durable[0].reader.advance(7);
    let mut wanted = node.wanted.clone();
    wanted.routes[0] = None;
    let discarded = running.assign(&wanted).await;
    assert_eq!((discarded.episodes, discarded.messages), (1, 3));
    running.end(true).await;
}

/// What was found, each the least that showed it.
#[test]
fn numbers_do_not_go_back_where_they_did() {
    let wanted = |life, a| Wanted {
        life,
        routes: [a, None],
    };
    let (live, durable) = (Some(Delivery::Live), Some(Delivery::Durable));
    let publish = || Step::Publish(0, 10);
    let elsewhere = || wanted(None, None);
    let cases = [
        // A log that goes with a restart.
        vec![publish(), Step::Restart(true, Some(wanted(Some(0), live)))],
        // An outlet that gets a log with a restart.
        vec![
            Step::Assign(wanted(Some(0), live)),
            publish(),
            Step::Restart(true, Some(wanted(Some(0), durable))),
        ],
        // It was away meanwhile.
        vec![
            Step::Assign(wanted(Some(0), live)),
            publish(),
            Step::Assign(elsewhere()),
            Step::Assign(wanted(Some(0), durable)),
        ],
        vec![
            publish(),
            Step::Assign(elsewhere()),
            Step::Restart(true, None),
            Step::Assign(wanted(Some(0), live)),
        ],
        // Its log goes, and the agent is killed before it has looked at the numbers again.
        vec![
            Step::Assign(Wanted {
                life: Some(0),
                routes: [None, durable],
            }),
            Step::Assign(elsewhere()),
            Step::Publish(1, 1),
            Step::Restart(false, None),
            Step::Publish(1, 1),
        ],
        // For a day.
        vec![
            publish(),
            Step::Assign(elsewhere()),
            Step::Day,
            Step::Restart(true, None),
            Step::Assign(wanted(Some(0), durable)),
        ],
        // Another life.
        vec![
            publish(),
            Step::Assign(elsewhere()),
            Step::Restart(true, None),
            Step::Assign(wanted(Some(17), live)),
        ],
        // An older copy of the database, in each way of delivery.
        vec![Step::Copy, publish(), Step::Restore],
        vec![
            Step::Assign(wanted(Some(0), live)),
            Step::Copy,
            publish(),
            Step::Restart(false, None),
            publish(),
            Step::Restore,
        ],
        // A database without its newest messages.
        vec![publish(), Step::Damage],
    ];
    for mut steps in cases {
        steps.push(publish());
        play_all(steps);
    }
}
