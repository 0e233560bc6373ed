//! Computes, for the price of metering. The body of a message is `KIND ROUNDS`, where KIND is
//! `sha256` (of 4 KiB), `crc` (of 4 KiB, by a table), `recursion` (Fibonacci of 20), `indirect`
//! (1,000 calls through a table), `json` (a reading parsed and written) or `sort` (1,000 numbers).
//! The answer is logged, so that no compiler leaves the work out.

use std::hint::black_box;

use haar_guest::{Message, Microservice, Rejection, log};
use sha2::{Digest as _, Sha256};

#[derive(Default)]
struct Compute;

impl Microservice for Compute {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let text = message.text()?;
        let (kind, rounds) = text
            .split_once(' ')
            .ok_or_else(|| Rejection::discard("the body is `KIND ROUNDS`"))?;
        let rounds: u32 = rounds
            .parse()
            .map_err(|_| Rejection::discard("ROUNDS is no number"))?;
        let round: fn(u32) -> u64 = match kind {
            "sha256" => sha256,
            "crc" => crc,
            "recursion" => |_| fibonacci(black_box(20)),
            "indirect" => indirect,
            "json" => json,
            "sort" => sort,
            _ => return Err(Rejection::discard("KIND is unknown")),
        };
        let sum = (0..rounds).fold(0u64, |sum, index| sum.wrapping_add(round(index)));
        log::debug!("{kind}: {sum}");
        Ok(())
    }
}

fn bytes(seed: u32) -> Vec<u8> {
    (0..4_096u32)
        .map(|index| index.wrapping_mul(31).wrapping_add(seed).to_le_bytes()[0])
        .collect()
}

fn sha256(seed: u32) -> u64 {
    Sha256::digest(bytes(seed))[0].into()
}

/// The polynomial of Ethernet's checksum, reflected (IEEE 802.3).
const POLYNOMIAL: u32 = 0xedb8_8320;

#[allow(
    clippy::cast_possible_truncation,
    reason = "below 256, and nothing else is const here"
)]
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ (if value & 1 == 1 { POLYNOMIAL } else { 0 });
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

fn crc(seed: u32) -> u64 {
    let checksum = bytes(seed).iter().fold(!0u32, |checksum, byte| {
        TABLE[usize::from(checksum.to_le_bytes()[0] ^ byte)] ^ (checksum >> 8)
    });
    u64::from(!checksum)
}

fn fibonacci(n: u32) -> u64 {
    if n < 2 {
        u64::from(n)
    } else {
        fibonacci(n - 1) + fibonacci(n - 2)
    }
}

fn indirect(seed: u32) -> u64 {
    let steps: [fn(u64) -> u64; 4] = [
        |value| value.wrapping_add(7),
        |value| value.wrapping_mul(3),
        |value| value ^ 0x55,
        |value| value.rotate_left(5),
    ];
    (0..1_000usize).fold(u64::from(seed), |value, index| {
        black_box(steps[index % 4])(value)
    })
}

fn json(seed: u32) -> u64 {
    let text = format!(
        r#"{{"sensor":"boiler-{seed}","time":"2026-11-20T12:00:00Z","values":[1.5,2.25,{seed},-4e3],"ok":true}}"#
    );
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    value.to_string().len() as u64
}

fn sort(seed: u32) -> u64 {
    let mut numbers: Vec<u32> = (0..1_000u32)
        .map(|index| index.wrapping_mul(2_654_435_761).wrapping_add(seed))
        .collect();
    numbers.sort_unstable();
    numbers[500].into()
}

haar_guest::export!(Compute);
