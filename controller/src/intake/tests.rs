//! What is believed of reports, and which events they become.

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::Digest;
use haar_protocol::keys::SecretKey;
use haar_protocol::limits::Budget;
use haar_protocol::log::{Level, Stream};
use haar_protocol::quantity::ByteSize;
use haar_protocol::status::{
    BacklogStatus, FailureCause, FailureReport, FlashStatus, MicroserviceStatus, Overflow,
    RefusedAssignment, State, StoreDamage, StoreStatus,
};

mod numbers;
mod routes;
mod starts;

use super::*;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn status(sequence: u64, started_ms: u64) -> Status {
    Status {
        site: SiteId::of(&key(1).public()),
        node: NodeId::of(&key(2).public()),
        sequence,
        sent_ms: 5_000,
        started_ms,
        uptime_ms: None,
        interval_ms: None,
        link_key: None,
        link_key_generation: 0,
        start: None,
        agent_version: "0.1.0".into(),
        target: "t".into(),
        engine: None,
        applied: 1,
        refused: None,
        budget: Budget::new(ByteSize(1), 1),
        memory_source: None,
        policy: None,
        resident_bytes: 1,
        flash: None,
        store: None,
        microservices: Vec::new(),
        routes: Vec::new(),
        backlogs: Vec::new(),
        discarded: Default::default(),
        frames_refused: 0,
        relays: Vec::new(),
        brokers: Vec::new(),
        device_messages_dropped: 0,
        device_properties_dropped: 0,
        serves: Vec::new(),
        omitted: None,
    }
}

fn microservice(state: State, restarts: u64) -> MicroserviceStatus {
    MicroserviceStatus {
        name: MicroserviceName {
            application: "app".parse().unwrap(),
            microservice: "one".parse().unwrap(),
        },
        module: Digest::of(b""),
        module_label: "one@1".into(),
        state,
        reason: Some("because".into()),
        since_ms: 0,
        restarts,
        counted_after_s: 0,
        discarded: 0,
        hibernations: 0,
        calls: 0,
        failures: 0,
        fuel: 0,
        memory_bytes: 0,
        log_lines_dropped: 0,
        cpu_ms: 0,
        inbox_messages: 0,
        key_value_bytes: 0,
        files_bytes: 0,
        dead_letters: 0,
        exceeded: Default::default(),
        last_failure: None,
        refused_module: None,
        configuring: false,
    }
}

fn take(last: Option<&StatusRow>, status: Status) -> Option<Accepted> {
    accept(last, status, &"gw".parse().unwrap(), false, 4_000)
}

#[test]
fn a_gap_is_counted_and_an_older_status_ignored() {
    let first = take(None, status(5, 100)).unwrap().row;
    assert_eq!((first.missed, first.clock_skew_ms), (0, Some(1_000)));
    let later = take(Some(&first), status(9, 100)).unwrap().row;
    assert_eq!(later.missed, 3);
    assert!(take(Some(&later), status(9, 100)).is_none());
    assert!(take(Some(&later), status(8, 50)).is_none());
    let restarted = take(Some(&later), status(1, 200)).unwrap().row;
    assert_eq!((restarted.status.sequence, restarted.missed), (1, 3));
}

#[test]
fn a_retained_status_tells_nothing_about_the_clock() {
    let row = accept(None, status(1, 1), &"gw".parse().unwrap(), true, 4_000)
        .unwrap()
        .row;
    assert_eq!(row.clock_skew_ms, None);
}

#[test]
fn a_status_counts_only_with_its_node_its_site_and_its_key() {
    let (site, node) = (SiteId::of(&key(1).public()), NodeId::of(&key(2).public()));
    let sealed = signed::seal(&status(1, 1), &key(2)).unwrap();
    assert!(open_status(&sealed, &site, &node, &key(2).public()).is_ok());
    assert!(open_status(&sealed, &site, &node, &key(3).public()).is_err());
    let other = NodeId::of(&key(3).public());
    assert!(
        open_status(&sealed, &site, &other, &key(2).public())
            .unwrap_err()
            .contains("another node")
    );
    assert!(open_status(&sealed[..80], &site, &node, &key(2).public()).is_err());
    assert!(open_status(b"", &site, &node, &key(2).public()).is_err());
}

