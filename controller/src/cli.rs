//! The command line: the same for the program `haar-controller` and the role `haar controller`.
//! Owns the process: signals, standard input, exit code.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use haar_engine::compiler::Program;
use haar_engine::compiler::child::{self, CompileArguments};
use haar_protocol::ids::Name;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Flags};
use crate::controller::Controller;
use crate::site;

/// Haar's controller: one for each site.
#[derive(Debug, Clone, Parser)]
#[command(name = "haar-controller", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run the controller; the first time, make the site.
    Run(RunArguments),
    /// Make an access token for a further person, and print the context file for their `haar`.
    AccessToken(AccessTokenArguments),
    /// Compile one module: the child process of a controller.
    #[command(hide = true)]
    CompileModule(CompileArguments),
}

/// How to run. What is left out comes from DIR/controller.toml, then from the defaults.
#[derive(Debug, Clone, Args)]
pub struct RunArguments {
    /// The data directory: keys, database, modules. Made if missing.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where the API listens [default: 127.0.0.1:7420].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where the relay listens [default: 127.0.0.1:7421].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub relay_listen: Option<SocketAddr>,
    /// Name of the site [default: the one it has, or `site`].
    #[arg(long)]
    pub name: Option<Name>,
    /// The name or address that nodes reach this machine by [default: the address of --listen].
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// A program of another release that compiles for the engine of that release, whose agents
    /// some nodes still run: a `haar`, `haar-controller`, or `haar-agent` with the compiler. May be
    /// given several times.
    #[arg(long = "compiler", value_name = "PATH")]
    pub compilers: Vec<PathBuf>,
    /// This program as a compiler of modules; [`run`] knows.
    #[arg(skip)]
    pub own_compiler: Option<Program>,
    /// Print one line of JSON when everything listens.
    #[arg(long)]
    pub announce: bool,
    /// Stop when standard input closes: for a parent that holds the other end.
    #[arg(long)]
    pub stop_on_stdin_close: bool,
}

/// Whose token.
#[derive(Debug, Clone, Args)]
pub struct AccessTokenArguments {
    /// Name of the person; a token that this name had stops working.
    pub name: Name,
    /// The controller's data directory. The controller may be running.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

impl RunArguments {
    pub(crate) fn flags(&self) -> Flags {
        Flags {
            data: self.data.clone(),
            listen: self.listen,
            relay_listen: self.relay_listen,
            name: self.name.clone(),
            advertise: self.advertise.clone(),
            compilers: self.compilers.clone(),
            own_compiler: self.own_compiler.clone(),
        }
    }
}

/// Does what `arguments` say, until it is done or told to stop. `prefix` are the arguments of this
/// program that stand before the controller's own, such as `controller`.
///
/// # Errors
/// What failed, where, and what to do; for a person.
pub fn run(arguments: Arguments, prefix: &[&str]) -> anyhow::Result<()> {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(config::log_filter())
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .finish();
    // A process has one subscriber: `haar` may have set its own already.
    let _ = tracing::subscriber::set_global_default(subscriber);
    site::make_private_from_now_on();
    match arguments.command {
        Command::CompileModule(arguments) => std::process::exit(child::run(&arguments)),
        Command::Run(mut arguments) => {
            arguments.own_compiler =
                Some(Program::this(prefix).context("finding this program's own file")?);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .context("starting the runtime")?;
            let result = runtime.block_on(serve(&arguments));
            // Everything has ended in order by now, or is to be quit at once.
            runtime.shutdown_background();
            result
        }
        Command::AccessToken(arguments) => {
            let context = site::further_context(&arguments.data, &arguments.name)?;
            std::io::stdout()
                .write_all(context.as_bytes())
                .context("printing the context")
        }
    }
}

/// The exit code of [`run`]; an error is printed to standard error.
pub fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}"); // nobody is left to tell
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: &RunArguments) -> anyhow::Result<()> {
    let told = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("watching SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watching SIGINT")?;
    if arguments.stop_on_stdin_close {
        watch_stdin(told.clone())?;
    }
    let mut controller = Controller::start(arguments).await?;
    if arguments.announce {
        announce(&controller)?;
    }
    let mut failed = false;
    let mut signals = 0;
    tokio::select! {
        name = next_signal(&mut terminate, &mut interrupt) => {
            signals = 1;
            tracing::info!("stopping: {name}");
        }
        () = told.cancelled() => tracing::info!("stopping: standard input was closed"),
        () = controller.failed() => failed = true,
    }
    let mut stopping = std::pin::pin!(controller.stop());
    loop {
        tokio::select! {
            () = &mut stopping => break,
            _ = next_signal(&mut terminate, &mut interrupt) => signals += 1,
        }
        anyhow::ensure!(signals < 2, "quit at once, as the second signal asked");
    }
    anyhow::ensure!(
        !failed,
        "a part of the controller ended unexpectedly: see the messages above"
    );
    tracing::info!("stopped");
    Ok(())
}

/// Waits for a signal to stop; its name. A parent that closes our standard input and then sends one
/// signal has sent the first, not the second.
async fn next_signal(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

fn announce(controller: &Controller) -> anyhow::Result<()> {
    let line = serde_json::json!({
        "event": "ready",
        "url": controller.url(),
        "relay": controller.relay_url(),
        "context": controller.context(),
        "site": controller.site(),
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("announcing on standard output")
}

/// Cancels `told` when standard input ends. The one thread that nobody joins: a blocking read can't
/// be called off, and the process ends without it.
fn watch_stdin(told: CancellationToken) -> anyhow::Result<()> {
    std::thread::Builder::new()
        .name("stdin".into())
        .spawn(move || {
            let mut buffer = [0; 1024];
            let mut input = std::io::stdin().lock();
            while input.read(&mut buffer).is_ok_and(|count| count > 0) {}
            told.cancel();
        })
        .map(drop)
        .context("watching standard input")
}
