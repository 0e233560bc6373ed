//! What is refused whatever a policy says, what a policy allows, and every way to make one directory
//! look like another.

use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;

/// A device: the agent's data directory, and another one beside it.
struct Device {
    folder: tempfile::TempDir,
}

impl Device {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["var/haar/private", "srv/maps/north", "etc/haar"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn policy(&self, rules: Rules) -> Policy {
        Policy::new(
            rules,
            self.path("etc/haar/agent.toml"),
            self.path("var/haar"),
        )
    }

    /// Why a policy that allows everything that can be named refuses a directory.
    fn refused(&self, path: &Path, access: Access) -> Option<String> {
        let everything = Rules::default()
            .allowing(self.folder.path(), Access::ReadWrite)
            .allowing(Path::new("/proc"), Access::ReadWrite)
            .allowing(Path::new("/dev"), Access::ReadWrite);
        refused(&self.policy(everything), path, access)
    }
}

fn refused(policy: &Policy, path: &Path, access: Access) -> Option<String> {
    let opened = File::open(path).unwrap();
    let outcome = policy.check(&opened, path, access);
    outcome.err().map(|refusal| refusal.to_string())
}

fn parse(text: &str) -> anyhow::Result<Rules> {
    toml::from_str::<Raw>(text)?.check()
}

#[test]
fn the_agents_data_is_refused_by_every_path_to_it() {
    let device = Device::new();
    symlink(device.path("var/haar"), device.path("srv/maps/link")).unwrap();
    symlink("../../../var", device.path("srv/maps/north/up")).unwrap();
    for name in [
        "var/haar",
        "var/haar/private",
        "var",
        "",
        "srv/maps/link",
        "srv/maps/link/private",
        "srv/maps/north/up",
        "srv/../var/./haar",
    ] {
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let why = device.refused(&device.path(name), access).unwrap();
            let text = "the agent's own data directory: no policy allows that";
            assert!(why.contains(text), "{name}: {why}");
        }
    }
    assert_eq!(
        device.refused(&device.path("srv/maps"), Access::ReadWrite),
        None
    );
    assert_eq!(
        device.refused(&device.path("srv/maps/north"), Access::ReadOnly),
        None
    );
}

#[test]
fn what_shows_processes_devices_or_everything_is_refused() {
    let device = Device::new();
    symlink("/proc/self", device.path("srv/maps/self")).unwrap();
    symlink("/", device.path("srv/maps/root")).unwrap();
    for (path, text) in [
        (PathBuf::from("/"), "the whole file system"),
        ("/proc".into(), "procfs"),
        ("/proc/self/task".into(), "procfs"),
        ("/proc/sys/kernel".into(), "procfs"),
        ("/dev".into(), "devices"),
        (device.path("srv/maps/self"), "procfs"),
        (device.path("srv/maps/root"), "the whole file system"),
        (device.path("srv/maps/root/dev"), "devices"),
    ] {
        let why = device.refused(&path, Access::ReadOnly).unwrap();
        assert!(why.contains(text), "{}: {why}", path.display());
    }
}

#[test]
fn the_folder_of_the_policy_is_not_written_to() {
    let device = Device::new();
    let folder = device.path("etc/haar");
    // There is no file yet: a guest must not make it.
    for folder in [&folder, &device.path("etc")] {
        let why = device.refused(folder, Access::ReadWrite).unwrap();
        assert!(why.contains("agent.toml lies in it"), "{why}");
        assert_eq!(device.refused(folder, Access::ReadOnly), None);
    }
    // Nor when it is written elsewhere, and only a link to it stands there.
    std::fs::write(device.path("srv/maps/policy"), "").unwrap();
    symlink(device.path("srv/maps/policy"), folder.join("agent.toml")).unwrap();
    assert!(
        device
            .refused(&device.path("srv"), Access::ReadWrite)
            .is_some()
    );
}

#[test]
fn files_of_the_kernel_are_allowed_by_their_own_name_only() {
    let device = Device::new();
    let sys = Path::new("/sys/kernel");
    if !sys.is_dir() {
        return; // a container without sysfs
    }
    symlink(sys, device.path("srv/maps/kernel")).unwrap();
    let by_name = device.policy(Rules::default().allowing(Path::new("/sys"), Access::ReadOnly));
    assert_eq!(refused(&by_name, sys, Access::ReadOnly), None);
    assert!(refused(&by_name, sys, Access::ReadWrite).is_some());
    assert!(
        device
            .refused(&device.path("srv/maps/kernel"), Access::ReadOnly)
            .is_some()
    );
}

#[test]
fn a_policy_allows_what_it_names_and_no_more_access() {
    let device = Device::new();
    let maps = device.path("srv/maps");
    let read = device.policy(Rules::default().allowing(&maps, Access::ReadOnly));
    assert_eq!(refused(&read, &maps, Access::ReadOnly), None);
    assert_eq!(refused(&read, &maps.join("north"), Access::ReadOnly), None);
    let why = refused(&read, &maps.join("north"), Access::ReadWrite).unwrap();
    assert!(why.contains("to read it, not to write to it"), "{why}");
    // A name that begins alike is another directory.
    let other = device.path("srv/maps-of-others");
    std::fs::create_dir(&other).unwrap();
    let why = refused(&read, &other, Access::ReadOnly).unwrap();
    assert!(why.contains("allows other directories only"), "{why}");
    assert!(refused(&read, &device.path("srv"), Access::ReadOnly).is_some());
}

