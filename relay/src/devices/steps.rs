//! What a session for devices asks of its broker on a connection, one thing at a time, until the
//! subscriptions there are as they are wanted. The driver asks for the next step after each event.

use haar_protocol::mqtt::{Retained, TopicFilter};
use rumqttc::v5::mqttbytes::v5::RetainForwardRule;
use tokio::time::{Duration, Instant};

use super::driver::Driver;
use super::former::Phase;
use super::open::Open;
use super::poller::Terms;
use super::{DeviceEvent, DeviceSubscription};

/// Subscriptions that were refused are asked for again after this time.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// What is asked of the broker, one thing at a time.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Subscribe(DeviceSubscription),
    Unsubscribe(TopicFilter),
}

impl Driver {
    /// Asks the next thing of the broker, or says goodbye. Packet ids of subscriptions come from
    /// rumqttc's ring, so that nothing may be on its way then.
    pub(super) async fn advance(&mut self, open: &mut Open) {
        if !open.window.is_empty() || open.terms.is_none() {
            return;
        }
        if open.deadline.is_some() {
            if self.submitted.is_empty() && self.given.is_empty() && open.acknowledging == 0 {
                open.disconnect();
            }
            return;
        }
        while open.asked.is_none() {
            let Some(step) = self.step(open) else {
                return;
            };
            open.asked = Some(step.clone());
            let asked = match &step {
                Step::Subscribe(one) => {
                    let why = open.terms.and_then(|terms| forbidden(&terms, &one.filter));
                    if let Some(why) = why {
                        self.subscribed(open, Err(why.to_owned())).await;
                        continue;
                    }
                    let numbers = open.terms.is_some_and(|terms| terms.numbers_subscriptions);
                    let rule = match self.phase {
                        Phase::Preparing => RetainForwardRule::Never,
                        _ => forward_rule(one, self.held(open, &one.filter)),
                    };
                    open.subscribe(one, rule, numbers && self.numbers_subscriptions)
                }
                Step::Unsubscribe(filter) => open.client.try_unsubscribe(filter.as_str()).is_ok(),
            };
            if !asked {
                tracing::debug!("the connection ended before a subscription");
            }
        }
    }

    /// The subscription that the broker's session holds, as far as is known.
    fn held<'a>(&'a self, open: &'a Open, filter: &TopicFilter) -> Option<&'a DeviceSubscription> {
        let mut held = open.subscribed.iter().chain(&self.known);
        held.find(|one| &one.filter == filter)
    }

    /// A receiver that is gone counts as new when it comes back.
    pub(super) fn let_go(&mut self, subscribed: &mut [DeviceSubscription]) {
        let wants = self.wanted.borrow();
        for held in subscribed.iter_mut().chain(&mut self.known) {
            let mut wanted = wants.subscriptions.iter();
            if let Some(wanted) = wanted.find(|one| one.filter == held.filter) {
                held.receivers.retain(|one| wanted.receivers.contains(one));
            }
        }
    }

    /// What the broker's subscriptions lack to be as they are wanted.
    pub(super) fn step(&self, open: &Open) -> Option<Step> {
        let wants = self.wanted.borrow();
        let wanted = &wants.subscriptions;
        match self.phase {
            Phase::Looking => return None,
            Phase::Draining => return open.leaving.first().cloned().map(Step::Unsubscribe),
            Phase::Preparing | Phase::Own | Phase::Before => {}
        }
        let is_wanted = |filter: &TopicFilter| wanted.iter().any(|one| &one.filter == filter);
        let held = open.subscribed.iter().chain(&self.known);
        let mut held = held.map(|one| &one.filter);
        if let Some(filter) = held.find(|filter| !is_wanted(filter)) {
            return Some(Step::Unsubscribe(filter.clone()));
        }
        if open.silent_at.is_some() {
            return None;
        }
        let is_missing = |one: &&DeviceSubscription| {
            !open.subscribed.iter().any(|held| held.serves(one)) && !open.refused.contains(one)
        };
        wanted.iter().find(is_missing).cloned().map(Step::Subscribe)
    }

    pub(super) async fn subscribed(&mut self, open: &mut Open, granted: Result<bool, String>) {
        let Some(Step::Subscribe(subscription)) = open.asked.take() else {
            return;
        };
        let filter = subscription.filter.clone();
        open.subscribed.retain(|one| one.filter != filter);
        let problem = match granted {
            Ok(at_least_once) => {
                let is_less = subscription.at_least_once && !at_least_once;
                open.subscribed.push(subscription);
                is_less
                    .then(|| "it sends with QoS 0 only: what it can't deliver is lost".to_owned())
            }
            Err(why) => {
                open.refused.push(subscription);
                open.again_at = Some(Instant::now() + REFUSED_PAUSE);
                Some(format!(
                    "it refuses the subscription, which is tried again each minute: {why}"
                ))
            }
        };
        if self.phase.is_announced() {
            let event = DeviceEvent::Subscribed { filter, problem };
            drop(self.events.send(event).await);
        }
    }
}

/// When the broker sends what it retains for a subscription, of which it may hold an earlier form.
fn forward_rule(
    wanted: &DeviceSubscription,
    held: Option<&DeviceSubscription>,
) -> RetainForwardRule {
    let is_for_somebody_new =
        held.is_some_and(|held| !held.receivers.is_superset(&wanted.receivers));
    match wanted.retained {
        Retained::EachConnection => RetainForwardRule::OnEverySubscribe,
        Retained::First if is_for_somebody_new => RetainForwardRule::OnEverySubscribe,
        Retained::First => RetainForwardRule::OnNewSubscribe,
        Retained::None | Retained::ClearOnDelete => RetainForwardRule::Never,
    }
}

/// Why the broker does not take a subscription, if it says so beforehand: some end the connection
/// over it.
fn forbidden(terms: &Terms, filter: &TopicFilter) -> Option<&'static str> {
    if !terms.takes_shared && filter.group().is_some() {
        Some("it does not take shared subscriptions")
    } else if !terms.takes_wildcards && filter.as_str().contains(['+', '#']) {
        Some("it does not take wildcards")
    } else {
        None
    }
}
