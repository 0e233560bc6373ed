//! `apply` of a module that the node has never seen, to its running there: fetched, verified, its code
//! fetched, kept, mapped and started. With what goes over the network for it, and to the disk.

use std::path::Path;
use std::time::{Duration, Instant};

use haar_conformance_artifacts as artifacts;

use crate::network::Network;
use crate::site::{Site, now_ms};

const ROUNDS: usize = 30;

/// How a module comes to the site.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pushed {
    /// Well before: the controller has compiled it for its fleet.
    Before,
    /// Just now: it is being compiled.
    JustNow,
}

pub(crate) fn run(agent: Option<&Path>) {
    let site = Site::start(Network::Loopback, agent);
    println!("deploy: apply of a module that the node has not, {ROUNDS} rounds, loopback");
    for (pushed, what) in [
        (Pushed::Before, "compiled before"),
        (Pushed::JustNow, "pushed just before"),
    ] {
        let mut running = Vec::new();
        let mut told = Vec::new();
        for round in 0..=ROUNDS {
            let (times, _) = deploy(&site, pushed);
            if round > 0 {
                running.push(times.0);
                told.push(times.1);
            }
        }
        running.sort();
        told.sort();
        println!(
            "  {what:20} running on the node: median {} ms, slowest {} ms; `haar apply`, which waits for it: median {} ms, slowest {} ms",
            running[ROUNDS / 2],
            running[ROUNDS - 1],
            told[ROUNDS / 2],
            told[ROUNDS - 1],
        );
    }
    drop(site);
    bytes(agent);
}

/// What one deployment takes of the network and of the flash.
fn bytes(agent: Option<&Path>) {
    let network = Network::namespace();
    let counted = network.is_some();
    let site = Site::start(network.unwrap_or(Network::Loopback), agent);
    if !counted {
        println!("  only root can have the bytes of the network counted");
    }
    let mut sums = [0; 3];
    let mut module_bytes = 0;
    for round in 0..=ROUNDS {
        let before = site.written_bytes();
        let from = site.network.bytes();
        let (_, bytes) = deploy(&site, Pushed::Before);
        let to = site.network.bytes();
        if round == 0 {
            continue; // the first writes pages of its database that the next ones do not
        }
        module_bytes = bytes;
        sums[0] += site.written_bytes() - before;
        if let (Some(from), Some(to)) = (from, to) {
            sums[1] += to.0 - from.0;
            sums[2] += to.1 - from.1;
        }
    }
    let [written, received, sent] = sums.map(|sum| sum / ROUNDS as u64);
    let times = |bytes: u64| bytes as f64 / module_bytes as f64;
    println!("  a module of {module_bytes} bytes, deployed and deleted again, mean of {ROUNDS}:");
    if counted {
        println!(
            "    over the network {} bytes, {:.2} times the module: {received} to the node, {sent} from it",
            received + sent,
            times(received + sent)
        );
    }
    println!(
        "    given to the disk {written} bytes, {:.2} times the module",
        times(written)
    );
    println!("    on the disk then: {}", site.describe_files());
}

/// One round: milliseconds until it runs by the node's clock, and until the command says so; and the
/// bytes of its module.
fn deploy(site: &Site, pushed: Pushed) -> ((u64, u64), u64) {
    let version = site.next_version();
    let bytes = site.push("quiet", &version, artifacts::QUIET);
    if pushed == Pushed::Before {
        site.wait_until_compiled("quiet", &version);
    }
    let manifest = site.manifest(&format!(
        "
api_version: haar/v1
kind: Application
name: bench
microservices:
  - name: quiet
    module: quiet@{version}
    place: {{ node: one }}
    inlets: {{ in: text/plain }}
"
    ));
    let began = Instant::now();
    let began_ms = now_ms();
    site.haar(&["apply", "-f", &manifest]);
    let told = u64::try_from(began.elapsed().as_millis()).unwrap();
    let running = site.running_since_ms("quiet") - began_ms;
    site.delete("bench");
    site.wait(Duration::from_secs(30), "the node is at rest", || {
        site.is_at_rest()
    });
    ((running, told), bytes)
}
