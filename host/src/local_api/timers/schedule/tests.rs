//! Timers tick when they should, whatever the wall clock shows and whatever was stored of them.

use proptest::prelude::*;

use super::*;

/// The wall clock in these tests.
const NOON_MS: u64 = 1_700_000_000_000;

fn of(timer: Timer) -> Timers {
    let mut timers = Timers::default();
    timers.set("t".to_owned(), timer);
    timers
}

fn kept(scheduled_ms: u64, period_ms: Option<u64>) -> Vec<KeptTimer> {
    let name = "t".to_owned();
    vec![KeptTimer {
        name,
        scheduled_ms,
        period_ms,
    }]
}

fn tick(scheduled_ms: u64, missed: u32) -> Option<DueTick> {
    let name = "t".to_owned();
    Some(DueTick {
        name,
        scheduled_ms,
        missed,
    })
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn a_late_repeating_timer_ticks_once_and_reports_what_it_missed() {
    let start = Instant::now();
    let mut timers = of(Timer::new(100, Some(100), start, NOON_MS));
    let (now, now_ms) = (start + ms(450), NOON_MS + 450);
    assert_eq!(timers.take_due(now, now_ms), tick(NOON_MS + 400, 3));
    assert_eq!(timers.take_due(now, now_ms), None);
    assert_eq!(timers.next(), Some(start + ms(500)));
}

#[test]
fn a_one_shot_timer_ticks_once_and_is_gone() {
    let start = Instant::now();
    let mut timers = of(Timer::new(10, None, start, NOON_MS));
    assert_eq!(timers.take_due(start, NOON_MS), None);
    let due = timers.take_due(start + ms(9_000), NOON_MS + 9_000);
    assert_eq!(due, tick(NOON_MS + 10, 0));
    assert_eq!(timers.next(), None);
    assert_eq!(timers.take_ticked(), None, "nothing of it is stored");
}

#[test]
fn a_step_of_the_wall_clock_moves_no_timer_and_shows_in_its_ticks() {
    let start = Instant::now();
    let mut timers = of(Timer::new(1_000, Some(1_000), start, NOON_MS).stored(start));
    let stepped_ms = NOON_MS + 86_400_000;
    assert_eq!(timers.take_due(start + ms(500), stepped_ms + 500), None);
    let due = timers.take_due(start + ms(1_000), stepped_ms + 1_000);
    assert_eq!(due, tick(stepped_ms + 1_000, 0));
    let unsaved = timers.take_all_unsaved(start + ms(1_001), stepped_ms + 1_001);
    assert_eq!(unsaved, kept(stepped_ms + 2_000, Some(1_000)));
}

#[test]
fn what_was_due_while_the_node_was_off_ticks_once_and_stays_in_its_rhythm() {
    let now = Instant::now();
    let scheduled_ms = NOON_MS - 3_250;
    let mut timers = Timers::resume(kept(scheduled_ms, Some(1_000)), now, NOON_MS);
    assert_eq!(timers.take_due(now, NOON_MS), tick(NOON_MS - 250, 3));
    assert_eq!(timers.take_due(now, NOON_MS), None);
    assert_eq!(timers.next(), Some(now + ms(750)));
    let due = timers.take_due(now + ms(750), NOON_MS + 750);
    assert_eq!(due, tick(NOON_MS + 750, 0));
}

#[test]
fn what_is_not_due_yet_ticks_when_it_is() {
    let now = Instant::now();
    for period_ms in [None, Some(1_000)] {
        let mut timers = Timers::resume(kept(NOON_MS + 700, period_ms), now, NOON_MS);
        assert_eq!(timers.next(), Some(now + ms(700)));
        let due = timers.take_due(now + ms(700), NOON_MS + 700);
        assert_eq!(due, tick(NOON_MS + 700, 0));
    }
}

#[test]
fn a_kept_timer_that_ticks_once_stays_stored_until_its_tick_was_handled() {
    let now = Instant::now();
    let mut timers = Timers::resume(kept(NOON_MS - 10, None), now, NOON_MS);
    assert_eq!(timers.take_due(now, NOON_MS), tick(NOON_MS - 10, 0));
    assert!(timers.is_stored("t"));
    assert_eq!(timers.take_ticked().as_deref(), Some("t"));
    assert!(!timers.is_stored("t"));
}

#[test]
fn a_timer_that_is_set_again_by_its_own_tick_is_not_removed_after_it() {
    let now = Instant::now();
    let mut timers = Timers::resume(kept(NOON_MS, None), now, NOON_MS);
    timers.take_due(now, NOON_MS).unwrap();
    let again = Timer::new(100, None, now, NOON_MS).stored(now);
    timers.set("t".to_owned(), again);
    assert_eq!(timers.take_ticked(), None);
    assert!(timers.is_stored("t"));
}

#[test]
fn what_is_stored_is_brought_up_to_date_once_in_a_while_and_at_the_end() {
    const MINUTE: Duration = Duration::from_secs(60);
    let start = Instant::now();
    let mut timers = of(Timer::new(1_000, Some(1_000), start, NOON_MS).stored(start));
    let mut written = 0;
    for second in 1..=150 {
        let (now, now_ms) = (start + ms(second * 1_000), NOON_MS + second * 1_000);
        timers.take_due(now, now_ms).unwrap();
        written += u32::from(timers.take_unsaved("t", MINUTE, now, now_ms).is_some());
    }
    assert_eq!(written, 2);
    let (now, now_ms) = (start + ms(150_100), NOON_MS + 150_100);
    let unsaved = timers.take_all_unsaved(now, now_ms);
    assert_eq!(unsaved, kept(NOON_MS + 151_000, Some(1_000)));
    assert_eq!(timers.take_all_unsaved(now, now_ms), []);
}

#[test]
fn what_is_set_again_on_waking_goes_on_in_its_rhythm() {
    let now = Instant::now();
    let mut timers = of(Timer::new(900, Some(900), now, NOON_MS));
    assert!(!timers.goes_on("t", Some(900), false), "it does not wake");
    timers.wake();
    assert!(timers.goes_on("t", Some(900), false));
    assert!(!timers.goes_on("t", Some(500), false), "another period");
    assert!(!timers.goes_on("t", None, false), "once, not for ever");
    assert!(!timers.goes_on("t", Some(900), true), "to be kept");
    assert!(!timers.goes_on("other", Some(900), false));
    timers.awake();
    assert!(!timers.goes_on("t", Some(900), false));
}

#[test]
fn no_more_timers_than_allowed_are_set_but_one_may_be_replaced() {
    let timers = of(Timer::new(1, None, Instant::now(), NOON_MS));
    assert!(timers.has_room("t", 1) && timers.has_room("other", 2));
    assert!(!timers.has_room("other", 1));
}

proptest! {
    #[test]
    fn whatever_is_stored_ticks_at_once_at_most_one_time_and_then_soon(
        scheduled_ms: u64,
        period_ms: Option<u64>,
        now_ms: u64,
    ) {
        let now = Instant::now();
        let mut timers = Timers::resume(kept(scheduled_ms, period_ms), now, now_ms);
        timers.take_due(now, now_ms);
        prop_assert_eq!(timers.take_due(now, now_ms), None);
        let furthest = period_ms.unwrap_or(DELAY_MS_MAX).clamp(1, DELAY_MS_MAX);
        if let Some(next) = timers.next() {
            prop_assert!(next > now && next <= now + ms(furthest));
        }
    }

    #[test]
    fn ticks_that_were_seen_and_missed_add_up_however_often_it_is_resumed(
        period_ms in 1..10_000_u64,
        pauses in proptest::collection::vec(0..100_000_u64, 1..20),
    ) {
        let start = Instant::now();
        let mut elapsed_ms = 0;
        let mut stored = kept(NOON_MS + period_ms, Some(period_ms));
        let mut ticks = 0;
        for pause_ms in pauses {
            elapsed_ms += pause_ms;
            let (now, now_ms) = (start + ms(elapsed_ms), NOON_MS + elapsed_ms);
            let mut timers = Timers::resume(stored.clone(), now, now_ms);
            if let Some(tick) = timers.take_due(now, now_ms) {
                prop_assert_eq!((tick.scheduled_ms - NOON_MS) % period_ms, 0);
                ticks += 1 + u64::from(tick.missed);
            }
            if let [unsaved] = &timers.take_all_unsaved(now, now_ms)[..] {
                stored = vec![unsaved.clone()];
            }
        }
        prop_assert_eq!(ticks, elapsed_ms / period_ms);
    }
}
