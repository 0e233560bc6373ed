//! A container of `crun` (Debian's package) with one static binary, which prints a line: the least that
//! starting a container takes. Image, network and an engine above it would come on top.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::starting::silent;

const PROGRAM: &str = "fn main() { println!(\"hello\"); }";
const TARGET: &str = "x86_64-unknown-linux-musl";

/// A bundle as the runtime wants it.
pub struct Container {
    bundle: tempfile::TempDir,
}

impl Container {
    /// Compiles the binary and writes the bundle; says what is missing where that can't be done.
    pub fn new() -> Result<Self, String> {
        let container = Self {
            bundle: tempfile::tempdir().unwrap(),
        };
        let root = container.bundle.path().join("rootfs");
        for folder in ["proc", "dev", "sys"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        let source = container.bundle.path().join("hello.rs");
        std::fs::write(&source, PROGRAM).unwrap();
        let compiled = silent(Command::new("rustc").args(["-O", "--target", TARGET, "-o"]))
            .arg(root.join("hello"))
            .arg(&source)
            .status();
        if !compiled.is_ok_and(|status| status.success()) {
            return Err(format!("rustup target add {TARGET}"));
        }
        let made = silent(Command::new("crun").arg("spec"))
            .current_dir(container.bundle.path())
            .status();
        if !made.is_ok_and(|status| status.success()) {
            return Err("apt-get install -y --no-install-recommends crun".to_owned());
        }
        let file = container.configuration();
        let text = std::fs::read_to_string(&file).unwrap();
        let mut spec: serde_json::Value = serde_json::from_str(&text).unwrap();
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = serde_json::json!(["/hello"]);
        std::fs::write(&file, spec.to_string()).unwrap();
        container.try_run()?;
        Ok(container)
    }

    fn configuration(&self) -> PathBuf {
        self.bundle.path().join("config.json")
    }

    /// Starts it once. From the runtime's start to the binary's line.
    pub fn run(&self) -> Duration {
        self.try_run().unwrap()
    }

    fn try_run(&self) -> Result<Duration, String> {
        let began = Instant::now();
        let name = format!("haar-bench-{}", std::process::id());
        let mut running = Command::new("crun")
            .args(["--cgroup-manager", "disabled", "run", "--bundle"])
            .arg(self.bundle.path())
            .arg(name)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut first = [0];
        let said = running.stdout.take().unwrap().read(&mut first).unwrap();
        let time = began.elapsed();
        let mut why = String::new();
        let _ = running.stderr.take().unwrap().read_to_string(&mut why);
        running.wait().unwrap();
        match said {
            0 => Err(format!("crun does not run here: {}", why.trim())),
            _ => Ok(time),
        }
    }
}
