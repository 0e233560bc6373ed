//! The single trials of a check. Each leaves nothing behind that it has made at the broker.

use std::time::Duration;

use haar_protocol::rest::RelayFinding;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};

use super::link::{Broken, Link};
use super::{CheckOptions, QUEUED_MESSAGES, QUIET};
use crate::PACKET_BYTES_MAX;
use crate::connection::IN_FLIGHT_MAX;
use crate::devices::SESSION_EXPIRY_S;

/// How long a message of ours may take to come back.
const PATIENCE: Duration = Duration::from_secs(5);
/// Messages with which the window is tried.
const WINDOW_MESSAGES: usize = 40;
/// Bytes of a packet beside the payload of a trial, at most.
const PACKET_OVERHEAD_BYTES: usize = 256;

/// A finding of a trial that could not be ended.
fn broken(what: &str, why: Broken, means: &str) -> RelayFinding {
    RelayFinding::fails(what, why, means)
}

/// Publishes one message and takes it back; none when it does not come.
pub(super) async fn echoes(
    link: &mut Link,
    base: &str,
    quality: u8,
) -> Result<Option<Publish>, Broken> {
    let quality = match quality {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    };
    let topic = format!("{base}/echo");
    link.subscribe(&topic, quality).await?;
    link.publish(&topic, quality, false, "echo").await?;
    let message = link.message(PATIENCE).await?;
    link.unsubscribe(&topic).await?;
    Ok(message)
}

/// Messages of each quality of service.
pub(super) async fn qualities(link: &mut Link, base: &str) -> Vec<RelayFinding> {
    let mut findings = Vec::new();
    for (quality, what) in [(0, "QoS 0"), (1, "QoS 1"), (2, "QoS 2")] {
        let means = match quality {
            1 => "durable routes from and to topics, and Haar itself, need QoS 1",
            _ => "devices that publish with it are not heard",
        };
        findings.push(match echoes(link, base, quality).await {
            Ok(Some(message)) if message.qos as u8 == quality => {
                RelayFinding::works(what, "comes back")
            }
            Ok(Some(message)) => {
                let found = format!("comes back with QoS {}", message.qos as u8);
                RelayFinding::short(what, found, means)
            }
            Ok(None) => RelayFinding::fails(what, "does not come back", means),
            Err(why) => broken(what, why, means),
        });
    }
    findings
}

/// What MQTT 5 sends beside a message.
pub(super) async fn properties(link: &mut Link, base: &str) -> RelayFinding {
    let (what, means) = (
        "content type and user properties",
        "headers of messages do not pass",
    );
    let topic = format!("{base}/properties");
    let tried = async {
        link.subscribe(&topic, QoS::AtLeastOnce).await?;
        let properties = PublishProperties {
            content_type: Some("text/plain".to_owned()),
            user_properties: vec![("unit".to_owned(), "C".to_owned())],
            ..PublishProperties::default()
        };
        link.submit(&topic, QoS::AtLeastOnce, false, "21", properties.clone())?;
        let message = link.message(PATIENCE).await?;
        link.unsubscribe(&topic).await?;
        let passed = message.and_then(|message| message.properties);
        Ok::<_, Broken>(passed.is_some_and(|passed| {
            let properties = &properties.user_properties;
            let has_all = properties
                .iter()
                .all(|one| passed.user_properties.contains(one));
            has_all && passed.content_type.as_deref() == Some("text/plain")
        }))
    };
    match tried.await {
        Ok(true) => RelayFinding::works(what, "pass"),
        Ok(false) => RelayFinding::short(what, "do not pass", means),
        Err(why) => broken(what, why, means),
    }
}

/// A message that the broker keeps for later subscribers.
pub(super) async fn retained(link: &mut Link, base: &str) -> RelayFinding {
    let (what, means) = (
        "retained messages",
        "assignments reach only nodes that are connected, and `retain: true` of routes does nothing",
    );
    // RMQTT 0.24 keeps none of topics that begin with `$`.
    let plain = base.trim_start_matches('$');
    let tried = async {
        match keeps(link, base).await? {
            None if plain != base => keeps(link, plain).await,
            kept => Ok::<_, Broken>(kept),
        }
    };
    match tried.await {
        Ok(Some(message)) if message.retain => RelayFinding::works(what, "are kept"),
        Ok(Some(_)) => RelayFinding::short(
            what,
            "are kept, and not marked as such",
            "handlers get no header `mqtt-retained`",
        ),
        Ok(None) => RelayFinding::fails(what, "are not kept", means),
        Err(why) => broken(what, why, means),
    }
}

