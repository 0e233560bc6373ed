//! Which start of an agent a status is of: restarts, and two agents with one identity.

use haar_protocol::status::StartStatus;

use super::*;

/// A status of one start of an agent.
fn of_start(id: &str, sequence: u64, started_ms: u64, sent_ms: u64) -> Status {
    Status {
        sent_ms,
        start: Some(StartStatus {
            id: id.to_owned(),
            address: Some(format!("10.0.0.{id}")),
        }),
        ..status(sequence, started_ms)
    }
}

#[test]
fn a_restart_and_two_agents_with_one_identity_miss_no_status() {
    let first = take(None, of_start("1", 1_001, 100, 200)).unwrap().row;
    let restarted = take(Some(&first), of_start("2", 2_001, 300, 400)).unwrap();
    assert_eq!(restarted.row.missed, 0);
    let gap = take(Some(&restarted.row), of_start("2", 2_004, 300, 500)).unwrap();
    assert_eq!(gap.row.missed, 2);
    // The other agent began before, with lower numbers, and is served now.
    let other = take(Some(&gap.row), of_start("1", 1_002, 100, 600)).unwrap();
    assert_eq!(other.row.missed, 2);
    assert_eq!(other.row.status.sequence, 1_002);
    let back = take(Some(&other.row), of_start("2", 2_009, 300, 700)).unwrap();
    assert_eq!(back.row.missed, 2);
    // The last words of an agent that has ended come late.
    assert!(take(Some(&gap.row), of_start("1", 1_002, 100, 250)).is_none());
    let agents_of_old = take(
        Some(&take(None, status(1_001, 100)).unwrap().row),
        status(2_001, 300),
    );
    assert_eq!(agents_of_old.unwrap().row.missed, 0);
}

#[test]
fn two_agents_with_one_identity_are_told_once_an_hour_with_both_addresses() {
    let (mut starts, name) = (AllStarts::default(), "gw".parse().unwrap());
    let mut note = |status: Status, now_ms| starts.note(&status, &name, false, now_ms);
    assert_eq!(note(of_start("1", 1_001, 100, 200), 0), None);
    assert_eq!(note(of_start("2", 1_001, 300, 400), 0), None, "a restart");
    assert_eq!(note(of_start("2", 1_002, 300, 500), 0), None);
    let clash = note(of_start("1", 1_002, 100, 2_600), 0).unwrap();
    assert!(clash.is_due);
    let told = clash.told;
    assert_eq!(
        (told.kind, told.subject.as_str()),
        ("identity_in_use", "gw")
    );
    assert_eq!(
        told.message,
        "two agents run with the identity of node `gw`: one at 10.0.0.2 (up 0 s), one at 10.0.0.1 (up 2 s); stop one of them"
    );
    let mut is_due = |status, now_ms| note(status, now_ms).map(|clash| clash.is_due);
    assert_eq!(is_due(of_start("2", 1_003, 300, 2_700), 1_000), Some(false));
    let last = of_start("1", 1_003, 100, 2_800);
    assert_eq!(is_due(last, 3_599_999), Some(false));
    assert_eq!(
        is_due(of_start("2", 1_004, 300, 2_900), 3_600_000),
        Some(true)
    );
}

#[test]
fn no_restart_is_taken_for_two_agents() {
    let (mut starts, name) = (AllStarts::default(), "gw".parse().unwrap());
    let mut note = |status: Status, is_kept| starts.note(&status, &name, is_kept, 0);
    for start in 1..20 {
        let begin = start * 1_000;
        let id = start.to_string();
        for sequence in [1, 2] {
            let sent_ms = begin + 10 * sequence;
            assert_eq!(
                note(of_start(&id, begin + sequence, begin, sent_ms), false),
                None
            );
        }
        if start > 1 {
            // The last words of the start before come late, over another relay.
            let (id, begin) = ((start - 1).to_string(), begin - 1_000);
            assert_eq!(
                note(of_start(&id, begin + 3, begin, begin + 30), false),
                None
            );
            // A relay has kept what one of them said.
            assert_eq!(note(of_start(&id, begin + 9, begin, u64::MAX), true), None);
        }
    }
}
