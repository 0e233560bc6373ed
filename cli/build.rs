//! Embeds what `haar new` writes: the template, the guest SDK and the WIT packages, as they are in
//! the repository, so that the binary needs nothing beside it.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let repository = here.parent().ok_or("the crate stands in a repository")?;
    let out = PathBuf::from(variable("OUT_DIR")?);

    let mut generated = String::new();
    let template = files_below(&here.join("template"))?;
    write_list(&mut generated, "TEMPLATE", "", &template)?;
    write_list(
        &mut generated,
        "GUEST_SDK",
        "sdk/guest-sdk/",
        &files_below(&repository.join("guest-sdk"))?,
    )?;
    write_list(
        &mut generated,
        "WIT",
        "sdk/wit/",
        &files_below(&repository.join("wit"))?,
    )?;
    write_list(
        &mut generated,
        "LICENSE",
        "sdk/",
        &[("LICENSE".into(), repository.join("LICENSE"))],
    )?;
    write_if_changed(&out.join("embedded.rs"), &generated)?;

    for folder in ["cli/template", "guest-sdk", "wit", "LICENSE"] {
        println!(
            "cargo::rerun-if-changed={}",
            repository.join(folder).display()
        );
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=HAAR_TARGET={}", variable("TARGET")?);
    Ok(())
}

#[allow(
    clippy::disallowed_methods,
    reason = "cargo tells a build script everything by its environment"
)]
fn variable(name: &str) -> Result<String> {
    Ok(std::env::var(name).map_err(|_| format!("cargo sets {name}"))?)
}

/// All files below `folder` with their names relative to it, sorted; nothing that a build left there.
fn files_below(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        if !next.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(&next)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .ok_or("file names are UTF-8")?;
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    folders.push(path);
                }
            } else if name != "Cargo.lock" || next != folder {
                let relative = path
                    .strip_prefix(folder)?
                    .to_str()
                    .ok_or("file names are UTF-8")?;
                found.push((relative.replace('\\', "/"), path));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn write_list(
    generated: &mut String,
    list: &str,
    folder: &str,
    files: &[(String, PathBuf)],
) -> Result<()> {
    writeln!(generated, "pub(super) static {list}: &[(&str, &str)] = &[")?;
    for (name, path) in files {
        writeln!(
            generated,
            "    ({:?}, include_str!({:?})),",
            format!("{folder}{name}"),
            path
        )?;
    }
    writeln!(generated, "];")?;
    Ok(())
}

fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    Ok(std::fs::write(path, text)?)
}
