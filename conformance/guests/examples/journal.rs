//! Writes down every message that it handles, in a file that has nothing to do with the agent's
//! store: `journal` in the granted directory `/journal`. For messages of `numbering`.
//!
//! | key | meaning | default |
//! | --- | --- | --- |
//! | `reject_every` | the first attempt of a message whose number can be divided by this is rejected | never |
//!
//! The journal has entries of 40 bytes, five numbers of 8 bytes, big-endian:
//!
//! | what | then |
//! | --- | --- |
//! | 0: the instance begins | |
//! | 1: handled | source, number, sequence, attempt |
//! | 2: rejected, to come again | source, number, sequence, attempt |
//! | 3: not what was published | source, number, sequence, attempt, as far as they can be told |

use std::fs::{File, OpenOptions};
use std::io::Write as _;

use haar_conformance_guests::{body, entry, number_at};
use haar_guest::{Message, Microservice, Rejection, config};

const JOURNAL: &str = "/journal/journal";

const STARTED: u64 = 0;
const HANDLED: u64 = 1;
const REJECTED: u64 = 2;
const DAMAGED: u64 = 3;

#[derive(Default)]
struct Journal {
    journal: Option<File>,
    reject_every: Option<u64>,
}

impl Microservice for Journal {
    fn start(&mut self) -> Result<(), String> {
        self.reject_every = config::parse("reject_every")?;
        let journal = OpenOptions::new().append(true).create(true).open(JOURNAL);
        self.journal = Some(journal.map_err(|error| format!("{JOURNAL}: {error}"))?);
        self.note([STARTED, 0, 0, 0, 0])
    }

    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let (source, number) = (number_at(&message.body, 0), number_at(&message.body, 8));
        let is_rejected = |every: u64| number % every == 0 && message.attempt == 1;
        let what = if message.body != body(source, number) {
            DAMAGED
        } else if self.reject_every.is_some_and(is_rejected) {
            REJECTED
        } else {
            HANDLED
        };
        let attempt = u64::from(message.attempt);
        self.note([what, source, number, message.sequence, attempt])
            .map_err(Rejection::retry)?;
        match what {
            REJECTED => Err(Rejection::retry("once more, please")),
            _ => Ok(()),
        }
    }
}

impl Journal {
    fn note(&mut self, numbers: [u64; 5]) -> Result<(), String> {
        let journal = self.journal.as_mut().ok_or("the journal is not open")?;
        journal
            .write_all(&entry(&numbers))
            .map_err(|error| format!("{JOURNAL}: {error}"))
    }
}

haar_guest::export!(Journal);