async fn keeps(link: &mut Link, base: &str) -> Result<Option<Publish>, Broken> {
    let topic = format!("{base}/retained");
    link.publish(&topic, QoS::AtLeastOnce, true, "kept").await?;
    let mut kept = None;
    // RMQTT acknowledges a message before a subscription finds it.
    for _ in 0..2 {
        link.subscribe(&topic, QoS::AtLeastOnce).await?;
        kept = link.message(QUIET).await?;
        link.unsubscribe(&topic).await?;
        if kept.is_some() {
            break;
        }
    }
    link.publish(&topic, QoS::AtLeastOnce, true, "").await?;
    Ok(kept)
}

/// A subscription that a group shares.
pub(super) async fn shared(link: &mut Link, base: &str) -> RelayFinding {
    let (what, means) = ("shared subscriptions", "routes from `$share/…` get nothing");
    // Mosquitto 2.0 shares no topics that begin with `$`: one message goes where others may hear it.
    let plain = base.trim_start_matches('$');
    let tried = async { Ok::<_, Broken>(shares(link, base).await? || shares(link, plain).await?) };
    match tried.await {
        Ok(true) => RelayFinding::works(what, "work"),
        Ok(false) => RelayFinding::short(what, "bring nothing", means),
        Err(why) => RelayFinding::short(what, why, means),
    }
}

async fn shares(link: &mut Link, base: &str) -> Result<bool, Broken> {
    let topic = format!("{base}/shared");
    let filter = format!("$share/haar-check/{topic}");
    link.subscribe(&filter, QoS::AtLeastOnce).await?;
    link.publish(&topic, QoS::AtLeastOnce, false, "one").await?;
    let message = link.message(QUIET).await?;
    link.unsubscribe(&filter).await?;
    Ok(message.is_some())
}

/// The largest message that passes, of a few sizes. Each on a connection of its own: a broker may end
/// one over it.
pub(super) async fn size(options: &CheckOptions, base: &str) -> RelayFinding {
    let what = "message size";
    let largest = PACKET_BYTES_MAX as usize - PACKET_OVERHEAD_BYTES;
    let mut why = String::new();
    for bytes in [largest, 512 << 10, 256 << 10, 128 << 10, 64 << 10, 16 << 10] {
        match passes(options, base, bytes).await {
            Ok(true) if bytes == largest => return RelayFinding::works(what, "1 MiB passes"),
            Ok(true) => {
                let found = format!("{} KiB pass, and not twice as many", bytes >> 10);
                return RelayFinding::short(what, found, SIZE_MEANS);
            }
            Ok(false) => {}
            Err(broken) => why = broken,
        }
    }
    RelayFinding::fails(
        what,
        format!("16 KiB do not pass {why}").trim_end(),
        SIZE_MEANS,
    )
}

const SIZE_MEANS: &str =
    "larger messages do not: set the broker's limit to 1 MiB (Mosquitto: `max_packet_size`)";

async fn passes(options: &CheckOptions, base: &str, bytes: usize) -> Result<bool, Broken> {
    let topic = format!("{base}/size");
    let [one, _] = &options.clients;
    let opened = Link::open(&options.endpoint, one, true, 0).await;
    let (mut link, _) = opened.map_err(|reason| reason.to_string())?;
    if bytes + PACKET_OVERHEAD_BYTES > link.packet_bytes_max {
        return Ok(false);
    }
    link.subscribe(&topic, QoS::AtLeastOnce).await?;
    let sent = link.publish(&topic, QoS::AtLeastOnce, false, vec![b'x'; bytes]);
    sent.await?;
    let message = link.message(PATIENCE).await?;
    link.close().await;
    Ok(message.is_some_and(|message| message.payload.len() == bytes))
}

