//! Topics, and that a node can neither say nor hear anything that is not its own.

use haar_protocol::topics::{
    Topic, node_may_publish, node_may_subscribe, node_subscriptions, site_may_publish,
    site_may_subscribe, site_subscriptions,
};
use proptest::prelude::*;

use crate::fixtures::{node, site};
use crate::golden;

fn all_topics() -> Vec<Topic> {
    let mut topics = Vec::new();
    for seed in [2, 3] {
        topics.extend([
            Topic::Assignment(node(seed)),
            Topic::Request(node(seed)),
            Topic::Status(node(seed)),
            Topic::Alive(node(seed)),
            Topic::Log(node(seed)),
            Topic::Response(node(seed)),
            Topic::Link {
                from: node(seed),
                to: node(5 - seed),
            },
        ]);
    }
    topics
}

/// Whether `filter` selects `topic` (MQTT 5.0 section 4.7), share prefixes taken off.
fn selects(filter: &str, topic: &str) -> bool {
    let filter = match filter.strip_prefix("$share/") {
        Some(rest) => rest.split_once('/').map_or("", |(_, filter)| filter),
        None => filter,
    };
    let (mut filters, mut levels) = (filter.split('/'), topic.split('/'));
    loop {
        match (filters.next(), levels.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) | (None, None) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
        if filters.clone().next().is_none() && levels.clone().next().is_none() {
            return true;
        }
    }
}

/// Texts like topics and filters: right parts, wrong parts, wildcards, in any number and order.
fn topic_like() -> impl Strategy<Value = String> {
    let known = |text: String| Just(text).boxed();
    let level = prop_oneof![
        4 => known("haar".into()),
        4 => known(site().to_string()),
        4 => known(node(2).to_string()),
        2 => known(node(3).to_string()),
        4 => prop::sample::select(vec!["up", "in", "ctl", "link", "status", "assignment", "request", "alive", "log", "response"]).prop_map(String::from),
        4 => prop::sample::select(vec!["+", "#", "", "\0", "$share", "$queue", "g", "+a", "a#", "##", "*", "..", "HAAR"]).prop_map(String::from),
        1 => "\\PC{0,5}",
    ];
    let free = prop::collection::vec(level.clone(), 0..8).prop_map(|levels| levels.join("/"));
    let tail = prop::collection::vec(level, 0..4).prop_map(|levels| levels.join("/"));
    let near = (
        prop::sample::select(vec!["", "$share/g/", "/", " "]),
        prop::sample::select(vec![2u8, 3]),
        tail,
    )
        .prop_map(|(before, seed, tail)| format!("{before}haar/{}/{}/{tail}", site(), node(seed)));
    prop_oneof![free, near]
}

#[test]
fn topics_keep_their_form_and_rights() {
    let mut text = String::new();
    for topic in all_topics() {
        let topic = topic.text(&site());
        text += &format!(
            "{topic} node-publishes={} site-publishes={}\n",
            node_may_publish(&site(), &node(2), &topic),
            site_may_publish(&site(), &topic)
        );
    }
    for filter in node_subscriptions(&site(), &node(2)) {
        text += &format!("node subscribes to {filter}\n");
    }
    for filter in site_subscriptions(&site()) {
        text += &format!("site subscribes to {filter}\n");
    }
    golden::check("topics.txt", &text);
}

#[test]
fn every_topic_reads_back_as_it_is_written_and_in_its_site_only() {
    let other = haar_protocol::ids::SiteId::of(&crate::fixtures::key(9).public());
    for topic in all_topics() {
        let text = topic.text(&site());
        assert_eq!(Topic::parse(&site(), &text), Some(topic));
        assert_eq!(Topic::parse(&other, &text), None);
    }
}

#[test]
fn the_subscriptions_that_processes_make_are_allowed_to_them_and_to_nobody_else() {
    for filter in node_subscriptions(&site(), &node(2)) {
        assert!(node_may_subscribe(&site(), &node(2), &filter));
        assert!(!node_may_subscribe(&site(), &node(3), &filter));
        assert!(!site_may_subscribe(&site(), &filter));
    }
    for filter in site_subscriptions(&site()) {
        assert!(site_may_subscribe(&site(), &filter));
        assert!(!node_may_subscribe(&site(), &node(2), &filter));
    }
}

#[test]
fn wider_or_malformed_filters_are_refused() {
    let (site, node, other) = (site(), node(2), node(3));
    for filter in [
        "#".to_owned(),
        "+/#".to_owned(),
        "haar/#".to_owned(),
        format!("haar/{site}/#"),
        format!("haar/{site}/+/ctl/#"),
        format!("haar/{site}/{node}/#"),
        format!("haar/{site}/{node}/+/#"),
        format!("haar/{site}/{node}/up/#"),
        format!("haar/{site}/{node}/ctl"),
        format!("haar/{site}/{node}/ctl/"),
        format!("haar/{site}/{node}/ctl#"),
        format!("haar/{site}/{node}/in/#/link"),
        format!("haar/{site}/{node}/in/a+"),
        format!("haar/{site}/{node}/in/\0"),
        format!("haar/{site}/{other}/in/#"),
        format!("$share/g/haar/{site}/{node}/in/#"),
        format!("/haar/{site}/{node}/in/#"),
    ] {
        assert!(!node_may_subscribe(&site, &node, &filter), "{filter:?}");
    }
    for filter in [
        "#".to_owned(),
        format!("haar/{site}/#"),
        format!("haar/{site}/+/#"),
        format!("haar/{site}/{node}/in/#"),
    ] {
        assert!(!site_may_subscribe(&site, &filter), "{filter:?}");
    }
}

proptest! {
    #[test]
    fn a_node_publishes_below_its_own_up_and_into_others_in_under_its_own_name(topic in topic_like()) {
        let (site, node) = (site(), node(2));
        if node_may_publish(&site, &node, &topic) {
            let own = [format!("haar/{site}/{node}/up/#"), format!("haar/{site}/+/in/{node}/#")];
            prop_assert!(own.iter().any(|filter| selects(filter, &topic)), "{topic:?}");
            prop_assert!(!topic.contains(['+', '#', '\0']));
        }
        if site_may_publish(&site, &topic) {
            let site_filter = format!("haar/{site}/+/ctl/#");
            prop_assert!(selects(&site_filter, &topic));
        }
    }

    #[test]
    fn a_node_hears_what_is_below_its_own_ctl_and_in_and_nothing_else(filter in topic_like(), topic in topic_like()) {
        let (site, node) = (site(), node(2));
        if node_may_subscribe(&site, &node, &filter) {
            let own = node_subscriptions(&site, &node);
            let mut topics: Vec<String> = all_topics().iter().map(|topic| topic.text(&site)).collect();
            topics.push(topic);
            for topic in topics.iter().filter(|topic| selects(&filter, topic)) {
                prop_assert!(own.iter().any(|own| selects(own, topic)), "{filter:?} selects {topic:?}");
            }
        }
    }

    #[test]
    fn whatever_parses_as_a_topic_is_written_as_it_was_read(text in topic_like()) {
        if let Some(topic) = Topic::parse(&site(), &text) {
            prop_assert_eq!(topic.text(&site()), text);
        }
    }
}
