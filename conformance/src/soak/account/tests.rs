//! Each thing that must not be is found, and nothing else is.

use super::*;
use crate::soak::journals::Batch;

/// Numbers 1 to 10 are stored, 11 and 12 refused, of 13 and 14 nothing is known, 15 to 20 are stored.
/// 13 and 14 are in the log.
fn published() -> Published {
    let batch = |first, count, fate| Batch { first, count, fate };
    Published(vec![
        batch(1, 4, Fate::Stored(1)),
        batch(5, 6, Fate::Stored(5)),
        batch(11, 2, Fate::Refused),
        batch(13, 2, Fate::Unknown),
        batch(15, 6, Fate::Stored(13)),
    ])
}

fn receipt(number: u64, attempt: u64) -> Receipt {
    Receipt {
        source: 1,
        number,
        sequence: number - if number > 12 { 2 } else { 0 },
        attempt,
    }
}

fn handled(numbers: impl IntoIterator<Item = u64>) -> Vec<Entry> {
    let numbers = numbers.into_iter();
    let mut entries = vec![Entry::Started];
    entries.extend(numbers.map(|number| Entry::Handled(receipt(number, 1))));
    entries
}

fn all() -> Vec<Entry> {
    handled((1..=10).chain(13..=20))
}

fn again(numbers: std::ops::RangeInclusive<u64>) -> impl Iterator<Item = Entry> {
    numbers.map(|number| Entry::Handled(receipt(number, 2)))
}

fn violations(received: &[Entry]) -> Vec<(&'static str, u64)> {
    compare(1, &published(), received).violations()
}

#[test]
fn a_run_without_faults_is_right() {
    let account = compare(1, &published(), &all());
    assert_eq!(account.violations(), []);
    let counts = (
        account.stored,
        account.refused,
        account.unknown,
        account.handled,
    );
    assert_eq!(counts, (16, 2, 2, 18));
}

#[test]
fn what_is_unknown_may_be_missing_with_its_sequences() {
    let mut published = published();
    published.0[4].fate = Fate::Stored(11);
    let received = (1..=10).chain(15..=20).map(|number| {
        let sequence = number - if number > 12 { 4 } else { 0 };
        let receipt = Receipt {
            sequence,
            ..receipt(number, 1)
        };
        Entry::Handled(receipt)
    });
    let account = compare(1, &published, &received.collect::<Vec<_>>());
    assert_eq!(account.violations(), []);
}

#[test]
fn a_message_that_never_came_is_lost() {
    for lost in [1, 7, 10, 20] {
        let received: Vec<_> = all().into_iter().filter(|one| !is(one, lost)).collect();
        let found = violations(&received);
        assert!(found.contains(&("lost", 1)), "{lost}: {found:?}");
    }
    // It was in the log, for what follows has later sequences.
    let received: Vec<_> = all().into_iter().filter(|one| !is(one, 13)).collect();
    assert_eq!(violations(&received), [("misnumbered", 1)]);
}

fn is(entry: &Entry, number: u64) -> bool {
    matches!(entry, Entry::Handled(receipt) if receipt.number == number)
}

#[test]
fn a_store_that_forgot_and_began_again_is_found_although_sequences_have_no_gap() {
    let mut published = published();
    // 5 to 10 were stored and forgotten; 15 to 20 got their sequences.
    published.0[3].fate = Fate::Refused;
    published.0[4].fate = Fate::Stored(5);
    let received = (1..=4).chain(15..=20).zip(1..).map(|(number, sequence)| {
        let receipt = Receipt {
            sequence,
            ..receipt(number, 1)
        };
        Entry::Handled(receipt)
    });
    let account = compare(1, &published, &received.collect::<Vec<_>>());
    assert_eq!(account.violations(), [("lost", 6)]);
}

#[test]
fn messages_that_changed_places_are_disordered() {
    let mut received = all();
    received.swap(3, 4);
    let found = violations(&received);
    assert!(found.contains(&("disordered", 1)), "{found:?}");
}

#[test]
fn repeats_are_further_attempts_of_a_new_instance() {
    let mut received = handled(1..=8);
    received.push(Entry::Started);
    received.extend(again(6..=8));
    received.push(Entry::Started); // it ended again, before it was through
    received.extend(again(7..=8));
    received.extend(handled((9..=10).chain(13..=20)));
    let account = compare(1, &published(), &received);
    assert_eq!((account.violations(), account.repeats), (vec![], 5));
}

#[test]
fn repeats_without_a_reason_are_found() {
    let rest = || handled((9..=10).chain(13..=20));
    // As if for the first time.
    let mut received = handled(1..=8);
    received.extend(handled(7..=8));
    received.extend(rest());
    assert_eq!(violations(&received), [("unexplained repeats", 2)]);
    // Without a new instance: only the first one is out of turn.
    let mut received = handled(1..=8);
    received.extend(again(7..=8));
    received.extend(rest());
    assert_eq!(violations(&received), [("unexplained repeats", 1)]);
    // An instance that leaves some of them out.
    let mut received = handled(1..=8);
    received.push(Entry::Started);
    received.extend(again(5..=6));
    received.extend(rest());
    assert_eq!(violations(&received), [("disordered", 1)]);
}

#[test]
fn a_refused_message_an_unknown_number_and_other_contents_are_found() {
    let mut received = all();
    received.push(Entry::Handled(receipt(11, 1)));
    received.push(Entry::Handled(receipt(21, 1)));
    received.push(Entry::Damaged(receipt(3, 1)));
    assert_eq!(violations(&received), [("invented", 2), ("damaged", 1)]);
    let mut received = all();
    received[5] = Entry::Handled(Receipt {
        sequence: 9,
        ..receipt(5, 1)
    });
    // It is not what was told, does not follow, and is not followed.
    assert_eq!(violations(&received), [("misnumbered", 3)]);
}

#[test]
fn a_rejected_message_comes_again_and_is_no_repeat() {
    let mut received = handled(1..=4);
    received.push(Entry::Rejected(receipt(5, 1)));
    received.extend(again(5..=5));
    received.extend(handled((6..=10).chain(13..=20)));
    let account = compare(1, &published(), &received);
    assert_eq!(
        (account.violations(), account.rejected, account.repeats),
        (vec![], 1, 0)
    );
    received.push(Entry::Rejected(receipt(5, 1)));
    assert_eq!(violations(&received), [("unexplained repeats", 1)]);
}
