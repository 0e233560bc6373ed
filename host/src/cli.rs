//! The agent's command line: `haar-agent …`, and `haar agent …`, which is the same.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use haar_protocol::ids::Name;
use haar_protocol::quantity::{ByteSize, Millis};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::agent::ending::Ended;
use crate::agent::run::{Agent, Options};
use crate::config::{self, Settings};
use crate::enrol::{self, Wishes};
use crate::identity::{DataDirectory, modes};
use crate::machine;
use crate::modules::compile::Compiler;
use crate::policy::Policy;
use crate::service_manager::ServiceManager;
use crate::store::{self, Store};
#[cfg(feature = "compiler")]
use haar_engine::compiler::child::CompileArguments;

/// Where an agent keeps its state unless told otherwise.
const DATA: &str = "/var/lib/haar";
/// How often an instance looks whether its granted directories have changed.
const LOOK_PAUSE: Duration = Duration::from_secs(60);
/// The service that the Debian package brings; it runs on that directory.
const SERVICE: &str = "/usr/lib/systemd/system/haar-agent.service";

/// Haar's agent: runs signed WebAssembly microservices on this node.
#[derive(Debug, Parser)]
#[command(name = "haar-agent", version)]
pub struct Command {
    /// What to do.
    #[command(flatten)]
    pub arguments: Arguments,
}

/// What the agent can be asked to do.
#[derive(Debug, Args)]
pub struct Arguments {
    /// One of these.
    #[command(subcommand)]
    pub action: Action,
}

/// One thing to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Join a site with a token that `haar node token` printed
    Enrol(EnrolArguments),
    /// Run the microservices that the site assigns to this node
    Run(RunArguments),
    /// Compile one module within limits: what the agent starts itself as
    #[cfg(feature = "compiler")]
    #[command(hide = true)]
    CompileModule(CompileArguments),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Arguments of `enrol`.
#[derive(Debug, Args)]
pub struct EnrolArguments {
    /// The token
    pub token: String,
    /// Directory for the node's key and state
    #[arg(long, value_name = "DIR", default_value = DATA)]
    pub data: PathBuf,
    /// Name of this node in the site; what it has, or the host's name, when left out
    #[arg(long)]
    pub name: Option<Name>,
    /// A label for placement, beside those that the node has; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Memory for all microservices together, such as 256MiB; what it has, or half of
    /// what the machine, its service or its container allows, when left out
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Processors for microservices that set some aside, in percent of one core, such as 150%;
    /// what it has, or all that are allowed, when left out
    #[arg(long, value_name = "PERCENT", value_parser = cpu_percent)]
    pub cpu: Option<u32>,
    /// Microservices at most; what it has, or 256, when left out
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub microservices: Option<u32>,
    /// Storage for all microservices together, such as 1GiB; what it has, or half of what is
    /// free, when left out
    #[arg(long, value_name = "SIZE")]
    pub storage: Option<ByteSize>,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Directory for the node's key and state
    #[arg(long, value_name = "DIR", default_value = DATA)]
    pub data: PathBuf,
    /// The file with its settings; `agent.toml` in the data directory when left out
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// How often a status is sent at least, such as 10s; wins over the settings
    #[arg(long, value_name = "TIME")]
    pub status_interval: Option<Millis>,
    /// Print a line of JSON on standard output when the agent runs
    #[arg(long)]
    pub announce: bool,
    /// Stop when standard input ends: for parents that must not leave anything behind
    #[arg(long)]
    pub stop_on_stdin_close: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write KEY=VALUE, such as role=gateway")?;
    haar_protocol::ids::check_label(key, value).map_err(|error| error.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

fn cpu_percent(text: &str) -> Result<u32, String> {
    let digits = text.strip_suffix('%').map(str::trim_end);
    let percent: Option<u32> = digits.and_then(|digits| digits.parse().ok());
    percent
        .filter(|percent| *percent > 0)
        .ok_or_else(|| "write a whole number of percent of one core, such as 150%".to_owned())
}

/// Does what is asked. `prefix` are the arguments of this program that stand before the agent's
/// own, such as `agent`.
///
/// # Errors
/// With a text for a person.
pub fn run(arguments: Arguments, prefix: &[&str]) -> anyhow::Result<()> {
    modes::make_private_from_now_on();
    match arguments.action {
        Action::Enrol(arguments) => enrol_node(arguments),
        Action::Run(arguments) => run_agent(&arguments, prefix),
        #[cfg(feature = "compiler")]
        Action::CompileModule(arguments) => {
            std::process::exit(haar_engine::compiler::child::run(&arguments))
        }
        Action::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Command::command(),
                "haar-agent",
                &mut std::io::stdout(),
            );
            Ok(())
        }
    }
}

fn enrol_node(arguments: EnrolArguments) -> anyhow::Result<()> {
    start_logging();
    let wishes = Wishes {
        name: arguments.name,
        labels: arguments.labels.into_iter().collect(),
        memory: arguments.memory,
        cpu_percent: arguments.cpu,
        microservices: arguments.microservices,
        storage: arguments.storage,
    };
    let membership = enrol::enrol(&arguments.data, &arguments.token, wishes)?;
    println!(
        "node `{}` ({}) has joined site {}",
        membership.name, membership.node, membership.site
    );
    println!("next: {}", how_to_run(&arguments.data));
    Ok(())
}

