//! Publishes numbered messages on the outlet `out` as fast as it may, and keeps an account of them in
//! a file that has nothing to do with the agent's store, so that what the store forgets is seen:
//! `journal` in the granted directory `/journal`. Ends by itself when enough are stored, or when there
//! is a file `stop` in that directory.
//!
//! | key | meaning | default |
//! | --- | --- | --- |
//! | `source` | a number that is in every message | 0 |
//! | `messages` | how many are to be stored | 1000 |
//! | `batch` | messages of one publish at most | 16 |
//!
//! The journal has entries of 32 bytes, four numbers of 8 bytes, big-endian:
//!
//! | what | then |
//! | --- | --- |
//! | 0: the instance begins | |
//! | 1: about to publish | first number, how many |
//! | 2: stored | first number, how many, sequence of the first one |
//! | 3: refused | first number, how many |
//!
//! A number is never used again, also when its message was refused, or when nobody knows what became
//! of it. A body is source, number, and a filling that follows from both.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read as _, Write as _};
use std::time::{Duration, Instant};

use haar_conformance_guests::{body, entry, mix, number_at};
use haar_guest::{Microservice, Outgoing, Tick, config, log, publish_batch, timers};

const JOURNAL: &str = "/journal/journal";
const STOP: &str = "/journal/stop";
const PERIOD: Duration = Duration::from_millis(5);
/// A call publishes for so long, and then lets the agent have its turn.
const CALL: Duration = Duration::from_millis(250);

const STARTED: u64 = 0;
const BEGUN: u64 = 1;
const STORED: u64 = 2;
const REFUSED: u64 = 3;

#[derive(Default)]
struct Numbering {
    journal: Option<File>,
    source: u64,
    wanted: u64,
    batch: u64,
    last: u64,
    stored: u64,
}

impl Microservice for Numbering {
    fn start(&mut self) -> Result<(), String> {
        self.source = config::parse("source")?.unwrap_or(0);
        self.wanted = config::parse("messages")?.unwrap_or(1_000);
        self.batch = config::parse("batch")?.unwrap_or(16).max(1);
        self.resume().map_err(|error| error.to_string())?;
        self.note(STARTED, 0, 0, 0)?;
        Ok(timers::every("publish", PERIOD)?)
    }

    fn tick(&mut self, _tick: Tick) -> Result<(), String> {
        let began = Instant::now();
        if std::fs::exists(STOP).unwrap_or(false) {
            timers::cancel("publish");
            return Ok(());
        }
        while self.stored < self.wanted && began.elapsed() < CALL {
            if !self.publish_some()? {
                return Ok(()); // later
            }
        }
        if self.stored >= self.wanted {
            log::info!("{} messages are stored", self.stored);
            timers::cancel("publish");
        }
        Ok(())
    }
}

impl Numbering {
    /// Goes on behind what earlier instances did.
    fn resume(&mut self) -> std::io::Result<()> {
        let mut journal = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(JOURNAL)?;
        let mut entries = BufReader::new(&mut journal);
        let mut entry = [0; 32];
        while entries.read_exact(&mut entry).is_ok() {
            let [what, first, count] = [0, 8, 16].map(|at| number_at(&entry, at));
            if what == BEGUN {
                self.last = first + count - 1;
            }
            if what == STORED {
                self.stored += count;
            }
        }
        self.journal = Some(journal);
        Ok(())
    }

    /// Publishes one batch. False when it was refused.
    fn publish_some(&mut self) -> Result<bool, String> {
        let first = self.last + 1;
        let count = 1 + mix(first) % self.batch;
        self.last += count;
        let bodies: Vec<Vec<u8>> = (first..first + count)
            .map(|number| body(self.source, number))
            .collect();
        let messages: Vec<Outgoing<'_>> = bodies
            .iter()
            .map(|body| Outgoing { body, headers: &[] })
            .collect();
        self.note(BEGUN, first, count, 0)?;
        match publish_batch("out", &messages) {
            Ok(sequence) => {
                self.stored += count;
                self.note(STORED, first, count, sequence)?;
                Ok(true)
            }
            Err(_) => {
                self.note(REFUSED, first, count, 0)?;
                Ok(false)
            }
        }
    }

    fn note(&mut self, what: u64, first: u64, count: u64, sequence: u64) -> Result<(), String> {
        let journal = self.journal.as_mut().ok_or("the journal is not open")?;
        journal
            .write_all(&entry(&[what, first, count, sequence]))
            .map_err(|error| format!("{JOURNAL}: {error}"))
    }
}

haar_guest::export!(Numbering);
