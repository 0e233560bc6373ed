//! Dies in the way that is asked for: `panic`, `trap` (the instruction `unreachable`) or `recurse`
//! (until the stack ends) as the body of a message. The configuration `start` makes the start fail
//! (`error`, `panic`, `spin`), `stop` the end (`panic`, `spin`). Logs any other message.

use haar_guest::{Message, Microservice, Rejection, config, log};

#[derive(Default)]
struct Trap;

impl Microservice for Trap {
    fn start(&mut self) -> Result<(), String> {
        match config::get("start")?.as_deref() {
            Some("error") => Err("the configuration asks for an error at the start".to_owned()),
            Some("panic") => panic!("the configuration asks for a panic at the start"),
            Some("spin") => spin(),
            _ => Ok(()),
        }
    }

    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        match message.text()? {
            "panic" => panic!("the message asks for a panic"),
            "trap" => trap(),
            "recurse" => log::info!("came back from recursion: {}", recurse(0)),
            other => log::info!("handled {other}"),
        }
        Ok(())
    }

    fn stop(&mut self) {
        match config::get("stop").ok().flatten().as_deref() {
            Some("panic") => panic!("the configuration asks for a panic at the end"),
            Some("spin") => spin(),
            _ => {}
        }
    }
}

fn spin() -> ! {
    loop {
        std::hint::black_box(());
    }
}

#[cfg(target_arch = "wasm32")]
fn trap() {
    core::arch::wasm32::unreachable()
}

#[cfg(not(target_arch = "wasm32"))]
fn trap() {
    std::process::abort()
}

/// Recurses until the stack ends. The array and what happens to it afterwards keep the compiler
/// from making a loop of it.
#[allow(unconditional_recursion, reason = "that is what it is for")]
fn recurse(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 16]);
    recurse(depth + 1) + std::hint::black_box(frame)[0]
}

haar_guest::export!(Trap);
