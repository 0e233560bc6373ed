//! Builds the agent for one target, so that the same commit makes the same bytes wherever it lies.
//! Zig compiles the C of SQLite and ring for every target, and links against the system's C library
//! where the program is not static.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use crate::command::{output, run};
use crate::target::Target;
use crate::tools::Tools;

/// The package whose program gateways get.
pub(crate) const PACKAGE: &str = "haar-host";
/// The program.
pub(crate) const PROGRAM: &str = "haar-agent";

/// As in `.cargo/config.toml`, and without what of SQLite the agent never uses: nobody but its own
/// store speaks SQL, and it searches no texts or boxes, reads no JSON and no dates, loads no extensions
/// and explains nothing.
const SQLITE_FLAGS: &str = "-DHAVE_FDATASYNC=1 -USQLITE_ENABLE_API_ARMOR -USQLITE_ENABLE_COLUMN_METADATA \
    -USQLITE_ENABLE_JSON1 -DSQLITE_OMIT_JSON -DSQLITE_OMIT_DATETIME_FUNCS -USQLITE_ENABLE_FTS3 -USQLITE_ENABLE_FTS3_PARENTHESIS -USQLITE_ENABLE_FTS5 \
    -USQLITE_ENABLE_RTREE -USQLITE_ENABLE_DBSTAT_VTAB -USQLITE_ENABLE_LOAD_EXTENSION -USQLITE_SOUNDEX \
    -USQLITE_ENABLE_STAT4 -DSQLITE_OMIT_LOAD_EXTENSION -DSQLITE_OMIT_DEPRECATED -DSQLITE_OMIT_SHARED_CACHE";

/// Nothing unwinds through C: SQLite's callbacks into Rust catch panics. Its tables for that are 0.1 MB.
const C_FLAGS: &str = "-fno-unwind-tables -fno-asynchronous-unwind-tables";

/// What cargo knows of the workspace.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Its folder.
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    pub(crate) target_directory: PathBuf,
    /// The version of the agent.
    pub(crate) version: String,
    /// The folders in which the sources of libraries lie.
    sources: Vec<PathBuf>,
    packages: Vec<Value>,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Self> {
        let text = output(Command::new(env!("CARGO")).current_dir(root).args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
        ]))?;
        let all: Value = serde_json::from_str(&text)?;
        let packages = all["packages"].as_array().cloned().unwrap_or_default();
        let mut workspace = Self {
            root: root.to_owned(),
            target_directory: all["target_directory"]
                .as_str()
                .context("cargo does not say where it builds")?
                .into(),
            version: String::new(),
            sources: Vec::new(),
            packages,
        };
        let agent = workspace.package(PACKAGE)?;
        let version = agent["version"].as_str().context("no version")?.to_owned();
        workspace.version = version;
        let foreign = workspace
            .packages
            .iter()
            .filter(|package| !package["source"].is_null());
        let folders = foreign.filter_map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str()?);
            Some(manifest.parent()?.parent()?.to_owned())
        });
        let mut sources: Vec<PathBuf> = folders.collect();
        sources.sort();
        sources.dedup();
        workspace.sources = sources;
        Ok(workspace)
    }

    /// The folder of a package's sources.
    pub(crate) fn folder(&self, package: &str) -> anyhow::Result<PathBuf> {
        let manifest = self.package(package)?["manifest_path"].as_str();
        let folder = manifest.and_then(|path| Path::new(path).parent());
        Ok(folder
            .with_context(|| format!("{package} has no folder"))?
            .to_owned())
    }

    fn package(&self, name: &str) -> anyhow::Result<&Value> {
        let found = self.packages.iter().find(|package| package["name"] == name);
        found.with_context(|| format!("there is no package {name}"))
    }

    /// Flags that keep folders of this machine out of the program.
    fn flags(&self, target: Target) -> String {
        let ours = std::iter::once((self.root.as_path(), "/haar"));
        let theirs = self.sources.iter().map(|path| (path.as_path(), "/crates"));
        let mut flags: Vec<String> = ours
            .chain(theirs)
            .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
            .collect();
        if target.is_static() {
            flags.push("-Clink-arg=--icf=all".into()); // functions with the same code are one
            // Relocations take two bits each instead of 24 bytes, where the program has any.
            flags.push("-Clink-arg=--pack-dyn-relocs=relr".into());
        }
        // Code that occurs again and again becomes a function of its own, which takes some 35 bytes of
        // tables for unwinding: LLVM counts the instructions alone, and would do so for 4 bytes.
        flags.push("-Cllvm-args=-outliner-benefit-threshold=48".into());
        flags.join("\u{1f}")
    }
}

/// One build of the agent.
#[derive(Debug)]
pub(crate) struct Build<'a> {
    pub(crate) target: Target,
    /// Cargo's profile.
    pub(crate) profile: &'a str,
    /// Features beside those that it has by itself.
    pub(crate) features: &'a [String],
    /// Seconds since 1970, for compilers that write times.
    pub(crate) epoch: &'a str,
}

/// Builds the agent. Returns the program.
pub(crate) fn agent(
    workspace: &Workspace,
    tools: &Tools,
    build: &Build<'_>,
) -> anyhow::Result<PathBuf> {
    let target = build.target;
    let mut cargo = Command::new(env!("CARGO"));
    if target.is_static() {
        // Rust's own linker folds functions, which zig's does not, and takes Rust's own musl.
        let name = target.triple().to_uppercase().replace('-', "_");
        cargo.env(format!("CARGO_TARGET_{name}_LINKER"), "rust-lld");
    }
    run(cargo
        .current_dir(&workspace.root)
        .args(["zigbuild", "--locked", "--profile", build.profile])
        .args(["--package", PACKAGE, "--bin", PROGRAM])
        .args(["--features", &build.features.join(",")])
        .args(["--target", &target.link_triple()])
        .env("PATH", tools.search_path()?)
        .env("CARGO_ENCODED_RUSTFLAGS", workspace.flags(target))
        .env("LIBSQLITE3_FLAGS", SQLITE_FLAGS)
        .env("TARGET_CFLAGS", C_FLAGS)
        .env("SOURCE_DATE_EPOCH", build.epoch))?;
    let program = workspace
        .target_directory
        .join(target.triple())
        .join(build.profile)
        .join(PROGRAM);
    anyhow::ensure!(
        program.exists(),
        "cargo did not leave {}",
        program.display()
    );
    Ok(program)
}
