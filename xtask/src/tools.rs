//! The tools of a cross build: zig as C compiler and linker for every target, and what rustup
//! knows of the target. Nothing is installed outside of `target/` but rustup's targets.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::command::{output, run};
use crate::target::Target;

/// What is installed in the virtual environment. Exact versions: another linker makes other bytes.
const PACKAGES: [&str; 2] = ["cargo-zigbuild==0.24.0", "ziglang==0.17.0"];

/// The tools, ready to be used.
#[derive(Debug)]
pub(crate) struct Tools {
    programs: PathBuf,
}

impl Tools {
    /// Installs what is missing for these targets.
    pub(crate) fn install(root: &Path, targets: &[Target]) -> anyhow::Result<Self> {
        let versions = PACKAGES.map(|package| package.replace("==", "-")).join("-");
        let folder = root.join("target/tools").join(versions);
        let programs = folder.join("bin");
        if !programs.join("cargo-zigbuild").exists() {
            run(Command::new("python3").args(["-m", "venv"]).arg(&folder)).context(
                "python3 with its module venv is needed (Debian: apt-get install python3-venv)",
            )?;
            run(Command::new(programs.join("pip"))
                .args(["install", "--quiet", "--disable-pip-version-check"])
                .args(PACKAGES))?;
        }
        add_targets(root, targets)?;
        output(Command::new("dpkg-deb").arg("--version"))
            .context("dpkg-deb is needed (Debian: it is there; Fedora: dnf install dpkg)")?;
        Ok(Self { programs })
    }

    /// The search path for programs, with the tools first.
    pub(crate) fn search_path(&self) -> anyhow::Result<OsString> {
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(self.programs.clone()).chain(std::env::split_paths(&inherited));
        Ok(std::env::join_paths(all)?)
    }
}

/// Has rustup fetch the standard library of each target.
fn add_targets(root: &Path, targets: &[Target]) -> anyhow::Result<()> {
    let sysroot = output(
        Command::new("rustc")
            .current_dir(root)
            .args(["--print", "sysroot"]),
    )?;
    let libraries = Path::new(sysroot.trim()).join("lib/rustlib");
    let missing: Vec<&str> = targets
        .iter()
        .map(|target| target.triple())
        .filter(|triple| !libraries.join(triple).exists())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let rustup = run(Command::new("rustup")
        .current_dir(root)
        .args(["target", "add"])
        .args(&missing));
    if let Err(error) = rustup {
        bail!(
            "{error:#}: Rust's standard library for {} is needed",
            missing.join(", ")
        );
    }
    Ok(())
}
