//! What the guests `numbering` and `journal` wrote down, read from their files. The files stand beside
//! the agents' data: what an agent forgets is not forgotten here.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};

/// Bytes of an entry of a receiver's journal.
pub(crate) const RECEIVED_BYTES: u64 = 40;

/// What became of a batch when it was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is stored; the sequence of its first message.
    Stored(u64),
    /// It is not published: the publisher got an error.
    Refused,
    /// Publisher or agent ended before there was an answer.
    Unknown,
}

/// Messages that were published at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Number of the first message.
    pub(crate) first: u64,
    /// How many.
    pub(crate) count: u64,
    /// What became of them.
    pub(crate) fate: Fate,
}

/// Everything that one publisher tried, in order, without a gap in the numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Published(pub(crate) Vec<Batch>);

impl Published {
    /// Reads a journal. A last entry that is not complete is left out.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        Self::parse(&bytes(file)?).with_context(|| file.display().to_string())
    }

    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut batches: Vec<Batch> = Vec::new();
        for entry in bytes.as_chunks::<32>().0 {
            let [what, first, count, sequence] = numbers(entry);
            let fate = match what {
                0 => continue,
                1 => {
                    let next = batches.last().map_or(1, |last| last.first + last.count);
                    ensure!(first == next && count > 0, "{first} follows {next}");
                    let fate = Fate::Unknown;
                    batches.push(Batch { first, count, fate });
                    continue;
                }
                2 => Fate::Stored(sequence),
                3 => Fate::Refused,
                other => bail!("an entry begins with {other}"),
            };
            let last = batches.last_mut().context("it begins with an outcome")?;
            let begun = (last.first, last.count, last.fate);
            ensure!(begun == (first, count, Fate::Unknown), "{first}: not begun");
            last.fate = fate;
        }
        Ok(Self(batches))
    }

    /// How many messages are stored.
    pub(crate) fn stored(&self) -> u64 {
        self.count(|fate| matches!(fate, Fate::Stored(_)))
    }

    /// How many messages have such a fate.
    pub(crate) fn count(&self, is_it: impl Fn(Fate) -> bool) -> u64 {
        let batches = self.0.iter().filter(|batch| is_it(batch.fate));
        batches.map(|batch| batch.count).sum()
    }

    /// What became of a message; its own sequence where it is stored.
    pub(crate) fn fate(&self, number: u64) -> Option<Fate> {
        let after = self.0.partition_point(|batch| batch.first <= number);
        let batch = self.0.get(after.checked_sub(1)?)?;
        let at = number - batch.first;
        (at < batch.count).then_some(match batch.fate {
            Fate::Stored(sequence) => Fate::Stored(sequence + at),
            other => other,
        })
    }
}

/// What a receiver wrote down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// An instance began.
    Started,
    /// A message was handled.
    Handled(Receipt),
    /// A message was rejected, to come again.
    Rejected(Receipt),
    /// A message was not what was published.
    Damaged(Receipt),
}

/// A message as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// Number of its publisher.
    pub(crate) source: u64,
    /// Its number among all that the publisher tried.
    pub(crate) number: u64,
    /// Its number among those of the outlet, by the agent.
    pub(crate) sequence: u64,
    /// By the agent: 1 when it comes for the first time.
    pub(crate) attempt: u64,
}

/// Reads the journal of a receiver. A last entry that is not complete is left out.
pub(crate) fn received(file: &Path) -> anyhow::Result<Vec<Entry>> {
    let bytes = bytes(file)?;
    let entries = bytes.as_chunks::<40>().0.iter().map(|entry| {
        let [what, source, number, sequence, attempt] = numbers(entry);
        let receipt = Receipt {
            source,
            number,
            sequence,
            attempt,
        };
        Ok(match what {
            0 => Entry::Started,
            1 => Entry::Handled(receipt),
            2 => Entry::Rejected(receipt),
            3 => Entry::Damaged(receipt),
            other => bail!("{}: an entry begins with {other}", file.display()),
        })
    });
    entries.collect()
}

/// Bytes of a file that may not be there yet.
pub(crate) fn length(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |metadata| metadata.len())
}

fn bytes(file: &Path) -> anyhow::Result<Vec<u8>> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("can't read {}", file.display())),
    }
}

fn numbers<const COUNT: usize>(entry: &[u8]) -> [u64; COUNT] {
    let mut numbers = [0; COUNT];
    for (number, bytes) in numbers.iter_mut().zip(entry.as_chunks::<8>().0) {
        *number = u64::from_be_bytes(*bytes);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(entries: &[[u64; 4]]) -> Vec<u8> {
        let numbers = entries.iter().flatten();
        numbers.flat_map(|number| number.to_be_bytes()).collect()
    }

    #[test]
    fn a_batch_without_an_outcome_is_unknown() {
        let entries = [
            [0, 0, 0, 0],
            [1, 1, 4, 0],
            [2, 1, 4, 1],
            [1, 5, 2, 0],
            [0, 0, 0, 0],
            [1, 7, 1, 0],
            [3, 7, 1, 0],
            [1, 8, 3, 0],
            [2, 8, 3, 7],
        ];
        let mut bytes = journal(&entries);
        bytes.extend([0; 7]); // it was killed in the middle of a write
        let published = Published::parse(&bytes).unwrap();
        let fates = [1, 4, 5, 6, 7, 8, 10, 11].map(|number| published.fate(number));
        let stored = |sequence| Some(Fate::Stored(sequence));
        let (unknown, refused) = (Some(Fate::Unknown), Some(Fate::Refused));
        let wanted = [
            stored(1),
            stored(4),
            unknown,
            unknown,
            refused,
            stored(7),
            stored(9),
            None,
        ];
        assert_eq!(fates, wanted);
        assert_eq!(published.stored(), 7);
    }

    #[test]
    fn a_journal_with_a_hole_is_refused() {
        for entries in [
            vec![[1, 2, 1, 0]],
            vec![[1, 1, 4, 0], [1, 6, 1, 0]],
            vec![[1, 1, 4, 0], [2, 1, 3, 1]],
            vec![[2, 1, 3, 1]],
            vec![[7, 0, 0, 0]],
        ] {
            assert!(Published::parse(&journal(&entries)).is_err(), "{entries:?}");
        }
    }
}
