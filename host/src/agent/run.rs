//! The owner of the control state: waits for events, hands them to the state, carries out its
//! effects, reports. Sockets and timers live on this thread; guests never do.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use haar_protocol::assignment::MicroserviceName;
use haar_protocol::keys::SecretKey;
use haar_protocol::quantity::ByteSize;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Event;
use super::assigning::Held;
use super::connecting::Start;
use super::connection::{Account, jitter, sleep_until};
use super::devices::{self, Devices};
use super::ending::{Ended, store_ended};
use super::flash::Flash;
use super::housekeeping::{self, Kept};
use super::links::{Doors, Intake, Links, Means};
use super::log_shipper::LogShipper;
use super::node::Node;
use super::numbers::Numbers;
use super::relays::{Relays, Uplink};
use super::reports::Reports;
use super::requests::{Desk, QUEUE_REQUESTS};
use super::serving::Serving;
use crate::accept::Allegiance;
use crate::bus::Bus;
use crate::config::{Location, Precompiled};
use crate::controller::{Controller, Credentials};
use crate::identity::{LinkSecret, Membership};
use crate::local_api::state::now_ms;
use crate::logs::Logs;
use crate::modules::Modules;
use crate::modules::code::CodeSources;
use crate::modules::compile::Compiler;
use crate::policy::Policy;
use crate::runtime::GuestRuntime;
use crate::runtime::instance::Exit;
use crate::runtime::mappings;
use crate::runtime::surroundings::Surroundings;
use crate::service_manager::ServiceManager;
use crate::store::Store;

/// Events that may wait for the control loop.
const EVENTS_MAX: usize = 256;
/// Modules that are prepared at the same time.
const PREPARING_MAX: usize = 2;
/// A change is reported after this pause, together with what else changes meanwhile.
const REPORT_PAUSE: Duration = Duration::from_millis(20);

/// What an agent is started with.
#[derive(Debug)]
pub struct Options {
    /// What it knows of its site.
    pub membership: Membership,
    /// Its key.
    pub key: SecretKey,
    /// Its secret for links.
    pub link_secret: LinkSecret,
    /// A status is sent at least so often.
    pub status_interval: Duration,
    /// Threads for guests.
    pub guest_threads: usize,
    /// Where the device stands.
    pub location: Option<Location>,
    /// Bytes that a day should write to the flash at most.
    pub flash_budget: Option<ByteSize>,
    /// Who compiles modules on this node.
    pub compiler: Compiler,
    /// What it thinks of code that its site's controller has compiled.
    pub precompiled: Precompiled,
    /// What the owner of the device allows.
    pub policy: Arc<Policy>,
    /// How often an instance looks whether its granted directories have changed.
    pub look_pause: Duration,
}

/// The agent with everything that it owns.
pub struct Agent {
    pub(super) node: Node,
    pub(super) options: Options,
    pub(super) started_ms: u64,
    pub(super) began: Instant,
    pub(super) start: Start,
    pub(super) store: Store,
    pub(super) reports: Reports,
    pub(super) surroundings: Arc<Surroundings>,
    pub(super) logs: Arc<Logs>,
    pub(super) runtime: Arc<GuestRuntime>,
    pub(super) modules: Arc<Modules>,
    pub(super) controller: Controller,
    pub(super) relays: Relays,
    pub(super) serving: Serving,
    pub(super) uplink: Uplink,
    pub(super) links: Links,
    pub(super) devices: Devices,
    pub(super) connected: watch::Receiver<bool>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) received: mpsc::Receiver<Event>,
    pub(super) instances: JoinSet<Exit>,
    pub(super) instance_names: HashMap<tokio::task::Id, (MicroserviceName, u64)>,
    pub(super) runs: u64,
    pub(super) work: JoinSet<()>,
    pub(super) preparing: Arc<Semaphore>,
    pub(super) report_at: Instant,
    pub(super) flash: Flash,
    pub(super) diagnosed: Option<Instant>,
    /// Whose data is kept.
    pub(super) kept: watch::Sender<Option<Kept>>,
    /// The logs of durable routes could not be opened.
    pub(super) lacks_logs: bool,
    /// An assignment that was good and could not be stored.
    pub(super) unstored: Option<Bytes>,
    /// An assignment in force of which a part waits for the end of these instances.
    pub(super) ending: Option<(Bytes, Held)>,
    pub(super) numbers: Numbers,
    /// Its data directory.
    pub(super) data: PathBuf,
    /// When its database began to fail; none while it works.
    pub(super) store_since: Option<u64>,
    /// The least generation of its key for links that the site wants.
    pub(super) link_key_generation: u64,
    /// After which assignment pages of the program were given back, and how often.
    pub(super) pages_given_back: (Option<u64>, u8),
}

