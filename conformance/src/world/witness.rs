//! What the guest `witness` has written down: every message that reached a handler.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

use super::devices::unhex;

/// A message as its handler saw it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Seen {
    /// The microservice and its outlet.
    pub(crate) source: String,
    #[serde(rename = "type")]
    pub(crate) content_type: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) sequence: u64,
    pub(crate) attempt: u32,
    /// In hexadecimal.
    body: String,
}

impl Seen {
    /// The value of its first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The topic on which it was published.
    pub(crate) fn topic(&self) -> &str {
        self.header("mqtt-topic").unwrap_or_default()
    }

    /// The message itself.
    pub(crate) fn body(&self) -> anyhow::Result<Vec<u8>> {
        unhex(&self.body)
    }

    /// The number that its body is, if it is one.
    pub(crate) fn number(&self) -> Option<u32> {
        String::from_utf8(self.body().ok()?).ok()?.parse().ok()
    }
}

/// The file of a witness, and what was read of it.
#[derive(Debug)]
pub(crate) struct Witness {
    file: PathBuf,
    read_bytes: u64,
    seen: Vec<Seen>,
}

impl Witness {
    /// The witness to which `folder` is granted.
    pub(crate) fn of(folder: &Path) -> Self {
        Self {
            file: folder.join("seen"),
            read_bytes: 0,
            seen: Vec::new(),
        }
    }

    /// Everything that it has seen, in its order.
    pub(crate) fn seen(&mut self) -> anyhow::Result<&[Seen]> {
        let mut file = match File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(&self.seen),
            Err(error) => return Err(error).context(self.file.display().to_string()),
        };
        file.seek(SeekFrom::Start(self.read_bytes))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // The last line may still be on its way.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        for line in whole.lines() {
            let seen = serde_json::from_str(line);
            self.seen.push(seen.context("a line of a witness")?);
        }
        self.read_bytes += whole.len() as u64;
        Ok(&self.seen)
    }

    /// What it has seen of the topics below `prefix`.
    pub(crate) fn below(&mut self, prefix: &str) -> anyhow::Result<Vec<Seen>> {
        let seen = self.seen()?.iter();
        let below = seen.filter(|one| one.topic().starts_with(prefix));
        Ok(below.cloned().collect())
    }
}
