//! Builds the conformance guests and the examples into components, with plain cargo, and writes a
//! constant with the path of each. Runs whenever a package that wants them is built or linted; the
//! inner cargo does nothing when nothing has changed.

#![allow(
    clippy::disallowed_methods,
    reason = "a build script is told everything by its environment"
)]

use std::error::Error;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TARGET: &str = "wasm32-wasip2";
const GUESTS_PACKAGE: &str = "haar-conformance-guests";
const EXAMPLE_PACKAGES: [&str; 3] = ["fleet-sampler", "fleet-detector", "fleet-recorder"];

/// The profile and the linker's arguments of small components: what `haar build` uses too.
const CONFIG: [&str; 6] = [
    "profile.release.opt-level='s'",
    "profile.release.lto=true",
    "profile.release.codegen-units=1",
    "profile.release.panic='abort'",
    "profile.release.strip=true",
    "target.wasm32-wasip2.rustflags=['-Clink-arg=-zstack-size=65536']",
];

/// The same with what a backtrace with files and lines needs.
const DEBUG_CONFIG: [&str; 6] = [
    "profile.release.opt-level='s'",
    "profile.release.codegen-units=1",
    "profile.release.panic='abort'",
    "profile.release.debug='line-tables-only'",
    "profile.release.strip='none'",
    "target.wasm32-wasip2.rustflags=['-Clink-arg=-zstack-size=65536']",
];

/// What is built.
#[derive(Clone, Copy)]
enum Which {
    /// All guests and examples.
    All,
    /// One guest.
    Guest(&'static str),
}

fn main() -> Result<()> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let repository = here
        .ancestors()
        .nth(2)
        .ok_or("the package stands in `conformance/artifacts`")?;
    let out = PathBuf::from(variable("OUT_DIR")?);

    for path in [
        "conformance/guests",
        "guest-sdk",
        "wit",
        "examples",
        "Cargo.lock",
        "Cargo.toml",
        "rust-toolchain.toml",
    ] {
        println!("cargo:rerun-if-changed={}", repository.join(path).display());
    }
    println!("cargo:rerun-if-changed=build.rs");

    let guests = guest_names(&repository.join("conformance/guests/examples"))?;
    ensure_target()?;
    build(repository, &out, &CONFIG, Which::All)?;
    let with_debug_information = out.join("debug-information");
    build(
        repository,
        &with_debug_information,
        &DEBUG_CONFIG,
        Which::Guest("trap"),
    )?;

    let built = out.join(TARGET).join("release");
    let mut text = guest_enum(&guests)?;
    let mut artifacts: Vec<(String, PathBuf)> = guests
        .into_iter()
        .map(|name| (name.clone(), built.join("examples").join(name + ".wasm")))
        .collect();
    for package in EXAMPLE_PACKAGES {
        let file = package.replace('-', "_");
        artifacts.push((file.clone(), built.join(file + ".wasm")));
    }
    artifacts.push((
        "trap_with_debug_information".to_owned(),
        with_debug_information
            .join(TARGET)
            .join("release/examples/trap.wasm"),
    ));
    text.push_str(&constants(&artifacts)?);
    fs::write(out.join("artifacts.rs"), text)?;
    Ok(())
}

