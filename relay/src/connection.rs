//! One network connection: its MQTT options, and the task that only polls rumqttc until the first
//! error. The session starts one per connection and publishes beside it.
//!
//! rumqttc's `poll` is not cancel-safe and its own reconnecting replays in the wrong order: so the
//! poll is never cancelled, and neither client nor event loop outlives its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use haar_protocol::ids::{Name, SiteId};
use haar_protocol::keys::SecretKey;
use haar_protocol::proof::{self, Audience, Claims};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectProperties, LastWill, LastWillProperties, Packet, PubAckReason, Publish,
    SubAck, SubscribeReasonCode,
};
use rumqttc::v5::{Event, EventLoop, MqttOptions};
use rumqttc::{NetworkOptions, TlsConfiguration, Transport};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::PACKET_BYTES_MAX;
use crate::clock::unix_time_ms;
use crate::reason::DisconnectReason;
use crate::session::{Credentials, Outgoing, SessionEvent, SessionOptions};
use crate::tls;

/// Packet ids, and with them publishes in flight: rumqttc allocates a slot for each.
pub(crate) const IN_FLIGHT_MAX: u16 = 16;
/// The longest silence of ours; a broker closes the connection after one and a half times as long.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Left free in every PUBLISH: a relay may add properties of its own (mqtt5 adds who published), and
/// drops silently what then exceeds the limit of the receiver.
const RELAY_BYTES: u32 = 1024;
/// For the TCP connection, the TLS handshake and the CONNACK together.
const CONNECT_TIMEOUT_S: u64 = 15;
/// How long a relay waits with the will, and keeps the dead session: a node whose address changed
/// comes back within it, and its new "online" is not followed by its own old "offline".
const WILL_DELAY_S: u32 = 2;

/// What the session's handles know of the connection. The poller writes, anybody reads.
#[derive(Debug)]
pub(crate) struct Liveness {
    connected: AtomicBool,
    connections: AtomicU64,
    packet_bytes_max: AtomicU32,
}

impl Liveness {
    pub(crate) fn new() -> Self {
        Self {
            connected: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            packet_bytes_max: AtomicU32::new(PACKET_BYTES_MAX),
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// The number of the current connection, or of the last.
    pub(crate) fn connection(&self) -> u64 {
        self.connections.load(Ordering::Acquire)
    }

    /// The largest PUBLISH that the relay takes and can pass on; before the first connection, by
    /// our own limit.
    pub(crate) fn publish_bytes_max(&self) -> usize {
        let packet_bytes_max = self.packet_bytes_max.load(Ordering::Acquire);
        usize::try_from(packet_bytes_max.saturating_sub(RELAY_BYTES)).unwrap_or(usize::MAX)
    }

    pub(crate) fn disconnected(&self) {
        self.connected.store(false, Ordering::Release);
    }

    fn connected(&self) {
        self.connections.fetch_add(1, Ordering::AcqRel);
        self.connected.store(true, Ordering::Release);
    }
}

/// What the poller tells the session, beside the events for the session's owner.
#[derive(Debug)]
pub(crate) enum Note {
    /// The relay accepted the identity; subscribe now.
    Accepted {
        /// How many packet ids rumqttc goes around with on this connection.
        packet_ids: u16,
    },
    /// The subscriptions stand; publish now.
    Ready,
    /// The next publish was written, under this packet id; 0 for one without PUBACK.
    Sent(u16),
    /// The relay has the publish with this packet id, or refused it for a reason.
    Acknowledged(u16, Option<PubAckReason>),
}

/// The MQTT options of one connection, with a fresh proof of identity.
///
/// # Errors
/// When the endpoint is unusable, or the system has no random bytes.
pub(crate) fn mqtt_options(options: &SessionOptions) -> Result<MqttOptions, DisconnectReason> {
    let (endpoint, identity) = (&options.endpoint, &options.identity);
    let unusable = |error: crate::RelayError| DisconnectReason::Tls(error.0);
    let mut mqtt = MqttOptions::new(&identity.client_id, &endpoint.host, endpoint.port);
    match &endpoint.tls {
        Some(trust) => {
            let config = tls::client_config(trust, &endpoint.host).map_err(unusable)?;
            let config = TlsConfiguration::Rustls(Arc::new(config));
            mqtt.set_transport(Transport::tls_with_config(config));
        }
        None => endpoint.check().map_err(unusable)?,
    }
    match &identity.credentials {
        Credentials::Proof { site, relay, key } => {
            let proof = fresh_proof(&identity.client_id, site, relay.as_ref(), key)?;
            mqtt.set_credentials(&identity.client_id, proof);
        }
        Credentials::Password { user, password } => drop(mqtt.set_credentials(user, password)),
        Credentials::Anonymous => {}
    }
    if let Some(will) = &options.will {
        mqtt.set_last_will(delayed_will(will));
    }
    let mut properties = ConnectProperties::new();
    properties.max_packet_size = Some(PACKET_BYTES_MAX);
    properties.receive_maximum = Some(IN_FLIGHT_MAX);
    properties.topic_alias_max = Some(0);
    properties.session_expiry_interval = options.will.as_ref().map(|_| WILL_DELAY_S);
    mqtt.set_connect_properties(properties);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    mqtt.set_network_options(network);
    mqtt.set_clean_start(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_connection_timeout(CONNECT_TIMEOUT_S)
        .set_outgoing_inflight_upper_limit(IN_FLIGHT_MAX);
    Ok(mqtt)
}

fn fresh_proof(
    client_id: &str,
    site: &SiteId,
    relay: Option<&Name>,
    key: &SecretKey,
) -> Result<String, DisconnectReason> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)
        .map_err(|error| DisconnectReason::Closed(format!("no random bytes: {error}")))?;
    let claims = Claims {
        audience: Audience::Relay,
        site: site.clone(),
        subject: client_id.to_owned(),
        issued_ms: unix_time_ms(),
        nonce: format!("{:032x}", u128::from_be_bytes(nonce)),
        relay: relay.cloned(),
    };
    Ok(proof::make(&claims, key))
}

fn delayed_will(will: &Outgoing) -> LastWill {
    LastWill {
        topic: will.topic.clone().into(),
        message: will.payload.clone(),
        qos: quality(will.at_least_once),
        retain: will.retain,
        properties: Some(LastWillProperties {
            delay_interval: Some(WILL_DELAY_S),
            payload_format_indicator: None,
            message_expiry_interval: None,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
        }),
    }
}

pub(crate) fn quality(at_least_once: bool) -> QoS {
    if at_least_once {
        QoS::AtLeastOnce
    } else {
        QoS::AtMostOnce
    }
}

/// Polls one connection from its first packet to its first error.
pub(crate) struct Poller {
    pub(crate) event_loop: EventLoop,
    pub(crate) subscriptions: Vec<String>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) notes: mpsc::Sender<Note>,
    pub(crate) events: mpsc::Sender<SessionEvent>,
    pub(crate) closing: CancellationToken,
}

