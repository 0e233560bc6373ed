//! Reads what the node measures: each part at most ten times a second for all microservices together,
//! on a thread of its own, so that no sensor that hangs and no guest that asks without pause holds up
//! anything else.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::super::files::thread::FileThread;
use super::parse::{self, ENTRIES_MAX};
use super::wit::{FileSystem, MemoryUse, NetworkInterface, Processors, Storage, Temperature};

/// How long an answer is good.
const FRESH_FOR: Duration = Duration::from_millis(100);
/// How long a guest waits for one.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Bytes of a file of `/proc` that are read.
const TEXT_BYTES_MAX: u64 = 256 << 10;
/// Bytes of a file of `/sys` that are read, and of a name that is shown.
const VALUE_BYTES_MAX: u64 = 64;
/// Temperatures of one chip.
const SENSORS_MAX: usize = 16;

/// What the node measures. One for the agent.
#[derive(Debug, Default)]
pub struct Measurements {
    pub(super) cpu: Part<Processors>,
    pub(super) memory: Part<MemoryUse>,
    pub(super) network: Part<Vec<NetworkInterface>>,
    pub(super) disks: Part<Storage>,
    pub(super) temperatures: Part<Vec<Temperature>>,
    /// The agent's own question.
    free_bytes: Part<u64>,
}

impl Measurements {
    /// Bytes that an unprivileged process may still write to the file system of the data directory. Like a
    /// guest's question it waits no longer than a second: none when the disk does not answer.
    pub async fn free_bytes(&self, data: &Path) -> Option<u64> {
        let data = data.to_owned();
        let read = move || {
            let space = rustix::fs::statvfs(&data)?;
            Ok(space.f_bavail.saturating_mul(space.f_frsize))
        };
        self.free_bytes.read(read).await.ok().as_deref().copied()
    }
}

/// What was read, and when.
type Answer<T> = (Instant, Arc<T>);

/// One part, as it was last read.
#[derive(Debug)]
pub(super) struct Part<T> {
    pub(super) thread: Arc<FileThread>,
    /// Taken for a moment by whoever asks, and by the thread while it reads.
    last: Arc<Mutex<Option<Answer<T>>>>,
}

impl<T> Default for Part<T> {
    fn default() -> Self {
        Self {
            thread: Arc::default(),
            last: Arc::default(),
        }
    }
}

impl<T: Send + Sync + 'static> Part<T> {
    /// The last answer while it is fresh, or what `read` finds.
    ///
    /// # Errors
    /// Why there is no answer, for people.
    pub(super) async fn read(
        &self,
        read: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<Arc<T>, String> {
        if let Some(value) = fresh(&self.last) {
            return Ok(value);
        }
        if self.thread.hangs() {
            return Err("the node does not answer".to_owned());
        }
        let last = Arc::clone(&self.last);
        let reading = self.thread.call("measure", "", move || {
            if let Some(value) = fresh(&last) {
                return Ok(value); // another guest was faster
            }
            let value = Arc::new(read()?);
            let answer = (Instant::now(), Arc::clone(&value));
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
            Ok(value)
        });
        match tokio::time::timeout(ANSWER_MAX, reading).await {
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(_) => Err("the node does not answer in time".to_owned()),
        }
    }
}

fn fresh<T>(last: &Mutex<Option<Answer<T>>>) -> Option<Arc<T>> {
    let last = last.lock().unwrap_or_else(PoisonError::into_inner);
    let (read, value) = last.as_ref()?;
    (read.elapsed() < FRESH_FOR).then(|| Arc::clone(value))
}

pub(super) fn cpu() -> io::Result<Processors> {
    let stat = parse::stat(&text("/proc/stat")?).ok_or_else(|| unknown("/proc/stat"))?;
    let uptime = parse::uptime_ms(&text("/proc/uptime")?).ok_or_else(|| unknown("/proc/uptime"))?;
    Ok(Processors {
        uptime,
        booted: stat.booted_ms,
        load: text("/proc/loadavg")
            .ok()
            .and_then(|text| parse::load(&text)),
        total: stat.total,
        cores: stat.cores,
    })
}

pub(super) fn memory() -> io::Result<MemoryUse> {
    parse::memory(&text("/proc/meminfo")?).ok_or_else(|| unknown("/proc/meminfo"))
}

pub(super) fn network() -> io::Result<Vec<NetworkInterface>> {
    Ok(parse::network(&text("/proc/net/dev")?))
}

pub(super) fn disks() -> io::Result<Storage> {
    let mounts = parse::mounts(&text("/proc/self/mounts")?);
    Ok(Storage {
        // Containers and virtual machines may have none.
        devices: text("/proc/diskstats").map_or_else(|_| Vec::new(), |text| parse::devices(&text)),
        file_systems: mounts.into_iter().filter_map(file_system).collect(),
    })
}

fn file_system(mount: parse::Mount) -> Option<FileSystem> {
    let stat = rustix::fs::statvfs(mount.path.as_str()).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    (stat.f_blocks > 0).then(|| FileSystem {
        path: mount.path,
        kind: mount.kind,
        total_bytes: bytes(stat.f_blocks),
        free_bytes: bytes(stat.f_bfree),
        available_bytes: bytes(stat.f_bavail),
        read_only: mount.is_read_only,
    })
}

/// Thermal zones, and the sensors of chips.
#[allow(
    clippy::unnecessary_wraps,
    reason = "as the other parts, which may fail"
)]
pub(super) fn temperatures() -> io::Result<Vec<Temperature>> {
    let mut found = thermal_zones(Path::new("/sys/class/thermal"));
    found.extend(chips(Path::new("/sys/class/hwmon")));
    found.truncate(ENTRIES_MAX);
    Ok(found)
}

pub(super) fn thermal_zones(folder: &Path) -> Vec<Temperature> {
    let zones = entries(folder, "thermal_zone").into_iter();
    let zones = zones.filter_map(|zone| {
        Some(Temperature {
            sensor: value(&zone.join("type"))?,
            celsius: parse::celsius(&value(&zone.join("temp"))?)?,
        })
    });
    zones.collect()
}

pub(super) fn chips(folder: &Path) -> Vec<Temperature> {
    let mut found = Vec::new();
    for chip in entries(folder, "hwmon") {
        let Some(name) = value(&chip.join("name")) else {
            continue;
        };
        for number in 1..=SENSORS_MAX {
            let celsius = value(&chip.join(format!("temp{number}_input")));
            let Some(celsius) = celsius.and_then(|text| parse::celsius(&text)) else {
                continue;
            };
            let label = value(&chip.join(format!("temp{number}_label")));
            let label = label.unwrap_or_else(|| format!("temp{number}"));
            found.push(Temperature {
                sensor: format!("{name} {label}"),
                celsius,
            });
        }
    }
    found
}

/// Entries of a folder whose names begin so, in order; none where there is no such folder.
fn entries(folder: &Path, prefix: &str) -> Vec<std::path::PathBuf> {
    let Ok(read) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let entries = read.take(4 * ENTRIES_MAX).filter_map(Result::ok);
    let mut paths: Vec<_> = entries
        .filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(prefix.as_bytes())
        })
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths.truncate(ENTRIES_MAX);
    paths
}

fn text(path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(TEXT_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The one line of a file of `/sys`.
fn value(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(VALUE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn unknown(path: &str) -> io::Error {
    io::Error::other(format!("{path} is not what Linux writes"))
}