/// Whether the broker keeps to the messages that a session takes unacknowledged.
pub(super) async fn receive_maximum(options: &CheckOptions, base: &str) -> RelayFinding {
    let what = "receive maximum";
    let topic = format!("{base}/window");
    let tried = async {
        let [_, two] = &options.clients;
        let opened = Link::open(&options.endpoint, two, true, 0).await;
        let (mut link, _) = opened.map_err(|reason| reason.to_string())?;
        link.subscribe(&topic, QoS::AtLeastOnce).await?;
        for number in 0..WINDOW_MESSAGES {
            let text = number.to_string();
            link.submit(
                &topic,
                QoS::AtLeastOnce,
                false,
                text,
                PublishProperties::default(),
            )?;
        }
        let (mut held, mut all, mut window, mut after_one) = (Vec::new(), 0, 0, 0);
        while all < WINDOW_MESSAGES {
            match link.unacknowledged(QUIET).await? {
                Some(message) => {
                    all += 1;
                    held.push(message);
                }
                None if held.is_empty() => break,
                None if window == 0 => {
                    window = held.len();
                    link.acknowledge(&held.remove(0))?;
                }
                None => {
                    after_one = after_one.max(held.len());
                    for message in std::mem::take(&mut held) {
                        link.acknowledge(&message)?;
                    }
                }
            }
        }
        window = window.max(held.len());
        for message in held {
            link.acknowledge(&message)?;
        }
        link.unsubscribe(&topic).await?;
        link.close().await;
        Ok::<_, Broken>((all, window.max(after_one)))
    };
    let means =
        "Haar takes all of them, within 1 MiB; a newer release of the broker may keep to it";
    match tried.await {
        Ok((WINDOW_MESSAGES, most)) if most <= usize::from(IN_FLIGHT_MAX) => {
            RelayFinding::works(what, format!("{IN_FLIGHT_MAX} at a time, as asked for"))
        }
        Ok((WINDOW_MESSAGES, most)) => {
            let found =
                format!("sends {most} unacknowledged messages where {IN_FLIGHT_MAX} are allowed");
            RelayFinding::short(what, found, means)
        }
        Ok((all, _)) => RelayFinding::fails(
            what,
            format!("{all} of {WINDOW_MESSAGES} messages came"),
            "a burst of devices is lost in part",
        ),
        Err(why) => broken(what, why, "a burst of devices may be lost"),
    }
}

/// How many messages wait for a session that is away.
pub(super) async fn queue(options: &CheckOptions, base: &str) -> Vec<RelayFinding> {
    let what = "messages for a session that is away";
    let [one, two] = &options.clients;
    let endpoint = &options.endpoint;
    let (topic, unasked) = (format!("{base}/queue"), format!("{base}/unasked"));
    let open = async |identity, clean, expiry_s| {
        let opened = Link::open(endpoint, identity, clean, expiry_s).await;
        opened.map_err(|reason| reason.to_string())
    };
    let tried = async {
        let (mut receiver, _) = open(two, true, SESSION_EXPIRY_S).await?;
        receiver.subscribe(&topic, QoS::AtLeastOnce).await?;
        receiver.subscribe(&unasked, QoS::AtMostOnce).await?;
        receiver.close().await;
        let (mut sender, _) = open(one, true, 0).await?;
        let none = PublishProperties::default;
        sender.submit(&unasked, QoS::AtMostOnce, false, "0", none())?;
        for number in 0..QUEUED_MESSAGES {
            sender.submit(&topic, QoS::AtLeastOnce, false, number.to_string(), none())?;
        }
        // A broker that refuses some says so; how many are there counts.
        let refused = sender.taken(QUEUED_MESSAGES).await.err();
        sender.close().await;
        let (mut receiver, answer) = open(two, false, 60).await?;
        let (mut kept, mut kept_0) = (0, 0);
        while let Some(message) = receiver.message(QUIET).await? {
            match message.topic == unasked.as_bytes() {
                true => kept_0 += 1,
                false => kept += 1,
            }
        }
        receiver.close().await;
        Ok::<_, Broken>((answer.session_present, kept, kept_0, refused))
    };
    let tried = tried.await;
    // The session and what waits in it goes, whatever happened.
    if let Ok((link, _)) = open(two, true, 0).await {
        link.close().await;
    }
    let means = "what devices publish beyond them while a node is away or behind is lost, though the broker has acknowledged it: raise its limit (Mosquitto: `max_queued_messages 0` and `max_queued_bytes`)";
    match tried {
        Err(why) => vec![broken(what, why, means)],
        Ok((false, ..)) => vec![RelayFinding::fails(
            what,
            "the broker keeps no sessions",
            "all that devices publish while a node is away is lost",
        )],
        Ok((true, kept, kept_0, refused)) => {
            let found = format!("{kept} of {QUEUED_MESSAGES} with QoS 1 were kept");
            let first = match (kept >= QUEUED_MESSAGES, refused) {
                (true, _) => RelayFinding::works(what, found),
                (false, None) => RelayFinding::short(what, found, means),
                (false, Some(why)) => RelayFinding::short(what, format!("{found}; {why}"), means),
            };
            let what = "QoS 0 for a session that is away";
            let second = match kept_0 > 0 {
                true => RelayFinding::works(what, "is kept"),
                false => RelayFinding::works(
                    what,
                    "is not kept, as MQTT allows: let devices publish with QoS 1",
                ),
            };
            vec![first, second]
        }
    }
}
