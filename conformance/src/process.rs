//! A process that we started: a controller or an agent. It says on standard output when it is
//! ready, ends in order when its standard input closes (so it never outlives us, however we end),
//! and writes its log to a file. It runs in a process group of its own: Ctrl-C reaches us alone.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::interrupt;
use crate::programs::Program;

/// How long it may take to become ready.
const READY_TIME: Duration = Duration::from_secs(60);
/// How long it may take to end in order, before it is killed.
const STOP_TIME: Duration = Duration::from_secs(20);
/// How long its standard output may stay open when it has ended: whatever holds it does not hold us.
const READER_TIME: Duration = Duration::from_secs(5);
/// Lines of its log that are told when something went wrong.
const TAIL_LINES: usize = 15;

/// A running process.
pub(crate) struct Process {
    label: String,
    child: Child,
    /// Open as long as it shall run.
    stdin: Option<ChildStdin>,
    log: PathBuf,
    reader: Option<JoinHandle<()>>,
}

/// Memory of a process in bytes, as its kernel counts it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Resident now (`VmRSS`).
    pub(crate) resident: u64,
    /// The most that was resident since the peak was reset (`VmHWM`).
    pub(crate) peak: u64,
}

impl Process {
    /// Starts a program with `--announce --stop-on-stdin-close` and waits until it is ready.
    /// Returns what it announced.
    pub(crate) fn start(
        label: &str,
        program: &Program,
        arguments: &[&str],
        log: PathBuf,
    ) -> anyhow::Result<(Self, Value)> {
        let to_log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("can't write {}", log.display()))?;
        let mut child = program
            .command()
            .args(arguments)
            .args(["--announce", "--stop-on-stdin-close"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(to_log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't start {program}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let (sender, ready) = sync_channel(1);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(value) = serde_json::from_str::<Value>(&line) {
                    let _ = sender.try_send(value); // a second one has no reader
                }
            }
        });
        // From here on a failure drops it, which ends the child.
        let mut process = Self {
            label: label.to_owned(),
            child,
            stdin,
            log,
            reader: Some(reader),
        };
        let said = process.wait_ready(&ready)?;
        Ok((process, said))
    }

    fn wait_ready(&mut self, ready: &Receiver<Value>) -> anyhow::Result<Value> {
        let end = Instant::now() + READY_TIME;
        loop {
            match ready.recv_timeout(Duration::from_millis(50)) {
                Ok(said) => return Ok(said),
                Err(RecvTimeoutError::Disconnected) => interrupt::pause()?, // it is about to end
                Err(RecvTimeoutError::Timeout) => interrupt::check()?,
            }
            self.check()?;
            if Instant::now() >= end {
                bail!("{} did not become ready; {}", self.label, self.log_tail());
            }
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error when it has ended, though nobody asked it to.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended with {status}; {}", self.label, self.log_tail()),
            None => Ok(()),
        }
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends several as one power cut does: none of them hears of the end of another.
    pub(crate) fn kill_all(mut processes: Vec<Self>) -> anyhow::Result<()> {
        for process in &mut processes {
            process.child.kill()?;
        }
        for process in &mut processes {
            process.child.wait()?;
        }
        Ok(())
    }

    /// Ends it in order. False when it had to be killed.
    pub(crate) fn stop(&mut self) -> bool {
        self.stdin = None;
        let end = Instant::now() + STOP_TIME;
        let in_order = loop {
            match self.child.try_wait() {
                Ok(Some(_)) => break true,
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) | Err(_) => {
                    // Both fail only when it has ended by itself.
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    break false;
                }
            }
        };
        if let Some(reader) = self.reader.take() {
            let end = Instant::now() + READER_TIME;
            while !reader.is_finished() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        in_order
    }

    /// The end of its log, for a message.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        format!(
            "log of {}:\n    {}",
            self.label,
            lines[from..].join("\n    ")
        )
    }

    /// What it takes of memory.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let path = format!("/proc/{}/status", self.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
        let bytes = |key: &str| -> anyhow::Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            let number = line.and_then(|rest| rest.split_whitespace().next());
            let kibibytes: u64 = number
                .with_context(|| format!("{path} has no {key}"))?
                .parse()?;
            Ok(kibibytes * 1024)
        };
        Ok(Memory {
            resident: bytes("VmRSS:")?,
            peak: bytes("VmHWM:")?,
        })
    }

    /// Makes its peak of memory begin anew (proc(5), `clear_refs`).
    pub(crate) fn reset_peak(&self) -> anyhow::Result<()> {
        let path = format!("/proc/{}/clear_refs", self.id());
        std::fs::write(&path, "5").with_context(|| format!("can't write {path}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}
