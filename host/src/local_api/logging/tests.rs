//! Which lines pass, and what is said of those that do not.

use super::*;

/// A logger of a microservice, and the ring that its lines go to.
fn logger(change: impl FnOnce(&mut Microservice)) -> (Logger, Arc<Logs>, Arc<Counters>) {
    let (logs, counters) = (Arc::<Logs>::default(), Arc::<Counters>::default());
    let logger = Logger::new(&spec(change), Arc::clone(&logs), Arc::clone(&counters));
    (logger, logs, counters)
}

fn spec(change: impl FnOnce(&mut Microservice)) -> Microservice {
    let json = serde_json::json!({
        "application": "app",
        "microservice": "m",
        "module": haar_protocol::ids::Digest::of(b"m"),
        "module_bytes": 1,
        "module_label": "m@1",
        "limits": {},
        "grants": {},
        "configuration": {},
        "outlets": {},
        "inlets": {},
    });
    let mut spec: Microservice = serde_json::from_value(json).unwrap();
    change(&mut spec);
    spec
}

fn taken(logs: &Logs) -> Vec<String> {
    let lines = logs.take(usize::MAX, usize::MAX);
    lines.into_iter().map(|line| line.text).collect()
}

#[test]
fn lines_below_the_level_are_not_taken_and_use_up_no_rate() {
    let (logger, logs, counters) = logger(|spec| {
        spec.log_level = Level::Warn;
        spec.limits.log_lines_per_second = 1;
    });
    for _ in 0..10 {
        logger.write(Level::Info, Stream::Stdout, "", "quiet");
    }
    logger.write(Level::Warn, Stream::Stderr, "", "loud");
    assert_eq!(taken(&logs), ["loud"]);
    assert_eq!(logger.dropped(), 0);
    assert_eq!(counters.exceeded.snapshot().log, 0);
}

#[test]
fn the_level_changes_with_the_next_line() {
    let (logger, logs, _) = logger(|_| {});
    logger.write(Level::Debug, Stream::Log, "", "one");
    logger.follow(&spec(|spec| spec.log_level = Level::Debug));
    logger.write(Level::Debug, Stream::Log, "", "two");
    logger.follow(&spec(|spec| spec.log_level = Level::Critical));
    logger.write(Level::Error, Stream::Log, "", "three");
    assert_eq!(taken(&logs), ["two"]);
}

#[test]
fn more_bytes_than_allowed_are_dropped_and_counted_by_whole_lines() {
    let (logger, logs, counters) = logger(|spec| {
        spec.limits.log_bytes_per_second = haar_protocol::quantity::ByteSize(1_000);
    });
    logger.write(Level::Info, Stream::Log, "", &"a".repeat(600));
    logger.write(Level::Info, Stream::Log, "", &"b".repeat(2_000));
    logger.write(Level::Info, Stream::Log, "c", &"c".repeat(399));
    let lines = taken(&logs);
    assert_eq!((lines[0].len(), lines[2].len()), (600, 399));
    let gap = "lines are missing here, 1: more than `log_lines_per_second` or `log_bytes_per_second` allows";
    assert_eq!(lines[1], gap);
    // However slow the machine is, less than a second has passed.
    logger.gate().said = Some(Instant::now() + Duration::from_secs(3_600));
    logger.write(Level::Info, Stream::Log, "", &"d".repeat(2_000));
    logger.write(Level::Info, Stream::Log, "", "");
    assert_eq!(taken(&logs), [""], "said once in a second");
    assert_eq!((logger.dropped(), counters.exceeded.snapshot().log), (2, 2));
}

#[test]
fn lines_that_were_kept_out_last_are_reported_when_the_instance_ends() {
    let (logger, logs, _) = logger(|spec| spec.limits.log_lines_per_second = 0);
    for _ in 0..3 {
        logger.write(Level::Info, Stream::Log, "", "too much");
    }
    assert_eq!(taken(&logs), Vec::<String>::new());
    logger.end_instance();
    logger.end_instance();
    let lines = logs.take(usize::MAX, usize::MAX);
    let gaps: Vec<_> = lines.iter().map(|line| line.gap.unwrap().lines).collect();
    assert_eq!(gaps, [Some(3)], "once");
}

#[test]
fn the_last_words_are_those_of_standard_error_in_the_call_that_failed() {
    let (logger, logs, counters) = logger(|spec| {
        spec.log_level = Level::Critical;
        spec.limits.log_lines_per_second = 1;
    });
    let say = |text: &str| logger.write(Level::Warn, Stream::Stderr, "", text);
    assert_eq!(logger.last_words(), "");
    say("a warning of the call before");
    counters.calls.fetch_add(1, Ordering::Relaxed);
    logger.write(Level::Info, Stream::Stdout, "", "all is well");
    say("");
    say("thread '<unnamed>' (1) panicked at src/lib.rs:3:5:");
    say("no reading");
    say("in this message");
    say("note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace");
    counters.calls.fetch_add(1, Ordering::Relaxed);
    assert_eq!(
        logger.last_words(),
        "thread '<unnamed>' (1) panicked at src/lib.rs:3:5: no reading in this message"
    );
    counters.calls.fetch_add(1, Ordering::Relaxed);
    assert_eq!(logger.last_words(), "");
    logger.begin_instance();
    for index in 0..5 {
        say(&format!("line {index}"));
    }
    assert_eq!(logger.last_words(), "line 2 line 3 line 4");
    say(&"x".repeat(10_000));
    assert!(logger.last_words().len() <= LAST_LINE_BYTES_MAX + '…'.len_utf8());
    assert_eq!(taken(&logs), Vec::<String>::new());
}

#[test]
fn what_the_agent_says_of_single_messages_keeps_to_the_rates_whatever_the_level() {
    let (logger, logs, _) = logger(|spec| {
        spec.log_level = Level::Critical;
        spec.limits.log_lines_per_second = 2;
    });
    logger.about_message(Level::Warn, "message 0");
    logger.about_message(Level::Warn, "message 1");
    logger.follow(&spec(|spec| spec.limits.log_lines_per_second = 0));
    for number in 2..5 {
        logger.about_message(Level::Warn, &format!("message {number}"));
    }
    logger.agent(Level::Warn, "always");
    assert_eq!(taken(&logs), ["message 0", "message 1", "always"]);
    assert_eq!(logger.dropped(), 3);
}

#[test]
fn the_last_lines_are_those_of_one_instance_and_bounded() {
    let (logger, _, _) = logger(|_| {});
    for index in 0..15 {
        logger.write(Level::Info, Stream::Log, "", &format!("line {index}"));
    }
    logger.agent(Level::Error, "the agent's own words");
    let last = logger.last_lines();
    assert_eq!(last.len(), LAST_LINES_MAX);
    assert_eq!((last[0].as_str(), last[9].as_str()), ("line 5", "line 14"));
    logger.begin_instance();
    logger.write(Level::Info, Stream::Stdout, "", &"x".repeat(100_000));
    let last = logger.last_lines();
    assert_eq!(last.len(), 1);
    assert!(last[0].len() < LAST_LINE_BYTES_MAX + 4, "{}", last[0].len());
}
