//! Compiling a module: in a child process with limits of its own, because a module that was made
//! to do so keeps a compiler busy for ever or eats all memory, and because the memory of a
//! compiler that has ended is free again. Here is the parent's side, for agents and controllers;
//! the child's is [`child`].
//!
//! ```text
//! HEX.wasm ─► PROGRAM compile-module ─► HEX.part ─► read, sealed (see `artifact`)
//! ```

#[cfg(feature = "compiler")]
pub mod child;
#[cfg(feature = "compiler")]
mod lengths;
#[cfg(feature = "compiler")]
mod strip;

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use haar_protocol::quantity::{ByteSize, Millis};
use serde::{Deserialize, Serialize};

use crate::artifact::CODE_BYTES_MAX;

/// How the child exits when what went wrong has nothing to do with the module: `EX_IOERR` of
/// sysexits.h.
#[cfg(feature = "compiler")]
const NOT_THE_MODULE: i32 = 74;
/// How the child exits when the engine can't compile the module.
const THE_MODULE: i32 = 1;
/// How it exits when the engine panics over the module.
const PANIC: i32 = 101;
/// Signals by which a compiler ends itself: the kernel's at a limit of processor time or of the size of
/// files, and those of a crash or a failed allocation. ILL, TRAP, ABRT, BUS, FPE, SEGV, XCPU, XFSZ and
/// SYS of Linux. By any other one somebody else has ended it: a person, or a kernel without memory.
const OWN_SIGNALS: [i32; 9] = [4, 5, 6, 7, 8, 11, 24, 25, 31];
/// What is read of a compiler's words.
const COMPLAINT_BYTES_MAX: u64 = 4 << 10;
/// What a compiler may take to describe itself.
const DESCRIBE_TIME: Duration = Duration::from_secs(20);

/// A program that compiles when it is started as `PATH ARGUMENTS compile-module …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Arguments that stand before `compile-module`.
    pub arguments: Vec<OsString>,
}

/// What a compiler says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The engine that its code is for: see [`crate::configuration::fingerprint`].
    pub fingerprint: String,
    /// The targets that it compiles for.
    pub targets: Vec<String>,
    /// Version of the program.
    pub version: String,
}

/// What compiling one module of less than a mebibyte may take. For each mebibyte more it may take a
/// sixth of the time and a sixteenth of the memory more: an interpreter of 12 MiB takes half a minute on
/// a fast machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Memory of the process.
    pub memory: ByteSize,
    /// Processor time, in whole seconds. By the clock on the wall it may take ten times as long: a
    /// machine may be busy.
    pub time: Millis,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            memory: ByteSize(512 << 20),
            time: Millis(60_000),
        }
    }
}

impl CompileLimits {
    /// The limits for a module of so many bytes.
    fn for_module(self, bytes: u64) -> Self {
        let more = |limit: u64, part: u64| {
            limit.saturating_add((limit / part).saturating_mul(bytes >> 20))
        };
        Self {
            memory: ByteSize(more(self.memory.0, 16)),
            time: Millis(more(self.time.0, 6)),
        }
    }
}

/// Why there is no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The module is at fault: it takes too much, or the engine does not take it.
    #[error("the module can't be compiled{0}")]
    Module(String),
    /// The machine is: no room on the disk, no processes to be had, or somebody killed the compiler. Another
    /// attempt may succeed.
    #[error("the module is not compiled: {0}")]
    Machine(String),
}

impl Program {
    /// This very program.
    ///
    /// # Errors
    /// When the system does not tell which program this is.
    pub fn this(arguments: &[&str]) -> std::io::Result<Self> {
        // The link names the file that runs even when an update has put another in its place.
        let link = Path::new("/proc/self/exe");
        let path = if link.exists() {
            link.to_owned()
        } else {
            std::env::current_exe()?
        };
        Ok(Self {
            path,
            arguments: arguments.iter().map(OsString::from).collect(),
        })
    }

    /// Asks the program for which engine and which targets it compiles.
    ///
    /// # Errors
    /// When it can't be started, is not a compiler, or says nothing that is understood.
    pub fn describe(&self) -> std::io::Result<Description> {
        let mut command = self.command();
        command.arg("--describe").stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (mut stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let stderr = stderr.expect("its stderr is a pipe");
        let (status, complaint) = wait(&mut child, stderr, DESCRIBE_TIME)?;
        if !status.success() {
            return Err(std::io::Error::other(format!("{status}: {complaint}")));
        }
        // What it said waits in the pipe, which holds more than this.
        let mut text = String::new();
        let stdout = stdout.as_mut().expect("its stdout is a pipe");
        stdout.take(COMPLAINT_BYTES_MAX).read_to_string(&mut text)?;
        serde_json::from_str(&text).map_err(std::io::Error::other)
    }

    /// Has the module at `input` compiled, by way of the file `output`, which is gone afterwards.
    /// For the machine that this is when `target` is none.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn compile(
        &self,
        limits: CompileLimits,
        target: Option<&str>,
        input: &Path,
        output: &Path,
    ) -> Result<Vec<u8>, CompileError> {
        let code = self.compile_into(limits, target, input, output);
        let _ = std::fs::remove_file(output); // there may be none; a leftover is overwritten
        code
    }

