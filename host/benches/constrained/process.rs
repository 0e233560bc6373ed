//! What the kernel says of a process: its memory, its processor time, how often it woke up.

use std::fs;
use std::path::Path;

/// Memory of a process, in KiB.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Resident set.
    pub resident: u64,
    /// Proportional set: of pages that several processes have, its part.
    pub proportional: u64,
    /// Of the resident set, what no file stands behind.
    pub anonymous: u64,
}

impl Memory {
    /// Of the process, now.
    pub fn of(process: u32) -> Self {
        let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
        let kib = |key: &str| field(&text, key).unwrap();
        Self {
            resident: kib("Rss:"),
            proportional: kib("Pss:"),
            anonymous: kib("Anonymous:"),
        }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [resident, proportional, anonymous] =
            [self.resident, self.proportional, self.anonymous].map(|kib| kib as f64 / 1_024.0);
        write!(
            formatter,
            "{resident:.2} MiB resident, {proportional:.2} MiB proportional, {anonymous:.2} MiB of it anonymous"
        )
    }
}

/// Mappings of the process.
pub fn mappings(process: u32) -> usize {
    let text = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    text.lines().count()
}

/// One thread's name, how often it woke up, and what it used of the processor in milliseconds.
#[derive(Clone)]
pub struct Thread {
    pub name: String,
    id: u64,
    pub wakes: u64,
    pub cpu_ms: f64,
}

/// All threads of the process.
pub fn threads(process: u32) -> Vec<Thread> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    tasks
        .flatten()
        .filter_map(|task| thread(&task.path()))
        .collect()
}

/// None when it has ended meanwhile.
fn thread(task: &Path) -> Option<Thread> {
    let status = fs::read_to_string(task.join("status")).ok()?;
    let nanoseconds = fs::read_to_string(task.join("schedstat")).ok()?;
    let nanoseconds: u64 = nanoseconds.split(' ').next()?.parse().ok()?;
    let voluntary = field(&status, "voluntary_ctxt_switches:")?;
    let nonvoluntary = field(&status, "nonvoluntary_ctxt_switches:")?;
    Some(Thread {
        name: fs::read_to_string(task.join("comm"))
            .ok()?
            .trim()
            .to_owned(),
        id: task.file_name()?.to_str()?.parse().ok()?,
        wakes: voluntary + nonvoluntary,
        cpu_ms: nanoseconds as f64 / 1e6,
    })
}

/// What each thread did between two looks.
pub fn between(before: &[Thread], after: &[Thread]) -> Vec<Thread> {
    let since = |now: &Thread| {
        let then = before.iter().find(|then| then.id == now.id);
        let (wakes, cpu_ms) = then.map_or((0, 0.0), |then| (then.wakes, then.cpu_ms));
        Thread {
            wakes: now.wakes - wakes,
            cpu_ms: now.cpu_ms - cpu_ms,
            ..now.clone()
        }
    };
    after.iter().map(since).collect()
}

/// `write_bytes` of the process: given to disks, without the file system's journal.
pub fn written_bytes(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/io")).unwrap();
    field(&text, "write_bytes:").unwrap()
}

/// The number after a word at the start of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}
