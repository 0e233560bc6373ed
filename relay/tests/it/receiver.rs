//! A session for plain MQTT devices, as its owner has it.

use std::time::Duration;

use haar_protocol::mqtt::Retained;
use haar_relay::{
    DeviceEvent, DeviceMessage, DeviceOptions, DeviceSession, DeviceSubscription, DeviceWants,
    Former,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::scripted::Scripted;
use crate::support::soon;

/// A session that wants everything at least once.
pub(crate) struct Receiver {
    pub(crate) session: DeviceSession,
    pub(crate) events: mpsc::Receiver<DeviceEvent>,
    tasks: JoinSet<()>,
}

/// What a session wants that subscribes for one receiver.
pub(crate) fn wants(filters: &[&str]) -> DeviceWants {
    let subscriptions = filters.iter().map(|filter| DeviceSubscription {
        filter: filter.parse().unwrap(),
        at_least_once: true,
        retained: Retained::First,
        receivers: [1].into(),
    });
    DeviceWants {
        subscriptions: subscriptions.collect(),
        expiry_s: 3_600,
        will: None,
    }
}

impl Receiver {
    pub(crate) fn start(broker: &Scripted) -> Self {
        Self::start_with(broker, &["plant/#"])
    }

    pub(crate) fn start_with(broker: &Scripted, filters: &[&str]) -> Self {
        let options = DeviceOptions {
            endpoint: broker.endpoint(),
            identity: Scripted::identity(),
            former: None,
            begins_clean: false,
        };
        Self::start_as(options, wants(filters))
    }

    /// One of an agent that takes over the session of another one.
    pub(crate) fn start_after(broker: &Scripted, former: &str, silence: Duration) -> Self {
        let options = DeviceOptions {
            endpoint: broker.endpoint(),
            identity: Scripted::identity(),
            former: Some(Former {
                identity: Scripted::identity_of(former),
                silence,
            }),
            begins_clean: false,
        };
        Self::start_as(options, wants(&["plant/#"]))
    }

    pub(crate) fn start_as(options: DeviceOptions, wants: DeviceWants) -> Self {
        let (sender, events) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let (session, task) = DeviceSession::start(options, wants, sender, stop);
        let mut tasks = JoinSet::new();
        tasks.spawn(task);
        Self {
            session,
            events,
            tasks,
        }
    }

    pub(crate) async fn event(&mut self) -> DeviceEvent {
        let event = soon("an event", self.events.recv()).await;
        event.expect("the session goes on")
    }

    pub(crate) async fn message(&mut self) -> DeviceMessage {
        loop {
            if let DeviceEvent::Message(message) = self.event().await {
                return message;
            }
        }
    }

    pub(crate) async fn end(self) {
        self.session.close();
        self.ended().await;
    }

    pub(crate) async fn ended(mut self) {
        drop(self.events);
        soon("the end of the session", self.tasks.join_next()).await;
    }
}
