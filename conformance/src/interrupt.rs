//! Ctrl-C: the first one makes every wait end with an error, so that processes are ended and
//! directories removed in order; the second one ends us at once. The processes that we started end
//! by themselves then, because their standard input closes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Set by the thread of the signals, read by whoever waits.
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// How often waiting code looks again.
const POLL: Duration = Duration::from_millis(20);

/// Signals that come so close together are one: `timeout` tells its child, and then the child's group.
const SAME: Duration = Duration::from_millis(300);

/// Begins to listen. Called once.
pub(crate) fn listen() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("can't listen for signals")?;
    // Registered before the thread runs, so that no signal is missed.
    let (mut interrupt, mut terminate) = runtime.block_on(async {
        Ok::<_, std::io::Error>((
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        ))
    })?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                let mut first: Option<Instant> = None;
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    REQUESTED.store(true, Ordering::SeqCst);
                    if first.get_or_insert_with(Instant::now).elapsed() > SAME {
                        std::process::exit(130);
                    }
                }
            });
        })?;
    Ok(()) // it lives as long as the process, and owns nothing else
}

/// An error when somebody asked us to end.
pub(crate) fn check() -> anyhow::Result<()> {
    if REQUESTED.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    Ok(())
}

/// The pause between two looks at something that is waited for.
pub(crate) fn pause() -> anyhow::Result<()> {
    check()?;
    std::thread::sleep(POLL);
    Ok(())
}