/// Names of the guests: the files in their folder.
fn guest_names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("rs")) {
            let name = path
                .file_stem()
                .and_then(OsStr::to_str)
                .ok_or("a guest's name is not UTF-8")?;
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The guests as an enum: whoever matches on it does not compile when one is added.
fn guest_enum(guests: &[String]) -> Result<String> {
    let [mut variants, mut paths, mut names, mut all] = [const { String::new() }; 4];
    for guest in guests {
        let variant: String = guest.split('_').map(capitalised).collect();
        let constant = guest.to_uppercase();
        let name = guest.replace('_', "-");
        writeln!(
            variants,
            "    /// `conformance/guests/examples/{guest}.rs`\n    {variant},"
        )?;
        writeln!(paths, "            Guest::{variant} => {constant},")?;
        writeln!(names, "            Guest::{variant} => {name:?},")?;
        write!(all, "Guest::{variant}, ")?;
    }
    Ok(format!(
        "/// A conformance guest.\n\
         #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]\n\
         pub enum Guest {{\n{variants}}}\n\n\
         impl Guest {{\n    /// All of them.\n    pub const ALL: &'static [Guest] = &[{all}];\n\n    \
         /// Path of its component.\n    pub const fn path(self) -> &'static str {{\n        match self {{\n{paths}        }}\n    }}\n\n    \
         /// Its name, as a module may be called.\n    pub const fn name(self) -> &'static str {{\n        match self {{\n{names}        }}\n    }}\n}}\n\n"
    ))
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(word.len().min(1));
    first.to_uppercase() + rest
}

/// One constant for each artifact, and a list of all with their names.
fn constants(artifacts: &[(String, PathBuf)]) -> Result<String> {
    let mut text = String::new();
    let mut all = String::new();
    for (name, path) in artifacts {
        if !path.is_file() {
            return Err(format!(
                "cargo was to build `{name}`, but {} is not there",
                path.display()
            )
            .into());
        }
        let constant = name.to_uppercase();
        writeln!(
            text,
            "/// Path of the component `{name}`.\npub const {constant}: &str = {path:?};"
        )?;
        writeln!(all, "    (\"{name}\", {constant}),")?;
    }
    let count = artifacts.len();
    writeln!(
        text,
        "/// Names and paths of all components.\npub const ALL: [(&str, &str); {count}] = [\n{all}];"
    )?;
    Ok(text)
}

/// Adds the target with rustup where it is missing.
fn ensure_target() -> Result<()> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&rustc).args(["--print", "sysroot"]).output()?;
    if !output.status.success() {
        return Err(format!("`{} --print sysroot` failed", rustc.display()).into());
    }
    let sysroot = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    if sysroot
        .join("lib/rustlib")
        .join(TARGET)
        .join("lib")
        .is_dir()
    {
        return Ok(());
    }
    println!(
        "cargo:warning=the Rust target {TARGET} is missing: adding it with `rustup target add {TARGET}`"
    );
    match Command::new("rustup").args(["target", "add", TARGET]).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!(
            "the guests need the Rust target {TARGET}, and `rustup target add {TARGET}` failed: \
             see what it says above, then try again"
        )
        .into()),
        Err(_) => Err(format!(
            "the guests need the Rust target {TARGET}. It is not in {}, and there is no rustup to add it: \
             install the standard library for {TARGET} the way this Rust was installed, or use rustup \
             (https://rustup.rs)",
            sysroot.display()
        )
        .into()),
    }
}

/// Runs cargo, with a target directory of its own: the outer cargo holds the lock of the usual one.
fn build(repository: &Path, out: &Path, config: &[&str], which: Which) -> Result<()> {
    let mut cargo = Command::new(variable("CARGO")?);
    cargo.current_dir(repository);
    cargo.args(["build", "--release", "--target", TARGET]);
    cargo.arg("--target-dir").arg(out);
    cargo.args(["--package", GUESTS_PACKAGE]);
    match which {
        Which::All => {
            cargo.args(["--lib", "--examples"]);
            for package in EXAMPLE_PACKAGES {
                cargo.args(["--package", package]);
            }
        }
        Which::Guest(name) => {
            cargo.args(["--example", name]);
        }
    }
    for setting in config {
        cargo.args(["--config", setting]);
    }
    for (name, _) in env::vars_os() {
        if is_of_the_outer_build(&name.to_string_lossy()) {
            cargo.env_remove(&name);
        }
    }
    let output = cargo.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "building the guests failed: in {} run `cargo build --target {TARGET} -p {GUESTS_PACKAGE} --examples`\n{}",
        repository.display(),
        String::from_utf8_lossy(&output.stderr)
    )
    .into())
}

/// Whether a variable was set for the outer build and would bend the inner one: its flags, its
/// linters, what cargo tells build scripts. Where cargo keeps its things, and whether it may use the
/// network, holds for both.
fn is_of_the_outer_build(name: &str) -> bool {
    const KEPT: [&str; 5] = [
        "CARGO_HOME",
        "CARGO_NET_",
        "CARGO_HTTP_",
        "CARGO_REGISTR",
        "CARGO_BUILD_JOBS",
    ];
    const DROPPED: [&str; 12] = [
        "CARGO",
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "RUSTC",
        "CLIPPY_",
        "TARGET",
        "HOST",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "NUM_JOBS",
        "DEP_",
    ];
    !KEPT.iter().any(|kept| name.starts_with(kept))
        && DROPPED.iter().any(|dropped| name.starts_with(dropped))
}

fn variable(name: &str) -> Result<String> {
    env::var(name).map_err(|error| format!("cargo did not set {name}: {error}").into())
}
