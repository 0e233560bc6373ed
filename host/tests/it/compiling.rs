//! Modules are compiled in a process of their own, whose limits a hostile one can't pass.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use haar_conformance_artifacts as artifacts;
use haar_engine::compiler::{CompileLimits, Program};
use haar_host::controller::{Controller, Credentials};
use haar_host::modules::code::CodeSources;
use haar_host::modules::compile::Compiler;
use haar_host::modules::{Modules, PrepareError, Trust};
use haar_host::runtime::GuestRuntime;
use haar_protocol::quantity::{ByteSize, Millis};

use crate::node::{Node, microservice};
use crate::site::Site;

/// How long a child may take to say that it has begun.
const DEADLINE: Duration = Duration::from_secs(30);

/// The agent's real binary as the compiler.
fn child(memory: ByteSize, time: Millis) -> Compiler {
    let program = Program {
        path: env!("CARGO_BIN_EXE_haar-agent").into(),
        arguments: vec![],
    };
    Compiler::Child(program, CompileLimits { memory, time })
}

/// A node's modules, compiled by that compiler.
struct Bench {
    site: Site,
    node: Node,
    compiler: Compiler,
}

impl Bench {
    async fn new(compiler: Compiler) -> Self {
        let site = Site::start().await;
        let node = Node::enrol(&site, "one");
        Self {
            site,
            node,
            compiler,
        }
    }

    /// Prepares modules one after the other. What each came to, in that order.
    async fn prepare(&self, components: &[Vec<u8>]) -> Vec<Result<(), PrepareError>> {
        let controller = Controller::new("https://127.0.0.1:1", &self.site.ca_pem()).unwrap();
        let credentials = Credentials {
            site: self.site.id(),
            node: self.node.id.clone(),
            key: self.node.key.clone(),
        };
        let data = self.node.data.path();
        let sources = CodeSources {
            compiler: self.compiler.clone(),
            precompiled_by: None,
        };
        let modules = Modules::open(
            data,
            controller,
            credentials,
            sources,
            Arc::new(self.node.policy()),
        )
        .unwrap();
        let specs: Vec<_> = components
            .iter()
            .map(|component| self.node.install(component, &self.site.publisher))
            .map(|module| microservice("it", module, &["out"], &["in"]))
            .collect();
        let assignment = self.node.assignment(&self.site, 1);
        tokio::task::spawn_blocking(move || {
            let runtime = GuestRuntime::new(1).unwrap();
            specs
                .iter()
                .map(|spec| {
                    let trust = Trust::of(&assignment, &spec.module);
                    modules.prepare(spec, trust, &runtime).map(drop)
                })
                .collect()
        })
        .await
        .unwrap()
    }

    /// How the files of compiled code end.
    fn compiled(&self) -> Vec<String> {
        let folder = self.node.data.path().join("compiled");
        let entries = std::fs::read_dir(folder).unwrap();
        let mut ends: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .map(|name| name.split_once('.').unwrap().1.to_owned())
            .collect();
        ends.sort();
        ends
    }
}