#[test]
fn changes_of_state_become_events_once() {
    let kinds = |last: Option<&StatusRow>, state, restarts| {
        let mut next = status(last.map_or(1, |last| last.status.sequence + 1), 1);
        next.microservices = vec![microservice(state, restarts)];
        let accepted = take(last, next).unwrap();
        let kinds: Vec<&str> = accepted.events.iter().map(|event| event.kind).collect();
        (accepted.row, kinds)
    };
    let (row, events) = kinds(None, State::Running, 0);
    assert_eq!(events, ["microservice_running"]);
    for state in [State::Running, State::Hibernating, State::Running] {
        let (_, events) = kinds(Some(&row), state, 0);
        assert!(events.is_empty());
    }
    let (row, events) = kinds(Some(&row), State::BackOff, 0);
    assert_eq!(events, ["microservice_back_off"]);
    let (row, events) = kinds(Some(&row), State::Running, 1);
    assert_eq!(events, ["microservice_running"]);
    let (row, events) = kinds(Some(&row), State::Running, 2);
    assert_eq!(events, ["microservice_restarted"]);
    let (_, events) = kinds(Some(&row), State::Refused, 2);
    assert_eq!(events, ["microservice_refused"]);
}

#[test]
fn a_refused_change_becomes_an_event_once_while_what_ran_before_goes_on() {
    // Another module, or other values of the configuration of the same one.
    for refused in [Digest::of(b"the next one"), Digest::of(b"")] {
        let mut running = microservice(State::Running, 0);
        let mut next = status(1, 1);
        next.microservices = vec![running.clone()];
        let mut last = take(None, next).unwrap().row;
        running.refused_module = Some(refused);
        running.reason = Some("no policy allows that".into());
        for (sequence, expected) in [(2, &["microservice_refused"][..]), (3, &[])] {
            let mut next = status(sequence, 1);
            next.microservices = vec![running.clone()];
            let accepted = take(Some(&last), next).unwrap();
            let kinds: Vec<&str> = accepted.events.iter().map(|event| event.kind).collect();
            assert_eq!(kinds, expected);
            last = accepted.row;
        }
    }
}

#[test]
fn a_failure_with_a_new_cause_becomes_an_event() {
    let failed = |cause, time_ms| {
        let mut one = microservice(State::Running, 0);
        one.last_failure = Some(FailureReport {
            time_ms,
            cause,
            details: "100 units\u{1b}\nmore".into(),
            backtrace: Vec::new(),
            last_lines: Vec::new(),
        });
        one
    };
    let events = |last: Option<&StatusRow>, one: MicroserviceStatus| {
        let mut next = status(last.map_or(1, |last| last.status.sequence + 1), 1);
        next.microservices = vec![one];
        let accepted = take(last, next).unwrap();
        let told = accepted.events.into_iter();
        let failures: Vec<Told> = told
            .filter(|event| event.kind == "microservice_failed")
            .collect();
        (accepted.row, failures)
    };
    let (row, told) = events(None, microservice(State::Running, 0));
    assert!(told.is_empty());
    let (row, told) = events(Some(&row), failed(FailureCause::Fuel, 1));
    assert_eq!(told[0].message, "failed on `gw`: out of fuel: 100 units");
    let (row, told) = events(Some(&row), failed(FailureCause::Fuel, 2));
    assert!(told.is_empty(), "the same cause again");
    let (_, told) = events(Some(&row), failed(FailureCause::Memory, 3));
    assert_eq!(told.len(), 1);
}

#[test]
fn a_log_that_becomes_full_is_told_once_until_there_was_room() {
    let backlog = |refused, dropped| BacklogStatus {
        name: microservice(State::Running, 0).name,
        outlet: "out".parse().unwrap(),
        bytes: 0,
        bytes_max: 16 << 10,
        refused,
        dropped,
    };
    let episodes = |episodes, messages| Overflow { episodes, messages };
    let events = |last: Option<&StatusRow>, started_ms, refused, dropped| {
        let mut next = status(last.map_or(1, |last| last.status.sequence + 1), started_ms);
        next.backlogs = vec![backlog(refused, dropped)];
        let accepted = take(last, next).unwrap();
        (accepted.row, accepted.events)
    };
    let none = Overflow::default();
    let (row, told) = events(None, 1, none, none);
    assert_eq!(told, []);
    let (row, told) = events(Some(&row), 1, episodes(1, 10), none);
    assert_eq!(
        (told[0].kind, told[0].subject.as_str()),
        ("backlog_full", "app/one")
    );
    assert_eq!(
        told[0].message,
        "the backlog of outlet `out` on `gw` is full (16KiB): what it publishes is refused"
    );
    let (row, told) = events(Some(&row), 1, episodes(1, 9_000), none);
    assert_eq!(told, [], "still full");
    let (row, told) = events(Some(&row), 1, episodes(2, 9_001), episodes(1, 5));
    let kinds: Vec<&str> = told.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["backlog_full", "backlog_dropped"]);
    let (row, told) = events(Some(&row), 2, episodes(2, 7), none);
    assert_eq!(told[0].kind, "backlog_full", "another agent counts anew");
    let (_, told) = events(Some(&row), 2, episodes(1, 1), none);
    assert_eq!(told[0].kind, "backlog_full", "another log counts anew");
}

