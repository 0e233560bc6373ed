//! Reads and writes files in whatever directories it is granted. The body of a message is a path to
//! read, or one of these:
//!
//! ```text
//! list PATH            write PATH TEXT      append PATH BYTES    remove PATH
//! fill PATH BYTES      resize PATH BYTES    copy FROM TO         rename FROM TO
//! link FROM TO         symlink FROM TO      create PREFIX COUNT  make PREFIX COUNT
//! race PATH COUNT
//! ```
//!
//! Publishes what came of it on the outlet `out`, with a header `outcome` that is `ok` or `error`.
//! A body that begins with a word like `#7` has the outcome logged too, behind that word. What goes on until it fails says how far it came, such as `4096: Quota exceeded`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};

use haar_guest::{Message, Microservice, Rejection, log, publish};

#[derive(Default)]
struct Files;

impl Microservice for Files {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let body = message.text()?;
        let (tag, command) = match body.split_once(' ') {
            Some((tag, command)) if tag.starts_with('#') => (Some(tag), command),
            _ => (None, body),
        };
        let (outcome, content) = match act(command) {
            Ok(content) => ("ok", content),
            Err(error) => ("error", error.to_string().into_bytes()),
        };
        if let Some(tag) = tag {
            log::info!("{tag} {outcome} {}", String::from_utf8_lossy(&content));
        }
        publish("out", content, &[("outcome", outcome)])?;
        Ok(())
    }
}

fn act(command: &str) -> io::Result<Vec<u8>> {
    let words: Vec<&str> = command.splitn(3, ' ').collect();
    let done = |outcome: io::Result<()>| outcome.map(|()| Vec::new());
    match words[..] {
        ["list", path] => list(path),
        ["write", path, text] => done(fs::write(path, text)),
        ["write", path] => done(fs::write(path, "")),
        ["remove", path] => done(fs::remove_file(path)),
        ["rename", from, to] => done(fs::rename(from, to)),
        ["copy", from, to] => done(fs::copy(from, to).map(drop)),
        ["link", from, to] => done(fs::hard_link(from, to)),
        #[allow(deprecated, reason = "its successor is not stable for this target")]
        ["symlink", from, to] => done(fs::soft_link(from, to)),
        ["fill", path, bytes] => write_much(&mut File::create(path)?, number(bytes)?),
        ["append", path, bytes] => {
            let mut file = OpenOptions::new().append(true).create(true).open(path)?;
            write_much(&mut file, number(bytes)?)
        }
        ["resize", path, bytes] => {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?;
            done(file.set_len(number(bytes)?))
        }
        ["create", prefix, count] => repeat(count, |number| {
            File::create(format!("{prefix}{number}")).map(drop)
        }),
        ["make", prefix, count] => {
            repeat(count, |number| fs::create_dir(format!("{prefix}{number}")))
        }
        ["race", path, count] => race(path, number(count)?),
        _ => fs::read(command),
    }
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(io::Error::other)
}

/// Writes so many bytes, a KiB at a time.
fn write_much(file: &mut File, bytes: u64) -> io::Result<Vec<u8>> {
    let mut written = 0;
    while written < bytes {
        if let Err(error) = file.write_all(&[b'x'; 1024]) {
            return Err(io::Error::other(format!("{written}: {error}")));
        }
        written += 1024;
    }
    Ok(Vec::new())
}

/// Does something so many times.
fn repeat(count: &str, mut act: impl FnMut(u64) -> io::Result<()>) -> io::Result<Vec<u8>> {
    for done in 0..number(count)? {
        if let Err(error) = act(done) {
            return Err(io::Error::other(format!("{done}: {error}")));
        }
    }
    Ok(Vec::new())
}

/// Reads a file again and again. How often that went well and how often not, and what was read
/// where it was not `harmless`.
fn race(path: &str, count: u64) -> io::Result<Vec<u8>> {
    let (mut read, mut refused) = (0, 0);
    for _ in 0..count {
        match fs::read(path) {
            Ok(content) if content == b"harmless" => read += 1,
            Ok(content) => return Ok(content),
            Err(_) => refused += 1,
        }
    }
    Ok(format!("{read} {refused}").into_bytes())
}

/// The names in a directory, sorted, one in a line.
fn list(path: &str) -> io::Result<Vec<u8>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names.join("\n").into_bytes())
}

haar_guest::export!(Files);
