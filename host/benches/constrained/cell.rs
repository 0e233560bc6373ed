//! A memory cgroup for one process, of the second version or the first, whichever this machine has.
//! Where none can be made the process has a bound of address space instead, which bounds far more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Removed when dropped, after its process has ended.
pub struct Cell {
    kind: Kind,
    bytes: u64,
}

enum Kind {
    /// cgroup v2, and its folder.
    Second(PathBuf),
    /// cgroup v1, likewise.
    First(PathBuf),
    /// None can be made here.
    Prlimit,
}

/// What became of the memory.
pub struct Peak {
    /// The most that was used, page cache included.
    pub bytes: u64,
    /// Processes that were ended for it.
    pub kills: u64,
}

impl Cell {
    /// With room for so many bytes.
    pub fn new(name: &str, bytes: u64) -> Self {
        let name = format!("haar-bench-{name}-{}", std::process::id());
        let (second, first) = (
            Path::new("/sys/fs/cgroup"),
            Path::new("/sys/fs/cgroup/memory"),
        );
        let make = |folder: PathBuf, limit: &str| {
            fs::create_dir(&folder).ok()?;
            let limit = folder.join(limit);
            if !limit.exists() {
                // No folder of the kernel's, or one without memory: a file could be written all the same.
                let _ = fs::remove_dir(&folder);
                return None;
            }
            fs::write(limit, bytes.to_string()).ok()?;
            Some(folder)
        };
        let kind = make(second.join(&name), "memory.max")
            .map(Kind::Second)
            .or_else(|| make(first.join(&name), "memory.limit_in_bytes").map(Kind::First))
            .unwrap_or(Kind::Prlimit);
        Self { kind, bytes }
    }

    /// What it is, for the record.
    pub fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Second(_) => "cgroup v2",
            Kind::First(_) => "cgroup v1",
            Kind::Prlimit => "no cgroup can be made here: RLIMIT_DATA instead",
        }
    }

    /// A command that runs `program` inside.
    pub fn command(&self, program: &Path) -> Command {
        match &self.kind {
            Kind::Second(folder) | Kind::First(folder) => {
                let mut command = Command::new("sh");
                command
                    .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
                    .arg(folder)
                    .arg(program);
                command
            }
            Kind::Prlimit => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--data={}", self.bytes)).arg(program);
                command
            }
        }
    }

    /// What was used until now. Unknown without a cgroup.
    pub fn peak(&self) -> Option<Peak> {
        let (folder, peak, events, kills) = match &self.kind {
            Kind::Second(folder) => (folder, "memory.peak", "memory.events", "oom_kill "),
            Kind::First(folder) => (
                folder,
                "memory.max_usage_in_bytes",
                "memory.oom_control",
                "oom_kill ",
            ),
            Kind::Prlimit => return None,
        };
        let events = fs::read_to_string(folder.join(events)).unwrap();
        let kills = events.lines().find_map(|line| line.strip_prefix(kills));
        Some(Peak {
            bytes: number(&folder.join(peak)),
            kills: kills.map_or(0, |count| count.trim().parse().unwrap()),
        })
    }
}

fn number(path: &Path) -> u64 {
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

impl Drop for Cell {
    fn drop(&mut self) {
        if let Kind::Second(folder) | Kind::First(folder) = &self.kind {
            let _ = fs::remove_dir(folder); // a process is left in it
        }
    }
}
