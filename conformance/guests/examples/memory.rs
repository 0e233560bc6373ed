//! Takes memory. `grow` allocates without end and dies of it; `try-grow` allocates until it is
//! refused, lets go again and logs how much it got. Logs any other message.

use haar_guest::{Message, Microservice, Rejection, log};

const BLOCK_BYTES: usize = 64 << 10;

#[derive(Default)]
struct Memory;

impl Microservice for Memory {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        match message.text()? {
            "grow" => grow(),
            "try-grow" => log::info!("refused after {} bytes", try_grow()),
            other => log::info!("handled {other}"),
        }
        Ok(())
    }
}

fn grow() {
    let mut blocks = Vec::new();
    loop {
        blocks.push(std::hint::black_box(vec![1u8; BLOCK_BYTES]));
    }
}

fn try_grow() -> usize {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut block: Vec<u8> = Vec::new();
        if blocks.try_reserve(1).is_err() || block.try_reserve_exact(BLOCK_BYTES).is_err() {
            return std::hint::black_box(&blocks).len() * BLOCK_BYTES;
        }
        blocks.push(block);
    }
}

haar_guest::export!(Memory);
