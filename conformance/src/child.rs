//! Children that end by themselves. Each is waited for until a deadline, then killed and named: a wait
//! without a bound hangs a whole run, and nobody can say where.

use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};

use crate::interrupt;

/// For small tools, which take some milliseconds.
pub(crate) const SHORT: Duration = Duration::from_secs(60);
/// How often we look whether it has ended.
const POLL: Duration = Duration::from_millis(5);
/// How long its pipes may stay open when it has ended.
const PIPE_TIME: Duration = Duration::from_secs(10);

/// Waits for the end of a child. It is killed when it takes longer, and when we are interrupted.
pub(crate) fn wait(child: &mut Child, what: &str, time: Duration) -> anyhow::Result<ExitStatus> {
    wait_or(child, what, time, |child| {
        let _ = child.kill(); // it has ended already, then
    })
}

/// Runs a command to its end. It is killed with everything that it started.
pub(crate) fn status(command: &mut Command, time: Duration) -> anyhow::Result<ExitStatus> {
    command.stdin(Stdio::null());
    let (mut child, what) = start(command)?;
    wait_or(&mut child, &what, time, kill_group)
}

/// The same for one that must succeed.
pub(crate) fn run(command: &mut Command, time: Duration) -> anyhow::Result<()> {
    let status = status(command, time)?;
    ensure!(status.success(), "{} ended with {status}", words(command));
    Ok(())
}

/// The same for one whose words are wanted.
pub(crate) fn output(command: &mut Command, time: Duration) -> anyhow::Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (mut child, what) = start(command)?;
    let stdout = collected(child.stdout.take());
    let stderr = collected(child.stderr.take());
    let status = wait_or(&mut child, &what, time, kill_group)?;
    let all = |bytes: Receiver<Vec<u8>>| {
        let bytes = bytes.recv_timeout(PIPE_TIME);
        bytes.with_context(|| format!("{what} has ended, and something holds its output open"))
    };
    Ok(Output {
        status,
        stdout: all(stdout)?,
        stderr: all(stderr)?,
    })
}

/// In a process group of its own, so that it can be killed as a whole. Ctrl-C reaches us alone.
fn start(command: &mut Command) -> anyhow::Result<(Child, String)> {
    let what = words(command);
    let child = command.process_group(0).spawn();
    let child = child.with_context(|| format!("can't start {what}"))?;
    Ok((child, what))
}

fn wait_or(
    child: &mut Child,
    what: &str,
    time: Duration,
    kill: fn(&mut Child),
) -> anyhow::Result<ExitStatus> {
    let end = Instant::now() + time;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let waiting = match Instant::now() < end {
            true => interrupt::check(),
            false => Err(anyhow!(
                "{what} does not end: killed after {} s",
                time.as_secs()
            )),
        };
        if let Err(error) = waiting {
            kill(child);
            let _ = child.wait();
            return Err(error);
        }
        std::thread::sleep(POLL);
    }
}

fn kill_group(child: &mut Child) {
    let group = format!("-{}", child.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
    let _ = child.kill(); // it has ended already, then
}

/// All bytes until the end, taken in while the child runs: a pipe that is full would hold it.
fn collected(from: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, collected) = sync_channel(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes); // what came until then counts
        }
        let _ = sender.send(bytes); // nobody waits any more, then
    });
    collected
}

/// The command as a message names it.
fn words(command: &Command) -> String {
    let program = command.get_program();
    let program = Path::new(program).file_name().unwrap_or(program);
    let words = std::iter::once(program).chain(command.get_args());
    let words: Vec<String> = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_killed_and_named() {
        let began = Instant::now();
        let mut hangs = Command::new("sh");
        hangs.args(["-c", "sleep 100 | cat"]);
        let error = output(&mut hangs, Duration::from_millis(100)).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("sleep 100 | cat does not end"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn what_ends_tells_its_words_and_how_it_ended() {
        let mut ends = Command::new("sh");
        ends.args(["-c", "echo out; echo err >&2; exit 3"]);
        let said = output(&mut ends, SHORT).unwrap();
        assert_eq!(
            (&said.stdout[..], &said.stderr[..]),
            (&b"out\n"[..], &b"err\n"[..])
        );
        assert_eq!(said.status.code(), Some(3));
        let error = run(&mut ends, SHORT).unwrap_err().to_string();
        assert!(error.contains("ended with"), "{error}");
    }
}
