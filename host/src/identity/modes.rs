//! Who may read what the agent keeps: its own user, whatever the umask was and however it was
//! installed. Keys, messages and configuration of microservices lie there.

use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::fs::Mode;

/// What others could do with a file, as bits of its mode.
const OF_OTHERS: u32 = 0o077;

/// Has this process make files and directories that only its own user reads, from now on.
pub fn make_private_from_now_on() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// The user that a directory belongs to, when that is not the one of this process. None also when
/// there is no such directory.
///
/// # Errors
/// When it can't be looked at.
pub(crate) fn foreign_owner(directory: &Path) -> anyhow::Result<Option<u32>> {
    match fs::metadata(directory) {
        Ok(about) => {
            let us = rustix::process::geteuid().as_raw();
            Ok(Some(about.uid()).filter(|owner| *owner != us))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("can't look at {}", directory.display())),
    }
}

/// Makes the data directory when there is none, and takes away what others may do with it and with
/// what is in it.
///
/// # Errors
/// When it can't be made, or belongs to another user.
pub(super) fn restrict(data: &Path) -> anyhow::Result<()> {
    if let Some(owner) = foreign_owner(data)? {
        bail!(
            "{} belongs to user {owner}, and this process runs as user {}: run it as that user, or give the directory away with `chown -R`",
            data.display(),
            rustix::process::geteuid().as_raw()
        );
    }
    if let Some(above) = data.parent() {
        fs::create_dir_all(above).with_context(|| format!("can't make {}", above.display()))?;
    }
    match fs::DirBuilder::new().mode(0o700).create(data) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error)
                .with_context(|| format!("can't make the data directory {}", data.display()));
        }
        _ => {}
    }
    let mut tightened = 0;
    let was_open = tighten(data, &mut tightened)?;
    tighten_all(data, was_open, &mut tightened);
    if tightened > 0 {
        tracing::warn!(
            "{tightened} files and directories in {} could be reached by other users of this device: they can't any more",
            data.display()
        );
    }
    Ok(())
}

/// Goes through what is in a directory; through everything below it when it `was_open` to others.
/// Where others never came in, only what lies in it itself can matter.
fn tighten_all(directory: &Path, was_open: bool, tightened: &mut u64) {
    let Ok(entries) = fs::read_dir(directory) else {
        return; // it is reported by whoever needs it
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if !kind.is_dir() && !kind.is_file() {
            continue; // what a link leads to is not ours
        }
        if let Err(error) = tighten(&path, tightened) {
            tracing::error!("other users may reach {}: {error:#}", path.display());
        }
        if kind.is_dir() && was_open {
            tighten_all(&path, was_open, tightened);
        }
    }
}

/// Takes away what others may do with one file or directory. True when they could do something.
fn tighten(path: &Path, tightened: &mut u64) -> anyhow::Result<bool> {
    let mode = fs::symlink_metadata(path)?.permissions().mode() & 0o7777;
    if mode & OF_OTHERS == 0 {
        return Ok(false);
    }
    fs::set_permissions(path, Permissions::from_mode(mode & !OF_OTHERS))
        .with_context(|| format!("can't change the mode of {}", path.display()))?;
    *tightened += 1;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_older_installation_that_others_could_read_is_tightened() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let inner = data.join("private/app/files");
        fs::create_dir_all(&inner).unwrap();
        let (database, deep, code) = (data.join("agent.db"), inner.join("deep"), data.join("code"));
        for (path, open) in [
            (&database, 0o644),
            (&deep, 0o666),
            (&code, 0o444),
            (&data, 0o755),
        ] {
            if *path != data {
                fs::write(path, "secret").unwrap();
            }
            fs::set_permissions(path, Permissions::from_mode(open)).unwrap();
        }
        let outside = folder.path().join("outside");
        fs::write(&outside, "").unwrap();
        fs::set_permissions(&outside, Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&outside, data.join("link")).unwrap();
        restrict(&data).unwrap();
        assert_eq!(mode(&data), 0o700);
        assert_eq!(mode(&database), 0o600);
        assert_eq!(mode(&inner), 0o700);
        assert_eq!(mode(&deep), 0o600);
        assert_eq!(mode(&code), 0o400);
        assert_eq!(mode(&outside), 0o644);
        // A single file that somebody opened up is found as well.
        fs::set_permissions(&database, Permissions::from_mode(0o640)).unwrap();
        restrict(&data).unwrap();
        assert_eq!(mode(&database), 0o600);
    }

    #[test]
    fn a_new_directory_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("above/data");
        restrict(&data).unwrap();
        assert_eq!(mode(&data), 0o700);
        assert!(restrict(&data.join("x")).is_ok());
    }

    #[test]
    fn a_directory_of_another_user_is_refused_with_both_users() {
        let folder = tempfile::tempdir().unwrap();
        let foreign = if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(folder.path(), Some(1), None).unwrap();
            folder.path()
        } else {
            Path::new("/")
        };
        let words = restrict(foreign).unwrap_err().to_string();
        assert!(
            words.contains("belongs to user") && words.contains("chown -R"),
            "{words}"
        );
    }
}
