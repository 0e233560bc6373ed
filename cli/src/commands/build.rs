//! `haar build`: a Cargo project becomes a component that says its name and version. Plain cargo
//! does the work; this file chooses the flags, finds the result and looks into it.

mod project;

use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use haar_engine::inspect::Inspected;
use haar_protocol::grants;
use haar_protocol::ids::{Digest, Name};
use serde::{Deserialize, Serialize};

use crate::config::{self, Options};
use crate::error::{CommandError, Result, about_file};
use crate::files::{self, Readers};
use crate::{interrupt, output};

use super::module;
use super::sign::name_module;
use project::{Package, Target, read_workspace};

const TARGET: &str = "wasm32-wasip2";

/// Small code: modules travel over thin links and stay in memory on small devices.
const RELEASE_PROFILE: [&str; 5] = [
    "profile.release.opt-level=\"s\"",
    "profile.release.lto=true",
    "profile.release.codegen-units=1",
    "profile.release.panic=\"abort\"",
    "profile.release.strip=true",
];

/// A stack of one page: an instance then starts with 2 pages of memory instead of 17.
const STACK: &str = "link-arg=-zstack-size=65536";

/// Build the microservice in a Cargo project
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Directory of the project
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Which package of a workspace
    #[arg(long, short, value_name = "NAME")]
    package: Option<String>,
    /// Small and fast code; the default
    #[arg(long)]
    release: bool,
    /// Code that builds quickly and is large and slow
    #[arg(long, conflicts_with = "release")]
    debug: bool,
    /// Where the module goes [default: target/haar/NAME.wasm]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What is to be built.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order<'a> {
    /// Directory of the project or workspace.
    pub(crate) folder: &'a Path,
    /// Package of the workspace.
    pub(crate) package: Option<&'a str>,
    /// Without optimisation.
    pub(crate) debug: bool,
    /// Only errors are shown.
    pub(crate) quiet: bool,
    /// Where the module goes.
    pub(crate) out: Option<&'a Path>,
}

/// A module that was built.
#[derive(Debug)]
pub(crate) struct Built {
    /// Where it is.
    pub(crate) file: PathBuf,
    /// What it is.
    pub(crate) inspected: Inspected,
}

/// What was built, for programs.
#[derive(Debug, Serialize)]
struct Description<'a> {
    file: &'a Path,
    digest: Digest,
    bytes: u64,
    name: Option<&'a Name>,
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    grants: Vec<&'static str>,
    imports: &'a [String],
    exports: &'a [String],
}

/// Runs `haar build`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let order = Order {
        folder: &arguments.path,
        package: arguments.package.as_deref(),
        debug: arguments.debug,
        quiet: options.quiet,
        out: arguments.out.as_deref(),
    };
    let Built { file, inspected } = build(order)?;
    module::warn_of_lacking(&inspected);
    module::tell_grants(&inspected);
    if options.is_json() {
        return output::json(&Description {
            file: &file,
            digest: inspected.digest,
            bytes: inspected.bytes,
            name: inspected.name.as_ref(),
            version: inspected.version.as_deref(),
            grants: grants::needed(&inspected.imports),
            imports: &inspected.imports,
            exports: &inspected.exports,
        });
    }
    let mut facts = vec![("File", file.display().to_string())];
    facts.extend(module::facts(&inspected));
    output::text(&output::facts(&facts))?;
    output::note(format!("Next: haar sign {} --key NAME.key", file.display()));
    Ok(())
}

/// Builds a module.
pub(crate) fn build(order: Order<'_>) -> Result<Built> {
    let workspace = read_workspace(order.folder)?;
    let package = workspace.choose(order.folder, order.package)?;
    package.check_kind()?;
    let name = package.module_name()?;
    require_target(order.folder)?;
    let artifact = compile(order, package)?;
    let component = files::read_module(&artifact)?;
    module::inspect_file(&artifact, &component)?;
    let component =
        name_module(&component, Some(&name), Some(&package.version)).map_err(|error| {
            CommandError::failure(format!(
                "{}: can't write its name into it: {error}",
                artifact.display()
            ))
        })?;

    let file = order.out.map_or_else(
        || {
            workspace
                .target_directory
                .join("haar")
                .join(format!("{name}.wasm"))
        },
        Path::to_owned,
    );
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(about_file("make", folder))?;
    }
    let inspected = module::inspect_file(&file, &component)?;
    files::write(&file, &component, Readers::Everybody, true)
        .map_err(about_file("write", &file))?;
    Ok(Built { file, inspected })
}

