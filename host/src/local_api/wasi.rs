//! `wasi:*` from wasmtime-wasi: clocks, randomness, granted directories, standard output. No
//! sockets: they are not linked, so a component that imports them does not start.

use anyhow::Context as _;
use haar_protocol::grants::{Access, Grants};
use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, random};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiView as _};
use wasmtime_wasi_io::bindings::wasi::io;

use super::logging::Logger;
use super::state::State;
use super::stdio::LogStream;

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
    filesystem::types::add_to_linker::<State, WasiFilesystem>(l, State::filesystem)?;
    filesystem::preopens::add_to_linker::<State, WasiFilesystem>(l, State::filesystem)?;
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
/// When a granted directory can't be opened; the text says which and why.
pub fn context(grants: &Grants, logger: &Logger) -> anyhow::Result<WasiCtx> {
    let mut builder = WasiCtx::builder();
    builder.stdout(LogStream::stdout(logger.clone()));
    builder.stderr(LogStream::stderr(logger.clone()));
    builder.max_random_size(RANDOM_BYTES_MAX);
    for grant in &grants.directories {
        let permissions = match grant.access {
            Access::ReadOnly => FsPerms::ReadOnly,
            Access::ReadWrite => FsPerms::ReadWrite,
        };
        builder
            .preopened_dir(&grant.host, &grant.guest, permissions)
            .map_err(|error| anyhow::anyhow!("{error:#}"))
            .with_context(|| {
                format!(
                    "the granted directory {} of this node can't be opened",
                    grant.host
                )
            })?;
    }
    Ok(builder.build())
}
