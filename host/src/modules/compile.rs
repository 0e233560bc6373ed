//! Compiling a module: in a child process with limits of its own, because a module that was made
//! to do so keeps a compiler busy for ever or eats all memory, and because the memory of a
//! compiler that has ended is free again. Here is the parent's side; the child's is
//! [`crate::compiler_process`].
//!
//! ```text
//! modules/HEX.wasm ─► haar-agent compile-module ─► compiled/HEX.part ─► sealed ─► compiled/HEX.code
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::PoisonError;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use haar_engine::{artifact, configuration};
use haar_protocol::assignment::Microservice;
use haar_protocol::quantity::{ByteSize, Millis};
use wasmtime::component::Component;

use super::{Modules, PrepareError, write_whole};
use crate::runtime::GuestRuntime;

/// The most code that one module may become.
pub const CODE_BYTES_MAX: u64 = 64 << 20;
/// How the child exits when what went wrong has nothing to do with the module: `EX_IOERR` of
/// sysexits.h.
pub(crate) const NOT_THE_MODULE: i32 = 74;
/// What is read of a compiler's words.
const COMPLAINT_BYTES_MAX: u64 = 4 << 10;

/// Who compiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// This process, without limits. For users of this library that are not the agent's binary.
    InProcess,
    /// A process of its own.
    Child {
        /// The program: the agent's own.
        program: PathBuf,
        /// Arguments that stand before `compile-module`.
        arguments: Vec<OsString>,
        /// What it may take.
        limits: CompileLimits,
    },
}

/// What compiling one module may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Memory of the process.
    pub memory: ByteSize,
    /// Processor time, in whole seconds. By the clock on the wall it may take twice as long.
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

impl Compiler {
    /// This very program as the compiler, started as `PROGRAM arguments compile-module …`.
    ///
    /// # Errors
    /// When the system does not tell which program this is.
    pub fn of_this_program(arguments: &[&str], limits: CompileLimits) -> std::io::Result<Self> {
        // The link names the file that runs even when an update has put another in its place.
        let link = Path::new("/proc/self/exe");
        let program = if link.exists() {
            link.to_owned()
        } else {
            std::env::current_exe()?
        };
        Ok(Self::Child {
            program,
            arguments: arguments.iter().map(OsString::from).collect(),
            limits,
        })
    }

    /// Compiles `file`, whose content is at `input`, by way of the file `output`.
    fn compile(
        &self,
        file: &[u8],
        input: &Path,
        output: &Path,
        runtime: &GuestRuntime,
    ) -> Result<Vec<u8>, PrepareError> {
        match self {
            Self::InProcess => in_process(file, runtime),
            Self::Child {
                program,
                arguments,
                limits,
            } if cfg!(feature = "compiler") => {
                let mut command = Command::new(program);
                command.args(arguments);
                let code = in_child(command, *limits, input, output);
                let _ = std::fs::remove_file(output); // there may be none; a leftover is overwritten
                code
            }
            Self::Child { .. } => Err(without_compiler()),
        }
    }
}

impl Modules {
    /// Compiles the module, keeps the code for the next time, and loads it.
    pub(super) fn compile_and_load(
        &self,
        spec: &Microservice,
        file: &[u8],
        runtime: &GuestRuntime,
    ) -> Result<Component, PrepareError> {
        let _one_at_a_time = self
            .compiling
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Another instance of the module may have waited for the compiler before us.
        if let Some(component) = self.load_cached(spec, runtime) {
            return Ok(component);
        }
        let path = self.code_path(&spec.module);
        let (input, output) = (self.module_path(&spec.module), path.with_extension("part"));
        let code = self.compiler.compile(file, &input, &output, runtime)?;
        let (fingerprint, target) = (runtime.fingerprint(), configuration::target());
        let sealed = artifact::seal(
            &spec.module,
            fingerprint,
            &target,
            &code,
            &self.credentials.key,
        );
        drop(code);
        if let Err(error) = write_whole(&path, &sealed) {
            tracing::warn!(
                "can't keep the compiled code in {}: {error:#}",
                path.display()
            );
        }
        self.load(spec, &sealed, runtime).map_err(|why| {
            PrepareError::Refused(format!("{} can't be loaded: {why}", spec.module_label))
        })
    }
}

#[cfg(feature = "compiler")]
fn in_process(file: &[u8], runtime: &GuestRuntime) -> Result<Vec<u8>, PrepareError> {
    haar_engine::compile::compile(runtime.engine(), file)
        .map_err(|error| PrepareError::Refused(format!("the module can't be compiled: {error:#}")))
}

#[cfg(not(feature = "compiler"))]
fn in_process(_file: &[u8], _runtime: &GuestRuntime) -> Result<Vec<u8>, PrepareError> {
    Err(without_compiler())
}

fn without_compiler() -> PrepareError {
    PrepareError::Refused(
        "this agent was built without the compiler and has no compiled code of the module".into(),
    )
}

/// Runs `command` as the compiler and reads what it has made. What the child may not do, it can't:
/// it has no variables, no input, no files but those that it is told, and its limits.
fn in_child(
    mut command: Command,
    limits: CompileLimits,
    input: &Path,
    output: &Path,
) -> Result<Vec<u8>, PrepareError> {
    let not_yet = |what: &str, error: std::io::Error| {
        PrepareError::NotYet(format!("the module can't be compiled: {what}: {error}"))
    };
    // The agent's own directory may be a relative path; the child has another working directory.
    let absolute =
        |path| std::path::absolute(path).map_err(|error| not_yet("it has no absolute path", error));
    command
        .arg("compile-module")
        .args([OsString::from("--in"), absolute(input)?.into()])
        .args([OsString::from("--out"), absolute(output)?.into()])
        .args(["--memory", &limits.memory.to_string()])
        .args(["--time", &limits.time.to_string()])
        .env_clear()
        .current_dir("/")
        // Ctrl-C in a terminal is for the agent, which ends the compiler itself.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| not_yet("the compiler can't be started", error))?;
    let stderr = child.stderr.take().expect("its stderr is a pipe");
    let time = Duration::from_millis(limits.time.0).saturating_mul(2);
    let (status, complaint) =
        wait(&mut child, stderr, time).map_err(|error| not_yet("the compiler is lost", error))?;
    match status.code() {
        Some(0) => read_bounded(output).map_err(|error| not_yet("its code can't be read", error)),
        Some(NOT_THE_MODULE) => Err(PrepareError::NotYet(format!(
            "the module can't be compiled: {complaint}"
        ))),
        Some(_) => Err(PrepareError::Refused(format!(
            "the module can't be compiled: {complaint}"
        ))),
        None => {
            let signal = status.signal().unwrap_or_default();
            Err(PrepareError::Refused(format!(
                "the module can't be compiled within {} and {} of processor time (its compiler was ended by signal {signal})",
                limits.memory, limits.time
            )))
        }
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
