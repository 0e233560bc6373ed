//! What the node measures of itself. Mirrors `haar:local/system`; needs the grant `system`, which may
//! name parts of it. An answer is at most a tenth of a second old: asking more often returns the same.

use std::time::Duration;

use crate::agent_system as agent;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SystemError {
    /// The grant `system` does not name this part.
    NotGranted,
    /// The node can't be asked, or has no such thing; the text says why.
    Unavailable(String),
}

impl std::fmt::Display for SystemError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SystemError::NotGranted => {
                formatter.write_str("the grant `system` does not name this part")
            }
            SystemError::Unavailable(why) => write!(formatter, "the node can't be measured: {why}"),
        }
    }
}

impl std::error::Error for SystemError {}

impl From<SystemError> for String {
    fn from(error: SystemError) -> Self {
        error.to_string()
    }
}

/// Processor time since the node was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessorTime {
    /// In programs.
    pub user: Duration,
    /// In programs of a low priority.
    pub nice: Duration,
    /// In the kernel.
    pub kernel: Duration,
    /// Nothing to do.
    pub idle: Duration,
    /// Nothing to do but wait for disks.
    pub disk_wait: Duration,
    /// In handlers of interrupts.
    pub interrupts: Duration,
    /// In what interrupts leave for later.
    pub soft_interrupts: Duration,
    /// Taken by other machines on the same hardware.
    pub stolen: Duration,
}

impl ProcessorTime {
    /// All of it, used or not.
    pub fn total(&self) -> Duration {
        self.busy() + self.idle + self.disk_wait
    }

    /// The part in which something ran. Waiting for a disk counts as idle.
    pub fn busy(&self) -> Duration {
        let programs = self.user + self.nice + self.kernel;
        programs + self.interrupts + self.soft_interrupts + self.stolen
    }

    /// Share of the time since `before` in which something ran, in percent. None when no time has
    /// passed.
    pub fn busy_percent_since(&self, before: &Self) -> Option<f64> {
        let total = self.total().checked_sub(before.total())?;
        let busy = self.busy().saturating_sub(before.busy()).min(total);
        (!total.is_zero()).then(|| 100.0 * busy.as_secs_f64() / total.as_secs_f64())
    }
}

/// Processes that ran or waited to run, on average.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Over one minute.
    pub one_minute: f64,
    /// Over five minutes.
    pub five_minutes: f64,
    /// Over fifteen minutes.
    pub fifteen_minutes: f64,
}

/// The processors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Processors {
    /// How long the node has run, sleep included.
    pub uptime: Duration,
    /// When it was started: milliseconds since 1970-01-01T00:00:00Z by its clock.
    pub booted_ms: Option<u64>,
    /// How much there is to do.
    pub load: Option<Load>,
    /// Time of all cores together.
    pub total: ProcessorTime,
    /// Time of each core that is in use, with its number.
    pub cores: Vec<(u32, ProcessorTime)>,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// All of it.
    pub total: u64,
    /// Used for nothing.
    pub free: u64,
    /// What programs could still get; kernels before 3.14 do not estimate it.
    pub available: Option<u64>,
    /// Caches of files.
    pub cached: Option<u64>,
    /// Swap space.
    pub swap_total: Option<u64>,
    /// Swap space that is not used.
    pub swap_free: Option<u64>,
}

/// A network interface of the node, as the agent sees it. Counts since the node was started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkInterface {
    /// Such as `eth0`; `lo` is the loopback.
    pub name: String,
    /// Bytes that came in.
    pub received_bytes: u64,
    /// Packets that came in.
    pub received_packets: u64,
    /// Packets that came in damaged.
    pub received_errors: u64,
    /// Packets that came in and were dropped.
    pub received_dropped: u64,
    /// Bytes that went out.
    pub sent_bytes: u64,
    /// Packets that went out.
    pub sent_packets: u64,
    /// Packets that could not be sent.
    pub sent_errors: u64,
    /// Packets that were dropped instead of sent.
    pub sent_dropped: u64,
}

/// A block device, such as a card or a partition of it. Counts since the node was started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockDevice {
    /// Such as `mmcblk0`.
    pub name: String,
    /// Reads that have ended.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes that have ended.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Time in which it had something to do.
    pub busy: Duration,
}

/// A file system on a disk of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Where it is mounted.
    pub path: String,
    /// Such as `ext4`.
    pub kind: String,
    /// Its size in bytes.
    pub total_bytes: u64,
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Bytes that are free for other users than root.
    pub available_bytes: u64,
    /// Whether it can't be written.
    pub read_only: bool,
}

/// Disks and what is on them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Storage {
    /// Devices that were ever used.
    pub devices: Vec<BlockDevice>,
    /// File systems on local disks.
    pub file_systems: Vec<FileSystem>,
}

/// What a sensor shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Temperature {
    /// The sensor, such as `cpu-thermal`, or chip and label where a chip has several.
    pub sensor: String,
    /// Degrees Celsius.
    pub celsius: f64,
}

/// Load, processor time and uptime. Part `cpu` of the grant.
pub fn cpu() -> Result<Processors, SystemError> {
    agent::cpu()
}

/// Memory and swap space. Part `memory`.
pub fn memory() -> Result<MemoryUse, SystemError> {
    agent::memory()
}

/// Network interfaces. Part `network`.
pub fn network() -> Result<Vec<NetworkInterface>, SystemError> {
    agent::network()
}

/// Disks and file systems. Part `disks`.
pub fn disks() -> Result<Storage, SystemError> {
    agent::disks()
}

/// Temperatures; empty where there is no sensor. Part `temperatures`.
pub fn temperatures() -> Result<Vec<Temperature>, SystemError> {
    agent::temperatures()
}
