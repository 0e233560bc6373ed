//! How long things take to start: an agent with no network, one microservice, one container.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use haar_conformance_artifacts as artifacts;
use haar_engine::artifact::{CheckedCode, Expected};
use haar_engine::{configuration, load};
use haar_host::bus::registry::Registry;
use haar_host::runtime::GuestRuntime;
use haar_protocol::assignment::Microservice;
use haar_protocol::grants::{Access, DirectoryGrant};
use haar_protocol::module::Publishers;

use crate::MICROSERVICES;
use crate::container::Container;
use crate::device::Device;
use crate::node::{Node, configured, microservice, route};
use crate::site::Site;
use crate::support::{Bench, percentile};

/// Starts of an agent.
const ROUNDS: usize = 15;
/// Bytes of one entry of the guest `journal`: one when it starts, then one for each message.
const ENTRY_BYTES: u64 = 40;

/// Start of the process to the first message handled, with everything on the disk and no relay. Once
/// with what the kernel has of the files in its memory, once without, as after power came.
pub async fn of_the_agent(agent: &Path) {
    let mut site = Site::start_with_tls().await;
    let mut device = Device::enrol(&site, "start", agent);
    let folder = tempfile::tempdir().unwrap();
    let journal = device.install(&site, artifacts::JOURNAL);
    let quiet = device.install(&site, artifacts::QUIET);
    let source = device.install(&site, artifacts::SOURCE);
    device.add(configured(
        microservice("source", source, &["out"], &[]),
        &[("period_ms", "1000")],
    ));
    let mut spec = microservice("journal", journal, &[], &["in"]);
    spec.grants.directories = vec![DirectoryGrant {
        host: folder.path().to_str().unwrap().to_owned(),
        guest: "/journal".to_owned(),
        access: Access::ReadWrite,
        quota: None,
        optional: false,
        mount: Default::default(),
    }];
    let allowed = format!(
        "[policy]\ndirectories = [{{ path = {:?}, access = \"read-write\" }}]\n",
        folder.path()
    );
    std::fs::write(device.node.data.path().join("agent.toml"), allowed).unwrap();
    device.add(spec);
    for index in 2..MICROSERVICES {
        device.add(microservice(&format!("m{index}"), quiet, &[], &["in"]));
    }
    let (from, to) = (
        device.node.port("source", "out"),
        device.node.port("journal", "in"),
    );
    device.join(route(from, to));
    // From now on a message comes as soon as its source runs.
    device.assignment.microservices[0].configuration = [("period_ms".into(), "1".into())].into();
    device.start(None);
    device.assign(&site).await;
    device.stop();
    site.stop_relay().await;
    println!(
        "start: the agent's process to the first message handled, {MICROSERVICES} microservices, no network, {ROUNDS} starts"
    );
    for (what, is_cold) in [("files in memory", false), ("files on the disk only", true)] {
        let file = folder.path().join("journal");
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            std::fs::remove_file(&file).unwrap();
            if is_cold && !drop_caches() {
                println!("  {what}: only root can have that");
                return;
            }
            let began = Instant::now();
            device.spawn(None);
            let is_handled = || {
                file.metadata()
                    .is_ok_and(|file| file.len() >= 2 * ENTRY_BYTES)
            };
            while !is_handled() {
                std::thread::sleep(Duration::from_micros(200));
            }
            times.push(began.elapsed());
            device.stop();
        }
        println!(
            "  {what:24} median {:>8.1} ms   slowest {:>8.1} ms",
            percentile(&mut times, 50.0),
            percentile(&mut times, 100.0)
        );
    }
}

/// Has the kernel forget what it has of files. False when it does not let us.
fn drop_caches() -> bool {
    let synced = std::process::Command::new("sync").status();
    synced.is_ok_and(|status| status.success())
        && std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

/// One microservice from its verified file to the first message handled, beside a container that starts a
/// static binary, in turns.
pub async fn of_one_microservice() {
    const ROUNDS: usize = 100;
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::QUIET), &site.publisher);
    let bench = Bench::new(&site, &node, 1);
    let spec = microservice("it", module, &[], &["in"]);
    let compiled = bench.prepare(&spec);
    let container = Container::new();
    let (mut from_file, mut again, mut contained) = (Vec::new(), Vec::new(), Vec::new());
    let (mut from_verified, mut mapped) = (Vec::new(), Vec::new());
    let handled = |what: &mut Vec<Duration>, began: Instant, pre| {
        let mut registry = Registry::default();
        let running = bench.run(&mut registry, &spec, pre);
        let counters = running.deliver(1, b"hello");
        running.wait_handled(&counters, 1);
        what.push(began.elapsed());
        running
    };
    for _ in 0..ROUNDS {
        bench.forget();
        let began = Instant::now();
        let pre = bench.prepare(&spec);
        handled(&mut from_file, began, pre).stop().await;
        bench.forget();
        let checked = verified(&node, &site, &spec, &bench.runtime);
        let began = Instant::now();
        let component = load::load(bench.runtime.engine(), checked).unwrap();
        mapped.push(began.elapsed());
        let pre = bench.runtime.link(&component, &spec.grants).unwrap();
        handled(&mut from_verified, began, pre).stop().await;
        drop(component);
        handled(&mut again, Instant::now(), compiled.clone())
            .stop()
            .await;
        if let Ok(container) = &container {
            contained.push(container.run());
        }
    }
    bench.finish();
    println!("one: start to the first message handled, {ROUNDS} times");
    let tell = |what: &str, times: &mut Vec<Duration>| {
        let median = percentile(times, 50.0);
        let p99 = percentile(times, 99.0);
        println!("  {what:44} median {median:>8.3} ms   p99 {p99:>8.3} ms");
        median
    };
    let file = tell(
        "microservice, from its file, with every check",
        &mut from_file,
    );
    let checked = tell("from its file, which is verified", &mut from_verified);
    let engine = tell("of that, the engine maps and loads it", &mut mapped);
    let loaded = tell("another instance of it, module loaded", &mut again);
    match container {
        Ok(_) => {
            let other = tell(
                "container of crun, to the binary's first line",
                &mut contained,
            );
            println!(
                "  the container takes {:.0}, {:.0}, {:.0} and {:.0} times as long",
                other / file,
                other / checked,
                other / engine,
                other / loaded
            );
        }
        Err(why) => println!("  no container beside it: {why}"),
    }
}

/// The code of a microservice on the node's disk, after every check.
fn verified(node: &Node, site: &Site, spec: &Microservice, runtime: &GuestRuntime) -> CheckedCode {
    let name = format!("compiled/{}.code", spec.module.to_hex());
    let expected = Expected {
        module: &spec.module,
        publishers: Publishers {
            of_site: &[site.publisher.public()],
            of_owner: None,
            later: None,
        },
        fingerprint: runtime.fingerprint(),
        target: &configuration::target(),
        trusted: &[node.key.public()],
    };
    let file = File::open(node.data.path().join(name)).unwrap();
    expected.check_file(file).unwrap()
}

/// For commands whose words nobody reads.
pub fn silent(command: &mut std::process::Command) -> &mut std::process::Command {
    command.stdout(Stdio::null()).stderr(Stdio::null())
}
