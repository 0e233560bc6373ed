//! `cargo xtask dist`: for each target the program, its bill of materials and its Debian package,
//! and the checksums of all of them, in `target/dist`. The same commit makes the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::bill::{self, Program};
use crate::build::{self, Build, PROGRAM, Workspace};
use crate::command::output;
use crate::package;
use crate::target::Target;
use crate::tools::Tools;

const CHECKSUMS: &str = "SHA256SUMS";

/// Build the agent for gateways
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// For which gateways; may be given several times [default: all of them]
    #[arg(long = "target", value_name = "TARGET")]
    targets: Vec<Target>,
    /// How cargo builds: `gateway` is small and slow to build, `release` large and quick
    #[arg(long, value_name = "PROFILE", default_value = "gateway")]
    profile: String,
    /// Features of the agent beside those that it has by itself, such as `neighbourhood-relay`
    #[arg(long, value_name = "FEATURES", value_delimiter = ',')]
    features: Vec<String>,
    /// The time that packages carry, in seconds since 1970 [default: that of the last commit]
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH")]
    epoch: Option<u64>,
}

/// Does it.
pub(crate) fn dist(arguments: &Arguments) -> anyhow::Result<()> {
    let began = Instant::now();
    let say = |what: &str| eprintln!("== {:>4} s  {what}", began.elapsed().as_secs());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = root.canonicalize().context("the repository is gone")?;
    let targets = match &arguments.targets[..] {
        [] => &Target::ALL,
        some => some,
    };
    say("tools");
    let tools = Tools::install(&root, targets)?;
    let workspace = Workspace::read(&root)?;
    let epoch = match arguments.epoch {
        Some(seconds) => seconds.to_string(),
        None => committed(&root)?,
    };
    let time = output(Command::new("date").args(["-u", "-d", &format!("@{epoch}"), "+%FT%TZ"]))?;
    let out = workspace.target_directory.join("dist");
    if out.exists() {
        fs::remove_dir_all(&out)?; // it holds what one run made
    }
    fs::create_dir_all(&out)?;
    let mut files = Vec::new();
    for target in targets {
        say(target.triple());
        let build = Build {
            target: *target,
            profile: &arguments.profile,
            features: &arguments.features,
            epoch: &epoch,
        };
        let built = build::agent(&workspace, &tools, &build)?;
        let base = format!("{PROGRAM}-{}-{}", workspace.version, target.triple());
        let program = out.join(&base);
        fs::copy(&built, &program)?;
        let bill = bill::of_agent(
            &workspace,
            &Program {
                target: *target,
                features: &arguments.features,
                version: &workspace.version,
                digest: &digest(&program)?,
                time: time.trim(),
            },
        )?;
        let bill_file = out.join(format!("{base}.cdx.json"));
        fs::write(&bill_file, serde_json::to_string_pretty(&bill)? + "\n")?;
        let version = &workspace.version;
        let package = package::debian(&root, &program, *target, version, &epoch, &out)?;
        files.extend([program, bill_file, package]);
    }
    files.sort();
    fs::write(out.join(CHECKSUMS), checksums(&files)?)?;
    say(&format!("done: {}", out.display()));
    for file in &files {
        let bytes = fs::metadata(file)?.len();
        println!("{bytes:>10}  {}", name(file)?);
    }
    Ok(())
}

/// When the last commit was made, in seconds since 1970.
fn committed(root: &Path) -> anyhow::Result<String> {
    let said = output(
        Command::new("git")
            .current_dir(root)
            .args(["log", "-1", "--format=%ct"]),
    );
    let said = said.context("without git's history say the time by --epoch")?;
    Ok(said.trim().to_owned())
}

/// The lines that `sha256sum --check` reads.
fn checksums(files: &[PathBuf]) -> anyhow::Result<String> {
    let mut lines = String::new();
    for file in files {
        lines.push_str(&format!("{}  {}\n", digest(file)?, name(file)?));
    }
    Ok(lines)
}

fn digest(file: &Path) -> anyhow::Result<String> {
    Ok(hex::encode(Sha256::digest(fs::read(file)?)))
}

fn name(file: &Path) -> anyhow::Result<&str> {
    let name = file.file_name().and_then(|name| name.to_str());
    name.context("a file has a name")
}
