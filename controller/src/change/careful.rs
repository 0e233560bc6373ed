//! Changes that need confirmation: reports what a change would take away, before making it or instead of
//! making it.

use haar_protocol::rest::{Loss, LossKind};

use super::{load_fleet, load_view};
use crate::db::Write;
use crate::failure::{Failure, Kind};
use crate::losses;
use crate::site::Site;

/// How a change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// Whatever it takes away.
    None,
    /// Only when nothing stops or is lost.
    LoseNothing,
    /// Only when nothing is lost: who applies a manifest has said in it what stops.
    MayStop,
    /// To see what it takes away.
    Tell,
}

/// Makes a change. Returns what it takes away, unless nobody cares.
///
/// # Errors
/// Those of `change`, or `would_lose`: then nothing may be kept of it.
pub(crate) fn careful<T>(
    write: &Write<'_>,
    site: &Site,
    care: Care,
    change: impl FnOnce() -> Result<T, Failure>,
) -> Result<(T, Vec<Loss>), Failure> {
    if care == Care::None {
        return Ok((change()?, Vec::new()));
    }
    let before = load_view(&write.sql, site)?;
    let result = change()?;
    let after = load_fleet(&write.sql, site)?;
    let losses = losses::between(&before, &after, write.now_ms);
    let is_grave = |loss: &&Loss| match care {
        Care::None | Care::Tell => false,
        Care::LoseNothing => true,
        Care::MayStop => loss.kind != LossKind::Stop,
    };
    if losses.iter().any(|loss| is_grave(&loss)) {
        return Err(would_lose(&losses));
    }
    Ok((result, losses))
}

fn would_lose(losses: &[Loss]) -> Failure {
    let lines: Vec<&str> = losses.iter().map(|loss| loss.message.as_str()).collect();
    Failure::new(Kind::Conflict, "would_lose", lines.join("\n"))
        .hint("ask for it without `careful` when this is meant")
}
