//! What a log of durable routes does at its bounds: it is full, its messages are too old, or it
//! could not be opened.

use haar_conformance_artifacts as artifacts;
use haar_host::bus::durable::{Refused, publish};
use haar_host::bus::registry::Registry;
use haar_host::bus::{Bus, PortCache};
use haar_host::store::Store;
use haar_protocol::limits::{Backlog, WhenFull};
use haar_protocol::quantity::{ByteSize, Millis};

use super::{Scene, durable};
use crate::node::{Node, microservice, name, of, route};
use crate::site::Site;

/// 200 messages of 1 KiB at once: more than a log of 16 KiB holds.
const BURST: [(&str, &str); 3] = [("period_ms", "1"), ("burst", "200"), ("size", "1024")];

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_refuses_the_publisher_and_what_it_took_arrives() {
    let backlog = Backlog {
        size: ByteSize(16 << 10),
        ..Backlog::default()
    };
    let mut scene = Scene::with(backlog, &BURST).await;
    scene.start_left().await;
    // Each message takes 64 bytes beside its body.
    let (took, refused) = (15, 185);
    let begin = format!("burst messages={took} refused={refused} ");
    let said = |line: &haar_protocol::log::LogLine| line.text.starts_with(&begin);
    scene.site.line(&scene.left.id, said).await;
    scene
        .site
        .status(&scene.left.id, |status| {
            let log = status.backlogs.first();
            of(status, "source").is_some_and(|one| one.exceeded.backlog == refused)
                && log.is_some_and(|log| {
                    let overflow = (log.refused.episodes, log.refused.messages);
                    overflow == (1, refused) && log.outlet.as_str() == "out"
                })
        })
        .await;
    scene.start_right().await;
    scene.arrived(took).await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_lets_the_oldest_messages_go_where_the_route_says_so() {
    let backlog = Backlog {
        size: ByteSize(16 << 10),
        when_full: WhenFull::DropOldest,
        ..Backlog::default()
    };
    let mut scene = Scene::with(backlog, &BURST).await;
    scene.start_left().await;
    let said =
        |line: &haar_protocol::log::LogLine| line.text.starts_with("burst messages=200 refused=0 ");
    scene.site.line(&scene.left.id, said).await;
    let dropped = |status: &haar_protocol::status::Status| {
        status.routes.iter().any(|route| route.dropped >= 185)
    };
    let status = scene.site.status(&scene.left.id, dropped).await;
    let left = 200 - status.routes[0].dropped;
    let dropped = status.backlogs[0].dropped;
    assert_eq!((dropped.episodes, dropped.messages), (1, 200 - left));
    assert!(left > 0, "{:?}", status.routes);
    scene.start_right().await;
    scene.arrived(left).await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_messages_are_not_delivered_and_hold_nothing_up() {
    let backlog = Backlog {
        expiry: Some(Millis(1)),
        ..Backlog::default()
    };
    let source = [("period_ms", "2"), ("total", "50")];
    let mut scene = Scene::with(backlog, &source).await;
    scene.start_left().await;
    scene.published(50).await;
    scene.start_right().await;
    scene
        .site
        .status(&scene.left.id, |status| {
            status.routes.iter().any(|route| route.dropped == 50)
        })
        .await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outlet_whose_log_could_not_be_opened_refuses() {
    let site = Site::start().await;
    let node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::SOURCE), &site.publisher);
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![
        microservice("source", module, &["out"], &[]),
        microservice("sink", module, &[], &["in"]),
    ];
    assignment.routes = vec![durable(route(
        node.port("source", "out"),
        node.port("sink", "in"),
    ))];
    let bus = Bus::default();
    bus.set_table(Registry::default().compile(&assignment));
    let outlet = bus
        .durable_outlet(&mut PortCache::default(), &name("source"), "out")
        .unwrap()
        .unwrap();
    let (store, _) = Store::open(node.data.path()).unwrap();
    let published = publish(&store, outlet, vec![(vec![], vec![1])], 0).await;
    assert!(
        matches!(published, Err(Refused::NotStored(_))),
        "{published:?}"
    );
}
