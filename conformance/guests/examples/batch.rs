//! Publishes batches on the outlet `out`, and logs what came of each: the sequence of the first
//! message, or the text of the error. The body of a message is `COUNT BYTES`, `COUNT BYTES LAST` for
//! a last message of another size, or `flood COUNT` for batches until one is refused.

use haar_guest::{Message, Microservice, Outgoing, PublishError, Rejection, log, publish_batch};

/// Batches of a flood at most.
const FLOOD_BATCHES: usize = 10_000;

#[derive(Default)]
struct Batch;

impl Microservice for Batch {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let command = message.text()?;
        let words: Vec<&str> = command.split(' ').collect();
        let outcome = match words[..] {
            ["flood", count] => flood(number(count)?),
            [count, bytes] => batch(number(count)?, number(bytes)?, number(bytes)?),
            [count, bytes, last] => batch(number(count)?, number(bytes)?, number(last)?),
            _ => return Err(Rejection::discard("the body is no command of this guest")),
        };
        match outcome {
            Ok(first) => log::info!("{command}: first {first}"),
            Err(error) => log::info!("{command}: {error}"),
        }
        Ok(())
    }
}

fn batch(count: usize, bytes: usize, last: usize) -> Result<u64, PublishError> {
    let (body, last) = (vec![b'x'; bytes], vec![b'x'; last]);
    let headers = &[];
    let mut batch = vec![
        Outgoing {
            body: &body,
            headers
        };
        count
    ];
    if let Some(message) = batch.last_mut() {
        message.body = &last;
    }
    publish_batch("out", &batch)
}

fn flood(count: usize) -> Result<u64, PublishError> {
    let mut first = 0;
    for _ in 0..FLOOD_BATCHES {
        first = batch(count, 1, 1)?;
    }
    Ok(first)
}

fn number(text: &str) -> Result<usize, Rejection> {
    text.parse()
        .map_err(|_| Rejection::discard(format!("`{text}` is not a number")))
}

haar_guest::export!(Batch);
