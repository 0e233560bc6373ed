//! Who used the machine's processors between two looks: the agent with its children, or others.
//! A neighbour that was slow while others used them was not starved by the agent.

use anyhow::Context as _;

/// Processor time so far, in the kernel's ticks (proc(5), `/proc/stat` and `/proc/PID/stat`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Of all processors, at work or not.
    total: u64,
    /// At work, for whomever; what a hypervisor took for others is in it.
    busy: u64,
    /// At work for the processes of one group, and for the children of its leader.
    group: u64,
}

impl Usage {
    /// A look, at a process group among all others.
    pub(crate) fn now(group: u32) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("can't read /proc/stat")?;
        let line = text.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; guest times are in user and nice.
        let ticks: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|field| field.parse().ok())
            .collect();
        let total = ticks.iter().sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        Ok(Self {
            total,
            busy: total - idle,
            group: group_ticks(group)?,
        })
    }

    /// The share of all processors that others used since an earlier look, from 0 to 1.
    pub(crate) fn others_since(&self, earlier: &Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total);
        let busy = self.busy.saturating_sub(earlier.busy);
        let group = self.group.saturating_sub(earlier.group);
        let as_f64 = |ticks: u64| f64::from(u32::try_from(ticks).unwrap_or(u32::MAX));
        as_f64(busy.saturating_sub(group)) / as_f64(total.max(1))
    }
}

/// Processor time of all processes of a group and of its leader's children (the agent's compiler has a
/// group of its own), and of those of their children that have ended.
fn group_ticks(group: u32) -> anyhow::Result<u64> {
    let mut ticks = 0;
    for entry in std::fs::read_dir("/proc").context("can't read /proc")? {
        // What is not a process, or has just ended, has no such file.
        let Ok(text) = std::fs::read_to_string(entry?.path().join("stat")) else {
            continue;
        };
        // The name of the program may contain anything; the fields stand behind its bracket.
        let Some((_, fields)) = text.rsplit_once(')') else {
            continue;
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [parent, of_group] =
            [1, 2].map(|at| fields.get(at).and_then(|field| field.parse().ok()));
        if of_group == Some(group) || parent == Some(group) {
            let times = fields.iter().skip(11).take(4);
            ticks += times
                .filter_map(|field| field.parse::<u64>().ok())
                .sum::<u64>();
        }
    }
    Ok(ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_group_did_not_use_others_did() {
        let at = |total, busy, group| Usage { total, busy, group };
        let share = at(300, 150, 70).others_since(&at(100, 50, 20));
        assert!((share - 0.25).abs() < 1e-9, "{share}");
        let idle = at(300, 50, 20).others_since(&at(100, 50, 20));
        assert!(idle.abs() < 1e-9, "{idle}");
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let first = Usage::now(std::process::id()).unwrap();
        let share = Usage::now(std::process::id()).unwrap().others_since(&first);
        assert!((0.0..=1.0).contains(&share), "{share}");
    }
}
