//! Dead letters as the site sees them, in answers that one packet of the relay holds.

use haar_protocol::dead_letters::{
    Base64, DeadLetter, DeadLetterPage, Header, PAGE_LETTERS_MAX, Source, WholeDeadLetter,
};

use crate::store::dead_letters::StoredDeadLetter;

/// Bytes of a page, as JSON. Beyond it the page ends and says where the next one begins.
const PAGE_BYTES_MAX: usize = 512 << 10;
/// The longest reason that is told, in bytes.
const REASON_BYTES_MAX: usize = 4 << 10;

/// How many letters a page has at most when `limit` are asked for.
pub(super) fn page_limit(limit: u32) -> u32 {
    limit.clamp(1, PAGE_LETTERS_MAX)
}

/// The first letters of `stored`: at most `limit`, and no more than a packet holds.
pub(super) fn page(stored: Vec<StoredDeadLetter>, limit: u32) -> DeadLetterPage {
    let mut items: Vec<DeadLetter> = Vec::new();
    let mut bytes = 0;
    let mut next_after = None;
    for letter in stored.into_iter().map(short) {
        bytes += serde_json::to_string(&letter).map_or(0, |json| json.len());
        let is_full = items.len() >= limit as usize || bytes > PAGE_BYTES_MAX;
        if let (true, Some(last)) = (is_full, items.last()) {
            next_after = Some(last.id);
            break;
        }
        items.push(letter);
    }
    DeadLetterPage { items, next_after }
}

/// A letter with its content.
pub(super) fn whole(mut stored: StoredDeadLetter) -> WholeDeadLetter {
    let headers = std::mem::take(&mut stored.letter.headers);
    let body = Base64(std::mem::take(&mut stored.letter.body));
    let header = |(name, value)| Header { name, value };
    WholeDeadLetter {
        letter: short(stored),
        headers: headers.into_iter().map(header).collect(),
        body,
    }
}

fn short(stored: StoredDeadLetter) -> DeadLetter {
    let StoredDeadLetter {
        id,
        letter,
        body_bytes,
    } = stored;
    let mut reason = letter.reason;
    if reason.len() > REASON_BYTES_MAX {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        reason.push('…');
    }
    DeadLetter {
        id,
        owner: letter.owner,
        inlet: letter.inlet,
        source: Source {
            node: letter.source.node,
            application: letter.source.application,
            microservice: letter.source.microservice,
            outlet: letter.source.outlet,
        },
        sequence: letter.sequence,
        published_ms: letter.published_ms,
        content_type: letter.content_type,
        body_bytes,
        attempts: letter.attempts,
        reason,
        died_ms: letter.died_ms,
    }
}

#[cfg(test)]
mod tests {
    use haar_protocol::assignment::MicroserviceName;
    use haar_protocol::signed::DOCUMENT_BYTES_MAX;

    use super::*;
    use crate::bus::message;
    use crate::store::dead_letters;

    fn stored(id: u64, reason: &str) -> StoredDeadLetter {
        let name = |text: &str| text.parse().unwrap();
        StoredDeadLetter {
            id,
            body_bytes: 2,
            letter: dead_letters::DeadLetter {
                owner: MicroserviceName {
                    application: name("app"),
                    microservice: name("one"),
                },
                inlet: "in".into(),
                source: message::Source {
                    site: "site".into(),
                    node: "gw".into(),
                    application: "app".into(),
                    microservice: "other".into(),
                    outlet: "out".into(),
                },
                sequence: 1,
                published_ms: 1,
                content_type: "text/plain".into(),
                headers: vec![("k".into(), "v".into())],
                body: b"hi".to_vec(),
                attempts: 1,
                reason: reason.into(),
                died_ms: 1,
            },
        }
    }

    #[test]
    fn a_page_says_where_the_next_one_begins() {
        let three = || (1..=3).map(|id| stored(id, "r")).collect::<Vec<_>>();
        let all = page(three(), 3);
        assert_eq!((all.items.len(), all.next_after), (3, None));
        let two = page(three(), 2);
        assert_eq!((two.items.len(), two.next_after), (2, Some(2)));
        assert_eq!(page(Vec::new(), 1).next_after, None);
    }

    #[test]
    fn a_page_of_the_largest_letters_fits_into_a_packet() {
        let reason = "\u{1}".repeat(1 << 20); // six bytes each in JSON
        let most = (1..=u64::from(PAGE_LETTERS_MAX)).map(|id| stored(id, &reason));
        let page = page(most.collect(), PAGE_LETTERS_MAX);
        assert!(page.next_after.is_some());
        assert!(serde_json::to_vec(&page).unwrap().len() < DOCUMENT_BYTES_MAX);
    }

    #[test]
    fn a_whole_letter_has_its_headers_and_body() {
        let whole = whole(stored(7, "r"));
        assert_eq!(whole.body.0, b"hi");
        assert_eq!(whole.headers[0].name, "k");
        assert_eq!((whole.letter.id, whole.letter.body_bytes), (7, 2));
    }
}
