//! The texts of `/proc` in numbers (proc(5)). Pure. What a kernel leaves out, or writes otherwise than
//! expected, is `None` or is passed over; nothing here fails because of a single line.

use super::wit::{BlockDevice, Load, MemoryUse, NetworkInterface, ProcessorTime};

/// Milliseconds of a tick in `/proc/stat`: `USER_HZ` is 100 on every machine that agents run on.
const TICK_MS: u64 = 10;
/// Bytes of a sector in `/proc/diskstats`, whatever the device's own are.
const SECTOR_BYTES: u64 = 512;
/// Entries of a list that a guest gets.
pub(super) const ENTRIES_MAX: usize = 256;
/// Devices that are files or memory: what is on them is counted elsewhere.
const NOT_DISKS: [&str; 2] = ["loop", "ram"];
/// Kinds of file systems that are on local disks and answer without a server.
const LOCAL_KINDS: [&str; 13] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "exfat", "ubifs", "jffs2", "overlay",
    "zfs", "bcachefs",
];

/// What `/proc/stat` says of processors.
#[derive(Debug, Clone)]
pub(super) struct Stat {
    pub(super) total: ProcessorTime,
    pub(super) cores: Vec<(u32, ProcessorTime)>,
    /// Milliseconds since the Unix epoch.
    pub(super) booted_ms: Option<u64>,
}

pub(super) fn stat(text: &str) -> Option<Stat> {
    let mut stat = Stat {
        total: processor_time(text.lines().next()?.strip_prefix("cpu ")?)?,
        cores: Vec::new(),
        booted_ms: None,
    };
    for line in text.lines().skip(1) {
        if let Some(seconds) = line.strip_prefix("btime ") {
            let seconds: Option<u64> = seconds.trim().parse().ok();
            stat.booted_ms = seconds.and_then(|seconds| seconds.checked_mul(1_000));
        } else if let Some((number, times)) = line
            .strip_prefix("cpu")
            .and_then(|line| line.split_once(' '))
            && let (Ok(number), Some(time)) = (number.parse(), processor_time(times))
            && stat.cores.len() < ENTRIES_MAX
        {
            stat.cores.push((number, time));
        }
    }
    Some(stat)
}

/// The columns of a line of `/proc/stat`; old kernels have only the first four. Time of virtual machines
/// is left out: it is in `user` and `nice` already.
fn processor_time(columns: &str) -> Option<ProcessorTime> {
    let mut columns = columns.split_ascii_whitespace();
    let mut next = || -> Option<u64> {
        let ticks: u64 = columns.next()?.parse().ok()?;
        Some(ticks.saturating_mul(TICK_MS))
    };
    Some(ProcessorTime {
        user: next()?,
        nice: next()?,
        kernel: next()?,
        idle: next()?,
        disk_wait: next().unwrap_or(0),
        interrupts: next().unwrap_or(0),
        soft_interrupts: next().unwrap_or(0),
        stolen: next().unwrap_or(0),
    })
}

/// Load averages, from `/proc/loadavg`.
pub(super) fn load(text: &str) -> Option<Load> {
    let mut averages = text.split_ascii_whitespace();
    let mut next = || -> Option<f64> {
        let average: f64 = averages.next()?.parse().ok()?;
        average.is_finite().then_some(average)
    };
    Some(Load {
        one_minute: next()?,
        five_minutes: next()?,
        fifteen_minutes: next()?,
    })
}

/// Milliseconds since the node was started, from `/proc/uptime`: seconds with hundredths.
pub(in crate::local_api) fn uptime_ms(text: &str) -> Option<u64> {
    let (seconds, hundredths) = text.split_whitespace().next()?.split_once('.')?;
    let hundredths: u64 = match hundredths.len() {
        2 => hundredths.parse().ok()?,
        _ => return None,
    };
    let seconds: u64 = seconds.parse().ok()?;
    seconds.checked_mul(1_000)?.checked_add(hundredths * 10)
}

