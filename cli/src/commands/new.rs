//! `haar new`: a project from the template that the binary carries, with the guest SDK and the WIT
//! packages beside it. Needs no network.

use std::fs;
use std::path::{Path, PathBuf};

use haar_protocol::ids::Name;
use serde::Serialize;

use crate::config::Options;
use crate::error::{CommandError, Result, about_file};
use crate::output;

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

/// Stands for the project's name in the template.
const NAME_MARK: &str = "{{name}}";
/// The same as Rust writes it in paths.
const RUST_NAME_MARK: &str = "{{rust_name}}";

/// Start a new microservice in Rust
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Name of the microservice: a-z, 0-9 and `-`
    name: Name,
    /// Where the project goes [default: a new directory of that name]
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Created<'a> {
    name: &'a Name,
    path: &'a Path,
    files: usize,
}

/// Runs `haar new`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let name = &arguments.name;
    check_crate_name(name)?;
    let folder = arguments
        .path
        .clone()
        .unwrap_or_else(|| PathBuf::from(name.as_str()));
    check_empty(&folder)?;
    let lists = [
        embedded::TEMPLATE,
        embedded::GUEST_SDK,
        embedded::WIT,
        embedded::LICENSE,
    ];
    for (list, is_template) in lists.into_iter().zip([true, false, false, false]) {
        for (file, content) in list {
            let content = if is_template {
                fill_in(content, name)
            } else {
                (*content).to_owned()
            };
            write(&folder.join(target_path(file, is_template)), &content)?;
        }
    }
    let files = lists.iter().map(|list| list.len()).sum();
    if options.is_json() {
        return output::json(&Created {
            name,
            path: &folder,
            files,
        });
    }
    output::line(format!("Made {} ({files} files).", folder.display()))?;
    output::note(format!("Next: cd {} && haar build", folder.display()));
    Ok(())
}

/// Cargo takes fewer names than we do: none that begins with a digit or means something to Rust.
fn check_crate_name(name: &Name) -> Result<()> {
    const TAKEN: [&str; 6] = ["test", "core", "std", "alloc", "proc-macro", "self"];
    let first_is_digit = name
        .as_str()
        .starts_with(|first: char| first.is_ascii_digit());
    if first_is_digit || TAKEN.contains(&name.as_str()) {
        let message = format!("`{name}` can't be the name of a Rust package");
        return Err(CommandError::usage(message)
            .hinted("Begin with a letter, and leave the names of Rust's own packages alone."));
    }
    Ok(())
}

fn check_empty(folder: &Path) -> Result<()> {
    let hint = "Give an empty or a new directory with --path.";
    match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CommandError::refused(
            "not_empty",
            format!("{} is not empty", folder.display()),
        )
        .hinted(hint)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Err(
            CommandError::refused("not_empty", format!("{} is a file", folder.display()))
                .hinted(hint),
        ),
        Err(error) => Err(about_file("use", folder)(error)),
    }
}

fn fill_in(content: &str, name: &Name) -> String {
    content
        .replace(NAME_MARK, name.as_str())
        .replace(RUST_NAME_MARK, &name.as_str().replace('-', "_"))
}

/// Names that would mean something to the tools of our own repository carry an ending there.
fn target_path(file: &str, is_template: bool) -> &str {
    if is_template {
        file.strip_suffix(".in").unwrap_or(file)
    } else {
        file
    }
}

fn write(path: &Path, content: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(about_file("make", folder))?;
    }
    fs::write(path, content).map_err(about_file("write", path))
}
