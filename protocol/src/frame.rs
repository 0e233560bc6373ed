//! What travels between two nodes on live routes, inside the seal of their link: several messages in
//! one frame.
//!
//! The site, the node and the ports of the source are not in the frame: the receiver takes them
//! from the link and from its own assignment, so that no node can speak for another. A frame is
//! one version byte and the postcard encoding of the rest.

use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;
/// The largest frame that anybody sends or reads, in bytes: below the relay's packet limit of 1 MiB.
pub const FRAME_BYTES_MAX: usize = 960 * 1024;
/// The most messages in one frame.
pub const FRAME_MESSAGES_MAX: usize = 4_096;
/// What the shortest message takes in a frame: five lengths and numbers of one byte each.
const MESSAGE_BYTES_MIN: usize = 5;
/// What the shortest header takes in a frame: two lengths of one byte each.
const HEADER_BYTES_MIN: usize = 2;

/// One message of a live route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveMessage<'a> {
    /// Number of the route, see [`crate::ids::RouteId`].
    pub route: u64,
    /// Sequence of the outlet.
    pub sequence: u64,
    /// When it was published: milliseconds since the Unix epoch by the sender's clock.
    pub published_ms: u64,
    /// Headers that the publisher set.
    #[serde(borrow)]
    pub headers: Vec<(&'a str, &'a str)>,
    /// The message itself.
    #[serde(borrow, serialize_with = "whole")]
    pub body: &'a [u8],
}

/// Writes the bytes in one go; the encoding is the same as of a list, byte by byte.
///
/// # Errors
/// Those of the serializer.
pub fn whole<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// More bytes, messages or streams than a frame may have.
    #[error("the frame is too large")]
    TooLarge,
    /// Of a version that this release does not read.
    #[error("the frame is of version {0}, which this release does not read")]
    UnknownVersion(u8),
    /// Truncated, with bytes left over, out of order, or not a frame.
    #[error("the frame is malformed")]
    Malformed,
}

/// Encodes `messages` as one frame.
///
/// # Errors
/// `TooLarge` when they do not fit.
pub fn encode(messages: &[LiveMessage<'_>]) -> Result<Vec<u8>, FrameError> {
    encode_to(messages, Vec::new())
}

/// Encodes `messages` as one frame behind what is in `bytes` already.
///
/// # Errors
/// `TooLarge` when they do not fit.
pub fn encode_to(messages: &[LiveMessage<'_>], mut bytes: Vec<u8>) -> Result<Vec<u8>, FrameError> {
    if messages.len() > FRAME_MESSAGES_MAX {
        return Err(FrameError::TooLarge);
    }
    let before = bytes.len();
    bytes.push(VERSION);
    let bytes = postcard::to_extend(messages, bytes).map_err(|_| FrameError::Malformed)?;
    if bytes.len() - before > FRAME_BYTES_MAX {
        Err(FrameError::TooLarge)
    } else {
        Ok(bytes)
    }
}

/// Decodes a frame. The messages borrow from it.
///
/// # Errors
/// See [`FrameError`]. Nothing is allocated beyond what the frame's own size justifies.
pub fn decode(frame: &[u8]) -> Result<Vec<LiveMessage<'_>>, FrameError> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge);
    }
    let (version, rest) = frame.split_first().ok_or(FrameError::Malformed)?;
    if *version != VERSION {
        return Err(FrameError::UnknownVersion(*version));
    }
    let (count, mut rest): (u32, &[u8]) = take(rest)?;
    if count as usize > FRAME_MESSAGES_MAX {
        return Err(FrameError::TooLarge);
    }
    let mut messages = Vec::with_capacity((count as usize).min(rest.len() / MESSAGE_BYTES_MIN));
    for _ in 0..count {
        let (message, left) = take_message(rest)?;
        messages.push(message);
        rest = left;
    }
    if rest.is_empty() {
        Ok(messages)
    } else {
        Err(FrameError::Malformed)
    }
}

/// Reads one message field by field: postcard's own lists would reserve memory for as many
/// headers as the frame claims.
fn take_message(rest: &[u8]) -> Result<(LiveMessage<'_>, &[u8]), FrameError> {
    let (route, rest) = take(rest)?;
    let (sequence, rest) = take(rest)?;
    let (published_ms, rest) = take(rest)?;
    let (count, mut rest): (u32, &[u8]) = take(rest)?;
    let mut headers = Vec::with_capacity((count as usize).min(rest.len() / HEADER_BYTES_MIN));
    for _ in 0..count {
        let (header, left) = take(rest)?;
        headers.push(header);
        rest = left;
    }
    let (body, rest) = take(rest)?;
    Ok((
        LiveMessage {
            route,
            sequence,
            published_ms,
            headers,
            body,
        },
        rest,
    ))
}

/// Reads one value from the start of `rest`. Returns it and what follows.
///
/// # Errors
/// `Malformed` when there is none.
pub fn take<'a, T: Deserialize<'a>>(rest: &'a [u8]) -> Result<(T, &'a [u8]), FrameError> {
    postcard::take_from_bytes(rest).map_err(|_| FrameError::Malformed)
}

/// Bytes that `message` takes in a frame at most, for filling frames without trying.
pub fn encoded_bytes_max(headers: &[(String, String)], body_bytes: usize) -> usize {
    let headers: usize = headers
        .iter()
        .map(|(name, value)| name.len() + value.len() + 20)
        .sum();
    64 + headers + body_bytes
}
