//! A publisher and a subscriber without nodes behind them: two sessions of `haar_relay`, QoS 1 both
//! ways, over any broker, with nothing stored and nothing sealed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use haar_protocol::topics::{Topic, link_subscriptions};
use haar_relay::{
    Credentials, Endpoint, Identity, Outgoing, Session, SessionEvent, SessionOptions,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::broker::Mosquitto;
use crate::node::Node;
use crate::site::Site;

const BODY_BYTES_MIN: usize = 8;

/// Two sessions that are connected to the same broker.
pub struct Pair {
    publisher: Arc<Session>,
    received: mpsc::Receiver<SessionEvent>,
    topic: String,
    _publisher_events: mpsc::Receiver<SessionEvent>,
    _tasks: JoinSet<()>,
}

impl Pair {
    /// Over the embedded relay of the site, or over a Mosquitto.
    pub async fn connect(site: &Site, broker: Option<&Mosquitto>) -> Self {
        let (from, to) = (Node::enrol(site, "from"), Node::enrol(site, "to"));
        let mut tasks = JoinSet::new();
        let mut connect = |node: &Node, subscriptions: Vec<String>| {
            let url = broker.map_or_else(|| site.relay_url(), Mosquitto::url);
            let mut identity = Identity::of_key(node.id.to_string(), site.id(), node.key.clone());
            if broker.is_some() {
                identity.credentials = Credentials::Anonymous;
            }
            let options = SessionOptions {
                endpoint: Endpoint::parse(&url, None).unwrap(),
                identity,
                will: None,
                subscriptions,
                queue_messages: 64,
            };
            let (events, received) = mpsc::channel(1_024);
            let (session, task) = Session::start(options, events, CancellationToken::new());
            tasks.spawn(task);
            (session, received)
        };
        let subscriptions = link_subscriptions(&site.id(), &to.id);
        let (_, mut received) = connect(&to, subscriptions);
        let (publisher, mut publisher_events) = connect(&from, vec![]);
        for events in [&mut received, &mut publisher_events] {
            assert_eq!(events.recv().await, Some(SessionEvent::Connected));
        }
        let (from, to) = (from.id.clone(), to.id.clone());
        Self {
            publisher: Arc::new(publisher),
            received,
            topic: Topic::Link { from, to }.text(&site.id()),
            _publisher_events: publisher_events,
            _tasks: tasks,
        }
    }

    /// Messages per second, as fast as they go.
    pub async fn rate(&mut self, messages: usize, size: usize) -> f64 {
        let (times, took) = self.run(messages, size, None).await;
        times.len() as f64 / took.as_secs_f64()
    }

    /// What each of so many messages took, sorted, with a pause between two of them.
    pub async fn latencies(&mut self, messages: usize, pause: Duration) -> Vec<Duration> {
        let (mut times, _) = self.run(messages, 64, Some(pause)).await;
        times.sort_unstable();
        times
    }

    async fn run(
        &mut self,
        messages: usize,
        size: usize,
        pause: Option<Duration>,
    ) -> (Vec<Duration>, Duration) {
        let began = Instant::now();
        let (publisher, topic) = (Arc::clone(&self.publisher), self.topic.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut ticks = pause.map(tokio::time::interval);
            let mut body = vec![b'x'; size.max(BODY_BYTES_MIN)];
            for _ in 0..messages {
                if let Some(ticks) = &mut ticks {
                    ticks.tick().await;
                }
                let now = began.elapsed().as_nanos() as u64;
                body[..BODY_BYTES_MIN].copy_from_slice(&now.to_be_bytes());
                let outgoing = Outgoing {
                    topic: topic.clone(),
                    payload: body.clone().into(),
                    at_least_once: true,
                    retain: false,
                };
                publisher.publish(outgoing).await.unwrap();
            }
        });
        let mut times = Vec::with_capacity(messages);
        while times.len() < messages {
            let event = self.received.recv().await.unwrap();
            let SessionEvent::Message { payload, .. } = event else {
                panic!("{event:?}");
            };
            let sent = u64::from_be_bytes(payload[..BODY_BYTES_MIN].try_into().unwrap());
            times.push(began.elapsed() - Duration::from_nanos(sent));
        }
        let took = began.elapsed();
        tasks.join_all().await;
        (times, took)
    }
}
