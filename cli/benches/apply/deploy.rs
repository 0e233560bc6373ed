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
            let deployed = deploy(&site, pushed);
            if round > 0 {
                running.push(deployed.running_ms);
                told.push(deployed.told_ms);
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
        let deployed = deploy(&site, Pushed::Before);
        if round == 0 {
            continue; // the first writes pages of its database that the next ones do not
        }
        module_bytes = deployed.module_bytes;
        for (sum, bytes) in sums.iter_mut().zip(deployed.bytes) {
            *sum += bytes;
        }
    }
    let [written, received, sent] = sums.map(|sum| sum / ROUNDS as u64);
    let times = |bytes: u64| bytes as f64 / module_bytes as f64;
    println!(
        "  a module of {module_bytes} bytes, from `haar apply` until it says that it runs, mean of {ROUNDS}:"
    );
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

/// What came of a round.
struct Deployed {
    /// Until it runs, by the node's clock.
    running_ms: u64,
    /// Until the command says so.
    told_ms: u64,
    module_bytes: u64,
    /// Given to the disk until then, received, and sent.
    bytes: [u64; 3],
}

/// One round. What was deployed is deleted after it.
fn deploy(site: &Site, pushed: Pushed) -> Deployed {
    let version = site.next_version();
    let module_bytes = site.push("quiet", &version, artifacts::QUIET);
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
    let before = counted(site);
    let began = Instant::now();
    let began_ms = now_ms();
    site.haar(&["apply", "-f", &manifest]);
    let told_ms = u64::try_from(began.elapsed().as_millis()).unwrap();
    let after = counted(site);
    let running_ms = site.running_since_ms("quiet") - began_ms;
    site.delete("bench");
    site.wait(Duration::from_secs(30), "the node is at rest", || {
        site.is_at_rest()
    });
    Deployed {
        running_ms,
        told_ms,
        module_bytes,
        bytes: std::array::from_fn(|index| after[index] - before[index]),
    }
}

/// Bytes that the node has given to the disk, received and sent; of the network only where it counts.
fn counted(site: &Site) -> [u64; 3] {
    let (received, sent) = site.network.bytes().unwrap_or_default();
    [site.written_bytes(), received, sent]
}
