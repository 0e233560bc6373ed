//! Finds what somebody may have meant: the one place that does. Errors of manifests, of the controller
//! and of the command line end with the nearest thing that does exist.

use super::errors::quotable;

/// The hint for `written`, which is none of `known`: the nearest of them, or all when there are
/// few. `what` names them, such as `keys`.
pub(super) fn hint<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
    what: &str,
) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    if let Some(meant) = meant(written, known.iter().copied()) {
        return Some(meant);
    }
    match known.len() {
        0 => None,
        1..=16 => {
            let names: Vec<String> = known
                .iter()
                .map(|name| format!("`{}`", quotable(name)))
                .collect();
            Some(format!("the {what} are {}", names.join(", ")))
        }
        _ => None,
    }
}

/// The question whether the one of `known` was meant that is most like `written`, if any is like it.
pub fn meant<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(written, known).map(|name| format!("did you mean `{name}`?"))
}

/// The one of `known` that is most like `written`, if any is like it.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Names are at most 63 characters: whatever is much longer is near none.
    if written.len() > 100 {
        return None;
    }
    let written = folded(written);
    let distance_max = 1 + written.chars().count() / 4;
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&written, &folded(name)), name))
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, name)| name)
}

/// `callTimeout`, `call-timeout` and `call_timeout` alike.
fn folded(text: &str) -> String {
    text.chars()
        .filter(|character| !matches!(character, '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect()
}
