//! The node's secret for links. Beside its bytes stands its generation: how often the site had the
//! node make another one.
//!
//! ```text
//! link.key: SECRET in hexadecimal digits, and after a space GENERATION unless it is 0
//! ```

use std::path::Path;

use anyhow::Context as _;
use haar_link::session::{Boot, Ends, Refusal, Session};
use haar_protocol::keys::LinkKey;
use x25519_dalek::{PublicKey, StaticSecret};

use super::write_private;

const FILE: &str = "link.key";

/// A node's secret for links.
#[derive(Clone)]
pub struct LinkSecret {
    secret: StaticSecret,
    generation: u64,
}

impl LinkSecret {
    /// The first secret of a node, with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self {
            secret: StaticSecret::from(bytes),
            generation: 0,
        }
    }

    /// The secret in the data directory. `seed` makes it when there is none, or when the file holds
    /// something else: then it is of a later generation.
    ///
    /// # Errors
    /// When the file can't be read or written.
    pub fn open(
        directory: &Path,
        seed: impl FnOnce() -> anyhow::Result<[u8; 32]>,
    ) -> anyhow::Result<Self> {
        let path = directory.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Self::make(directory, 0, seed);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("can't read {}", path.display()));
            }
        };
        parse(&text).or_else(|error| {
            tracing::error!(
                "{} is damaged: {error:#}; the node makes another key for its links",
                path.display()
            );
            // If the site is further, its assignment says so, and another key is made once more.
            Self::make(directory, legible_generation(&text).saturating_add(1), seed)
        })
    }

    /// Makes a secret from random bytes and keeps it, whole or not at all: it takes the place of the
    /// one before, if there was one.
    ///
    /// # Errors
    /// When there are no such bytes, or the file can't be written.
    pub fn make(
        directory: &Path,
        generation: u64,
        seed: impl FnOnce() -> anyhow::Result<[u8; 32]>,
    ) -> anyhow::Result<Self> {
        let bytes = seed()?;
        let mut text = hex::encode(bytes);
        if generation > 0 {
            text = format!("{text} {generation}");
        }
        write_private(&directory.join(FILE), text.as_bytes())?;
        Ok(Self {
            secret: StaticSecret::from(bytes),
            generation,
        })
    }

    /// How often the site had the node make another one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What others may know of it.
    pub fn public(&self) -> LinkKey {
        LinkKey::from_bytes(PublicKey::from(&self.secret).to_bytes())
    }

    /// The seals between this node and another. `boot` is this start of the session.
    ///
    /// # Errors
    /// When `other` is no key that a node can have.
    pub fn session(&self, ends: Ends<'_>, boot: Boot, other: &LinkKey) -> Result<Session, Refusal> {
        let other = PublicKey::from(*other.as_bytes());
        Session::new(ends, boot, &self.secret, &other)
    }
}

impl std::fmt::Debug for LinkSecret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LinkSecret")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

fn parse(text: &str) -> anyhow::Result<LinkSecret> {
    let mut words = text.split_whitespace();
    let mut bytes = [0; 32];
    hex::decode_to_slice(words.next().unwrap_or_default(), &mut bytes)?;
    let generation = words.next().map_or(Ok(0), str::parse)?;
    anyhow::ensure!(words.next().is_none(), "there is more in it");
    Ok(LinkSecret {
        secret: StaticSecret::from(bytes),
        generation,
    })
}

/// The generation that a damaged file still tells; 0 where it tells none.
fn legible_generation(text: &str) -> u64 {
    let number = text.split_whitespace().nth(1);
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> anyhow::Result<[u8; 32]> {
        anyhow::bail!("no other one is made")
    }

    #[test]
    fn a_secret_is_read_as_it_was_made_and_the_next_one_takes_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(
            LinkSecret::open(path, || Ok([9; 32])).unwrap().generation(),
            0
        );
        for (generation, byte) in [(0, 1), (7, 2)] {
            let made = LinkSecret::make(path, generation, || Ok([byte; 32])).unwrap();
            let read = LinkSecret::open(path, none).unwrap();
            assert_eq!(
                (read.generation(), read.public()),
                (generation, made.public())
            );
        }
        // What a release before generations wrote.
        std::fs::write(path.join(FILE), format!("{}\n", "03".repeat(32))).unwrap();
        let read = LinkSecret::open(path, none).unwrap();
        let public = LinkSecret::from_bytes([3; 32]).public();
        assert_eq!((read.generation(), read.public()), (0, public));
    }

    #[test]
    fn in_the_place_of_a_damaged_file_another_secret_of_a_later_generation_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let whole = "03".repeat(32);
        for (text, generation) in [
            (Vec::new(), 1),
            (b"03".to_vec(), 1),
            (vec![0xff; 64], 1),
            (format!("{whole} x").into_bytes(), 1),
            (format!("{whole} 1 2").into_bytes(), 2),
            (b"03 6".to_vec(), 7),
            (format!("x {}", u64::MAX).into_bytes(), u64::MAX),
        ] {
            std::fs::write(path.join(FILE), text).unwrap();
            let made = LinkSecret::open(path, || Ok([4; 32])).unwrap();
            assert_eq!(made.generation(), generation);
            let read = LinkSecret::open(path, none).unwrap();
            assert_eq!(read.public(), made.public());
        }
    }
}
