//! The child process that compiles one module: sets its own limits, reads one file, writes one
//! file, and ends. It verifies nothing: whoever starts it has. Programs that compile have it as
//! their command `compile-module`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use haar_protocol::quantity::{ByteSize, Millis};
use rustix::process::{Resource, Rlimit};
use wasmtime::Engine;

use super::lengths::without_constant_lengths;
use super::strip::strip;
use super::{CompileLimits, Description, NOT_THE_MODULE, THE_MODULE};
use crate::artifact::CODE_BYTES_MAX;
use crate::configuration;

/// How much the process lets others go first (`nice`).
const NICENESS: i32 = 10;
/// The kernel ends processes of this score first when memory runs out (`proc_pid_oom_score_adj(5)`).
#[cfg(target_os = "linux")]
const OOM_SCORE_ADJ_MAX: &str = "1000";
/// The most characters of an engine's error that are passed on.
const COMPLAINT_CHARACTERS_MAX: usize = 1_000;

/// Arguments of `compile-module`.
#[derive(Debug, Clone, Args)]
pub struct CompileArguments {
    /// Say in JSON for which engine and which targets this program compiles
    #[arg(long, exclusive = true)]
    pub describe: bool,
    /// The module
    #[arg(long = "in", value_name = "FILE", required_unless_present = "describe")]
    pub module: Option<PathBuf>,
    /// Where the code goes
    #[arg(
        long = "out",
        value_name = "FILE",
        required_unless_present = "describe"
    )]
    pub code: Option<PathBuf>,
    /// The target [default: this machine, with all that its processor can do]
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// Memory that this process may take
    #[arg(long, value_name = "SIZE", default_value_t = CompileLimits::default().memory)]
    pub memory: ByteSize,
    /// Processor time that it may take
    #[arg(long, value_name = "TIME", default_value_t = CompileLimits::default().time)]
    pub time: Millis,
}

/// Compiles one module within the limits, and says in one line on standard error what went wrong.
/// Returns how the process is to exit. A limit that is hit ends it by a signal.
pub fn run(arguments: &CompileArguments) -> i32 {
    if arguments.describe {
        println!("{}", description());
        return 0;
    }
    let (code, error) = match compile(arguments) {
        Ok(Ok(())) => return 0,
        Ok(Err(error)) => (THE_MODULE, one_line(&error)),
        Err(error) => (NOT_THE_MODULE, format!("{error:#}")),
    };
    eprintln!("{error}");
    code
}

fn description() -> String {
    let description = Description {
        fingerprint: configuration::fingerprint(),
        targets: configuration::targets()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    serde_json::to_string(&description).expect("a description always serialises")
}

/// The outer error is one of the machine: the limits can't be set, a file can't be read or
/// written. The inner one is the engine's, over the module.
fn compile(arguments: &CompileArguments) -> anyhow::Result<wasmtime::Result<()>> {
    limit(arguments).context("can't set the limits of this process")?;
    let (input, output) = arguments
        .module
        .as_ref()
        .zip(arguments.code.as_ref())
        .context("--in and --out are missing")?;
    let module = std::fs::read(input).with_context(|| format!("can't read {}", input.display()))?;
    let engine = configuration::engine_that_compiles(arguments.target.as_deref())
        .map_err(|error| anyhow::anyhow!("{}", one_line(&error)))?;
    let target = arguments.target.clone();
    let target = target.unwrap_or_else(configuration::target);
    let code = match precompile(&engine, &target, &module) {
        Ok(code) => code,
        Err(error) => return Ok(Err(error)),
    };
    std::fs::write(output, code).with_context(|| format!("can't write {}", output.display()))?;
    Ok(Ok(()))
}

/// Turns `module`, which is valid, into code for `target`, which is that of `engine`, in this process.
/// Takes tens of milliseconds for small modules: never call it on a thread that others wait for.
///
/// # Errors
/// When the engine can't compile the module; the text is the engine's.
pub fn precompile(engine: &Engine, target: &str, module: &[u8]) -> wasmtime::Result<Vec<u8>> {
    with_symbols(engine, target, module).map(strip)
}

/// The code as the engine makes it.
pub(super) fn with_symbols(
    engine: &Engine,
    target: &str,
    module: &[u8],
) -> wasmtime::Result<Vec<u8>> {
    if configuration::is_without_vectors(target) {
        engine.precompile_component(&without_constant_lengths(module)?)
    } else {
        engine.precompile_component(module)
    }
}

/// Takes from this process what it does not need, for good.
fn limit(arguments: &CompileArguments) -> std::io::Result<()> {
    let seconds = arguments.time.0.div_ceil(1_000).max(1);
    for (resource, most, slack) in [
        (Resource::Core, 0, 0),
        // Private memory rather than address space, of which the program's own file takes a part
        // that says nothing of what compiling needs.
        (Resource::Data, arguments.memory.0, 0),
        // At the lower limit the kernel sends SIGXCPU, at the higher one SIGKILL, as everybody may.
        (Resource::Cpu, seconds, 2),
        (Resource::Fsize, CODE_BYTES_MAX, 0),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most.saturating_add(slack)),
        };
        rustix::process::setrlimit(resource, limit)?;
    }
    rustix::process::setpriority_process(None, NICENESS)?;
    // A machine without memory ends this process first, and not the agent or the controller that started
    // it. Where it can't be said (no `/proc`), the size of the process decides as usual.
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ_MAX);
    // Nobody wants the code when the parent has ended.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}

fn one_line(error: &wasmtime::Error) -> String {
    let text = format!("{error:#}").replace('\n', " ");
    text.chars().take(COMPLAINT_CHARACTERS_MAX).collect()
}
