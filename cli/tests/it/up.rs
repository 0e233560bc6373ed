//! `haar up`: a site that starts, stops in order, resumes, and leaves nothing behind.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::haar::Workplace;
use crate::program::{COMMAND, DEADLINE, Program, output_within};

/// A site that `haar up` runs. When it is dropped, it is killed; its children end when their standard
/// input closes.
struct Up<'a> {
    workplace: &'a Workplace,
    program: Program,
    ready: Value,
}

impl<'a> Up<'a> {
    fn start(workplace: &'a Workplace) -> Self {
        Self::run(workplace, workplace.command())
    }

    fn run(workplace: &'a Workplace, mut command: Command) -> Self {
        command
            .env("HOME", workplace.folder())
            .args([
                "up", "--data", "site", "--name", "plant", "--output", "json", "--quiet",
            ])
            .args(["--listen", "127.0.0.1:0", "--relay-listen", "127.0.0.1:0"]);
        let mut program = Program::start(&mut command);
        let ready = program.announcement();
        Self {
            workplace,
            program,
            ready,
        }
    }

    /// Waits until the site lists its node as connected.
    fn wait_online(&self) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let nodes = self.workplace.haar("get nodes --output json").ok().json();
            if nodes["items"][0]["online"] == true {
                return nodes["items"][0].clone();
            }
            assert!(Instant::now() < end, "the node does not come: {nodes}");
            std::thread::sleep(Duration::from_millis(100)); // between two looks at the condition
        }
    }

    /// Sends SIGINT to `haar up` alone and waits for its end.
    fn interrupt(mut self) -> (Option<i32>, String) {
        self.program.signal("-INT");
        self.end()
    }

    /// How it ends, and what it says on standard error.
    fn end(&mut self) -> (Option<i32>, String) {
        let output = self.program.output_within(DEADLINE);
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), stderr)
    }
}

/// Processes that have the workplace in their command line.
fn processes(workplace: &Workplace) -> Vec<String> {
    let folder = workplace.folder().canonicalize().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(folder.to_str().unwrap()) {
            found.push(line);
        }
    }
    found
}

/// What others could read or write of a file or folder and all below it, with the modes.
fn open_to_others(path: &Path, found: &mut Vec<String>) {
    let about = std::fs::symlink_metadata(path).unwrap();
    let mode = about.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        found.push(format!("{} {mode:o}", path.display()));
    }
    if about.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            open_to_others(&entry.unwrap().path(), found);
        }
    }
}

#[test]
fn nobody_else_reads_what_a_site_keeps_whatever_the_umask_is() {
    let workplace = Workplace::new();
    let up = Up::run(&workplace, workplace.command_under("000"));
    up.wait_online();
    let mut key = workplace.command_under("000");
    let made = output_within(key.args(["key", "new", "team"]), COMMAND);
    assert!(made.status.success(), "{made:?}");
    let (code, stderr) = up.interrupt();
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let mut found = Vec::new();
    for kept in ["site/agent", "site/controller", ".config/haar", "team.key"] {
        open_to_others(&workplace.path(kept), &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
    let site = std::fs::metadata(workplace.path("site")).unwrap();
    assert_eq!(site.permissions().mode() & 0o777, 0o700);
    // The agent's settings are there to be edited, and stay as they are then.
    let settings = "site/agent/agent.toml";
    assert!(workplace.read(settings).contains("\n[policy]\n"));
    workplace.write(settings, "status_interval = \"7s\"\n");
    let up = Up::start(&workplace);
    up.wait_online();
    up.interrupt();
    assert_eq!(workplace.read(settings), "status_interval = \"7s\"\n");
}

#[test]
fn a_site_starts_stops_in_order_and_resumes() {
    let workplace = Workplace::new();
    let up = Up::start(&workplace);
    let site = up.ready["site"].clone();
    let node = up.wait_online();
    assert_eq!(node["name"], "local");
    assert!(workplace.path(".config/haar/context.toml").is_file());
    let (code, stderr) = up.interrupt();
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(processes(&workplace), Vec::<String>::new());

    let up = Up::start(&workplace);
    assert_eq!(up.ready["site"], site);
    assert_eq!(up.wait_online()["id"], node["id"]);
    assert_eq!(up.interrupt().0, Some(0));
}

#[test]
fn children_do_not_outlive_a_parent_that_is_killed() {
    let workplace = Workplace::new();
    let up = Up::start(&workplace);
    up.wait_online();
    assert!(processes(&workplace).len() >= 2);
    drop(up);
    let end = Instant::now() + Duration::from_secs(30);
    while !processes(&workplace).is_empty() {
        assert!(Instant::now() < end, "{:?}", processes(&workplace));
        std::thread::sleep(Duration::from_millis(100)); // between two looks at the condition
    }
}

#[test]
fn a_child_that_dies_ends_everything_with_its_last_words() {
    let workplace = Workplace::new();
    let mut up = Up::start(&workplace);
    up.wait_online();
    let folder = workplace.folder().canonicalize().unwrap();
    let pattern = format!("agent run --data {}", folder.display());
    let found = output_within(Command::new("pgrep").args(["-f", &pattern]), DEADLINE);
    let id = String::from_utf8(found.stdout).unwrap();
    let killed = output_within(Command::new("kill").args(["-KILL", id.trim()]), DEADLINE);
    assert!(killed.status.success(), "{killed:?}");
    let (code, stderr) = up.end();
    assert_eq!(code, Some(1));
    assert!(stderr.contains(r#""code":"child_died""#), "{stderr}");
    assert_eq!(processes(&workplace), Vec::<String>::new());
}

#[test]
fn an_address_that_is_taken_is_told_by_the_controllers_own_words() {
    let workplace = Workplace::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let output = workplace.haar(&format!(
        "up --data site --listen {address} --relay-listen 127.0.0.1:0 --quiet"
    ));
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.contains("controller ended with") && output.stderr.contains(&address),
        "{}",
        output.stderr
    );
}
