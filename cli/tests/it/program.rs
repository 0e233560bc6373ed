//! Programs that tests of `haar` and of the controller run. What they print is read at once, so that
//! no pipe fills, and every wait for them ends: after its time the program is killed, and the test says
//! what it had printed.

use std::io::{ErrorKind, Read, Write as _};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long something may take to come true; generous, because machines are shared.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// How long a command may take: some compile a module, some wait for a node.
pub(crate) const COMMAND: Duration = Duration::from_secs(300);

/// How long a build of a project may take when nothing of it is built yet.
pub(crate) const BUILD: Duration = Duration::from_secs(900);

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    /// How much of it was given as lines.
    given: usize,
    has_ended: bool,
}

impl Heard {
    /// How long the next line is that was not given yet.
    fn line(&self) -> Option<usize> {
        let mut rest = self.bytes[self.given..].iter();
        rest.position(|byte| *byte == b'\n').map(|at| at + 1)
    }
}

/// A pipe that a thread reads to its end.
#[derive(Default)]
struct Pipe {
    heard: Mutex<Heard>,
    news: Condvar,
}

impl Pipe {
    fn read(mut from: impl Read + Send + 'static) -> Arc<Self> {
        let pipe = Arc::new(Self::default());
        let writes = Arc::clone(&pipe);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let count = match from.read(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    result => result.unwrap_or(0),
                };
                let mut heard = writes.heard.lock().unwrap();
                heard.bytes.extend_from_slice(&buffer[..count]);
                heard.has_ended = count == 0;
                writes.news.notify_all();
                if heard.has_ended {
                    return;
                }
            }
        });
        pipe
    }

    /// What has come when `is_so`, or when the time is over.
    fn wait(&self, end: Instant, is_so: impl Fn(&Heard) -> bool) -> MutexGuard<'_, Heard> {
        let limit = end.saturating_duration_since(Instant::now());
        let heard = self.heard.lock().unwrap();
        let waited = self
            .news
            .wait_timeout_while(heard, limit, |heard| !is_so(heard));
        waited.unwrap().0
    }

    /// The next line that contains `text`, if it comes.
    fn line_with(&self, text: &str) -> Option<String> {
        let end = Instant::now() + DEADLINE;
        loop {
            let mut heard = self.wait(end, |heard| heard.has_ended || heard.line().is_some());
            let length = heard.line()?;
            let line = &heard.bytes[heard.given..heard.given + length];
            let line = String::from_utf8_lossy(line).into_owned();
            heard.given += length;
            if line.contains(text) {
                return Some(line);
            }
        }
    }

    /// What has come, and whether that is all.
    fn all(&self, end: Instant) -> (Vec<u8>, bool) {
        let heard = self.wait(end, |heard| heard.has_ended);
        (heard.bytes.clone(), heard.has_ended)
    }
}

/// A program that runs; it is killed when it is dropped.
pub(crate) struct Program {
    command: String,
    child: Child,
    stdout: Arc<Pipe>,
    stderr: Arc<Pipe>,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("can't start {command:?}: {error}; is it installed?"));
        Self {
            command: format!("{command:?}"),
            stdout: Pipe::read(child.stdout.take().unwrap()),
            stderr: Pipe::read(child.stderr.take().unwrap()),
            child,
        }
    }

    /// Its next line on standard output.
    pub(crate) fn line(&mut self) -> String {
        let line = self.stdout.line_with("");
        line.unwrap_or_else(|| self.fail("it printed no further line"))
    }

    /// Waits for the next line on standard error that contains `text`.
    pub(crate) fn logs(&mut self, text: &str) {
        if self.stderr.line_with(text).is_none() {
            self.fail(&format!("it did not log {text:?}"));
        }
    }

    /// The line with which it says that it is ready.
    pub(crate) fn announcement(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line)
            .unwrap_or_else(|error| self.fail(&format!("it said {line:?}: {error}")))
    }

    /// Writes a little to its standard input, and closes it.
    pub(crate) fn feed(&mut self, text: &str) {
        let mut stdin = self.child.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
    }

    /// Sends a signal to it and to nobody else.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = output_within(Command::new("kill").args([name, &id]), DEADLINE);
        assert!(sent.status.success(), "kill {name} {id}: {sent:?}");
    }

    /// Waits for its end and for everything that it prints.
    pub(crate) fn output_within(&mut self, limit: Duration) -> Output {
        let end = Instant::now() + limit;
        let (stdout, is_all_of_stdout) = self.stdout.all(end);
        let (stderr, is_all_of_stderr) = self.stderr.all(end);
        let Some(status) = self.wait(end) else {
            self.fail(&format!("it has not ended after {limit:?}"));
        };
        if !is_all_of_stdout || !is_all_of_stderr {
            self.fail("it has ended, and something else still has its output open");
        }
        Output {
            status,
            stdout,
            stderr,
        }
    }

    /// Closes its standard input, as parents do that stop it in order.
    pub(crate) fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// The same, and waits for its end.
    pub(crate) fn stop(&mut self) {
        self.close_stdin();
        let has_ended = self.wait(Instant::now() + DEADLINE).is_some();
        if std::thread::panicking() {
            self.kill();
            eprintln!("{}", self.printed());
        } else if !has_ended {
            self.fail("it does not stop when its standard input is closed");
        }
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// How it ended, if it has by then.
    fn wait(&mut self, end: Instant) -> Option<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Everything that it has printed; what it printed last may still be on its way.
    fn printed(&self) -> String {
        let end = Instant::now() + Duration::from_secs(1);
        let (stdout, stderr) = (self.stdout.all(end).0, self.stderr.all(end).0);
        format!(
            "{}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        )
    }

    fn fail(&mut self, what: &str) -> ! {
        self.kill();
        panic!("{what}: {}", self.printed());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command that is given no input.
pub(crate) fn output_within(command: &mut Command, limit: Duration) -> Output {
    Program::start(command.stdin(Stdio::null())).output_within(limit)
}

/// What a thread gives; it must end by itself.
pub(crate) fn join_within<T>(what: &str, thread: JoinHandle<T>) -> T {
    let end = Instant::now() + DEADLINE;
    while !thread.is_finished() {
        assert!(Instant::now() < end, "waited too long: {what}");
        std::thread::sleep(PAUSE);
    }
    thread.join().unwrap()
}
