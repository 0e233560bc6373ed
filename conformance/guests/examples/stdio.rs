//! Writes to standard output and standard error, by the body of a message: `lines` (one on each),
//! `long` (a megabyte without a line's end, then one), `invalid` (bytes that are not UTF-8),
//! `partial` (a line without its end), `flood` (ten thousand lines).

use std::io::Write as _;

use haar_guest::{Message, Microservice, Rejection};

const LONG_BYTES: usize = 1 << 20;
const FLOOD_LINES: u32 = 10_000;

#[derive(Default)]
struct Stdio;

impl Microservice for Stdio {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        act(message.text()?).map_err(|error| Rejection::discard(format!("writing failed: {error}")))
    }
}

fn act(command: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    match command {
        "lines" => {
            writeln!(out, "a line on standard output")?;
            writeln!(std::io::stderr(), "a line on standard error")?;
        }
        "long" => {
            let part = [b'x'; 4096];
            for _ in 0..LONG_BYTES / part.len() {
                out.write_all(&part)?;
            }
            out.write_all(b"\n")?;
        }
        "invalid" => out.write_all(b"before \xff\xfe\x80 after\n")?,
        "partial" => out.write_all(b"a line without its end")?,
        "flood" => {
            for number in 0..FLOOD_LINES {
                writeln!(out, "line {number}")?;
            }
        }
        _ => {}
    }
    out.flush()
}

haar_guest::export!(Stdio);
