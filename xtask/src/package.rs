//! The Debian package of the agent: the program, its service, its settings and the scripts that
//! make the user it runs as. dpkg-deb does the packing; it takes all times from
//! `SOURCE_DATE_EPOCH`, so that the same input makes the same bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::build::PROGRAM;
use crate::command::{output, run};
use crate::target::{GLIBC, Target};

/// What stands in the package beside the program: file in the repository, place on the gateway.
const FILES: [(&str, &str); 4] = [
    (
        "packaging/haar-agent.service",
        "usr/lib/systemd/system/haar-agent.service",
    ),
    ("packaging/agent.toml", SETTINGS),
    ("packaging/README.md", "usr/share/doc/haar-agent/README.md"),
    ("packaging/copyright", "usr/share/doc/haar-agent/copyright"),
];
/// What updates leave as people have changed it.
const SETTINGS: &str = "etc/haar/agent.toml";
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Packs a program. Returns the package.
pub(crate) fn debian(
    root: &Path,
    program: &Path,
    target: Target,
    version: &str,
    epoch: &str,
    out: &Path,
) -> anyhow::Result<PathBuf> {
    let architecture = target.debian();
    let tree = out.join(format!(".tree-{architecture}"));
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    put(program, &tree.join("usr/bin").join(PROGRAM), 0o755)?;
    for (from, to) in FILES {
        put(&root.join(from), &tree.join(to), 0o644)?;
    }
    let sums = sums(&tree)?;
    let bytes = size(&tree)?;
    for script in SCRIPTS {
        let from = root.join("packaging/deb").join(script);
        put(&from, &tree.join("DEBIAN").join(script), 0o755)?;
    }
    let control = control(target, architecture, version, bytes.div_ceil(1024));
    write(&tree.join("DEBIAN/control"), control, 0o644)?;
    write(
        &tree.join("DEBIAN/conffiles"),
        format!("/{SETTINGS}\n"),
        0o644,
    )?;
    write(&tree.join("DEBIAN/md5sums"), sums, 0o644)?;
    open_folders(&tree)?;
    let file = out.join(format!("{PROGRAM}_{version}_{architecture}.deb"));
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Zxz", "--build"])
        .arg(&tree)
        .arg(&file)
        .env("SOURCE_DATE_EPOCH", epoch)
        .stdout(std::process::Stdio::null()))?;
    fs::remove_dir_all(&tree)?;
    Ok(file)
}

fn control(target: Target, architecture: &str, version: &str, kibibytes: u64) -> String {
    let library = if target.is_static() {
        String::new()
    } else {
        format!(", libc6 (>= {GLIBC})")
    };
    format!(
        "Package: {PROGRAM}\n\
         Version: {version}\n\
         Architecture: {architecture}\n\
         Maintainer: Haar <maintainers@example.invalid>\n\
         Installed-Size: {kibibytes}\n\
         Depends: adduser{library}\n\
         Section: admin\n\
         Priority: optional\n\
         Description: runs signed WebAssembly microservices on this gateway\n\
         \x20Haar's agent: one small program that joins this device to a site, runs the\n\
         \x20microservices that the site assigns to it within their limits, with no\n\
         \x20network either, and moves their messages. It needs no container engine and\n\
         \x20no root. It contains no compiler: the site compiles for it.\n"
    )
}

fn put(from: &Path, to: &Path, mode: u32) -> anyhow::Result<()> {
    let content = fs::read(from).with_context(|| format!("can't read {}", from.display()))?;
    write(to, content, mode)
}

fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    fs::write(path, content).with_context(|| format!("can't write {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// Lets everybody into the folders, whatever the mask of who builds.
fn open_folders(folder: &Path) -> anyhow::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            open_folders(&path)?;
        }
    }
    Ok(())
}

fn sums(tree: &Path) -> anyhow::Result<String> {
    let mut files: Vec<String> = FILES.iter().map(|(_, to)| (*to).to_owned()).collect();
    files.push(format!("usr/bin/{PROGRAM}"));
    files.sort();
    output(Command::new("md5sum").current_dir(tree).args(files))
}

fn size(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() {
            size(&entry.path())?
        } else {
            about.len()
        };
    }
    Ok(bytes)
}
