//! What two nodes say to each other inside the seal: messages of live routes, batches of durable
//! ones, and acknowledgements. One version byte, one byte for the kind, and the postcard encoding of
//! the rest (live messages: as [`haar_protocol::frame`] says); decoded field by field, so that nothing
//! is allocated beyond what the frame's own size justifies.

pub use haar_protocol::frame::FrameError;
pub use haar_protocol::frame::LiveMessage;
use haar_protocol::frame::{self as live, FRAME_BYTES_MAX, take, whole};
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;
const BATCHES: u8 = 1;
const ACKS: u8 = 2;
const LIVE: u8 = 3;
const PROBE: u8 = 4;
/// The most bytes of a frame before it is sealed: what the relay takes, less the seal.
pub const PLAIN_BYTES_MAX: usize = FRAME_BYTES_MAX - crate::session::OVERHEAD_BYTES;
/// The most streams in one frame.
pub const STREAMS_MAX: usize = 1_024;
/// The most messages in one batch.
pub const MESSAGES_MAX: usize = 4_096;
/// What the shortest of each takes in a frame: its numbers and lengths of one byte each.
const BATCH_BYTES_MIN: usize = 5;
const MESSAGE_BYTES_MIN: usize = 4;
const HEADER_BYTES_MIN: usize = 2;
const ACK_BYTES_MIN: usize = 5;

/// One message on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message<'a> {
    /// Sequence of the outlet.
    pub sequence: u64,
    /// When it was published: milliseconds since the Unix epoch by the sender's clock.
    pub published_ms: u64,
    /// Headers that the publisher set.
    pub headers: Vec<(&'a str, &'a str)>,
    /// The message itself.
    #[serde(serialize_with = "whole")]
    pub body: &'a [u8],
}

/// Messages of one stream, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Batch<'a> {
    /// Number of the route, see [`haar_protocol::ids::RouteId`].
    pub route: u64,
    /// Tells the sender's log from those that it had before: a larger one is newer.
    pub epoch: u64,
    /// Nothing up to here will be sent again: it is acknowledged, expired or dropped.
    pub base: u64,
    /// The receiver must have everything up to here before it may take the messages: the sequence
    /// before the first one, where none was left out.
    pub after: u64,
    /// The messages. None: only to be answered.
    pub messages: Vec<Message<'a>>,
}

