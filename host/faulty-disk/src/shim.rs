//! The way between SQLite and its files (SQLite, "The SQLite OS Interface or VFS"): a copy of the
//! system's VFS whose files have four methods of ours. Everything else is the system's own, so locks
//! and shared memory are real.
//!
//! `unsafe` stands here because a VFS is a table of C functions. What makes it sound: the tables are
//! copies of the system's, are never freed, and every call is passed on with the arguments as they
//! came, to the function that stood in the table before.

#![allow(unsafe_code, reason = "a VFS of SQLite is a table of C functions")]

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::ffi;

use crate::Operation;
use crate::image::{self, Verdict};

/// The system's VFS. SQLite never frees or changes it.
static SYSTEM: OnceLock<System> = OnceLock::new();
/// The files that are open, by the address of what SQLite has of them.
static OPEN: Mutex<BTreeMap<usize, OpenFile>> = Mutex::new(BTreeMap::new());

struct System(*mut ffi::sqlite3_vfs);

// SAFETY: the table is constant, and its functions may be called by any thread (SQLite, "VFS").
unsafe impl Send for System {}
// SAFETY: likewise.
unsafe impl Sync for System {}

#[derive(Clone)]
struct OpenFile {
    path: PathBuf,
    methods: &'static ffi::sqlite3_io_methods,
}

/// Becomes the VFS of databases that are opened from now on. Those of directories that nobody
/// watches are as before.
pub(crate) fn install() {
    SYSTEM.get_or_init(|| {
        // SAFETY: the library may be initialised many times; without a name the default VFS is
        // found, of which there is always one; the copy lives as long as the process.
        unsafe {
            ffi::sqlite3_initialize();
            let system = ffi::sqlite3_vfs_find(ptr::null());
            assert!(!system.is_null(), "SQLite has a VFS");
            let mut ours = *system;
            ours.pNext = ptr::null_mut();
            ours.zName = c"haar-faulty-disk".as_ptr();
            ours.xOpen = Some(open);
            ours.xDelete = Some(delete);
            let code = ffi::sqlite3_vfs_register(Box::leak(Box::new(ours)), 1);
            assert_eq!(code, ffi::SQLITE_OK, "a VFS can be registered");
            System(system)
        }
    });
}

fn system() -> *mut ffi::sqlite3_vfs {
    SYSTEM.get().expect("it was set before we were called").0
}

fn open_files() -> MutexGuard<'static, BTreeMap<usize, OpenFile>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_file(file: *mut ffi::sqlite3_file) -> OpenFile {
    let found = open_files().get(&(file as usize)).cloned();
    found.expect("only files that we opened have our methods")
}

/// # Safety
/// `name` is null or a string that ends with a zero.
unsafe fn path<'n>(name: *const c_char) -> Option<&'n Path> {
    // SAFETY: by the caller.
    let bytes = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_bytes())?;
    Some(Path::new(OsStr::from_bytes(bytes)))
}

fn index(number: i64) -> usize {
    usize::try_from(number).expect("SQLite counts from 0 up")
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite's own arguments go to the system's own function; `file` has its methods then,
    // which are constant and never freed.
    unsafe {
        let system = system();
        let Some(theirs) = (*system).xOpen else {
            return ffi::SQLITE_CANTOPEN;
        };
        let code = theirs(system, name, file, flags, out_flags);
        let Some(path) = path(name) else { return code };
        let is_watched = image::with_file(path, |image| image.opened(path)).is_some();
        if code != ffi::SQLITE_OK || !is_watched || (*file).pMethods.is_null() {
            return code;
        }
        let methods: &'static ffi::sqlite3_io_methods = &*(*file).pMethods;
        let mut ours = *methods;
        ours.xClose = Some(close);
        ours.xWrite = Some(write);
        ours.xTruncate = Some(truncate);
        ours.xSync = Some(sync);
        (*file).pMethods = Box::leak(Box::new(ours));
        let path = path.to_owned();
        open_files().insert(file as usize, OpenFile { path, methods });
        code
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let open = open_file(file);
    open_files().remove(&(file as usize));
    let theirs = open.methods.xClose.expect("files can be closed");
    // SAFETY: the argument is SQLite's own, and the function the system's own.
    unsafe { theirs(file) }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    length: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let OpenFile { path, methods } = open_file(file);
    let theirs = methods.xWrite.expect("files can be written");
    // SAFETY: SQLite gives us that many bytes; fewer of them go on at most.
    let (bytes, pass_on) = unsafe {
        let bytes = std::slice::from_raw_parts(data.cast::<u8>(), index(length.into()));
        (bytes, |length| theirs(file, data, length, offset))
    };
    let done = image::with_file(&path, |image| {
        let half = bytes.len() / 2;
        let (length, kept) = match image.verdict(&path, Operation::Write) {
            Verdict::Do => (length, bytes),
            Verdict::DoHalf => (length / 2, &bytes[..half]),
            Verdict::Fail => return ffi::SQLITE_IOERR_WRITE,
            Verdict::NoRoom => return ffi::SQLITE_FULL,
        };
        let code = pass_on(length);
        if code == ffi::SQLITE_OK {
            image.written(&path, index(offset), kept);
        }
        match kept.len() == bytes.len() {
            true => code,
            false => ffi::SQLITE_IOERR_WRITE,
        }
    });
    done.unwrap_or_else(|| pass_on(length))
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: ffi::sqlite3_int64) -> c_int {
    let OpenFile { path, methods } = open_file(file);
    let theirs = methods.xTruncate.expect("files can be truncated");
    // SAFETY: the arguments are SQLite's own, and the function the system's own.
    let pass_on = || unsafe { theirs(file, length) };
    let done = image::with_file(&path, |image| {
        if image.verdict(&path, Operation::Truncate) != Verdict::Do {
            return ffi::SQLITE_IOERR_TRUNCATE;
        }
        image.truncated(&path, index(length));
        pass_on()
    });
    done.unwrap_or_else(pass_on)
}

/// Syncs the image, and no disk: nobody cuts this machine's power.
unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    let OpenFile { path, methods } = open_file(file);
    image::wait(&path);
    let done = image::with_file(&path, |image| {
        if image.verdict(&path, Operation::Sync) != Verdict::Do {
            return ffi::SQLITE_IOERR_FSYNC;
        }
        image.synced(&path);
        ffi::SQLITE_OK
    });
    let theirs = methods.xSync.expect("files can be synced");
    // SAFETY: the arguments are SQLite's own, and the function the system's own.
    done.unwrap_or_else(|| unsafe { theirs(file, flags) })
}

unsafe extern "C" fn delete(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_directory: c_int,
) -> c_int {
    let system = system();
    // SAFETY: SQLite's own arguments go to the system's own function.
    let (path, pass_on) = unsafe {
        let theirs = (*system).xDelete.expect("files can be deleted");
        (path(name), move || theirs(system, name, sync_directory))
    };
    let done = path.and_then(|path| {
        image::with_file(path, |image| {
            if image.verdict(path, Operation::Delete) != Verdict::Do {
                return ffi::SQLITE_IOERR_DELETE;
            }
            image.deleted(path);
            pass_on()
        })
    });
    done.unwrap_or_else(pass_on)
}
