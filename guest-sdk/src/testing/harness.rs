//! The harness: the agent's side of the contract, in a test's hands.

use std::collections::BTreeMap;

use super::world::{SharedWorld, Timer, enter};
use super::{LogLine, Measurements, Published};
use crate::message::{Message, Rejection};
use crate::microservice::Microservice;
use crate::node::Facts;
use crate::publish::PublishError;

/// One microservice under test, with everything around it. Starts the microservice before the first
/// other call unless [`start`](Self::start) was called. Several may live at one time, in one test.
///
/// ```
/// use haar_guest::testing::{Harness, message};
/// use haar_guest::{Message, Microservice, Rejection, publish};
///
/// #[derive(Default)]
/// struct Echo;
///
/// impl Microservice for Echo {
///     fn handle(&mut self, message: Message) -> Result<(), Rejection> {
///         publish("out", &message.body, &[])?;
///         Ok(())
///     }
/// }
///
/// let mut harness = Harness::<Echo>::new();
/// harness.deliver(message("in", "hello")).unwrap();
/// assert_eq!(harness.published()[0].text(), "hello");
/// ```
#[derive(Debug, Default)]
pub struct Harness<S> {
    service: Option<S>,
    world: SharedWorld,
}

impl<S: Microservice> Harness<S> {
    /// A harness around a microservice that has not started.
    pub fn new() -> Self {
        Self {
            service: None,
            world: SharedWorld::default(),
        }
    }

    /// Sets a configuration value before the start. To change one later: [`reconfigure`](Self::reconfigure).
    #[must_use]
    pub fn configure(self, key: &str, value: &str) -> Self {
        self.world
            .borrow_mut()
            .configuration
            .insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets what the microservice sees of its node, before the start or later. Without it the node
    /// is `node-1` of a site `s-test`, with no labels. Its uptime is the time that ticks let pass.
    pub fn set_node(&mut self, facts: Facts) {
        self.world.borrow_mut().facts = facts;
    }

    /// Sets whether the node's clock is synchronised. It is, without this.
    pub fn set_clock_synchronised(&mut self, synchronised: bool) {
        self.world.borrow_mut().clock_synchronised = synchronised;
    }

    /// Sets what the node measures, before the start or later. Nothing is granted without this.
    pub fn set_measurements(&mut self, measurements: Measurements) {
        self.world.borrow_mut().measurements = measurements;
    }

    /// Starts the microservice.
    ///
    /// # Panics
    /// When it has started already.
    pub fn start(&mut self) -> Result<(), String> {
        assert!(
            self.service.is_none(),
            "the microservice has started already"
        );
        enter(&self.world, || self.service.insert(S::default()).start())
    }

    /// Delivers one message.
    ///
    /// # Panics
    /// When the microservice had not started, and its start fails.
    pub fn deliver(&mut self, message: Message) -> Result<(), Rejection> {
        self.world.borrow_mut().remember_delivered(&message);
        self.call(|service| service.handle(message))
    }

    /// Lets the timer `name` run out: on time, and with no tick missed.
    ///
    /// # Panics
    /// When no timer of this name is set.
    pub fn tick(&mut self, name: &str) -> Result<(), String> {
        self.tick_late(name, 0)
    }

    /// Lets the timer `name` run out after `missed` ticks that passed unseen.
    ///
    /// # Panics
    /// When no timer of this name is set.
    pub fn tick_late(&mut self, name: &str, missed: u32) -> Result<(), String> {
        self.ensure_started();
        let tick = self.world.borrow_mut().run_out(name, missed);
        self.call(|service| service.tick(tick))
    }

    /// Changes one configuration value and tells the microservice.
    pub fn reconfigure(&mut self, key: &str, value: &str) -> Result<(), String> {
        self.ensure_started();
        self.world
            .borrow_mut()
            .configuration
            .insert(key.to_owned(), value.to_owned());
        self.call(S::configuration_changed)
    }

    /// Stops the microservice. The next call starts a new one, with nothing kept but configuration,
    /// key-value data, histories, and the timers that were set to be kept.
    pub fn stop(&mut self) {
        self.call(S::stop);
        self.service = None;
        self.world.borrow_mut().forget_timers();
    }

    /// Makes every `publish` fail from now on, or none.
    pub fn refuse_publishing(&mut self, error: Option<PublishError>) {
        self.world.borrow_mut().refusal = error;
    }

    /// What was published since this was last asked.
    pub fn published(&mut self) -> Vec<Published> {
        std::mem::take(&mut self.world.borrow_mut().published)
    }

    /// What was logged since this was last asked.
    pub fn logs(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.world.borrow_mut().logs)
    }

    /// The timers that are set now.
    pub fn timers(&self) -> BTreeMap<String, Timer> {
        self.world.borrow().timers.clone()
    }

    /// Stores a pair in a bucket of the microservice's key-value store.
    #[must_use]
    pub fn store(self, bucket: &str, key: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref().to_vec();
        self.world
            .borrow_mut()
            .bucket(bucket)
            .insert(key.to_owned(), value);
        self
    }

    /// The pairs in a bucket of the microservice's key-value store.
    pub fn pairs(&self, bucket: &str) -> BTreeMap<String, Vec<u8>> {
        self.world.borrow_mut().bucket(bucket).clone()
    }

    fn ensure_started(&mut self) {
        if self.service.is_none()
            && let Err(error) = self.start()
        {
            panic!("the microservice did not start: {error}");
        }
    }

    fn call<R>(&mut self, call: impl FnOnce(&mut S) -> R) -> R {
        self.ensure_started();
        let service = self.service.as_mut().expect("it was started above");
        enter(&self.world, || call(service))
    }
}
