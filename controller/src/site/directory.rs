//! The data directory: who may use it, and files that only its owner reads.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::modes;

/// How long to wait for the lock. A child that is between `fork` and `exec` still holds the lock of a
/// controller that has just ended.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// Holds the directory for this process; released when dropped, also by a crash.
#[derive(Debug)]
pub(crate) struct Lock(
    #[allow(dead_code, reason = "the lock lives as long as the file is open")] File,
);

/// Makes the directory if there is none, and locks it.
pub(super) fn claim(directory: &Path) -> anyhow::Result<Lock> {
    let shown = directory.display();
    if directory.exists() && !directory.is_dir() {
        bail!("{shown} is a file: give a directory with --data");
    }
    if ["node.key", "agent.toml", "agent.db", "agent.lock"]
        .iter()
        .any(|name| directory.join(name).exists())
    {
        bail!(
            "{shown} is the data directory of an agent: give the controller a directory of its own with --data"
        );
    }
    modes::restrict(directory)?;
    let path = directory.join("controller.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| {
            format!(
                "opening {}: the data directory must be writable",
                path.display()
            )
        })?;
    let until = Instant::now() + ENDS_WITHIN;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => bail!(
                "the data directory {shown} is in use by another controller: stop that one, or give another directory with --data"
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", path.display()));
            }
        }
    }
}

/// A new site wants a directory where nothing but its own configuration is.
pub(super) fn check_unused(directory: &Path) -> anyhow::Result<()> {
    let shown = directory.display();
    let entries =
        fs::read_dir(directory).with_context(|| format!("reading the data directory {shown}"))?;
    for entry in entries {
        let name = entry?.file_name();
        let ours = ["controller.lock", "controller.toml", "lost+found"];
        if !ours.iter().any(|known| name == *known) {
            bail!(
                "{shown} holds `{}` and no site: it belongs to something else; give an empty directory with --data",
                name.to_string_lossy()
            );
        }
    }
    Ok(())
}

/// Reads a text file; the error names it.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// Replaces a file in one step; only its owner may read it.
pub(super) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    replace(path, text).with_context(|| format!("writing {}", path.display()))
}

fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    // A leftover of a crash could have other rights: begin with a file of our own.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    options.mode(0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Makes an empty file that only its owner reads, unless it is there.
pub(super) fn make_private_file(path: &Path) -> anyhow::Result<()> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    Ok(())
}
