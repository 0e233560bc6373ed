//! Ctrl-C and the other polite requests to end. Most commands end at once (exit code 130); those
//! that have something to put in order first [`hold`] the signal and ask [`requested`]. A second
//! signal always ends the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::error::{CommandError, Exit, Result};
use crate::terminal;

/// Set by a command that ends in order by itself; read by the signal thread.
static HELD: AtomicBool = AtomicBool::new(false);
/// Set by the signal thread; read by the command.
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// How often waiting code looks whether it should stop.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// How long a terminal may take to be as it was before we end.
const GIVE_BACK: Duration = Duration::from_millis(500);

/// Begins to listen for signals. Called once, by `main`.
pub(crate) fn listen() -> Result<()> {
    let failed =
        |error: std::io::Error| CommandError::failure(format!("can't listen for signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(failed)?;
    // Registered before the thread runs, so that no signal is missed.
    let mut signals = runtime.block_on(async { Signals::new() }).map_err(failed)?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                loop {
                    signals.next().await;
                    let second = REQUESTED.swap(true, Ordering::SeqCst);
                    if second || !HELD.load(Ordering::SeqCst) {
                        end();
                    }
                }
            });
        })
        .map_err(failed)?;
    Ok(()) // the thread lives as long as the process: it waits for signals and owns nothing else
}

/// From now on the first signal only makes [`requested`] true.
pub(crate) fn hold() {
    HELD.store(true, Ordering::SeqCst);
}

/// True when somebody asked the command to end.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Sleeps for `time`, or until somebody asks the command to end.
pub(crate) fn sleep(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(POLL));
    }
}

/// An error when somebody asked the command to end.
pub(crate) fn check() -> Result<()> {
    if requested() {
        Err(CommandError::interrupted())
    } else {
        Ok(())
    }
}

fn end() {
    let (done, is_done) = mpsc::sync_channel(1);
    // A stalled terminal blocks whoever writes to it. The process exits anyway.
    let put_in_order = std::thread::Builder::new().spawn(move || {
        terminal::give_back();
        let terminal = console::Term::stderr();
        if terminal.is_term() {
            let _ = terminal.show_cursor(); // a spinner may have hidden it
        }
        let _ = done.send(());
    });
    if put_in_order.is_ok() {
        let _ = is_done.recv_timeout(GIVE_BACK);
    }
    std::process::exit(i32::from(Exit::Interrupted as u8));
}

#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 3]);

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