#[test]
fn the_line_that_a_refusal_prints_is_the_one_that_allows_it() {
    let device = Device::new();
    let odd = device.path("srv/maps/a \"quoted\" name");
    std::fs::create_dir(&odd).unwrap();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let why = refused(&device.policy(Rules::default()), &odd, access).unwrap();
        assert!(why.contains("etc/haar/agent.toml"), "{why}");
        let line = why.split('`').nth(1).unwrap();
        let rules = parse(line).unwrap();
        assert_eq!(refused(&device.policy(rules), &odd, access), None);
    }
}

#[test]
fn a_policy_that_could_not_mean_what_it_says_is_refused_with_its_path() {
    for (text, words) in [
        ("directories = [{ path = \"srv\" }]", "absolute"),
        ("directories = [{ path = \"/srv/../etc\" }]", "`..`"),
        ("directories = [{ path = \"/\" }]", "whole file system"),
        ("directories = [{ path = \"//.\" }]", "whole file system"),
        (
            "directories = [{ path = \"/srv\", acess = \"read-write\" }]",
            "acess",
        ),
        (
            "directories = [{ path = \"/srv\", access = \"write\" }]",
            "write",
        ),
        ("publishers = [\"ed25519:00\"]", "64 hexadecimal digits"),
        ("publisher = []", "publisher"),
    ] {
        let error = format!("{:#}", parse(text).unwrap_err());
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn what_the_site_is_told_is_bounded() {
    let key = haar_protocol::keys::SecretKey::from_seed([1; 32]).public();
    let mut rules = Rules::default().demanding(vec![key; 20]);
    for index in 0..100 {
        rules = rules.allowing(Path::new(&format!("/srv/{index}")), Access::ReadOnly);
    }
    let outline = Policy::new(rules, "agent.toml".into(), "/data".into()).outline();
    assert_eq!(outline.publishers.unwrap().len(), OUTLINE_ENTRIES_MAX);
    assert_eq!(outline.directories.len(), OUTLINE_ENTRIES_MAX);
    assert_eq!(outline.left_out, 4 + 84);
    let untold = Policy::new(Rules::default(), "agent.toml".into(), "/data".into()).outline();
    assert_eq!((untold.publishers, untold.left_out), (None, 0));
}

/// Mounts need a namespace of their own: this test runs the next one in such a process.
#[test]
fn mounts_make_no_way_to_what_is_refused() {
    let test = "policy::tests::in_a_mount_namespace";
    let program = std::env::current_exe().unwrap();
    let run = |flags: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(flags).arg("--").arg(&program);
        command.args([test, "--exact", "--ignored", "--nocapture"]);
        command.output()
    };
    let can = |flags: &[&str]| {
        let tried = Command::new("unshare")
            .args(flags)
            .args(["--", "true"])
            .output();
        tried.is_ok_and(|output| output.status.success())
    };
    let own = ["--mount"];
    let mapped = ["--user", "--map-root-user", "--mount"];
    let Some(flags) = [&own[..], &mapped[..]].into_iter().find(|flags| can(flags)) else {
        eprintln!("this machine lets nobody have mounts of their own: not tested");
        return;
    };
    let output = run(flags).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{output:?}"
    );
}

#[test]
#[ignore = "mounts; see the test before it"]
fn in_a_mount_namespace() {
    let device = Device::new();
    let mount = |arguments: &[&str], at: &str| {
        std::fs::create_dir_all(device.path(at)).unwrap();
        let mut command = Command::new("mount");
        let status = command.args(arguments).arg(device.path(at)).status();
        assert!(status.unwrap().success(), "{arguments:?} {at}");
    };
    let bind = |from: &str, at: &str| mount(&["--bind", device.path(from).to_str().unwrap()], at);
    let own = "the agent's own data directory";
    // The directory, one below it and one above it, seen elsewhere.
    bind("var/haar", "srv/one");
    bind("var/haar/private", "srv/two");
    bind("var", "srv/three");
    for name in [
        "srv/one",
        "srv/one/private",
        "srv/two",
        "srv/three",
        "srv/three/haar",
    ] {
        let why = device
            .refused(&device.path(name), Access::ReadOnly)
            .unwrap();
        assert!(why.contains(own), "{name}: {why}");
    }
    // What looks harmless and shows it by what is mounted in it.
    let why = device
        .refused(&device.path("srv"), Access::ReadOnly)
        .unwrap();
    assert!(why.contains("is mounted in it"), "{why}");
    // The data directory is a mount itself, and lies elsewhere on its file system.
    bind("srv/maps", "mnt/disk");
    std::fs::create_dir_all(device.path("mnt/disk/haar")).unwrap();
    bind("mnt/disk/haar", "lib/haar");
    let moved = Policy::new(
        Rules::default().allowing(device.folder.path(), Access::ReadWrite),
        device.path("etc/haar/agent.toml"),
        device.path("lib/haar"),
    );
    for name in ["srv/maps", "mnt/disk", "srv/maps/haar"] {
        let why = refused(&moved, &device.path(name), Access::ReadOnly).unwrap();
        assert!(why.contains(own), "{name}: {why}");
    }
    assert_eq!(
        refused(&moved, &device.path("srv/maps/north"), Access::ReadOnly),
        None
    );
    // File systems of the kernel within a harmless directory.
    mount(&["-t", "proc", "proc"], "home/chroot/proc");
    let why = device
        .refused(&device.path("home"), Access::ReadOnly)
        .unwrap();
    assert!(why.contains("procfs is mounted in it"), "{why}");
    let why = device.refused(&device.path("home/chroot/proc"), Access::ReadOnly);
    assert!(why.is_some_and(|why| why.contains("procfs")));
    // A file system of its own is not the device's.
    mount(&["-t", "tmpfs", "tmpfs"], "srv/maps/usb");
    assert_eq!(
        device.refused(&device.path("srv/maps/usb"), Access::ReadWrite),
        None
    );
}