#[test]
fn log_batches_are_bounded() {
    let line = |text: String| LogLine {
        name: microservice(State::Running, 0).name,
        sequence: 1,
        time_ms: 1,
        level: Level::Info,
        stream: Stream::Log,
        context: String::new(),
        text,
        gap: None,
    };
    let encode = |lines| serde_json::to_vec(&LogBatch { version: 1, lines }).unwrap();
    let lines = open_logs(&encode(vec![line("é".repeat(LINE_BYTES_MAX))])).unwrap();
    assert!(lines[0].text.len() <= LINE_BYTES_MAX + 3);
    assert!(open_logs(&encode(vec![line(String::new()); BATCH_LINES_MAX + 1])).is_err());
    assert!(open_logs(b"{}").is_err());
}

#[test]
fn what_a_restarted_relay_kept_does_not_make_a_node_online() {
    assert_eq!(open_alive(b"online", true, true), None);
    assert_eq!(open_alive(b"online", true, false), Some(true));
    assert_eq!(open_alive(b"online", false, true), Some(true));
    assert_eq!(open_alive(b"offline", true, true), Some(false));
    assert_eq!(open_alive(b"whatever", false, false), None);
}

#[test]
fn a_database_that_was_damaged_or_can_not_be_used_becomes_one_event_each() {
    let damage = |found_ms| StoreDamage {
        found_ms,
        reason: "database disk image is malformed\nand more".into(),
        missing: vec!["pairs".into(), "messages".into()],
        messages: 12,
        messages_missing: 3,
    };
    let full = || Some("database or disk is full".to_owned());
    let steps = [
        (None, None),
        (None, Some(damage(1))),
        (full(), Some(damage(1))),
        (Some("the disk is read-only".into()), Some(damage(1))),
        (None, Some(damage(1))),
        (None, Some(damage(2))),
    ];
    let (mut last, mut told) = (None::<StatusRow>, Vec::new());
    for (started_ms, (problem, damage)) in (1..).zip(steps) {
        let mut next = status(started_ms, started_ms);
        next.store = Some(StoreStatus {
            problem,
            damage,
            ..StoreStatus::default()
        });
        let accepted = accept(last.as_ref(), next, &"one".parse().unwrap(), false, 1).unwrap();
        told.extend(accepted.events);
        last = Some(accepted.row);
    }
    let kinds: Vec<_> = told.iter().map(|told| told.kind).collect();
    assert_eq!(
        kinds,
        [
            "store_damaged",
            "store_unusable",
            "store_usable",
            "store_damaged"
        ]
    );
    assert_eq!(
        told[0].message,
        "the database of node `one` was damaged: database disk image is malformed; not all could be copied of its pairs, messages; of the messages that waited on durable routes 12 are there, at least 3 are lost"
    );
    assert_eq!(
        told[1].message,
        "node `one` can't use its database: database or disk is full"
    );
}

#[test]
fn a_day_that_wears_the_flash_too_much_becomes_one_event() {
    let written = |today_bytes| FlashStatus {
        written_bytes: today_bytes,
        today_bytes,
        budget_bytes: Some(1_000),
    };
    let events = |last: Option<&StatusRow>, today_bytes| {
        let mut next = status(last.map_or(1, |last| last.status.sequence + 1), 1);
        next.flash = Some(written(today_bytes));
        let accepted = take(last, next).unwrap();
        let kinds: Vec<&str> = accepted.events.iter().map(|event| event.kind).collect();
        (accepted.row, kinds)
    };
    let (row, told) = events(None, 1_000);
    assert!(told.is_empty());
    let (row, told) = events(Some(&row), 1_001);
    assert_eq!(told, ["flash_budget_exceeded"]);
    assert!(events(Some(&row), 2_000).1.is_empty());
}
