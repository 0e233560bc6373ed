//! `wasi:*` from wasmtime-wasi: clocks, randomness, granted directories, standard output. Its sockets
//! are not linked: see [`super::sockets`].

use std::sync::Arc;

use haar_protocol::assignment::Microservice;
use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::p2::bindings::{cli, clocks, random};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{WasiCtx, WasiView as _};
use wasmtime_wasi_io::bindings::wasi::io;

use super::files::thread::FileThread;
use super::files::{self, Files, Granted};
use super::logging::Logger;
use super::state::State;
use super::stdio::LogStream;
use crate::runtime::guest::Counters;
use crate::runtime::surroundings::Surroundings;

/// Random bytes that one call may ask for.
const RANDOM_BYTES_MAX: u64 = 64 << 10;

struct HasIo;

impl HasData for HasIo {
    type Data<'a> = &'a mut ResourceTable;
}

/// Links the interfaces one by one: what is not named here is not there.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let l = linker;
    io::error::add_to_linker::<State, HasIo>(l, |state| &mut state.table)?;
    io::poll::add_to_linker::<State, HasIo>(l, |state| &mut state.table)?;
    io::streams::add_to_linker::<State, HasIo>(l, |state| &mut state.table)?;
    clocks::wall_clock::add_to_linker::<State, WasiClocks>(l, State::clocks)?;
    clocks::monotonic_clock::add_to_linker::<State, WasiClocks>(l, State::clocks)?;
    random::random::add_to_linker::<State, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    random::insecure::add_to_linker::<State, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    files::add_to_linker(l)?;
    cli::exit::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::environment::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    Ok(())
}

/// What is behind the interfaces for one instance: exactly what it is granted.
///
/// # Errors
/// When a granted directory can't be opened, or the policy does not allow it; the text says which and
/// why.
pub async fn context(
    spec: &Microservice,
    surroundings: &Surroundings,
    counters: &Arc<Counters>,
    logger: &Logger,
    thread: Arc<FileThread>,
) -> anyhow::Result<(WasiCtx, Files)> {
    let mut builder = WasiCtx::builder();
    builder.stdout(LogStream::stdout(logger.clone()));
    builder.stderr(LogStream::stderr(logger.clone()));
    builder.max_random_size(RANDOM_BYTES_MAX);
    let grants = &spec.grants;
    let mut directories: Vec<Granted> = grants.directories.iter().map(Granted::of).collect();
    if let Some(guest) = &grants.data_directory {
        let host = surroundings.private_directory(&spec.name);
        let quota = spec.limits.files_size.0;
        directories.push(Granted::private(host, guest.clone(), quota));
    }
    let policy = &surroundings.policy;
    let files = Files::open(directories, thread, policy, counters, logger).await?;
    Ok((builder.build(), files))
}
