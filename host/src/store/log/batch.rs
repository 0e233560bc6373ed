//! Messages that were committed together, as the bytes of a batch; [`super::batches`] keeps them. Each
//! request adds a section. No I/O.
//!
//! ```text
//! section   log, epoch, position of the first message, number of messages │ message │ message │ …
//! message   sequence, published_ms, headers, size of the body │ body
//! ```
//!
//! Numbers and headers are as postcard writes them. A message can be read from where it begins.

use std::borrow::Cow;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::{LogId, message_bytes};
use crate::bus::message::Headers;

/// What follows it: messages of one log, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Section {
    pub(super) log: LogId,
    /// Of the log, or of the log of another node that they come from.
    pub(super) epoch: u64,
    /// Position of the first message.
    pub(super) first: u64,
    pub(super) messages: u64,
}

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) sequence: u64,
    pub(super) published_ms: u64,
    pub(super) headers: Cow<'a, Headers>,
    pub(super) body: &'a [u8],
}

impl Record<'_> {
    /// What it counts for.
    pub(super) fn bytes(&self) -> u64 {
        message_bytes(&self.headers, self.body.len())
    }
}

/// A message of a section, without what it says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) section: Section,
    pub(super) position: u64,
    pub(super) sequence: u64,
    /// Where it begins in the batch.
    pub(super) offset: u32,
    /// What it counts for, see [`message_bytes`].
    pub(super) bytes: u64,
}

pub(super) fn begin_section(batch: &mut Vec<u8>, section: &Section) -> anyhow::Result<()> {
    postcard::to_io(section, batch)?;
    Ok(())
}

/// Adds a message to the section that was begun. Returns where it begins.
pub(super) fn add(batch: &mut Vec<u8>, message: &Record<'_>) -> anyhow::Result<u32> {
    let offset = u32::try_from(batch.len()).context("a batch of 4 GiB")?;
    let Record {
        sequence,
        published_ms,
        headers,
        body,
    } = message;
    let head = (sequence, published_ms, headers.as_ref(), body.len() as u64);
    postcard::to_io(&head, &mut *batch)?;
    batch.extend_from_slice(body);
    Ok(offset)
}

/// The message that begins at `offset`.
///
/// # Errors
/// When there is none.
pub(super) fn message(batch: &[u8], offset: u32) -> anyhow::Result<Record<'_>> {
    let rest = batch.get(offset as usize..).context("outside of a batch")?;
    Ok(split_message(rest)?.0)
}

/// What is in a batch, in order.
///
/// # Errors
/// When that is no batch.
pub(super) fn all(batch: &[u8]) -> anyhow::Result<Vec<Found>> {
    let (mut found, mut rest) = (Vec::new(), batch);
    while !rest.is_empty() {
        let (section, mut messages): (Section, _) = postcard::take_from_bytes(rest)?;
        // Each message takes some bytes: a wrong number ends at the end of the batch.
        for index in 0..section.messages {
            let offset = batch.len() - messages.len();
            let (record, following) = split_message(messages)?;
            found.push(Found {
                section,
                position: section.first + index,
                sequence: record.sequence,
                offset: u32::try_from(offset).context("a batch of 4 GiB")?,
                bytes: record.bytes(),
            });
            messages = following;
        }
        rest = messages;
    }
    Ok(found)
}

fn split_message(bytes: &[u8]) -> anyhow::Result<(Record<'_>, &[u8])> {
    type Fields = (u64, u64, Headers, u64);
    let ((sequence, published_ms, headers, body_bytes), rest): (Fields, _) =
        postcard::take_from_bytes(bytes).context("a message in a batch")?;
    let body_bytes = usize::try_from(body_bytes)?;
    ensure!(body_bytes <= rest.len(), "a message without its end");
    let (body, rest) = rest.split_at(body_bytes);
    let record = Record {
        sequence,
        published_ms,
        headers: Cow::Owned(headers),
        body,
    };
    Ok((record, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages() -> impl Strategy<Value = Vec<(Headers, Vec<u8>)>> {
        let headers = proptest::collection::vec((".{0,9}", ".{0,200}"), 0..3);
        let body = proptest::collection::vec(any::<u8>(), 0..300);
        proptest::collection::vec((headers, body), 1..5)
    }

    proptest! {
        #[test]
        fn what_was_put_into_a_batch_is_found_in_it(
            sections in proptest::collection::vec((any::<u64>(), messages()), 0..5),
        ) {
            let (mut batch, mut expected) = (Vec::new(), Vec::new());
            for (log, (sequence, messages)) in (1..).zip(&sections) {
                let section = Section {
                    log: LogId(log),
                    epoch: *sequence,
                    first: 7,
                    messages: messages.len() as u64,
                };
                begin_section(&mut batch, &section).unwrap();
                for (position, (headers, body)) in (7..).zip(messages) {
                    let record = Record {
                        sequence: *sequence,
                        published_ms: 5,
                        headers: Cow::Borrowed(headers),
                        body,
                    };
                    let offset = add(&mut batch, &record).unwrap();
                    expected.push((section, position, offset, record));
                }
            }
            let found = all(&batch).unwrap();
            prop_assert_eq!(found.len(), expected.len());
            for (found, (section, position, offset, record)) in found.iter().zip(expected) {
                prop_assert_eq!((found.section, found.position), (section, position));
                prop_assert_eq!((found.offset, found.sequence), (offset, record.sequence));
                prop_assert_eq!(found.bytes, record.bytes());
                prop_assert_eq!(message(&batch, offset).unwrap(), record);
            }
        }

        #[test]
        fn what_is_no_batch_is_an_error_and_no_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            offset in 0..300_u32,
        ) {
            let _ = all(&bytes);
            let _ = message(&bytes, offset);
        }
    }
}
