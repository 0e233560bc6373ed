//! Recurses without end, on one stack or the other, by the body of a message: `calls` keeps nothing
//! in linear memory, so that the engine's stack ends first; `frames` keeps a large array in every
//! frame, so that the guest's own stack in linear memory does. Logs any other message.

use std::hint::black_box;

use haar_guest::{Message, Microservice, Rejection, log};

#[derive(Default)]
struct Recurse;

impl Microservice for Recurse {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        match message.text()? {
            "calls" => log::info!("came back: {}", calls(message.sequence, u64::MAX)),
            "frames" => log::info!("came back: {}", frames(message.sequence)),
            other => log::info!("handled {other}"),
        }
        Ok(())
    }
}

/// What is done to the result keeps the compiler from making a loop of it.
#[inline(never)]
fn calls(depth: u64, end: u64) -> u64 {
    if depth == end {
        return end;
    }
    calls(depth + 1, end).rotate_left(7) ^ depth
}

#[allow(unconditional_recursion, reason = "that is what it is for")]
#[inline(never)]
fn frames(depth: u64) -> u64 {
    let frame = black_box([depth; 128]);
    frames(depth + 1) ^ black_box(frame)[0]
}

haar_guest::export!(Recurse);
