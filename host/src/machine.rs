//! The memory and the processors that this process may use. A service manager or a container may allow
//! less than the machine has, by control groups (cgroups(7), both versions); a process that exceeds such
//! a limit of memory is killed.
//!
//! Limits above the root of a cgroup namespace can't be seen from inside.

pub(crate) mod pages;

use std::fmt;
use std::path::{Path, PathBuf};

use haar_protocol::limits::Budget;
use haar_protocol::quantity::ByteSize;

use crate::policy::mounts::Mounts;

/// Memory for microservices where the kernel does not say how much there is.
const MEMORY_FALLBACK: ByteSize = ByteSize(64 << 20);

/// An amount, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Bytes, or percent of one core.
    amount: u64,
    /// Where it comes from, for people.
    source: String,
}

impl fmt::Display for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", ByteSize(self.amount), self.source)
    }
}

/// The default memory budget for microservices, which is half of what this process may use, and where that
/// number comes from.
pub fn memory() -> (ByteSize, String) {
    match Machine::own().memory() {
        Some(bound) => half(&bound),
        None => (
            MEMORY_FALLBACK,
            "the machine does not say how much it has".to_owned(),
        ),
    }
}

/// The processors that this process may use, in percent of one core.
pub fn cpu_percent() -> u32 {
    Machine::own().cpu_percent()
}

/// Lowers a budget of more memory than this process may use: otherwise a microservice within the budget
/// could make the kernel kill the agent. Returns where the lower number comes from.
pub fn bound(budget: &mut Budget) -> Option<String> {
    let bound = Machine::own().memory()?;
    if budget.memory.0 <= bound.amount {
        return None;
    }
    let (memory, source) = half(&bound);
    let source = format!("{source}; it was to give {}", budget.memory);
    tracing::warn!(
        "gives {memory} of memory to microservices, {source}: to give another part, raise that limit or enrol again with --memory"
    );
    budget.memory = memory;
    Some(source)
}

fn half(bound: &Bound) -> (ByteSize, String) {
    (
        ByteSize((bound.amount >> 21) << 20),
        format!("half of {bound}"),
    )
}

/// What the kernel says about this process.
struct Machine {
    /// `/proc/self/cgroup`.
    cgroups: String,
    /// `/proc/self/mountinfo`.
    mounts: Mounts,
    /// `/proc/meminfo`.
    memory: String,
    /// `/proc/self/status`.
    status: String,
    /// The root directory of everything below; `/` but in tests.
    root: PathBuf,
}

impl Machine {
    fn own() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            cgroups: read("/proc/self/cgroup"),
            mounts: Mounts::parse(read("/proc/self/mountinfo").as_bytes()),
            memory: read("/proc/meminfo"),
            status: read("/proc/self/status"),
            root: "/".into(),
        }
    }

    /// The least of the machine's memory and of the limits of each control group up to the root.
    fn memory(&self) -> Option<Bound> {
        let line = self.memory.lines();
        let kib = line
            .filter_map(|line| line.strip_prefix("MemTotal:"))
            .find_map(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        let whole = kib.map(|kib| Bound {
            amount: kib << 10,
            source: "the machine's memory".to_owned(),
        });
        let names = ["memory.max", "memory.high", "memory.limit_in_bytes"];
        let groups = self.groups("memory");
        let limits = groups.iter().flat_map(|folder| {
            names.iter().filter_map(|name| {
                Some(Bound {
                    amount: self.read(folder, name)?.trim().parse().ok()?, // "max": none
                    source: format!("{name} of {}", folder.display()),
                })
            })
        });
        // The first of several equal ones: "the machine's memory" is the easiest to understand.
        whole.into_iter().chain(limits).min_by_key(|one| one.amount)
    }

    /// All of the cores that the process may run on, or less where a quota says so; in percent of one core.
    fn cpu_percent(&self) -> u32 {
        let all = self.cores().saturating_mul(100);
        self.cpu_quota_percent().map_or(all, |quota| quota.min(all))
    }

    /// The cores that the process may run on: those of its affinity, of which some may not be there. Not
    /// as the standard library counts them, which takes quotas into account and rounds them down to whole
    /// cores; it is asked only where the kernel does not say.
    fn cores(&self) -> u32 {
        let mut lines = self.status.lines();
        let allowed = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let allowed = allowed.and_then(count);
        let online = self.read(Path::new("/sys/devices/system/cpu"), "online");
        let online = online.as_deref().and_then(count);
        let fewer = allowed.into_iter().chain(online).min();
        fewer.unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            u32::try_from(cores).unwrap_or(u32::MAX)
        })
    }

    /// The least quota of processor time, in percent of one core.
    fn cpu_quota_percent(&self) -> Option<u32> {
        let number = |text: &str| text.trim().parse::<u64>().ok(); // "max", "-1": none
        let groups = self.groups("cpu");
        let quotas = groups.iter().filter_map(|folder| {
            let (quota, period) = match self.read(folder, "cpu.max") {
                Some(line) => {
                    let (quota, period) = line.split_once(' ')?;
                    (number(quota)?, number(period)?)
                }
                None => (
                    number(&self.read(folder, "cpu.cfs_quota_us")?)?,
                    number(&self.read(folder, "cpu.cfs_period_us")?)?,
                ),
            };
            u32::try_from((quota.checked_mul(100)?).checked_div(period)?).ok()
        });
        quotas.min().map(|percent| percent.max(1))
    }

    /// The folders of the control groups of this process: its own, and each above it.
    fn groups(&self, controller: &str) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for line in self.cgroups.lines() {
            // `4:cpu,cpuacct:/path` of the first version, `0::/path` of the second.
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
                continue;
            };
            let kind = match controllers {
                "" => "cgroup2",
                several if several.split(',').any(|one| one == controller) => "cgroup",
                _ => continue,
            };
            for mount in self.mounts.of_type(kind) {
                // In a cgroup namespace the path may lead outside of what is mounted.
                let below = Path::new(path).strip_prefix(&mount.root);
                let below = below.ok().filter(|path| !path.starts_with(".."));
                let below = below.unwrap_or(Path::new(""));
                // Joining nothing would leave a slash at the end.
                let own: PathBuf = mount.point.components().chain(below.components()).collect();
                let above = own.ancestors().map(Path::to_owned);
                folders.extend(above.take_while(|folder| folder.starts_with(&mount.point)));
            }
        }
        folders
    }

    fn read(&self, folder: &Path, name: &str) -> Option<String> {
        let folder = folder.strip_prefix("/").ok()?;
        std::fs::read_to_string(self.root.join(folder).join(name)).ok()
    }
}

/// How many numbers a list such as `0-3,8` names; none where it names none, or is not such a list.
fn count(list: &str) -> Option<u32> {
    let ranges = list.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    });
    ranges.sum()
}

#[cfg(test)]
mod tests;