fn refusal(outcome: &Result<(), PrepareError>) -> &str {
    match outcome {
        Err(PrepareError::Refused(reason)) => reason,
        other => panic!("it was not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_compiled_by_a_child_and_its_code_is_good() {
    let bench = Bench::new(child(ByteSize(512 << 20), Millis(60_000))).await;
    let outcomes = bench.prepare(&[artifacts::read(artifacts::ECHO)]).await;
    assert!(outcomes[0].is_ok(), "{outcomes:?}");
    assert_eq!(bench.compiled(), ["code"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_takes_for_ever_to_compile_is_refused_and_the_next_one_is_not() {
    let bench = Bench::new(child(ByteSize(4 << 30), Millis(2_000))).await;
    let bomb = artifacts::compile_bomb();
    let outcomes = bench.prepare(&[bomb, artifacts::empty_component()]).await;
    let reason = refusal(&outcomes[0]);
    assert!(reason.contains("within 4GiB and 2s"), "{reason}");
    assert!(outcomes[1].is_ok(), "{outcomes:?}");
    assert_eq!(bench.compiled(), ["code"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_takes_all_memory_to_compile_is_refused_and_the_next_one_is_not() {
    let bench = Bench::new(child(ByteSize(64 << 20), Millis(600_000))).await;
    let bombs = [
        artifacts::compile_bomb(),
        artifacts::component_with_doubling_instances(30),
        artifacts::empty_component(),
    ];
    let outcomes = bench.prepare(&bombs).await;
    for bomb in &outcomes[..2] {
        let reason = refusal(bomb);
        assert!(reason.contains("within 64MiB"), "{reason}");
    }
    assert!(outcomes[2].is_ok(), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_does_not_take_is_refused_with_its_words() {
    let bench = Bench::new(child(ByteSize(512 << 20), Millis(60_000))).await;
    let outcomes = bench
        .prepare(&[artifacts::component_with_invalid_utf8_name()])
        .await;
    let reason = refusal(&outcomes[0]);
    assert!(reason.contains("UTF-8"), "{reason}");
}

/// A killed compiler says nothing of the module, which is compiled at the next attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_that_somebody_kills_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    for signal in ["KILL", "TERM", "HUP"] {
        let script = folder.path().join(signal);
        let flag = folder.path().join(format!("{signal}.done"));
        let text = format!(
            "#!/bin/sh\n[ -e {flag} ] || {{ : > {flag}; kill -{signal} $$; }}\nexec {agent} \"$@\"\n",
            flag = flag.display(),
            agent = env!("CARGO_BIN_EXE_haar-agent"),
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = Program {
            path: script,
            arguments: vec![],
        };
        let bench = Bench::new(Compiler::Child(program, CompileLimits::default())).await;
        let echo = artifacts::read(artifacts::ECHO);
        let outcomes = bench.prepare(&[echo.clone(), echo]).await;
        match &outcomes[0] {
            Err(PrepareError::NotYet(reason)) => {
                assert!(reason.contains("was ended by signal"), "{reason}");
            }
            other => panic!("{signal}: {other:?}"),
        }
        assert!(outcomes[1].is_ok(), "{signal}: {outcomes:?}");
        assert_eq!(bench.compiled(), ["code"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_that_can_not_be_started_is_tried_again() {
    let program = Program {
        path: "/does/not/exist".into(),
        arguments: vec![],
    };
    let bench = Bench::new(Compiler::Child(program, CompileLimits::default())).await;
    let outcomes = bench.prepare(&[artifacts::read(artifacts::ECHO)]).await;
    match &outcomes[0] {
        Err(PrepareError::NotYet(reason)) => {
            assert!(reason.contains("can't be started"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

/// A disk that is full has nothing to do with the module: it is tried again when there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_not_refused_because_its_code_can_not_be_written() {
    let bench = Bench::new(child(ByteSize(512 << 20), Millis(60_000))).await;
    let component = artifacts::read(artifacts::ECHO);
    let code = bench.node.data.path().join("compiled");
    let (digest, _) = bench.node.install(&component, &bench.site.publisher);
    let name = digest.to_hex();
    std::fs::create_dir_all(code.join(format!("{name}.part"))).unwrap(); // in the way of the file
    let outcomes = bench.prepare(std::slice::from_ref(&component)).await;
    assert!(
        matches!(&outcomes[0], Err(PrepareError::NotYet(_))),
        "{outcomes:?}"
    );
    std::fs::remove_dir(code.join(format!("{name}.part"))).unwrap();
    assert!(bench.prepare(&[component]).await[0].is_ok());
}

/// A child that would go on for minutes.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A machine without memory ends the compiler, and not the agent that waits for it.
#[test]
fn the_child_is_the_first_that_a_kernel_without_memory_ends() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    std::fs::write(&input, artifacts::compile_bomb()).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_haar-agent"))
        .args([
            "compile-module",
            "--memory",
            "4GiB",
            "--time",
            "600s",
            "--in",
        ])
        .arg(&input)
        .arg("--out")
        .arg(folder.path().join("out"))
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let score = format!("/proc/{}/oom_score_adj", child.0.id());
    let deadline = Instant::now() + DEADLINE;
    while std::fs::read_to_string(&score).unwrap().trim() != "1000" {
        assert_eq!(child.0.try_wait().unwrap(), None, "it compiles for minutes");
        assert!(Instant::now() < deadline, "it never said so");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn compile(input: &Path, output: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_haar-agent"))
        .arg("compile-module")
        .arg("--in")
        .arg(input)
        .arg("--out")
        .arg(output)
        .output()
        .unwrap()
}

#[test]
fn the_child_says_in_one_line_what_is_wrong_and_whether_it_is_the_module() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in"), folder.path().join("out"));
    let absent = compile(&input, &output);
    std::fs::write(&input, b"no module").unwrap();
    let no_module = compile(&input, &output);
    for (outcome, code) in [(absent, 74), (no_module, 1)] {
        assert_eq!(outcome.status.code(), Some(code));
        let words = String::from_utf8(outcome.stderr).unwrap();
        assert_eq!(words.lines().count(), 1, "{words}");
    }
    assert!(!output.exists());
}
