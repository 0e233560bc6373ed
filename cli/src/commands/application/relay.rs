//! `haar apply` of a relay.

use haar_protocol::ids::Name;
use haar_protocol::relay::RelayApplied;

use super::{ApplyArguments, differences, losses};
use crate::client::Client;
use crate::config::Options;
use crate::error::Result;
use crate::output;

/// Applies the manifest of the relay called `name`, or tells what would come of it.
pub(super) fn apply(
    arguments: &ApplyArguments,
    options: &Options,
    text: &str,
    name: &Name,
) -> Result<()> {
    let client = Client::of(options)?;
    let put = |query: &str| client.put_manifest(&format!("relays/{name}?{query}"), text);
    let answer = match arguments.consent.dry_run {
        true => put("dry_run=true")?,
        false => arguments.consent.ask(options, put)?,
    };
    match options.is_json() {
        true => output::answer(&answer),
        false => output::text(&described(&client.parse(&answer)?)),
    }
}

/// What came of applying a relay, or would, for people.
fn described(applied: &RelayApplied) -> String {
    let name = &applied.name;
    let heading = match (applied.dry_run, applied.changed) {
        (true, true) => format!("The relay {name} would change."),
        (_, false) => format!("The relay {name} is unchanged."),
        (false, true) => format!(
            "Applied the relay {name}; nodes that are told: {}. See how it fares: `haar get relays`.",
            applied.assignments.len()
        ),
    };
    match applied.dry_run {
        true => format!(
            "{heading}\n{}{}",
            differences(&applied.differences),
            losses(&applied.losses)
        ),
        false => format!("{heading}\n"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dry_run_says_what_would_change_and_be_lost_and_an_apply_whom_it_told() {
        let mut answer = json!({
            "name": "plant", "changed": true, "dry_run": true, "assignments": {},
            "differences": [{"kind": "relay", "name": "plant", "change": "changed", "keys": [
                {"key": "url", "before": "mqtts://a:1", "after": "mqtts://b:1"},
            ]}],
            "losses": [{"kind": "messages", "subject": "plant", "nodes": ["gw"], "count": 0,
                        "message": "what waits for gw will be lost\u{1b}[2J"}],
        });
        let applied: RelayApplied = serde_json::from_value(answer.clone()).unwrap();
        assert_eq!(
            described(&applied),
            "The relay plant would change.\n\
             ~ relay plant\n    url: mqtts://a:1 -> mqtts://b:1\n\
             Would happen: what waits for gw will be lost\u{fffd}[2J\n"
        );
        answer["dry_run"] = json!(false);
        answer["assignments"] = json!({"gw": 7});
        let applied: RelayApplied = serde_json::from_value(answer).unwrap();
        assert_eq!(
            described(&applied),
            "Applied the relay plant; nodes that are told: 1. See how it fares: `haar get relays`.\n"
        );
    }
}