/// The command that runs a node that has just joined: the service's, where the Debian package has
/// brought one for this directory.
fn how_to_run(data: &Path) -> String {
    let has_service = Path::new(SERVICE).exists() && Path::new("/run/systemd/system").is_dir();
    if has_service && data == Path::new(DATA) {
        "systemctl start haar-agent".to_owned()
    } else {
        format!("haar-agent run --data {}", data.display())
    }
}

fn run_agent(arguments: &RunArguments, prefix: &[&str]) -> anyhow::Result<()> {
    start_logging();
    let _ = haar_relay::raise_descriptor_limit(); // logged where it fails; some is better than none
    let directory = DataDirectory::open(&arguments.data)?;
    let Some(mut membership) = directory.membership()? else {
        bail!(
            "{} holds no enrolled node: get a token with `haar node token`, then `haar-agent enrol TOKEN --data {}`",
            arguments.data.display(),
            arguments.data.display()
        );
    };
    match machine::bound(&mut membership.budget) {
        Some(source) => membership.memory_source = Some(source),
        None => {
            let source = membership.memory_source.as_deref().unwrap_or("as enrolled");
            let memory = membership.budget.memory;
            tracing::info!("gives {memory} of memory to microservices: {source}");
        }
    }
    let file = arguments.settings.clone();
    let file = file.unwrap_or_else(|| arguments.data.join("agent.toml"));
    let mut settings = Settings::read(&file)?;
    let policy = Policy::new(settings.policy, file, directory.path().to_owned());
    let policy = Arc::new(policy);
    let warned = Arc::clone(&policy);
    // Nobody waits for it: the agent runs also where a file server does not answer.
    std::thread::spawn(move || warned.warn());
    if let Some(Millis(ms)) = arguments.status_interval {
        settings.status_interval = Duration::from_millis(ms.max(1));
    }
    let key = directory
        .key(|| bail!("the node's key is gone: enrol again with an empty data directory"))?;
    if haar_protocol::ids::NodeId::of(&key.public()) != membership.node {
        bail!(
            "the key in {} is not that of node {}: enrol again",
            arguments.data.display(),
            membership.node
        );
    }
    let announcement = arguments.announce.then(|| {
        serde_json::json!({ "event": "ready", "node": membership.node, "name": membership.name }).to_string()
    });
    let options = Options {
        membership,
        key,
        link_secret: directory.link_secret(crate::enrol::random_seed)?,
        status_interval: settings.status_interval,
        guest_threads: settings.guest_threads,
        location: settings.location,
        precompiled: settings.precompiled,
        policy,
        look_pause: LOOK_PAUSE,
        flash_budget: settings.flash_budget,
        compiler: Compiler::of_this_program(prefix, settings.compile)
            .context("can't find this program's own file")?,
    };
    let service_manager = ServiceManager::new(&config::supervision())
        .context("can't tell the service manager anything")?;
    let (store, store_thread) = Store::open_or_lack(directory.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let stop_on_stdin_close = arguments.stop_on_stdin_close;
    let ended = runtime.block_on(serve(
        directory.path(),
        options,
        store,
        service_manager,
        announcement,
        stop_on_stdin_close,
    ))?;
    runtime.shutdown_background();
    store_thread.join();
    after(&ended, directory.path())
}

/// Does what is left to do when the agent has ended. Whoever supervises it starts it again after an
/// error; nothing but its start brings all its parts in line with another database.
fn after(ended: &Ended, data: &Path) -> anyhow::Result<()> {
    match ended {
        Ended::Stopped => Ok(()),
        Ended::StoreDamaged(reason) => {
            store::set_aside(data, reason)?;
            bail!("the database was damaged ({reason}) and is set aside: start the agent again")
        }
        Ended::StoreBack => bail!("the database can be used again: start the agent again"),
        Ended::StoreDead => {
            bail!("the thread of the database has panicked, a bug: start the agent again")
        }
    }
}

async fn serve(
    data: &Path,
    options: Options,
    store: Store,
    service_manager: ServiceManager,
    announcement: Option<String>,
    stop_on_stdin_close: bool,
) -> anyhow::Result<Ended> {
    let stop = CancellationToken::new();
    let mut watchers = tokio::task::JoinSet::new();
    watchers.spawn(stop_on_signal(stop.clone())?);
    if stop_on_stdin_close {
        watchers.spawn(cancel_on_stdin_close(stop.clone()));
    }
    let agent = Agent::start(data, options, store).await?;
    service_manager.ready();
    if let Some(line) = announcement {
        println!("{line}");
    }
    let ended = agent.run(stop, service_manager).await;
    watchers.abort_all();
    Ok(ended)
}

/// The first signal asks for an orderly stop, the second one ends the process.
fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for signals")?;
    Ok(async move {
        for seen in 0.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if seen > 0 {
                tracing::warn!("second signal: ended at once");
                std::process::exit(130);
            }
            stop.cancel();
        }
    })
}

async fn cancel_on_stdin_close(stop: CancellationToken) {
    let mut buffer = [0; 256];
    let mut input = tokio::io::stdin();
    while input.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    stop.cancel();
}

/// Words that are not understood never keep an agent from running: it logs what it does by itself.
fn start_logging() {
    let asked = config::log_filter();
    let usual = || Targets::new().with_default(LevelFilter::INFO);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let subscriber = tracing_subscriber::registry()
        .with(lines)
        .with(asked.as_ref().map_or_else(|_| usual(), Clone::clone));
    if subscriber.try_init().is_err() {
        tracing::debug!("logging was set up before");
    }
    if let Err(error) = asked {
        tracing::warn!("{error:#}");
    }
}