    fn compile_into(
        &self,
        limits: CompileLimits,
        target: Option<&str>,
        input: &Path,
        output: &Path,
    ) -> Result<Vec<u8>, CompileError> {
        let failed =
            |what: &str, error: std::io::Error| CompileError::Machine(format!("{what}: {error}"));
        let limits = match input.metadata() {
            Ok(module) => limits.for_module(module.len()),
            Err(error) => return Err(failed("its file can't be read", error)),
        };
        // Our own directory may be a relative path; the child has another working directory.
        let absolute = |path| {
            std::path::absolute(path).map_err(|error| failed("it has no absolute path", error))
        };
        let mut command = self.command();
        command
            .args([OsString::from("--in"), absolute(input)?.into()])
            .args([OsString::from("--out"), absolute(output)?.into()])
            .args(["--memory", &limits.memory.to_string()])
            .args(["--time", &limits.time.to_string()])
            .args(target.iter().flat_map(|target| ["--target", target]));
        let mut child = command
            .spawn()
            .map_err(|error| failed("the compiler can't be started", error))?;
        let stderr = child.stderr.take().expect("its stderr is a pipe");
        let time = Duration::from_millis(limits.time.0).saturating_mul(10);
        let (status, complaint) = wait(&mut child, stderr, time)
            .map_err(|error| failed("the compiler is lost", error))?;
        match status.code() {
            Some(0) => {
                read_bounded(output).map_err(|error| failed("its code can't be read", error))
            }
            Some(code) => Err(exited(code, &complaint)),
            None => Err(ended(status.signal().unwrap_or_default(), limits)),
        }
    }

    /// What the child may not do, it can't: it has no variables, no input, no files but those that
    /// it is told, and its limits.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .arg("compile-module")
            .env_clear()
            .current_dir("/")
            // Ctrl-C in a terminal is for the parent, which ends the compiler itself.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }
}

/// What it means that the compiler has exited with `code` and without code for the module.
fn exited(code: i32, complaint: &str) -> CompileError {
    match code {
        THE_MODULE | PANIC => CompileError::Module(format!(": {complaint}")),
        _ if complaint.is_empty() => CompileError::Machine(format!(
            "its compiler exited with {code} and without a reason"
        )),
        _ => CompileError::Machine(complaint.to_owned()),
    }
}

/// What it means that a signal has ended the compiler.
fn ended(signal: i32, limits: CompileLimits) -> CompileError {
    let CompileLimits { memory, time } = limits;
    if OWN_SIGNALS.contains(&signal) {
        CompileError::Module(format!(
            " within {memory} and {time} of processor time (its compiler was ended by signal {signal})"
        ))
    } else {
        CompileError::Machine(format!(
            "its compiler was ended by signal {signal}: somebody has killed it, the machine is short of memory, or it is too busy to give {time} of processor time in ten times that time"
        ))
    }
}

/// Waits until the child has ended, no longer than `time`: then it is killed. Returns how it ended
/// and its last words.
fn wait(
    child: &mut Child,
    stderr: ChildStderr,
    time: Duration,
) -> std::io::Result<(ExitStatus, String)> {
    let (ended, end) = sync_channel(1);
    // The pipe closes when the child ends: to read it to its end is to wait.
    let reader = std::thread::Builder::new().spawn(move || {
        let mut words = Vec::new();
        let mut stderr = stderr;
        let read = stderr
            .by_ref()
            .take(COMPLAINT_BYTES_MAX)
            .read_to_end(&mut words);
        let rest = read.and_then(|_| std::io::copy(&mut stderr, &mut std::io::sink()));
        let _ = ended.send(()); // nobody waits any more when it took too long
        rest.map(|_| String::from_utf8_lossy(&words).trim().to_owned())
    });
    let reader = match reader {
        Ok(reader) => reader,
        Err(error) => {
            child.kill()?;
            child.wait()?;
            return Err(error);
        }
    };
    if end.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
        child.kill()?;
    }
    let status = child.wait()?;
    let complaint = reader
        .join()
        .map_err(|_| std::io::Error::other("reading from it failed badly"))??;
    Ok((status, complaint))
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut code = Vec::new();
    File::open(path)?
        .take(CODE_BYTES_MAX + 1)
        .read_to_end(&mut code)?;
    if code.len() as u64 > CODE_BYTES_MAX {
        let max = ByteSize(CODE_BYTES_MAX);
        return Err(std::io::Error::other(format!("it is more than {max}")));
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_module_may_take_more_than_a_small_one() {
        let usual = CompileLimits::default();
        assert_eq!(usual.for_module(900_000), usual);
        let interpreter = usual.for_module(18 << 20);
        assert_eq!(interpreter.time, Millis(240_000));
        assert_eq!(interpreter.memory, ByteSize(1_088 << 20));
        let most = CompileLimits {
            memory: ByteSize(u64::MAX),
            time: Millis(u64::MAX),
        };
        assert_eq!(most.for_module(64 << 20), most);
    }

    #[test]
    fn only_what_a_compiler_does_to_itself_is_the_modules_fault() {
        for own in [1, 101] {
            let error = exited(own, "it says why");
            assert_eq!(error, CompileError::Module(": it says why".to_owned()));
        }
        // Of 74 the child says so; the others are a usage error, and what shells and loaders exit with.
        for foreign in [74, 2, 126, 127] {
            let error = exited(foreign, "it says why");
            assert_eq!(error, CompileError::Machine("it says why".to_owned()));
        }
        let silent = exited(127, "").to_string();
        assert_eq!(
            silent,
            "the module is not compiled: its compiler exited with 127 and without a reason"
        );
        let limits = CompileLimits::default();
        for own in [6, 11, 24, 25] {
            let error = ended(own, limits);
            assert!(matches!(error, CompileError::Module(_)), "{own}: {error}");
        }
        for foreign in [1, 2, 3, 9, 15] {
            let error = ended(foreign, limits);
            assert!(
                matches!(error, CompileError::Machine(_)),
                "{foreign}: {error}"
            );
        }
    }
}