/// Memory, from `/proc/meminfo`.
pub(super) fn memory(text: &str) -> Option<MemoryUse> {
    let bytes = |name: &str| -> Option<u64> {
        let mut lines = text.lines();
        let rest = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kibibytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kibibytes.checked_mul(1_024)
    };
    Some(MemoryUse {
        total: bytes("MemTotal")?,
        free: bytes("MemFree")?,
        available: bytes("MemAvailable"),
        cached: bytes("Cached"),
        swap_total: bytes("SwapTotal"),
        swap_free: bytes("SwapFree"),
    })
}

/// Network interfaces, from `/proc/net/dev`.
pub(super) fn network(text: &str) -> Vec<NetworkInterface> {
    let lines = text.lines().skip(2);
    lines.filter_map(interface).take(ENTRIES_MAX).collect()
}

fn interface(line: &str) -> Option<NetworkInterface> {
    // An alias has a colon in its name, and the numbers have none.
    let (name, columns) = line.rsplit_once(':')?;
    let columns = columns.split_ascii_whitespace();
    let columns: Vec<u64> = columns
        .map(|column| column.parse().ok())
        .collect::<Option<_>>()?;
    let (received, sent) = (columns.get(..8)?, columns.get(8..12)?);
    Some(NetworkInterface {
        name: name.trim().to_owned(),
        received_bytes: received[0],
        received_packets: received[1],
        received_errors: received[2],
        received_dropped: received[3],
        sent_bytes: sent[0],
        sent_packets: sent[1],
        sent_errors: sent[2],
        sent_dropped: sent[3],
    })
}

/// Block devices that were ever used, from `/proc/diskstats`.
pub(super) fn devices(text: &str) -> Vec<BlockDevice> {
    let devices = text.lines().filter_map(device);
    devices.take(ENTRIES_MAX).collect()
}

fn device(line: &str) -> Option<BlockDevice> {
    let mut columns = line.split_ascii_whitespace().skip(2); // the device's numbers
    let name = columns.next()?;
    let counts: Vec<u64> = columns
        .take(11)
        .map(|column| column.parse().ok())
        .collect::<Option<_>>()?;
    // reads, merged, sectors, ms; writes, merged, sectors, ms; under way, busy ms
    let [reads, _, read, _, writes, _, written, _, _, busy, ..] = counts[..] else {
        return None;
    };
    let is_used = reads > 0 || writes > 0;
    let is_disk = !NOT_DISKS.iter().any(|prefix| name.starts_with(prefix));
    (is_used && is_disk).then(|| BlockDevice {
        name: name.to_owned(),
        reads,
        read_bytes: read.saturating_mul(SECTOR_BYTES),
        writes,
        written_bytes: written.saturating_mul(SECTOR_BYTES),
        busy,
    })
}

/// A file system on a local disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) path: String,
    pub(super) kind: String,
    pub(super) is_read_only: bool,
}

/// File systems on local disks, from `/proc/self/mounts` (fstab(5)); each device once, where it was
/// mounted first.
pub(super) fn mounts(text: &str) -> Vec<Mount> {
    let mut devices: Vec<&str> = Vec::new();
    let mut mounts = Vec::new();
    for line in text.lines() {
        let mut columns = line.split(' ');
        let (Some(device), Some(path)) = (columns.next(), columns.next()) else {
            continue;
        };
        let (Some(kind), Some(options)) = (columns.next(), columns.next()) else {
            continue;
        };
        if !LOCAL_KINDS.contains(&kind) || devices.contains(&device) || mounts.len() == ENTRIES_MAX
        {
            continue;
        }
        devices.push(device);
        mounts.push(Mount {
            path: unescaped(path),
            kind: kind.to_owned(),
            is_read_only: options.split(',').any(|option| option == "ro"),
        });
    }
    mounts
}

/// Blanks and the like stand as three octal digits behind a backslash.
fn unescaped(path: &str) -> String {
    let mut plain = Vec::with_capacity(path.len());
    let mut bytes = path.as_bytes();
    while let [first, rest @ ..] = bytes {
        let digits = rest
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, code) {
            (b'\\', Some(code)) => {
                plain.push(code);
                bytes = &rest[3..];
            }
            _ => {
                plain.push(*first);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Degrees Celsius from thousandths, as sensors have them.
pub(super) fn celsius(text: &str) -> Option<f64> {
    let thousandths: i32 = text.trim().parse().ok()?;
    Some(f64::from(thousandths) / 1_000.0)
}
