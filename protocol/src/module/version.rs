//! The versions that modules may have.

use crate::ids::InvalidId;

/// Characters of the longest version.
const CHARACTERS_MAX: usize = 64;

/// How a module gets the name and the version that it lacks.
pub const NAMING_HINT: &str = "`haar build` writes name and version into a module; into one of another tool `haar sign FILE --key KEY --name NAME --version VERSION` does.";

/// Checks a version by Semantic Versioning 2.0.0, sections 2, 9 and 10: one release has one spelling, and
/// commands and manifests can name it.
///
/// # Errors
/// When it is something else, with the version that may be meant.
pub fn check_version(text: &str) -> Result<(), InvalidId> {
    if is_version(text) {
        return Ok(());
    }
    let plain = text.trim().trim_start_matches(['v', 'V']);
    let meant = [
        plain.to_owned(),
        format!("{plain}.0"),
        format!("{plain}.0.0"),
    ];
    let meant = match meant.iter().find(|meant| is_version(meant)) {
        Some(meant) => format!("`{meant}`; it is not the same as"),
        None => "`1.4.2` or `2.0.0-rc.1`, and not".to_owned(),
    };
    let shown: String = text.chars().take(CHARACTERS_MAX).collect();
    Err(InvalidId(format!(
        "a version is MAJOR.MINOR.PATCH (Semantic Versioning), such as {meant} `{}`",
        shown.escape_debug()
    )))
}

fn is_version(text: &str) -> bool {
    let (text, build) = match text.split_once('+') {
        Some((text, build)) => (text, Some(build)),
        None => (text, None),
    };
    let (core, pre) = match text.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (text, None),
    };
    let is_number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let is_word = |part: &str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !part.is_empty() && part.bytes().all(is_part)
    };
    // A part of a pre-release that has digits alone is a number.
    let is_pre = |part: &str| {
        is_word(part) && (is_number(part) || !part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let length = text.len() + build.map_or(0, |build| 1 + build.len());
    length <= CHARACTERS_MAX
        && core.split('.').count() == 3
        && core.split('.').all(is_number)
        && pre.is_none_or(|pre| pre.split('.').all(is_pre))
        && build.is_none_or(|build| build.split('.').all(is_word))
}
