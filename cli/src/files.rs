//! Files that people own: read with a limit, written whole or not at all.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use haar_protocol::keys::{PublicKey, SecretKey};
use haar_protocol::module::{MODULE_BYTES_MAX, ModuleError};

use crate::error::{CommandError, Result, about_file};

/// Keys, contexts and manifests are smaller than this, in bytes.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// How many symbolic links are followed in a row; Linux has the same limit.
const LINKS_MAX: usize = 40;

/// Who may read a file that is written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Its owner alone (mode 0600).
    Owner,
    /// Whom the process's umask lets.
    Everybody,
}

/// Reads a small file.
fn read_small(path: &Path) -> Result<Vec<u8>> {
    read(path, TEXT_BYTES_MAX, |size| {
        CommandError::refused(
            "file_too_large",
            format!(
                "{} is not the right file: {size} bytes are too many",
                path.display()
            ),
        )
    })
}

/// Reads a text file.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = read_small(path)?;
    String::from_utf8(bytes).map_err(|_| {
        CommandError::refused(
            "not_text",
            format!("{} is not a text file in UTF-8", path.display()),
        )
    })
}

/// Reads a module file. One that is too large is refused before it is read.
pub(crate) fn read_module(path: &Path) -> Result<Vec<u8>> {
    read(path, MODULE_BYTES_MAX, |size| {
        about_module(path, &ModuleError::TooLarge(size))
    })
}

/// Reads `path`, at most `bytes_max`; `too_large` makes the error, given the file's size.
fn read(path: &Path, bytes_max: u64, too_large: impl Fn(u64) -> CommandError) -> Result<Vec<u8>> {
    let file = fs::File::open(path).map_err(about_file("read", path))?;
    let metadata = file.metadata().map_err(about_file("read", path))?;
    if metadata.is_dir() {
        return Err(CommandError::failure(format!(
            "can't read {}: it is a directory",
            path.display()
        )));
    }
    if metadata.len() > bytes_max {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(about_file("read", path))?;
    if bytes.len() as u64 > bytes_max {
        return Err(too_large(bytes.len() as u64)); // it grew, or is not an ordinary file
    }
    Ok(bytes)
}

/// The error for a module file that is not one, or not accepted.
pub(crate) fn about_module(path: &Path, error: &ModuleError) -> CommandError {
    let code = match error {
        ModuleError::NotWasm => "not_wasm",
        ModuleError::CoreModule => "core_module",
        ModuleError::Malformed(_) => "malformed_module",
        ModuleError::Unsigned => "unsigned_module",
        ModuleError::UnknownSignature(_) => "unknown_signature",
        ModuleError::TooManySignatures => "too_many_signatures",
        ModuleError::Untrusted | ModuleError::NotAllowed { .. } => "untrusted_module",
        ModuleError::TooLarge(_) => "module_too_large",
    };
    CommandError::refused(code, format!("{}: {error}", path.display()))
}

/// Writes `path`: a regular file in one step, so that whoever reads it sees the old content or the new,
/// also after a power cut. Symbolic links are followed, and stay. What is there and is not a regular file
/// (a FIFO, a device) is written into. With `replace` false an existing file is left alone and
/// `AlreadyExists` returned.
pub(crate) fn write(
    path: &Path,
    content: &[u8],
    readers: Readers,
    replace: bool,
) -> io::Result<()> {
    let there = fs::metadata(path).ok();
    if !replace && there.is_none() && path.is_symlink() {
        return Err(io::ErrorKind::AlreadyExists.into()); // whoever made the link means something by it
    }
    let path = match &there {
        Some(there) if there.is_file() => match target(path)? {
            Some(target) => target,
            None => return write_into(path, content),
        },
        Some(_) => return write_into(path, content),
        None => target(path)?.unwrap_or_else(|| path.to_owned()),
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = temporary(folder, readers)?;
    file.write_all(content)?;
    if let Some(old) = there
        && readers == Readers::Everybody
    {
        file.as_file().set_permissions(old.permissions())?;
    }
    file.as_file().sync_all()?;
    let persisted = if replace {
        file.persist(&path)
    } else {
        file.persist_noclobber(&path)
    };
    persisted.map_err(|error| error.error)?;
    sync_folder(folder)
}

/// The target of the symbolic links from `path`, which need not exist. None for links that only the
/// kernel can follow, such as /dev/stdout.
fn target(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        if path.starts_with("/proc") {
            return Ok(None);
        }
        match fs::read_link(&path) {
            // An absolute target replaces the whole path.
            Ok(next) => path = path.parent().unwrap_or(Path::new("")).join(next),
            Err(_) => return Ok(Some(path)), // not a link
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Writes into the existing file, device or pipe.
fn write_into(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(content)?;
    file.flush()
}

/// Makes a folder that only its owner reads, with those above it, unless it is there.
pub(crate) fn make_private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn temporary(folder: &Path, readers: Readers) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".haar-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = if readers == Readers::Owner {
            0o600
        } else {
            0o666
        };
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = readers;
    builder.tempfile_in(folder)
}

/// Makes a rename last: on Unix a directory is a file that is written, too.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        fs::File::open(folder)?.sync_all()
    } else {
        Ok(())
    }
}

/// Reads a public key in PEM, or in the format of the tool `wasmsign2`.
pub(crate) fn read_public_key(path: &Path) -> Result<PublicKey> {
    if let Ok(key) = PublicKey::from_wasmsign2(&read_small(path)?) {
        return Ok(key);
    }
    let text = read_text(path)?;
    let refused =
        |message: String, hint: &str| CommandError::refused("bad_key", message).hinted(hint);
    if text.contains("PRIVATE KEY") {
        return Err(refused(
            format!("{} is a secret key", path.display()),
            "Give the public key, the file that ends in `.pub`.",
        ));
    }
    PublicKey::from_pem(&text).map_err(|error| {
        refused(
            format!("{}: {error}", path.display()),
            "`haar key new NAME` makes NAME.pub.",
        )
    })
}

/// Reads a secret key in PEM, or in the format of the tool `wasmsign2`.
pub(crate) fn read_secret_key(path: &Path) -> Result<SecretKey> {
    if let Ok(key) = SecretKey::from_wasmsign2(&read_small(path)?) {
        return Ok(key);
    }
    let text = read_text(path)?;
    let refused =
        |message: String, hint: &str| CommandError::refused("bad_key", message).hinted(hint);
    if text.contains("PUBLIC KEY") {
        return Err(refused(
            format!("{} is a public key", path.display()),
            "Give the secret key, the file that ends in `.key`.",
        ));
    }
    SecretKey::from_pem(&text).map_err(|error| {
        refused(
            format!("{}: {error}", path.display()),
            "`haar key new NAME` makes NAME.key.",
        )
    })
}
