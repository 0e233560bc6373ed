//! The Cargo project that is built: what `cargo metadata` says of it, and which package is meant.

use std::path::{Path, PathBuf};

use haar_protocol::ids::Name;
use serde::Deserialize;

use super::{cargo, no_cargo};
use crate::error::{CommandError, Result, about_file};

/// What `cargo metadata` says of a workspace: the parts that are used here.
#[derive(Debug, Deserialize)]
pub(super) struct Workspace {
    packages: Vec<Package>,
    /// Where cargo puts what it builds.
    pub(super) target_directory: PathBuf,
}

/// One package of it.
#[derive(Debug, Deserialize)]
pub(super) struct Package {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) version: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

/// One thing that a package builds.
#[derive(Debug, Deserialize)]
pub(super) struct Target {
    crate_types: Vec<String>,
}

/// Asks cargo about the project in `folder`.
pub(super) fn read_workspace(folder: &Path) -> Result<Workspace> {
    if !folder.is_dir() {
        return Err(CommandError::not_found(
            "file_not_found",
            format!("{} is not a directory", folder.display()),
        )
        .hinted("Give the directory that holds the project's Cargo.toml."));
    }
    let result = cargo(folder)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .map_err(|error| no_cargo(&error))?;
    if !result.status.success() {
        let said = String::from_utf8_lossy(&result.stderr);
        if said.contains("could not find `Cargo.toml`") {
            return Err(CommandError::not_found(
                "not_a_project",
                format!("there is no Cargo project in {}", folder.display()),
            )
            .hinted("Go to the directory of your project, or start one with `haar new NAME`."));
        }
        return Err(CommandError::failure(format!(
            "cargo can't read the project: {}",
            said.trim().trim_start_matches("error: ")
        )));
    }
    serde_json::from_slice(&result.stdout).map_err(|error| {
        CommandError::failure(format!(
            "cargo's description of the project is not understood: {error}"
        ))
    })
}

impl Workspace {
    /// The package called `name`, else the one that `folder` belongs to, else the only one.
    pub(super) fn choose(&self, folder: &Path, name: Option<&str>) -> Result<&Package> {
        let names = || {
            self.packages
                .iter()
                .map(|package| package.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        if let Some(name) = name {
            return self
                .packages
                .iter()
                .find(|package| package.name == name)
                .ok_or_else(|| {
                    CommandError::not_found(
                        "unknown_package",
                        format!("there is no package `{name}`"),
                    )
                    .hinted(format!("There are: {}.", names()))
                });
        }
        let folder = folder.canonicalize().map_err(about_file("read", folder))?;
        let here = self.packages.iter().filter(|package| {
            package
                .manifest_path
                .parent()
                .and_then(|own| own.canonicalize().ok())
                .is_some_and(|own| folder.starts_with(own))
        });
        match (
            here.max_by_key(|package| package.manifest_path.as_os_str().len()),
            self.packages.as_slice(),
        ) {
            (Some(package), _) | (None, [package]) => Ok(package),
            (None, _) => Err(
                CommandError::usage("this is a workspace of several packages")
                    .hinted(format!("Choose one with --package: {}.", names())),
            ),
        }
    }
}

impl Package {
    /// An error when it does not build a component.
    pub(super) fn check_kind(&self) -> Result<()> {
        if self.targets.iter().any(Target::is_cdylib) {
            return Ok(());
        }
        Err(CommandError::refused(
            "not_a_cdylib",
            format!("the package `{}` does not build a component", self.name),
        )
        .hinted("Write in its Cargo.toml: [lib] crate-type = [\"cdylib\"]"))
    }

    /// Packages may have underscores and capitals in their names, modules may not.
    pub(super) fn module_name(&self) -> Result<Name> {
        self.name
            .to_lowercase()
            .replace('_', "-")
            .parse()
            .map_err(|error| {
                CommandError::refused(
                    "bad_name",
                    format!("the package `{}` can't name a module: {error}", self.name),
                )
                .hinted("Change the package's name in its Cargo.toml.")
            })
    }
}

impl Target {
    pub(super) fn is_cdylib(&self) -> bool {
        self.crate_types.iter().any(|kind| kind == "cdylib")
    }
}