impl Agent {
    /// Builds the agent and puts its last assignment in force: no network is needed for that.
    ///
    /// # Errors
    /// When the store can't be read, or the machine can't run guests.
    pub async fn start(data: &Path, options: Options, store: Store) -> anyhow::Result<Self> {
        let membership = &options.membership;
        let controller = Controller::new(&membership.controller, &membership.ca_pem)?;
        let credentials = Credentials {
            site: membership.site.clone(),
            node: membership.node.clone(),
            key: options.key.clone(),
        };
        let modules = Modules::open(
            data,
            controller.clone(),
            credentials,
            CodeSources {
                compiler: options.compiler.clone(),
                precompiled_by: match options.precompiled {
                    Precompiled::Accept => Some(membership.site_key),
                    Precompiled::Refuse => None,
                },
            },
            Arc::clone(&options.policy),
        )?;
        let runtime = GuestRuntime::new(options.guest_threads)?;
        let allegiance = Allegiance {
            site: membership.site.clone(),
            site_key: membership.site_key,
            node: membership.node.clone(),
            budget: membership.budget.clone(),
            mappings: mappings::allowed(),
        };
        let (bus, logs): (Arc<Bus>, Arc<Logs>) = Default::default();
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let (connected_sender, connected) = watch::channel(false);
        let table = Arc::new(watch::Sender::default());
        let mut work = JoinSet::new();
        let (requests, asked) = mpsc::channel(QUEUE_REQUESTS);
        let doors: Arc<Doors> = Arc::default();
        let intake = Intake {
            site: membership.site.clone(),
            node: membership.node.clone(),
            bus: Arc::clone(&bus),
            table: Arc::clone(&table),
            connected: Arc::new(connected_sender),
            events: events.clone(),
            requests,
            doors: Arc::clone(&doors),
        };
        let account = Account::new(membership, &options.key);
        let devices = Devices::new(devices::Means {
            account: account.clone(),
            bus: Arc::clone(&bus),
            store: store.clone(),
            events: events.clone(),
        });
        let serving = Serving::new(account.clone(), &data.join("relays"));
        let relays = Relays::start(account, intake, table)?;
        let uplink = relays.uplink();
        let (site, node) = (membership.site.clone(), membership.node.clone());
        let desk = Desk {
            site: site.clone(),
            site_key: membership.site_key,
            node: node.clone(),
            key: options.key.clone(),
            store: store.clone(),
            uplink: uplink.clone(),
            events: events.clone(),
        };
        work.spawn(desk.serve(asked));
        let shipper = LogShipper::new(&site, &node, Arc::clone(&logs), uplink.clone());
        work.spawn(shipper.ship(connected.clone()));
        let surroundings = Arc::new(Surroundings {
            bus,
            store: store.clone(),
            private_directories: data.join("private"),
            measurements: Arc::default(),
            policy: Arc::clone(&options.policy),
            look_pause: options.look_pause,
            facts: ArcSwap::default(),
        });
        let began = Instant::now();
        let means = Means {
            site,
            node,
            relays: relays.table(),
            bus: Arc::clone(&surroundings.bus),
            store: store.clone(),
            secret: options.link_secret.clone(),
            began,
            doors,
        };
        let mut agent = Self {
            node: Node::new(allegiance, Arc::clone(&logs)),
            started_ms: now_ms(),
            began,
            start: Start::default(),
            flash: Flash::new(options.flash_budget, now_ms()),
            links: Links::new(means),
            devices,
            options,
            store,
            reports: Reports::default(),
            surroundings,
            logs,
            runtime,
            modules,
            controller,
            relays,
            serving,
            uplink,
            connected,
            events,
            received,
            instances: JoinSet::new(),
            instance_names: HashMap::new(),
            runs: 0,
            work,
            preparing: Arc::new(Semaphore::new(PREPARING_MAX)),
            report_at: Instant::now(),
            diagnosed: None,
            kept: watch::Sender::default(),
            lacks_logs: false,
            unstored: None,
            ending: None,
            numbers: Numbers::default(),
            data: data.to_owned(),
            store_since: None,
            link_key_generation: 0,
            pages_given_back: (None, 0),
        };
        agent.keep_house();
        agent.resume().await;
        Ok(agent)
    }

