//! Child processes: this binary started again as a controller or an agent. They say on stdout
//! when they are ready, end in order when their stdin closes (so none outlives us, however we
//! end), and what they last said on stderr is told when they die. They run in process groups of
//! their own: Ctrl-C in a terminal reaches us alone, and we choose the order.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::{CommandError, Result, reason};
use crate::{interrupt, output};

/// Lines of stderr that are kept for when it dies.
const LINES_KEPT: usize = 15;
/// Longest line that is kept, in bytes.
const LINE_BYTES_MAX: u64 = 4 << 10;
/// How long a child may take to become ready.
const READY_TIME: Duration = Duration::from_secs(30);
/// How long a child may take to end in order, before it is killed.
const STOP_TIME: Duration = Duration::from_secs(15);

/// What is done with the words of children on stderr, beside keeping the last ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    /// Every line goes to our stderr, with the child's name in front.
    Lines,
    /// Nothing.
    Silent,
}

/// A running child.
pub(crate) struct Running {
    name: String,
    child: Child,
    /// Open as long as the child shall run.
    stdin: Option<ChildStdin>,
    ready: Receiver<Value>,
    last_lines: Arc<LastLines>,
    readers: Vec<JoinHandle<()>>,
}

/// The last lines of a child's stderr. The lock is taken by the thread that reads them, and by
/// whoever reports the child's end.
#[derive(Default)]
struct LastLines(Mutex<VecDeque<String>>);

/// Starts `haar ARGUMENTS` with the ends of its pipes in our hands.
pub(crate) fn start(name: &str, arguments: Vec<OsString>, echo: Echo) -> Result<Running> {
    let failed =
        |error: io::Error| CommandError::failure(format!("can't start {name}: {}", reason(&error)));
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(failed)?;
    let stdin = child.stdin.take();
    let stdout = child.stdout.take().expect("stdout is a pipe");
    let stderr = child.stderr.take().expect("stderr is a pipe");
    let last_lines = Arc::new(LastLines::default());
    let (sender, ready) = sync_channel(1);
    let mut running = Running {
        name: name.to_owned(),
        child,
        stdin,
        ready,
        last_lines: last_lines.clone(),
        readers: Vec::new(),
    };
    // From here on a failure drops `running`, which stops the child.
    running.read(move || find_ready(stdout, &sender))?;
    let echo = (echo == Echo::Lines).then(|| name.to_owned());
    running.read(move || keep_lines(stderr, &last_lines, echo.as_deref()))?;
    Ok(running)
}

/// Runs `haar ARGUMENTS` to its end, for `time` at most.
pub(crate) fn run_to_end(name: &str, arguments: Vec<OsString>, time: Duration) -> Result<()> {
    let mut running = start(name, arguments, Echo::Silent)?;
    let end = Instant::now() + time;
    loop {
        match running.exit()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(running.died(status)),
            None if Instant::now() >= end => return Err(running.too_slow("did not end")),
            None => interrupt::sleep(interrupt::POLL)?,
        }
    }
}

impl Running {
    /// What it is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the line that says that it is ready.
    pub(crate) fn wait_ready(&mut self) -> Result<Value> {
        let end = Instant::now() + READY_TIME;
        loop {
            match self.ready.recv_timeout(interrupt::POLL) {
                Ok(ready) => return Ok(ready),
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(interrupt::POLL), // it has closed stdout: it is about to end
                Err(RecvTimeoutError::Timeout) => {}
            }
            interrupt::check()?;
            self.check()?;
            if Instant::now() >= end {
                return Err(self.too_slow("did not become ready"));
            }
        }
    }

    /// An error when it has ended, though nobody asked it to.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.exit()? {
            Some(status) => Err(self.died(status)),
            None => Ok(()),
        }
    }

    /// Asks it to end in order.
    pub(crate) fn ask_to_stop(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has ended; kills it when that takes too long. False when it had to.
    pub(crate) fn stop(&mut self) -> bool {
        self.ask_to_stop();
        let end = Instant::now() + STOP_TIME;
        let in_order = loop {
            match self.child.try_wait() {
                Ok(Some(_)) => break true,
                Ok(None) if Instant::now() < end => std::thread::sleep(interrupt::POLL),
                Ok(None) | Err(_) => {
                    // Both fail only when it has ended by itself.
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    break false;
                }
            }
        };
        for reader in self.readers.drain(..) {
            let _ = reader.join(); // a reader that panicked has said so itself
        }
        in_order
    }

    fn read(&mut self, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new()
            .name(format!("{} output", self.name))
            .spawn(work);
        self.readers
            .push(thread.map_err(|error| {
                CommandError::failure(format!("can't start a thread: {error}"))
            })?);
        Ok(())
    }

    fn exit(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(|error| {
            CommandError::failure(format!("can't ask for the state of {}: {error}", self.name))
        })
    }

    fn died(&mut self, status: ExitStatus) -> CommandError {
        for reader in self.readers.drain(..) {
            let _ = reader.join(); // its last words are read before they are told
        }
        let mut error = CommandError::failure(format!(
            "{} ended with {status}{}",
            self.name,
            self.last_lines.tell()
        ));
        error.code = "child_died".into();
        error
    }

    fn too_slow(&self, what: &str) -> CommandError {
        let mut error = CommandError::failure(format!(
            "{} {what} in time{}",
            self.name,
            self.last_lines.tell()
        ));
        error.code = "child_too_slow".into();
        error
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

impl LastLines {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The lines as the end of a message.
    fn tell(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.is_empty() {
            return String::new();
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        format!("; its last words:\n  {}", lines.join("\n  "))
    }
}

/// Reads stdout to its end; the first line that says `ready` is passed on.
fn find_ready(stdout: impl Read, ready: &SyncSender<Value>) {
    each_line(stdout, |line| {
        if let Ok(value) = serde_json::from_str::<Value>(&line)
            && value.get("event").and_then(Value::as_str) == Some("ready")
        {
            let _ = ready.try_send(value); // a second one has no reader
        }
    });
}

fn keep_lines(stderr: impl Read, kept: &LastLines, echo: Option<&str>) {
    each_line(stderr, |line| {
        let line = output::printable(&console::strip_ansi_codes(&line));
        if let Some(name) = echo {
            output::note(format!(
                "{} {line}",
                console::style(format!("{name:>10} |")).for_stderr().dim()
            ));
        }
        kept.push(line);
    });
}

/// Calls `work` for each line until the pipe closes; longer lines are split.
fn each_line(pipe: impl Read, mut work: impl FnMut(String)) {
    let mut reader = BufReader::new(pipe);
    loop {
        let mut line = Vec::new();
        match reader
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
        {
            Ok(0) | Err(_) => return,
            Ok(_) => work(String::from_utf8_lossy(&line).trim_end().to_owned()),
        }
    }
}

/// The processes of a site on this machine. Agents end before the controller, so that it hears
/// their last status; also when this is dropped.
#[derive(Default)]
pub(crate) struct Site {
    pub(crate) agents: Vec<Running>,
    pub(crate) controller: Option<Running>,
}

impl Site {
    /// An error when one of them has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.agents
            .iter_mut()
            .chain(self.controller.as_mut())
            .try_for_each(Running::check)
    }

    /// Ends all of them, in order. The names of those that had to be killed.
    pub(crate) fn stop(&mut self) -> Vec<String> {
        self.agents.iter_mut().for_each(Running::ask_to_stop);
        let mut killed = Vec::new();
        for mut running in self.agents.drain(..).chain(self.controller.take()) {
            if !running.stop() {
                killed.push(running.name().to_owned());
            }
        }
        killed
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop();
    }
}
