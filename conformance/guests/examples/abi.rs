//! Passes across the border of the component more than anybody needs: `headers COUNT BYTES` is a
//! message with so many headers that all are the same bytes of this instance's memory, so that a
//! small guest asks for a huge copy; `body BYTES`, `log BYTES` and `reject BYTES` are one large
//! value each. What it is sent it takes, however large. Says on the outlet `out` what came of it.

use haar_guest::{Message, Microservice, Rejection, log, publish};

#[derive(Default)]
struct Abi;

impl Microservice for Abi {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let text = String::from_utf8_lossy(&message.body).into_owned();
        let words: Vec<&str> = text.split(' ').collect();
        let answer = match words[..] {
            ["headers", count, bytes] => {
                let value = "h".repeat(number(bytes)?);
                let headers = vec![("", value.as_str()); number(count)?];
                told(publish("out", "", &headers))
            }
            ["body", bytes] => told(publish("out", vec![b'b'; number(bytes)?], &[])),
            ["log", bytes] => {
                log::info!("{}", "l".repeat(number(bytes)?));
                "ok".to_owned()
            }
            ["reject", bytes] => return Err(Rejection::discard("r".repeat(number(bytes)?))),
            _ => format!("took {} headers", message.headers.len()),
        };
        publish("out", answer, &[("answer", &text)])?;
        Ok(())
    }
}

fn told<E: std::fmt::Display>(outcome: Result<u64, E>) -> String {
    match outcome {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn number(text: &str) -> Result<usize, Rejection> {
    text.parse()
        .map_err(|_| Rejection::discard(format!("`{text}` is not a number")))
}

haar_guest::export!(Abi);
