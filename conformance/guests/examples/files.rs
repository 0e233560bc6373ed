//! Reads and writes files in whatever directories it is granted. The body of a message is a path to
//! read, `list PATH`, `write PATH TEXT` or `remove PATH`. Publishes what came of it on the outlet
//! `out`, with a header `outcome` that is `ok` or `error`.

use std::{fs, io};

use haar_guest::{Message, Microservice, Rejection, publish};

#[derive(Default)]
struct Files;

impl Microservice for Files {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        match act(message.text()?) {
            Ok(content) => publish("out", content, &[("outcome", "ok")])?,
            Err(error) => publish("out", error.to_string(), &[("outcome", "error")])?,
        };
        Ok(())
    }
}

fn act(command: &str) -> io::Result<Vec<u8>> {
    if let Some(arguments) = command.strip_prefix("write ") {
        let (path, text) = arguments.split_once(' ').unwrap_or((arguments, ""));
        return fs::write(path, text).map(|()| Vec::new());
    }
    if let Some(path) = command.strip_prefix("remove ") {
        return fs::remove_file(path).map(|()| Vec::new());
    }
    if let Some(path) = command.strip_prefix("list ") {
        return list(path);
    }
    fs::read(command)
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
