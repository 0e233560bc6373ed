//! Server-sent events.

use std::io::BufRead;

use haar_protocol::rest::{Event, List};

use crate::support::device::Device;
use crate::support::site::{TestSite, publisher};

/// The data of the next event.
fn next(stream: &mut impl BufRead) -> serde_json::Value {
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream ended");
        if let Some(data) = line.trim_end().strip_prefix("data:") {
            return serde_json::from_str(data.trim_start()).unwrap();
        }
    }
}

#[test]
fn followers_get_the_newest_events_first_and_then_each_new_one() {
    let site = TestSite::start();
    Device::join(&site, 1, "gw-1", &[]);
    site.trust("acme", &publisher());
    let mut stream = site.client.stream("/events?follow=true&tail=1");
    assert_eq!(next(&mut stream)["kind"], "publisher_trusted");
    Device::join(&site, 2, "gw-2", &[]);
    let event = next(&mut stream);
    assert_eq!(
        (event["kind"].as_str(), event["subject"].as_str()),
        (Some("node_enrolled"), Some("gw-2"))
    );
}

#[test]
fn events_since_a_time_are_all_there_are() {
    let site = TestSite::start();
    Device::join(&site, 1, "gw-1", &[]);
    site.trust("acme", &publisher());
    let of = |query: &str| -> List<Event> { site.client.get(&format!("/events?{query}")).ok() };
    let events = of("").items;
    let newest = events.last().unwrap();
    let since = of(&format!("since_ms={}", newest.time_ms)).items;
    assert_eq!(since.last(), Some(newest));
    assert!(since.iter().all(|event| event.time_ms >= newest.time_ms));
    assert_eq!(of("since_ms=0").items, events);
    assert_eq!(of("since_ms=0&tail=1").items, std::slice::from_ref(newest));
    assert!(
        of(&format!("since_ms={}", newest.time_ms + 1))
            .items
            .is_empty()
    );
}

#[test]
fn a_stop_ends_what_is_followed() {
    let mut site = TestSite::start();
    let mut events = site.client.stream("/events?follow=true&tail=0");
    let mut logs = site.client.stream("/logs?follow=true");
    site.stop();
    for stream in [&mut events as &mut dyn BufRead, &mut logs] {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(!rest.contains("data:"), "{rest}");
    }
}
