//! Trees of control groups as they were seen on machines, and one of this machine's own.

use std::process::Command;

use super::*;

/// A machine of 8 GiB with these files below its root.
fn machine(cgroups: &str, mounts: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let machine = Machine {
        cgroups: cgroups.to_owned(),
        mounts: Mounts::parse(mounts.as_bytes()),
        memory: "MemTotal:        8388608 kB\nMemFree:    100 kB\n".to_owned(),
        status: "Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t0-7\n".to_owned(),
        root: root.path().to_owned(),
    };
    (root, machine)
}

const SECOND: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

#[test]
fn the_least_limit_on_the_way_to_the_root_counts_in_the_second_version() {
    let own = "sys/fs/cgroup/system.slice/haar-agent.service";
    let slice = "sys/fs/cgroup/system.slice";
    let of = |own_max: &str, slice_max: &str, high: &str| {
        let files = [
            (format!("{own}/memory.max"), own_max),
            (format!("{own}/memory.high"), high),
            (format!("{slice}/memory.max"), slice_max),
            (format!("{own}/cpu.max"), "150000 100000\n"),
            (format!("{slice}/cpu.max"), "max 100000\n"),
        ];
        let files = files.each_ref().map(|(path, text)| (path.as_str(), *text));
        let cgroups = "0::/system.slice/haar-agent.service\n";
        let (_root, machine) = machine(cgroups, SECOND, &files);
        assert_eq!(machine.cpu_quota_percent(), Some(150));
        machine.memory().unwrap().to_string()
    };
    assert_eq!(
        of("134217728\n", "max\n", "max\n"),
        "128MiB: memory.max of /sys/fs/cgroup/system.slice/haar-agent.service"
    );
    assert_eq!(
        of("134217728\n", "67108864\n", "max\n"),
        "64MiB: memory.max of /sys/fs/cgroup/system.slice"
    );
    assert_eq!(
        of("max\n", "max\n", "33554432\n"),
        "32MiB: memory.high of /sys/fs/cgroup/system.slice/haar-agent.service"
    );
    assert_eq!(of("max\n", "max\n", "max\n"), "8GiB: the machine's memory");
    assert_eq!(
        of("17179869184\n", "max\n", "x\n"),
        "8GiB: the machine's memory",
        "more than there is"
    );
}

#[test]
fn the_first_version_has_a_tree_for_each_controller_and_containers_see_theirs_as_the_root() {
    let mounts = "33 32 0:28 /docker/ab12 /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
        34 32 0:29 /docker/ab12 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    let files = [
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "100663296\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
    ];
    for cgroups in [
        "5:cpu,cpuacct:/docker/ab12\n4:memory:/docker/ab12\n0::/\n",
        "5:cpu,cpuacct:/\n4:memory:/../outside\n", // a namespace of control groups
    ] {
        let (_root, machine) = machine(cgroups, mounts, &files);
        assert_eq!(
            machine.memory().unwrap().to_string(),
            "96MiB: memory.limit_in_bytes of /sys/fs/cgroup/memory"
        );
        assert_eq!(machine.cpu_quota_percent(), Some(50));
    }
    let unlimited = [
        (
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        ),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
    ];
    let (_root, machine) = machine("4:memory,cpu:/docker/ab12\n", mounts, &unlimited);
    assert_eq!(
        machine.memory().unwrap().to_string(),
        "8GiB: the machine's memory"
    );
    assert_eq!(machine.cpu_quota_percent(), None);
}

#[test]
fn processors_are_those_of_the_process_or_its_quota_where_that_is_less() {
    let of = |online: &str, allowed: &str, quota: &str| {
        let files = [
            ("sys/fs/cgroup/cpu.max", quota),
            ("sys/devices/system/cpu/online", online),
        ];
        let (_root, mut machine) = machine("0::/\n", SECOND, &files);
        machine.status = format!("Cpus_allowed_list:\t{allowed}\n");
        machine.cpu_percent()
    };
    assert_eq!(of("0-3\n", "0-3", "max 100000\n"), 400);
    assert_eq!(of("0-3\n", "0-127", "max 100000\n"), 400);
    assert_eq!(of("0-7\n", "1,4-5", "max 100000\n"), 300);
    assert_eq!(of("0-3\n", "0-3", "150000 100000\n"), 150);
    assert_eq!(of("0-3\n", "0-1", "250000 100000\n"), 200);
    assert_eq!(of("0-1\n", "0-1", "800000 100000\n"), 200);
    assert_eq!(of("0-3\n", "0-3", "500 100000\n"), 1);
}

#[test]
fn a_machine_that_tells_nothing_is_no_failure() {
    for cgroups in ["", "nonsense\n", "4:memory\n", "0::\n"] {
        let (_root, mut machine) = machine(cgroups, SECOND, &[]);
        machine.memory.clear();
        machine.status.clear();
        assert_eq!(machine.memory(), None, "{cgroups:?}");
        assert_eq!(machine.cpu_quota_percent(), None);
        assert!(machine.cores() > 0);
    }
    for list in ["", "x", "3-1", "0-", "0-4294967295"] {
        assert_eq!(count(list), None, "{list}");
    }
    assert!(memory().0.0 > 0);
    assert!(cpu_percent() > 0);
}

#[test]
fn a_budget_above_what_the_process_may_use_is_lowered_and_any_other_is_left() {
    let most = Machine::own().memory().unwrap().amount;
    let mut budget = Budget::new(ByteSize(most), 1);
    assert_eq!(bound(&mut budget), None);
    assert_eq!(budget.memory.0, most);
    budget.memory.0 += 1;
    let source = bound(&mut budget).unwrap();
    assert_eq!(budget.memory, memory().0);
    assert!(source.contains("it was to give"), "{source}");
}

/// A group of this machine's, where this user may make one.
struct Group(PathBuf);

impl Group {
    fn new(bytes: u64) -> Option<Self> {
        let machine = Machine::own();
        let own = machine.groups("memory");
        own.iter().find_map(|folder| {
            let group = folder.join(format!("haar-test-{}", std::process::id()));
            std::fs::create_dir(&group).ok()?;
            let group = Self(group);
            let names = ["memory.max", "memory.limit_in_bytes"];
            let limit = names.map(|name| group.0.join(name));
            let limit = limit.iter().find(|limit| limit.exists())?;
            std::fs::write(limit, bytes.to_string()).ok()?;
            Some(group)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_group_of_this_machine_is_seen_by_a_process_in_it() {
    let Some(group) = Group::new(128 << 20) else {
        eprintln!("skipped: no control group of memory can be made here");
        return;
    };
    let said = Command::new("sh")
        .args([
            "-c",
            "echo $$ > \"$0/cgroup.procs\" && cat /proc/self/cgroup",
        ])
        .arg(&group.0)
        .output()
        .unwrap();
    assert!(said.status.success(), "{said:?}");
    let machine = Machine {
        cgroups: String::from_utf8(said.stdout).unwrap(),
        ..Machine::own()
    };
    let bound = machine.memory().unwrap();
    assert_eq!(bound.amount, 128 << 20, "{bound}");
    assert!(bound.source.contains("haar-test-"), "{bound}");
}
