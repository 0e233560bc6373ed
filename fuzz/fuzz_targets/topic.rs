//! Any text is a topic that is written as it was read, or none; a node that may subscribe to a
//! filter hears nothing but its own.
#![no_main]

use haar_protocol::ids::{NodeId, SiteId};
use haar_protocol::keys::SecretKey;
use haar_protocol::topics::{
    Topic, node_may_publish, node_may_subscribe, site_may_publish, site_may_subscribe,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|tail: &str| {
    let key = SecretKey::from_seed([7; 32]).public();
    let (site, node) = (SiteId::of(&key), NodeId::of(&key));
    for text in [
        tail.to_owned(),
        format!("haar/{site}/{tail}"),
        format!("haar/{site}/{node}/{tail}"),
    ] {
        if let Some(topic) = Topic::parse(&site, &text) {
            assert_eq!(topic.text(&site), text);
        }
        assert!(!node_may_publish(&site, &node, &text) || !text.contains(['+', '#', '\0']));
        assert!(!node_may_publish(&site, &node, &text) || !site_may_publish(&site, &text));
        let own = [
            format!("haar/{site}/{node}/ctl/"),
            format!("haar/{site}/{node}/in/"),
        ];
        assert!(
            !node_may_subscribe(&site, &node, &text) || own.iter().any(|own| text.starts_with(own))
        );
        assert!(!node_may_subscribe(&site, &node, &text) || !site_may_subscribe(&site, &text));
    }
});
