//! Compares a form with the file in `tests/golden` that holds it.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of golden files.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Fails unless the golden file `name` holds exactly `text`; writes it when asked to.
#[track_caller]
pub(crate) fn check(name: &str, text: &str) {
    let path = folder().join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    let held = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        held,
        text,
        "{} differs; see tests/it/main.rs for how to write it anew",
        path.display()
    );
}

/// Like [`check`], for a value as indented JSON; and it reads back as the same value.
#[track_caller]
pub(crate) fn check_json<T>(name: &str, value: &T)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    check(name, &text);
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value);
}