/// Makes sure that the toolchain of the project can build for the target, adding it when it can't.
fn require_target(folder: &Path) -> Result<()> {
    if has_target(folder)? {
        return Ok(());
    }
    output::note(format!(
        "The target {TARGET} is missing: adding it by `rustup target add {TARGET}`."
    ));
    let status = Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(folder)
        .stdout(Stdio::null())
        .status();
    let failure = |message: String, hint: &str| {
        CommandError::new(crate::error::Exit::Failure, "no_target", message).hinted(hint)
    };
    match status {
        Ok(status) if status.success() && has_target(folder)? => Ok(()),
        Ok(_) => Err(failure(
            format!("rustup could not add the target {TARGET}"),
            "Is the network there? What rustup says stands above.",
        )),
        Err(_) => Err(failure(
            format!(
                "the Rust toolchain can't build for {TARGET}, and there is no rustup to add it"
            ),
            "Install the package of your distribution that has the standard library for this target \
             (such as `rust-std-wasm32-wasip2`), or install Rust by rustup: https://rustup.rs",
        )),
    }
}

fn has_target(folder: &Path) -> Result<bool> {
    let mut rustc = Command::new("rustc");
    let result = rustc
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(folder)
        .output();
    let result = result.map_err(|error| no_cargo(&error))?;
    let directory = String::from_utf8_lossy(&result.stdout);
    Ok(result.status.success() && Path::new(directory.trim()).is_dir())
}

fn no_cargo(error: &io::Error) -> CommandError {
    CommandError::failure(format!("can't run cargo: {}", crate::error::reason(error)))
        .hinted("Install Rust: https://rustup.rs")
}

fn cargo(folder: &Path) -> Command {
    let mut command = Command::new(config::cargo());
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// Runs cargo; its own words go to stderr. Returns the file that it made.
fn compile(order: Order<'_>, package: &Package) -> Result<PathBuf> {
    let mut command = cargo(order.folder);
    command.args([
        "rustc",
        "--lib",
        "--target",
        TARGET,
        "--message-format",
        "json-render-diagnostics",
    ]);
    command.args(["--package", &package.id]);
    if !order.debug {
        command.arg("--release");
        command.args(
            RELEASE_PROFILE
                .iter()
                .flat_map(|setting| ["--config", setting]),
        );
    }
    if order.quiet {
        command.arg("--quiet");
    }
    command.args(["--", "-C", STACK]);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| no_cargo(&error))?;
    let stdout = child.stdout.take().expect("stdout is a pipe");
    let (artifact, succeeded) = std::thread::scope(|scope| {
        let artifact = scope.spawn(|| find_artifact(BufReader::new(stdout), &package.id));
        let succeeded = wait(&mut child);
        (artifact.join().unwrap_or_default(), succeeded)
    });
    if !succeeded? {
        return Err(CommandError::new(
            crate::error::Exit::Failure,
            "compile_error",
            format!("`{}` does not compile", package.name),
        )
        .hinted("What the compiler says stands above."));
    }
    artifact.ok_or_else(|| {
        CommandError::failure(format!(
            "cargo built `{}` and did not say where it is",
            package.name
        ))
    })
}

/// Waits for cargo, and ends it when somebody wants us to end.
fn wait(child: &mut Child) -> Result<bool> {
    loop {
        if let Some(status) = child.try_wait().map_err(|error| no_cargo(&error))? {
            if !status.success() {
                // Ctrl-C reaches cargo too, and before us: then it did not fail, it was stopped.
                interrupt::sleep(interrupt::POLL)?;
            }
            return Ok(status.success());
        }
        if let Err(interrupted) = interrupt::sleep(interrupt::POLL) {
            let _ = child.kill(); // it may have ended by itself just now
            let _ = child.wait();
            return Err(interrupted);
        }
    }
}

/// The component among the files that cargo's messages name.
fn find_artifact(messages: impl io::BufRead, package_id: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        reason: String,
        package_id: Option<String>,
        target: Option<Target>,
        #[serde(default)]
        filenames: Vec<PathBuf>,
    }
    let mut found = None;
    for line in messages.lines().map_while(io::Result::ok) {
        let Ok(message) = serde_json::from_str::<Message>(&line) else {
            continue;
        };
        let is_ours = message.reason == "compiler-artifact"
            && message.package_id.as_deref() == Some(package_id)
            && message.target.as_ref().is_some_and(Target::is_cdylib);
        if is_ours {
            found = message
                .filenames
                .into_iter()
                .find(|file| file.extension().is_some_and(|ending| ending == "wasm"));
        }
    }
    found
}
