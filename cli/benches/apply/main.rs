//! `apply` over the real REST API, relay and processes: `cargo bench -p haar --bench apply
//! [-- cached|deploy] [--agent PATH]`. See docs/benchmarks.md.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that can't run ends at once, with the line"
)]

mod site;
mod network;
mod cached;
mod deploy;

use std::path::PathBuf;

/// The program with all roles.
const HAAR: &str = env!("CARGO_BIN_EXE_haar");

fn main() {
    let mut filter = Vec::new();
    let mut agent = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--agent" => agent = Some(PathBuf::from(words.next().unwrap())),
            word if word.starts_with('-') => {}
            _ => filter.push(word),
        }
    }
    let has = |name: &str| filter.is_empty() || filter.iter().any(|word| name == word);
    if has("cached") {
        cached::run(agent.as_deref());
    }
    if has("deploy") {
        deploy::run(agent.as_deref());
    }
}
