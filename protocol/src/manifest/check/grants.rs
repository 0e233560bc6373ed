//! Grants: paths that mean one thing wherever they are read, and each place in the guest once.

use std::collections::HashSet;

use crate::grants::{Access, Grants};
use crate::limits;
use crate::quantity::ByteSize;

use super::super::errors::{KeyPath, Problem, quotable};

/// Longest path of a grant, in bytes (PATH_MAX of Linux without its NUL).
const PATH_BYTES_MAX: usize = 4_095;

pub(super) fn check_grants(grants: &Grants, at: &KeyPath, problems: &mut Vec<Problem>) {
    let mut guests = HashSet::new();
    for (index, directory) in grants.directories.iter().enumerate() {
        let at = at.key("directories").index(index);
        for (key, path) in [("host", &directory.host), ("guest", &directory.guest)] {
            if let Err(reason) = check_path(path) {
                problems.push(wrong_path(&at.key(key), path, reason));
            }
        }
        if !guests.insert(parts(&directory.guest)) {
            problems.push(granted_twice(&at.key("guest"), &directory.guest));
        }
        if let Some(quota) = directory.quota {
            check_quota(quota, directory.access, &at.key("quota"), problems);
        }
    }
    if let Some(path) = &grants.data_directory {
        let at = at.key("data_directory");
        if let Err(reason) = check_path(path).and_then(|()| check_normal(path)) {
            problems.push(wrong_path(&at, path, reason));
        } else if !guests.insert(parts(path)) {
            problems.push(granted_twice(&at, path));
        }
    }
}

fn check_quota(quota: ByteSize, access: Access, at: &KeyPath, problems: &mut Vec<Problem>) {
    let range = limits::FILES_BYTES;
    if access == Access::ReadOnly {
        problems.push(Problem::with_hint(
            at,
            "goes with `access: read-write` only",
            "leave it out: nothing is written to a read-only directory",
        ));
    } else if !range.contains(&quota.0) {
        let message = format!(
            "{quota} is out of range: from {} to {}",
            ByteSize(*range.start()),
            ByteSize(*range.end())
        );
        problems.push(Problem::new(at, message));
    }
}

fn wrong_path(at: &KeyPath, path: &str, reason: &str) -> Problem {
    Problem::new(at, format!("the path `{}` {reason}", quotable(path)))
}

fn granted_twice(at: &KeyPath, path: &str) -> Problem {
    Problem::with_hint(
        at,
        format!("`{}` is granted twice", quotable(path)),
        "give each directory its own path in the guest",
    )
}

/// What a path means: its parts, without those that say nothing.
fn parts(path: &str) -> Vec<&str> {
    path.split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect()
}

/// Whether a path may stand in a grant: absolute, and the same wherever it is read.
fn check_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        Err("must be absolute: begin it with `/`")
    } else if path.split('/').any(|part| part == "..") {
        Err("must not contain `..`")
    } else if path.contains('\0') {
        Err("must not contain a NUL")
    } else if path.len() > PATH_BYTES_MAX {
        Err("is longer than 4095 bytes")
    } else {
        Ok(())
    }
}

/// Whether a path is written in the one shortest way.
fn check_normal(path: &str) -> Result<(), &'static str> {
    let parts = parts(path);
    if parts.is_empty() {
        Err("must name a directory below `/`")
    } else if format!("/{}", parts.join("/")) != path {
        Err("must be normal: no `.`, no `//`, no `/` at its end")
    } else {
        Ok(())
    }
}
