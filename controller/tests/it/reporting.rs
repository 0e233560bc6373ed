//! What nodes report: statuses, presence, log lines.

use std::io::BufRead as _;

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::Digest;
use haar_protocol::keys::SecretKey;
use haar_protocol::log::{GapCause, Level, LogBatch, LogGap, LogLine, Stream};
use haar_protocol::rest::{List, LogEntry, NodeDetail};
use haar_protocol::status::{MicroserviceStatus, RefusedAssignment, State};
use haar_protocol::topics::Topic;
use haar_relay::Outgoing;

use crate::support::device::{Device, now_ms};
use crate::support::modules::recipe;
use crate::support::site::TestSite;
use crate::support::wait::until;

fn name(microservice: &str) -> MicroserviceName {
    MicroserviceName {
        application: "app".parse().unwrap(),
        microservice: microservice.parse().unwrap(),
    }
}

fn microservice(of: &str, state: State, reason: Option<&str>) -> MicroserviceStatus {
    MicroserviceStatus {
        name: name(of),
        module: Digest::of(b"m"),
        module_label: "m@1".into(),
        state,
        reason: reason.map(str::to_owned),
        since_ms: 1,
        restarts: 0,
        counted_after_s: 0,
        discarded: 0,
        hibernations: 0,
        calls: 2,
        failures: 0,
        fuel: 3,
        memory_bytes: 4,
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

fn line(sequence: u64, text: &str) -> LogLine {
    LogLine {
        name: name("one"),
        sequence,
        time_ms: 1_000 + sequence,
        level: Level::Info,
        stream: Stream::Stdout,
        context: String::new(),
        text: text.into(),
        gap: None,
    }
}

fn log(device: &Device, lines: Vec<LogLine>) -> Outgoing {
    Outgoing {
        topic: Topic::Log(device.id.clone()).text(&device.site),
        payload: serde_json::to_vec(&LogBatch { version: 1, lines })
            .unwrap()
            .into(),
        at_least_once: true,
        retain: false,
    }
}

fn detail(site: &TestSite) -> NodeDetail {
    site.client.get("/nodes/gw").ok()
}

#[test]
fn a_status_is_shown_beside_what_should_be() {
    let site = TestSite::with_publisher();
    site.push(&recipe("sampler", "1.0.0"));
    let device = Device::join(&site, 1, "gw", &[]);
    site.apply("app", "api_version: haar/v1\nkind: Application\nname: app\nmicroservices:\n- {name: one, module: sampler@1.0.0, place: {node: gw}}\n");
    let link = device.connect(&site);
    link.publish(device.alive("online"));
    let status = device.status(
        3,
        2,
        vec![
            microservice("one", State::Running, None),
            microservice("gone", State::Stopping, None),
        ],
    );
    link.publish(device.sealed(&status, &device.key));
    let node = until("the status is there", || {
        Some(detail(&site)).filter(|node| node.status_sequence == Some(3))
    });
    assert!(node.node.online && node.node.last_seen_ms.is_some());
    assert_eq!(
        (
            node.node.applied,
            node.node.resident_bytes,
            node.microservices.len()
        ),
        (2, Some(9_000_000), 2)
    );
    assert!(node.node.clock_skew_ms.unwrap().abs() < 20_000);
    assert_eq!(node.node.agent_version, "0.1.1");
    let shown = site.client.get("/microservices?application=app").json();
    let wanted: Vec<(&str, bool)> = shown["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            (
                item["microservice"].as_str().unwrap(),
                item["wanted"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(wanted, [("gone", false), ("one", true)]);
    // It runs another module than it should.
    let app = site.client.get("/applications/app").json();
    assert_eq!(app["running"], 0);
    assert_eq!(app["health"]["cause"], "other-module");
}

#[test]
fn changes_in_a_status_are_events() {
    let site = TestSite::start();
    let device = Device::join(&site, 1, "gw", &[]);
    let link = device.connect(&site);
    link.publish(device.alive("online"));
    let running = vec![microservice("one", State::Running, None)];
    link.publish(device.sealed(&device.status(3, 1, running), &device.key));
    let mut next = device.status(
        6,
        2,
        vec![microservice(
            "one",
            State::BackOff,
            Some("trap: unreachable"),
        )],
    );
    next.refused = Some(RefusedAssignment {
        number: Some(9),
        reason: "over the budget".into(),
    });
    link.publish(device.sealed(&next, &device.key));
    let node = until("the next status is there", || {
        Some(detail(&site)).filter(|node| node.status_sequence == Some(6))
    });
    assert_eq!(node.statuses_missed, 2);
    assert_eq!(node.node.refused.unwrap().reason, "over the budget");
    let events = site.client.get("/events").json().to_string();
    for expected in [
        "microservice_running",
        "microservice_back_off",
        "trap: unreachable",
        "assignment_refused",
        "node_online",
    ] {
        assert!(events.contains(expected), "{expected} in {events}");
    }
    link.publish(device.alive("offline"));
    until("the node is offline", || {
        (!detail(&site).node.online).then_some(())
    });
}

#[test]
fn a_status_that_the_node_has_not_signed_counts_for_nothing() {
    let site = TestSite::start();
    let device = Device::join(&site, 1, "gw", &[]);
    let link = device.connect(&site);
    link.publish(device.sealed(
        &device.status(50, 9, Vec::new()),
        &SecretKey::from_seed([9; 32]),
    ));
    let topic = Topic::Status(device.id.clone()).text(&device.site);
    for payload in [&b""[..], b"HAAR", &[0xff; 5000]] {
        link.publish(Outgoing {
            topic: topic.clone(),
            payload: payload.to_vec().into(),
            at_least_once: true,
            retain: false,
        });
    }
    link.publish(device.sealed(&device.status(2, 1, Vec::new()), &device.key));
    link.publish(device.sealed(&device.status(1, 1, Vec::new()), &device.key));
    link.publish(device.sealed(&device.status(4, 1, Vec::new()), &device.key));
    let node = until("the good ones are there", || {
        Some(detail(&site)).filter(|node| node.status_sequence == Some(4))
    });
    assert_eq!(node.statuses_missed, 1);
}

#[test]
fn a_smaller_budget_of_a_restarted_agent_is_kept_to() {
    let site = TestSite::with_publisher();
    site.push(&recipe("sampler", "1.0.0"));
    let device = Device::join(&site, 1, "gw", &[]);
    site.apply("app", "api_version: haar/v1\nkind: Application\nname: app\nmicroservices:\n- {name: one, module: sampler@1.0.0, place: {node: gw}}\n");
    let mut link = device.connect(&site);
    link.assignment(|assignment| assignment.microservices.len() == 1);
    let mut status = device.status(1, 2, Vec::new());
    status.budget.microservices = 0;
    link.publish(device.sealed(&status, &device.key));
    link.assignment(|assignment| assignment.microservices.is_empty());
    assert!(
        site.event_kinds()
            .contains(&"microservice_unplaced".to_owned())
    );
}

#[test]
fn a_node_that_has_seen_a_higher_number_gets_a_higher_one() {
    let site = TestSite::start();
    let device = Device::join(&site, 1, "gw", &[]);
    let mut link = device.connect(&site);
    link.assignment(|assignment| assignment.number == 1);
    link.publish(device.sealed(&device.status(1, 41, Vec::new()), &device.key));
    link.assignment(|assignment| assignment.number == 42);
}

/// A site with `app/one` on `gw`: only such lines are taken.
fn logging_site() -> (TestSite, Device) {
    let site = TestSite::with_publisher();
    site.push(&recipe("sampler", "1.0.0"));
    let device = Device::join(&site, 1, "gw", &[]);
    site.apply("app", "api_version: haar/v1\nkind: Application\nname: app\nmicroservices:\n- {name: one, module: sampler@1.0.0, place: {node: gw}}\n");
    (site, device)
}

#[test]
fn log_lines_are_kept_once_and_filtered() {
    let (site, device) = logging_site();
    let link = device.connect(&site);
    let lines: Vec<LogLine> = (1..=5)
        .map(|sequence| line(sequence, &format!("line {sequence}")))
        .collect();
    link.publish(log(&device, lines.clone()));
    link.publish(log(&device, lines));
    link.publish(log(&device, vec![line(6, "last")]));
    let entries = |query: &str| {
        site.client
            .get(&format!("/logs?{query}"))
            .ok::<List<LogEntry>>()
            .items
    };
    until("the last line is there", || {
        entries("tail=1")
            .first()
            .filter(|entry| entry.line.text == "last")
            .map(|_| ())
    });
    let texts: Vec<String> = entries("application=app&node=gw")
        .into_iter()
        .map(|entry| entry.line.text)
        .collect();
    assert_eq!(
        texts,
        ["line 1", "line 2", "line 3", "line 4", "line 5", "last"]
    );
    assert_eq!(entries("tail=2").len(), 2);
    assert_eq!(entries("since_ms=1005").len(), 2);
    assert_eq!(entries("since_ms=1005&tail=1").len(), 1);
    assert_eq!(entries("since_ms=1007").len(), 0);
    site.client
        .get("/logs?microservice=two")
        .refused(404, "unknown_microservice");
    site.client
        .get("/logs?node=other")
        .refused(404, "unknown_node");
    site.client.get("/logs?tail=many").refused(400, "bad_query");
    site.client
        .get("/logs?application=NO")
        .refused(400, "bad_query");
    assert!(now_ms() > 0);
}

#[test]
fn lines_that_did_not_arrive_are_told_in_their_place_and_so_is_a_restart() {
    let (site, device) = logging_site();
    let link = device.connect(&site);
    link.publish(log(&device, vec![line(1, "one"), line(2, "two")]));
    link.publish(log(&device, vec![line(40, "forty")]));
    link.publish(log(&device, vec![line(1, "one"), line(2, "two")])); // repeated
    let mut restarted = line(1, "one again");
    restarted.time_ms = 9_000;
    link.publish(log(&device, vec![restarted]));
    let entries = until("the last line is there", || {
        let entries = site.client.get("/logs").ok::<List<LogEntry>>().items;
        let is_last = |entry: &LogEntry| entry.line.text == "one again";
        entries.last().is_some_and(is_last).then_some(entries)
    });
    let lines: Vec<_> = entries
        .iter()
        .map(|entry| (entry.line.text.as_str(), entry.line.gap))
        .collect();
    let gap = |lines, cause| Some(LogGap { lines, cause });
    let expected = [
        ("one", None),
        ("two", None),
        (
            "lines are missing here, 37 of all microservices of this node: they did not arrive",
            gap(Some(37), GapCause::Transport),
        ),
        ("forty", None),
        (
            "the agent has started again: lines that it had not sent are lost",
            gap(None, GapCause::Restart),
        ),
        ("one again", None),
    ];
    assert_eq!(lines, expected);
    let events = site.event_kinds();
    assert!(!events.contains(&"log_refused".to_owned()), "{events:?}");
}

#[test]
fn a_follower_goes_on_behind_the_line_that_it_got_last() {
    let (site, device) = logging_site();
    let link = device.connect(&site);
    link.publish(log(&device, vec![line(1, "one"), line(2, "two")]));
    until("both lines are there", || {
        let stored = site.client.get("/logs?application=app");
        (stored.ok::<List<LogEntry>>().items.len() == 2).then_some(())
    });
    let path = "/logs?application=app&follow=true";
    let mut stream = site.client.stream(path).lines().map(Result::unwrap);
    let first = stream.find(|line| line.starts_with("id:")).unwrap();
    let last = first.trim_start_matches("id:").trim();
    link.publish(log(&device, vec![line(3, "three")]));
    let mut stream = site.client.stream_after(path, Some(last)).lines();
    let mut next = || {
        let mut lines = stream.by_ref().map(Result::unwrap);
        lines.find(|line| line.starts_with("data:")).unwrap()
    };
    for text in ["two", "three"] {
        let data = next();
        assert!(data.contains(&format!("\"text\":\"{text}\"")), "{data}");
    }
}

#[test]
fn only_the_newest_lines_of_a_microservice_are_kept() {
    let (site, device) = logging_site();
    let link = device.connect(&site);
    for batch in 0..3u64 {
        let lines = (1..=900)
            .map(|index| line(batch * 900 + index, "x"))
            .collect();
        link.publish(log(&device, lines));
    }
    let entries = until("all batches are there", || {
        let entries = site
            .client
            .get("/logs?tail=10000")
            .ok::<List<LogEntry>>()
            .items;
        entries
            .last()
            .is_some_and(|entry| entry.line.sequence == 2_700)
            .then_some(entries)
    });
    assert_eq!((entries.len(), entries[0].line.sequence), (2_000, 701));
}

#[test]
fn lines_of_a_microservice_that_was_never_assigned_are_not_taken() {
    let (site, device) = logging_site();
    let link = device.connect(&site);
    let mut invented = line(1, "invented");
    invented.name = name("other");
    link.publish(log(&device, vec![invented.clone(), line(2, "own")]));
    link.publish(log(&device, vec![invented]));
    let lines = || {
        let entries = site.client.get("/logs").ok::<List<LogEntry>>().items;
        let texts = entries.into_iter().map(|entry| entry.line.text);
        texts.collect::<Vec<_>>()
    };
    until("the node's own line is there", || {
        (lines() == ["own"]).then_some(())
    });
    site.client.delete("/applications/app").done();
    link.publish(log(&device, vec![line(3, "last words")]));
    until("the last words are there", || {
        (lines() == ["own", "last words"]).then_some(())
    });
    let refused = site.event_kinds().into_iter();
    assert_eq!(refused.filter(|kind| kind == "log_refused").count(), 1);
}