impl Poller {
    /// Runs until the connection ends, and says why. When the owner of the events is slow, so is
    /// this connection (TCP holds the relay back), until the relay gives up on the pings.
    pub(crate) async fn run(mut self) -> DisconnectReason {
        let mut is_answered = false;
        loop {
            let event = match self.event_loop.poll().await {
                Ok(event) => event,
                Err(error) if is_answered => return error.into(),
                Err(error) => return DisconnectReason::from(error).without_answer(),
            };
            is_answered |= matches!(event, Event::Incoming(Packet::ConnAck(_)));
            if let Err(reason) = self.handle(event).await {
                return reason;
            }
        }
    }

    async fn handle(&mut self, event: Event) -> Result<(), DisconnectReason> {
        match event {
            Event::Incoming(Packet::ConnAck(answer)) => {
                let note = self.accept(&answer);
                self.note(note).await?;
                if self.subscriptions.is_empty() {
                    self.ready().await
                } else {
                    Ok(())
                }
            }
            Event::Incoming(Packet::SubAck(answer)) => {
                self.check_subscriptions(&answer)?;
                self.ready().await
            }
            Event::Incoming(Packet::Publish(publish)) => {
                self.ready().await?;
                self.receive(publish).await;
                Ok(())
            }
            Event::Incoming(Packet::PubAck(answer)) => {
                let refused = match answer.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
                    reason => Some(reason),
                };
                self.note(Note::Acknowledged(answer.pkid, refused)).await
            }
            Event::Outgoing(rumqttc::Outgoing::Publish(packet_id)) => {
                self.note(Note::Sent(packet_id)).await
            }
            _ => Ok(()),
        }
    }

    fn accept(&self, answer: &ConnAck) -> Note {
        let properties = answer.properties.as_ref();
        let packet_bytes_max = properties
            .and_then(|properties| properties.max_packet_size)
            .unwrap_or(PACKET_BYTES_MAX)
            .min(PACKET_BYTES_MAX);
        self.liveness
            .packet_bytes_max
            .store(packet_bytes_max, Ordering::Release);
        let packet_ids = properties
            .and_then(|properties| properties.receive_max)
            .unwrap_or(u16::MAX)
            .clamp(1, IN_FLIGHT_MAX);
        Note::Accepted { packet_ids }
    }

    fn check_subscriptions(&self, answer: &SubAck) -> Result<(), DisconnectReason> {
        let refused: Vec<String> = self
            .subscriptions
            .iter()
            .zip(&answer.return_codes)
            .filter(|(_, code)| !matches!(code, SubscribeReasonCode::Success(_)))
            .map(|(filter, code)| format!("`{filter}` ({code:?})"))
            .collect();
        if refused.is_empty() {
            Ok(())
        } else {
            Err(DisconnectReason::SubscriptionRefused(refused.join(", ")))
        }
    }

    /// Announces the connection, once. A relay may deliver before it acknowledges a subscription,
    /// and the owner must hear of the connection before its first message.
    async fn ready(&mut self) -> Result<(), DisconnectReason> {
        if self.liveness.is_connected() {
            return Ok(());
        }
        self.liveness.connected();
        self.emit(SessionEvent::Connected).await;
        self.note(Note::Ready).await
    }

    async fn receive(&mut self, publish: Publish) {
        let Ok(topic) = String::from_utf8(publish.topic.to_vec()) else {
            tracing::warn!("dropped a message whose topic is not UTF-8");
            return;
        };
        let (payload, retained) = (publish.payload, publish.retain);
        self.emit(SessionEvent::Message {
            topic,
            payload,
            retained,
        })
        .await;
    }

    /// Waits for room, but not while the session closes: then its owner may no longer read events.
    async fn emit(&mut self, event: SessionEvent) {
        tokio::select! {
            biased;
            sent = self.events.send(event) => drop(sent),
            () = self.closing.cancelled() => {}
        }
    }

    async fn note(&mut self, note: Note) -> Result<(), DisconnectReason> {
        let gone = |_| DisconnectReason::Closed("the session was dropped".into());
        self.notes.send(note).await.map_err(gone)
    }
}
