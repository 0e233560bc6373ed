//! The controller compiles modules for nodes: once for each engine and target, signed by the site.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use haar_controller::controller::Controller;
use haar_engine::artifact::Expected;
use haar_engine::configuration;
use haar_protocol::ids::Digest;
use haar_protocol::keys::PublicKey;
use haar_protocol::module::Publishers;
use haar_protocol::rest::{List, ModuleCode};
use haar_protocol::status::{EngineStatus, Status};
use rustix::fs::{CWD, Mode, OFlags};

use crate::support::device::Device;
use crate::support::http::Reply;
use crate::support::modules::recipe;
use crate::support::site::{TestSite, arguments, publisher};
use crate::support::wait::{TestRuntime, until};

fn code_path(digest: &Digest, target: &str, engine: &str) -> String {
    format!("/modules/{digest}/code/{target}?engine={engine}")
}

fn list(site: &TestSite, digest: &Digest) -> Vec<ModuleCode> {
    let path = format!("/modules/{digest}/code");
    site.client.get(&path).ok::<List<ModuleCode>>().items
}

/// The code in an answer, when it is what a node of this engine and target expects.
fn unpacked(
    reply: &Reply,
    digest: &Digest,
    target: &str,
    engine: &str,
    site: PublicKey,
) -> Vec<u8> {
    assert_eq!(reply.status, 200, "{}", reply.json());
    let (trusted, publishers) = ([site], [publisher().public()]);
    let expected = Expected {
        module: digest,
        publishers: Publishers {
            of_site: &publishers,
            of_owner: None,
            later: None,
        },
        fingerprint: engine,
        target,
        trusted: &trusted,
    };
    let mut bytes = &reply.bytes[..];
    let seal = expected.read(&mut bytes).unwrap();
    let mut unpacking = seal.unpack(&mut bytes).unwrap();
    let mut code = Vec::new();
    while unpacking.next(&mut bytes, &mut code).unwrap() {}
    unpacking.finish().unwrap();
    code
}

#[test]
fn a_module_is_compiled_once_for_each_target_and_signed_by_the_site() {
    let site = TestSite::with_publisher();
    let digest = Digest::of(&site.push(&recipe("sampler", "1.0.0")));
    let engine = configuration::fingerprint();
    assert_eq!(list(&site, &digest), [], "nobody wanted it yet");
    let mut codes = BTreeSet::new();
    for target in ["x86_64-linux", "aarch64-linux", "pulley32"] {
        let reply = site.client.get(&code_path(&digest, target, &engine));
        let code = unpacked(&reply, &digest, target, &engine, site.key);
        assert!(code.starts_with(b"\x7fELF"), "{target}");
        let again = site.client.get(&code_path(&digest, target, &engine));
        assert_eq!(again.bytes, reply.bytes, "{target}");
        let rest = site.client.send(
            "GET",
            &code_path(&digest, target, &engine),
            &[("range", "bytes=100-".to_owned())],
            b"",
        );
        assert_eq!((rest.status, &rest.bytes[..]), (206, &reply.bytes[100..]));
        codes.insert(code);
    }
    assert_eq!(codes.len(), 3);
    let kept = list(&site, &digest);
    assert_eq!(kept.len(), 3);
    assert!(
        kept.iter()
            .all(|code| code.engine == engine && code.packed_bytes.is_some())
    );
    // Still there after a restart, and gone with the module.
    let site = site.restart();
    assert_eq!(list(&site, &digest), kept);
    site.client.delete(&format!("/modules/{digest}")).done();
    let folder = site.directory.path().join("code");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
}

#[test]
fn nodes_get_the_code_of_their_assignment_only_and_what_nobody_compiles_is_said() {
    let site = TestSite::with_publisher();
    let digest = Digest::of(&site.push(&recipe("sampler", "1.0.0")));
    let node = Device::join(&site, 7, "gate", &[]);
    let engine = configuration::fingerprint();
    let path = code_path(&digest, "x86_64-linux", &engine);
    node.client(&site).get(&path).refused(403, "not_assigned");
    site.client
        .with_authorization(None)
        .get(&path)
        .refused(401, "unauthenticated");
    let other = "ab".repeat(32);
    let text = site
        .client
        .get(&code_path(&digest, "x86_64-linux", &other))
        .refused(404, "no_compiler");
    assert!(text.contains("--compiler"), "{text}");
    let text = site
        .client
        .get(&code_path(&digest, "s390x-linux", &engine))
        .refused(404, "no_compiler");
    assert!(text.contains("aarch64-linux"), "{text}");
    for (target, engine) in [("..%2F..%2Fsite", &*engine), ("x86_64-linux", "../../etc")] {
        site.client
            .get(&code_path(&digest, target, engine))
            .refused(400, "bad_platform");
    }
    let unknown = Digest::of(b"unknown");
    site.client
        .get(&code_path(&unknown, "x86_64-linux", &engine))
        .refused(404, "unknown_module");
}

fn engine_of(node: &Device, target: &str) -> Status {
    Status {
        engine: Some(EngineStatus {
            fingerprint: configuration::fingerprint(),
            target: target.into(),
            compiler: false,
            precompiled: true,
        }),
        ..node.status(1, 0, Vec::new())
    }
}

