//! Clients of a site's relay: sessions of ours, and raw ones that say whatever a test wants.

use haar_relay::{DisconnectReason, Session, SessionEvent, SessionOptions};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::soon;

/// A session of ours, with its events.
pub(crate) struct Client {
    pub(crate) session: Session,
    pub(crate) events: mpsc::Receiver<SessionEvent>,
    pub(crate) stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Client {
    pub(crate) fn start(options: SessionOptions) -> Client {
        let (sender, events) = mpsc::channel(256);
        let stop = CancellationToken::new();
        let (session, task) = Session::start(options, sender, stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(task);
        Client {
            session,
            events,
            stop,
            tasks,
        }
    }

    pub(crate) async fn connected(options: SessionOptions) -> Client {
        let mut client = Client::start(options);
        assert_eq!(client.event().await, SessionEvent::Connected);
        client
    }

    pub(crate) async fn event(&mut self) -> SessionEvent {
        soon("an event", self.events.recv())
            .await
            .expect("the session goes on")
    }

    pub(crate) async fn disconnected(&mut self) -> DisconnectReason {
        loop {
            if let SessionEvent::Disconnected { reason } = self.event().await {
                return reason;
            }
        }
    }

    pub(crate) async fn reconnected(&mut self) {
        while self.event().await != SessionEvent::Connected {}
    }

    /// The next message: its topic, payload as text, and whether it was retained.
    pub(crate) async fn message(&mut self) -> (String, String, bool) {
        loop {
            if let SessionEvent::Message {
                topic,
                payload,
                retained,
            } = self.event().await
            {
                return (
                    topic,
                    String::from_utf8(payload.to_vec()).unwrap(),
                    retained,
                );
            }
        }
    }

    /// Skips messages until this one.
    pub(crate) async fn message_is(&mut self, topic: &str, payload: &str) {
        loop {
            let (next_topic, next_payload, _) = self.message().await;
            if (next_topic.as_str(), next_payload.as_str()) == (topic, payload) {
                return;
            }
        }
    }

    /// Cuts the connection as a power cut does: no DISCONNECT, and nobody to come back.
    pub(crate) async fn cut(mut self) {
        self.tasks.shutdown().await;
    }

    /// Waits for the session's end and returns what it still had to tell.
    pub(crate) async fn ended(mut self) -> Vec<SessionEvent> {
        soon("the end of the session", self.tasks.join_next()).await;
        let mut rest = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            rest.push(event);
        }
        rest
    }
}

/// A client of rumqttc's that says whatever the test wants.
pub(crate) struct RawClient {
    pub(crate) client: AsyncClient,
    events: mpsc::Receiver<Result<Event, ConnectionError>>,
    tasks: JoinSet<()>,
}

impl RawClient {
    /// Connects, and fails as the relay or the network says.
    pub(crate) async fn connect(options: MqttOptions) -> Result<RawClient, ConnectionError> {
        let (client, mut event_loop) = AsyncClient::new(options, 64);
        let (sender, events) = mpsc::channel(1024);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let event = event_loop.poll().await;
                let failed = event.is_err();
                if sender.send(event).await.is_err() || failed {
                    return;
                }
            }
        });
        let mut raw = RawClient {
            client,
            events,
            tasks,
        };
        raw.wait("CONNACK", |packet| {
            matches!(packet, Packet::ConnAck(ConnAck { .. })).then_some(())
        })
        .await?;
        Ok(raw)
    }

    /// The first incoming packet that `pick` wants.
    pub(crate) async fn wait<T>(
        &mut self,
        what: &str,
        pick: impl Fn(Packet) -> Option<T>,
    ) -> Result<T, ConnectionError> {
        loop {
            let event = soon(what, self.events.recv())
                .await
                .expect("the poller goes on");
            if let Event::Incoming(packet) = event?
                && let Some(picked) = pick(packet)
            {
                return Ok(picked);
            }
        }
    }

    /// What the relay answers to a publish with QoS 1.
    pub(crate) async fn publish(
        &mut self,
        topic: &str,
        payload: &str,
        retain: bool,
    ) -> PubAckReason {
        self.client
            .publish(topic, QoS::AtLeastOnce, retain, payload.to_owned())
            .await
            .unwrap();
        let acknowledged = |packet| match packet {
            Packet::PubAck(answer) => Some(answer.reason),
            _ => None,
        };
        self.wait("PUBACK", acknowledged).await.unwrap()
    }

    /// What the relay answers to a subscription.
    pub(crate) async fn subscribe(&mut self, filter: &str) -> SubscribeReasonCode {
        self.client
            .subscribe(filter, QoS::AtLeastOnce)
            .await
            .unwrap();
        let acknowledged = |packet| match packet {
            Packet::SubAck(answer) => Some(answer.return_codes[0]),
            _ => None,
        };
        self.wait("SUBACK", acknowledged).await.unwrap()
    }

    /// Waits for the end of the connection.
    pub(crate) async fn ended(&mut self) -> ConnectionError {
        self.wait("the end of the connection", |_| None::<()>)
            .await
            .unwrap_err()
    }

    /// Cuts the connection without a DISCONNECT.
    pub(crate) async fn cut(mut self) {
        self.tasks.shutdown().await;
    }
}