    /// Starts what looks after the data of microservices, beside the loop.
    fn keep_house(&mut self) {
        let (bus, wakes) = (
            Arc::clone(&self.surroundings.bus),
            self.node.registry.wakes(),
        );
        self.work.spawn(housekeeping::store_histories(
            bus,
            self.store.clone(),
            wakes,
        ));
        let bases = self.node.registry.logs.bases();
        self.work
            .spawn(housekeeping::store_bases(bases, self.store.clone()));
        self.work.spawn(housekeeping::delete_unowned(
            Arc::clone(&self.surroundings),
            self.kept.subscribe(),
        ));
    }

    /// Runs until `stop` is cancelled, or the database is another one than it began with; then stops
    /// everything in order.
    pub async fn run(
        mut self,
        stop: CancellationToken,
        mut service_manager: ServiceManager,
    ) -> Ended {
        let mut health = self.store.health();
        let ended = loop {
            let wake = self.node.wake();
            tokio::select! {
                () = stop.cancelled() => break Ended::Stopped,
                ended = store_ended(&mut health) => break ended,
                Some(event) = self.received.recv() => {
                    service_manager.wait_for_disk(pin!(self.apply(event))).await;
                }
                Some(ended) = self.instances.join_next_with_id(), if !self.instances.is_empty() => {
                    self.ended(ended);
                    service_manager.wait_for_disk(pin!(self.end_lives())).await;
                }
                () = sleep_until(wake) => {
                    let effects = self.node.woken(Instant::now(), now_ms());
                    self.perform(effects);
                }
                () = tokio::time::sleep_until(self.report_at) => {
                    service_manager.wait_for_disk(pin!(self.report())).await;
                }
                () = sleep_until(self.numbers.wake()) => {
                    let registry = &self.node.registry;
                    let reserved = self.numbers.reserve(&self.store, registry);
                    service_manager.wait_for_disk(pin!(reserved)).await;
                }
                () = sleep_until(service_manager.wake()) => {} // told below, as after every turn
            }
            while self.work.try_join_next().is_some() {} // finished side work
            self.report_changes_soon();
            service_manager.turned(Instant::now());
        };
        service_manager.stopping();
        self.shut_down().await;
        ended
    }

    /// A change is reported after a short pause, where there is somebody to report it to.
    fn report_changes_soon(&mut self) {
        if self.node.changed && *self.connected.borrow() {
            let soon = self.reports.next_after_change(Instant::now(), REPORT_PAUSE);
            self.report_at = self.report_at.min(soon);
        }
    }

    async fn apply(&mut self, event: Event) {
        match event {
            Event::Assignment(envelope) => self.assignment(&envelope).await,
            Event::Connected(relay) => self.connected_to(relay),
            Event::Disconnected(relay, reason) => self.disconnected(relay, &reason),
            Event::Prepared(spec, outcome) => {
                let effects =
                    self.node
                        .prepared(&spec, outcome, Instant::now(), now_ms(), jitter());
                self.perform(effects);
            }
            Event::Answered(name, run) => {
                let effects = self.node.answered(&name, run, Instant::now(), now_ms());
                self.perform(effects);
            }
            Event::Replay(letter, answer) => {
                let _ = answer.send(self.node.replay(*letter)); // or who asked is gone
            }
            Event::Changed => self.node.changed = true,
        }
    }

    pub(super) fn ended(&mut self, ended: Result<(tokio::task::Id, Exit), tokio::task::JoinError>) {
        let (id, exit) = match ended {
            Ok((id, exit)) => (id, exit),
            Err(error) => {
                let why = if error.is_panic() {
                    "the agent failed while it ran: a bug"
                } else {
                    "it was ended"
                };
                (error.id(), Exit::NotStartable(why.to_owned()))
            }
        };
        let Some((name, run)) = self.instance_names.remove(&id) else {
            return;
        };
        let effects = self
            .node
            .exited(&name, run, &exit, Instant::now(), now_ms(), jitter());
        self.perform(effects);
    }
}