#[test]
fn what_is_pushed_is_compiled_for_the_fleet_before_anybody_asks() {
    let site = TestSite::with_publisher();
    let mut links = Vec::new();
    for (seed, name, target) in [(7, "arm", "pulley32"), (8, "pi", "aarch64-linux")] {
        let node = Device::join(&site, seed, name, &[]);
        let link = node.connect(&site);
        link.publish(node.sealed(&engine_of(&node, target), &node.key));
        let path = format!("/nodes/{name}");
        until("its status is known", || {
            site.client.get(&path).json()["engine"]
                .is_object()
                .then_some(())
        });
        links.push(link);
    }
    // No grant lets this one run.
    let mut http = recipe("http", "1.0.0");
    http.imports.push("wasi:http/types@0.2.10".into());
    let http = Digest::of(&site.push(&http));
    let digest = Digest::of(&site.push(&recipe("sampler", "1.0.0")));
    let targets = until("it is compiled", || {
        let code = list(&site, &digest);
        let is_there = code.len() == 2 && code.iter().all(|code| code.packed_bytes.is_some());
        is_there.then(|| code.into_iter().map(|code| code.target).collect::<Vec<_>>())
    });
    assert_eq!(targets, ["aarch64-linux", "pulley32"]);
    assert_eq!(list(&site, &http), []);
}

fn other_engine() -> String {
    "cd".repeat(32)
}

/// A site with a compiler for another engine, which does what `first` says before it compiles; and a
/// module.
fn with_other_compiler(folder: &Path, first: &str) -> (TestSite, Digest) {
    let program = folder.join("haar-controller-0.0.9");
    let engine = other_engine();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n*--describe*) echo '{{\"fingerprint\":\"{engine}\",\"targets\":[\"x86_64-linux\"],\"version\":\"0.0.9\"}}';;\n*) {first}\nexec {} \"$@\";;\nesac\n",
        env!("CARGO_BIN_EXE_haar-controller")
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let site = TestSite::start_with(|arguments| arguments.compilers = vec![program]);
    site.trust("acme", &publisher());
    let digest = Digest::of(&site.push(&recipe("sampler", "1.0.0")));
    (site, digest)
}

/// A killed compiler says nothing of the module.
#[test]
fn a_compiler_that_somebody_kills_is_started_again_while_the_node_waits() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("killed");
    let first = format!(
        "[ -e {0} ] || {{ : > {0}; kill -KILL $$; }}",
        flag.display()
    );
    let (site, digest) = with_other_compiler(folder.path(), &first);
    let engine = other_engine();
    let reply = site
        .client
        .get(&code_path(&digest, "x86_64-linux", &engine));
    unpacked(&reply, &digest, "x86_64-linux", &engine, site.key);
    assert!(flag.exists(), "it was not killed");
    let kept = list(&site, &digest);
    assert_eq!((kept.len(), kept[0].refused.as_deref()), (1, None));
}

#[test]
fn what_is_being_compiled_is_listed_with_how_far_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    rustix::fs::mkfifoat(CWD, &gate, Mode::RWXU).unwrap();
    let first = format!("read go < {}", gate.display());
    let (site, digest) = with_other_compiler(folder.path(), &first);
    let engine = other_engine();
    let path = code_path(&digest, "x86_64-linux", &engine);
    std::thread::scope(|threads| {
        let asks = threads.spawn(|| site.client.get(&path));
        // It may wait for its turn before.
        until("it is being compiled", || {
            let progress = list(&site, &digest).pop()?.progress?;
            progress.starts_with("compiling for ").then_some(())
        });
        // Without a reader this fails; it would wait for one otherwise.
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = until("the compiler waits for the gate", || {
            rustix::fs::open(&gate, flags, Mode::empty()).ok()
        });
        File::from(opened).write_all(b"go\n").unwrap();
        let reply = asks.join().unwrap();
        unpacked(&reply, &digest, "x86_64-linux", &engine, site.key);
    });
    assert_eq!(list(&site, &digest)[0].progress, None);
}

/// While a fleet is being updated, nodes have the engines of two releases: the controller asks the
/// program of the other one to compile for its engine.
#[test]
fn agents_of_two_releases_get_code_from_the_compiler_of_theirs() {
    let other_engine = other_engine();
    let folder = tempfile::tempdir().unwrap();
    let (site, digest) = with_other_compiler(folder.path(), "");
    for engine in [&configuration::fingerprint(), &other_engine] {
        let reply = site.client.get(&code_path(&digest, "x86_64-linux", engine));
        unpacked(&reply, &digest, "x86_64-linux", engine, site.key);
    }
    assert_eq!(list(&site, &digest).len(), 2);
    site.client
        .get(&code_path(&digest, "aarch64-linux", &other_engine))
        .refused(404, "no_compiler");
}

#[test]
fn a_program_that_is_no_compiler_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut arguments = arguments(folder.path());
    arguments.compilers = vec!["/bin/true".into()];
    let runtime = TestRuntime::new();
    let started = runtime.finish("it is refused", Controller::start(&arguments));
    let text = format!("{:#}", started.err().unwrap());
    assert!(text.contains("/bin/true is no compiler"), "{text}");
}
