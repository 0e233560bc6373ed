//! Timers as a microservice's tests see them.

use std::time::Duration;

use haar_guest::testing::{Harness, Timer};

use super::{Obedient, obey};

#[test]
fn timers_count_parts_of_a_millisecond_as_whole_ones_and_go_by_name() {
    let mut harness = Harness::new();
    obey(&mut harness, "timers");
    assert_eq!(
        harness.timers()["soon"],
        Timer::Once(Duration::from_millis(2))
    );
    assert_eq!(
        harness.timers()["often"],
        Timer::Every(Duration::from_secs(2))
    );
    obey(&mut harness, "cancel");
    assert!(!harness.timers().contains_key("often"));
}

#[test]
fn a_timer_that_ticks_once_is_gone_and_time_goes_on_with_the_others() {
    let mut harness = Harness::new();
    obey(&mut harness, "timers");
    harness.tick("often").unwrap();
    harness.tick_late("often", 2).unwrap();
    harness.tick("soon").unwrap();
    assert_eq!(harness.timers().len(), 1);
    let ticks: Vec<_> = harness
        .published()
        .iter()
        .map(|message| message.text())
        .collect();
    assert_eq!(
        ticks,
        [
            "often 1700000002000 0",
            "often 1700000008000 2",
            "soon 1700000008002 0"
        ]
    );
}

#[test]
#[should_panic(expected = "no timer `never` is set")]
fn a_timer_that_is_not_set_cannot_tick() {
    let _ = Harness::<Obedient>::new().tick("never");
}

#[test]
fn a_timer_that_is_kept_outlives_the_microservice_until_it_is_replaced_or_cancelled() {
    let mut harness = Harness::new();
    obey(&mut harness, "keep");
    harness.stop();
    let kept = [(
        "hourly".to_owned(),
        Timer::Every(Duration::from_secs(3_600)),
    )];
    assert_eq!(harness.timers(), kept.into());
    harness.tick_late("hourly", 2).unwrap();
    assert_eq!(harness.published()[0].text(), "hourly 1700010800000 2");
}