/// What a receiver has of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Number of the route.
    pub route: u64,
    /// The epoch of the log that it speaks of.
    pub epoch: u64,
    /// Everything up to here is on the receiver's disk.
    pub stored: u64,
    /// Bytes of messages that it takes beyond that.
    pub room: u64,
    /// Something is missing after `stored`: send again from there.
    pub resend: bool,
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Messages.
    Batches(Vec<Batch<'a>>),
    /// Acknowledgements.
    Acks(Vec<Ack>),
    /// Messages of live routes: sent once, never acknowledged.
    Live(Vec<LiveMessage<'a>>),
    /// Nothing but the wish to hear of the other node.
    Probe,
}

/// Encodes a frame.
///
/// # Errors
/// `TooLarge` when it does not fit.
pub fn encode(frame: &Frame<'_>) -> Result<Vec<u8>, FrameError> {
    encode_to(frame, Vec::new())
}

/// Encodes a frame behind what is in `bytes` already.
///
/// # Errors
/// `TooLarge` when it does not fit.
pub fn encode_to(frame: &Frame<'_>, mut bytes: Vec<u8>) -> Result<Vec<u8>, FrameError> {
    let before = bytes.len();
    bytes.reserve(bytes_about(frame)); // saves copies
    let bytes = match frame {
        Frame::Batches(batches) => {
            let large = |batch: &Batch<'_>| batch.messages.len() > MESSAGES_MAX;
            if batches.len() > STREAMS_MAX || batches.iter().any(large) {
                return Err(FrameError::TooLarge);
            }
            bytes.extend([VERSION, BATCHES]);
            postcard::to_extend(batches, bytes)
        }
        Frame::Acks(acks) => {
            if acks.len() > STREAMS_MAX {
                return Err(FrameError::TooLarge);
            }
            bytes.extend([VERSION, ACKS]);
            postcard::to_extend(acks, bytes)
        }
        Frame::Live(messages) => {
            bytes.extend([VERSION, LIVE]);
            Ok(live::encode_to(messages, bytes)?)
        }
        Frame::Probe => {
            bytes.extend([VERSION, PROBE]);
            Ok(bytes)
        }
    };
    match bytes {
        Ok(bytes) if bytes.len() - before <= PLAIN_BYTES_MAX => Ok(bytes),
        Ok(_) => Err(FrameError::TooLarge),
        Err(_) => Err(FrameError::Malformed),
    }
}

/// How much memory the encoding takes with a seal around it, about.
fn bytes_about(frame: &Frame<'_>) -> usize {
    const MESSAGE_BYTES: usize = 32;
    let body = |bytes: &[u8]| bytes.len() + MESSAGE_BYTES;
    let about = match frame {
        Frame::Batches(batches) => batches
            .iter()
            .flat_map(|batch| &batch.messages)
            .map(|message| body(message.body))
            .sum(),
        Frame::Acks(acks) => acks.len() * size_of::<Ack>(),
        Frame::Live(messages) => messages.iter().map(|message| body(message.body)).sum(),
        Frame::Probe => 0,
    };
    crate::session::OVERHEAD_BYTES + about
}

/// Decodes a frame. The messages borrow from it.
///
/// # Errors
/// See [`FrameError`].
pub fn decode(frame: &[u8]) -> Result<Frame<'_>, FrameError> {
    if frame.len() > PLAIN_BYTES_MAX {
        return Err(FrameError::TooLarge);
    }
    let [version, kind, rest @ ..] = frame else {
        return Err(FrameError::Malformed);
    };
    if *version != VERSION {
        return Err(FrameError::UnknownVersion(*version));
    }
    let (frame, rest) = match *kind {
        BATCHES => {
            let (batches, rest) = list(rest, STREAMS_MAX, BATCH_BYTES_MIN, take_batch)?;
            (Frame::Batches(batches), rest)
        }
        ACKS => {
            let (acks, rest) = list(rest, STREAMS_MAX, ACK_BYTES_MIN, take)?;
            (Frame::Acks(acks), rest)
        }
        LIVE => (Frame::Live(live::decode(rest)?), &[][..]),
        PROBE => (Frame::Probe, rest),
        _ => return Err(FrameError::Malformed),
    };
    match rest {
        [] => Ok(frame),
        _ => Err(FrameError::Malformed),
    }
}

fn take_batch(rest: &[u8]) -> Result<(Batch<'_>, &[u8]), FrameError> {
    let (route, rest) = take(rest)?;
    let (epoch, rest) = take(rest)?;
    let (base, rest) = take(rest)?;
    let (after, rest) = take(rest)?;
    let (messages, rest) = list(rest, MESSAGES_MAX, MESSAGE_BYTES_MIN, take_message)?;
    let mut last = after;
    for message in &messages {
        if message.sequence <= last {
            return Err(FrameError::Malformed);
        }
        last = message.sequence;
    }
    if after < base {
        return Err(FrameError::Malformed);
    }
    Ok((
        Batch {
            route,
            epoch,
            base,
            after,
            messages,
        },
        rest,
    ))
}

fn take_message(rest: &[u8]) -> Result<(Message<'_>, &[u8]), FrameError> {
    let (sequence, rest) = take(rest)?;
    let (published_ms, rest) = take(rest)?;
    let (headers, rest) = list(rest, usize::MAX, HEADER_BYTES_MIN, take)?;
    let (body, rest) = take(rest)?;
    Ok((
        Message {
            sequence,
            published_ms,
            headers,
            body,
        },
        rest,
    ))
}

/// Reads a list item by item: postcard's own would reserve memory for as many as the frame claims.
fn list<'a, T>(
    rest: &'a [u8],
    most: usize,
    item_bytes_min: usize,
    item: impl Fn(&'a [u8]) -> Result<(T, &'a [u8]), FrameError>,
) -> Result<(Vec<T>, &'a [u8]), FrameError> {
    let (count, mut rest): (u32, &[u8]) = take(rest)?;
    if count as usize > most {
        return Err(FrameError::TooLarge);
    }
    let mut items = Vec::with_capacity((count as usize).min(rest.len() / item_bytes_min));
    for _ in 0..count {
        let (one, left) = item(rest)?;
        items.push(one);
        rest = left;
    }
    Ok((items, rest))
}
