//! A relay that refuses a node that it knows does so most often because of the node's clock. This
//! asks the controller, over TLS, what time it is, so that the log says what is wrong.

use haar_protocol::proof::CLOCK_SKEW_MS;

use crate::controller::Controller;
use crate::local_api::state::now_ms;

/// Asks, and says what it found. Blocks.
pub(super) fn diagnose(controller: &Controller) {
    match controller.site() {
        Ok(site) => match skew_text(now_ms(), site.time_ms) {
            Some(text) => tracing::error!("the relay refuses this node because {text}"),
            None => tracing::error!(
                "the relay refuses this node although the clocks agree: it was probably removed from the site; enrol it again with a fresh token"
            ),
        },
        Err(error) => tracing::warn!(
            "the relay refuses this node, and the controller does not say why: {error:#}"
        ),
    }
}

/// Says how far the clocks are apart, when that is too far.
pub(super) fn skew_text(own_ms: u64, controller_ms: u64) -> Option<String> {
    let apart_ms = own_ms.abs_diff(controller_ms);
    if apart_ms <= CLOCK_SKEW_MS {
        return None;
    }
    let direction = if own_ms < controller_ms {
        "behind"
    } else {
        "ahead of"
    };
    let apart = std::time::Duration::from_secs(apart_ms / 1_000);
    Some(format!(
        "its clock is {apart:?} {direction} the controller's: set the clock (NTP), it connects by itself then"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_hours_off_is_told_with_its_direction() {
        let hour = 3_600_000;
        let text = skew_text(10 * hour, 13 * hour).unwrap_or_default();
        assert!(text.contains("10800s behind"), "{text}");
        assert!(skew_text(13 * hour, 10 * hour).is_some_and(|text| text.contains("ahead of")));
        assert_eq!(skew_text(1_000, 2_000), None);
    }
}
