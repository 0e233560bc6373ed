//! Of which nodes a relay may report.

use haar_engine::compiler::CompileLimits;
use haar_protocol::keys::SecretKey;
use haar_protocol::limits::Budget;
use haar_protocol::manifest::{self, Document};
use haar_protocol::quantity::ByteSize;
use tempfile::TempDir;

use super::*;
use crate::config::Settings;
use crate::db::nodes::NodeRow;
use crate::{change, compilation, site};

struct Fixture {
    _directory: TempDir,
    _lock: site::Lock,
    site: Arc<Site>,
    database: Database,
    shared: Shared,
}

fn node(seed: u8) -> NodeId {
    NodeId::of(&SecretKey::from_seed([seed; 32]).public())
}

fn row(seed: u8, role: &str) -> NodeRow {
    NodeRow {
        id: node(seed),
        name: format!("gw-{seed}").parse().unwrap(),
        key: SecretKey::from_seed([seed; 32]).public(),
        labels: [("role".to_owned(), role.to_owned())].into(),
        budget: Budget::new(ByteSize(1 << 20), 4),
        agent_version: String::new(),
        target: String::new(),
        enrolled_ms: 1,
        online: false,
        last_seen_ms: None,
        link_key: None,
        link_key_generation: 0,
    }
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            data: directory.path().join("site"),
            listen: "127.0.0.1:0".parse().unwrap(),
            relay_listen: "127.0.0.1:0".parse().unwrap(),
            name: None,
            advertise: None,
            compilation: compilation::Settings {
                own: None,
                others: Vec::new(),
                limits: CompileLimits::default(),
            },
        };
        let (site, connection, lock) = site::open(&settings).unwrap();
        let (database, _thread) = db::start(connection).unwrap(); // ends with the last handle
        Self {
            _directory: directory,
            _lock: lock,
            site: Arc::new(site),
            database,
            shared: Shared::default(),
        }
    }

    async fn write(&self, work: impl FnOnce(&Write<'_>, &Site) + Send + 'static) {
        let site = Arc::clone(&self.site);
        let done = self.database.write(move |write| {
            work(write, &site);
            Ok(())
        });
        done.await.unwrap();
    }

    /// Says who uses the broker.
    async fn broker_for(&self, role: &str) {
        let yaml = format!(
            "api_version: haar/v1\nkind: Relay\nname: plant\nurl: mqtts://broker.example\nnodes: {{labels: {{role: {role}}}}}\n"
        );
        let Document::Relay(relay) = manifest::parse_document(&yaml, "manifest").unwrap() else {
            panic!("it is a relay");
        };
        self.write(move |write, site| {
            change::apply_relay(write, site, *relay).unwrap();
        })
        .await;
    }

    fn reports(&self, relay: &str) -> Reports {
        let relay = relay.parse().unwrap();
        Reports::new(&relay, &self.site, &self.database, &self.shared)
    }

    fn message(&self, topic: &Topic, payload: &str) -> Message {
        Message {
            topic: topic.text(&self.site.id),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            retained: false,
        }
    }

    fn alive(&self, seed: u8, payload: &str) -> Message {
        self.message(&Topic::Alive(node(seed)), payload)
    }

    async fn online(&self) -> Vec<String> {
        let nodes = self.database.read(|sql| db::nodes::list(sql)).await;
        let online = nodes.unwrap().into_iter().filter(|row| row.online);
        online.map(|row| row.name.to_string()).collect()
    }

    async fn events(&self, kind: &str) -> usize {
        let events = self
            .database
            .read(|sql| db::events::tail(sql, 0, 1_000))
            .await;
        let events = events.unwrap().into_iter();
        events.filter(|event| event.kind == kind).count()
    }
}

#[tokio::test]
async fn a_relay_reports_only_of_nodes_that_attach_to_it() {
    let site = Fixture::new();
    site.write(|write, _| {
        for (seed, role) in [(1, "payment"), (2, "edge")] {
            db::nodes::put(write, &row(seed, role)).unwrap();
        }
    })
    .await;
    site.broker_for("payment").await;
    let (mut plant, mut own) = (site.reports("plant"), site.reports("controller"));
    let log = r#"{"version":1,"lines":[{"application":"pay","microservice":"p","sequence":1,"time_ms":1,"level":"info","stream":"log","text":"FORGED"}]}"#;
    for _ in 0..3 {
        let forged = vec![
            site.alive(2, "online"),
            site.message(&Topic::Log(node(2)), log),
            site.message(&Topic::Status(node(2)), "HAAR"),
            site.message(&Topic::Response(node(2)), "HAAR"),
            site.alive(9, "online"),
        ];
        plant.take(forged, false).await;
    }
    assert!(site.online().await.is_empty());
    assert_eq!(site.events("foreign_reports_refused").await, 1);
    assert_eq!(site.events("status_refused").await, 0);
    plant.take(vec![site.alive(1, "online")], false).await;
    assert_eq!(site.online().await, ["gw-1"]);
    // The relay of the enrolment is there for everybody, and a broker can't say that a node left it.
    own.take(vec![site.alive(2, "online")], false).await;
    plant.take(vec![site.alive(2, "offline")], false).await;
    assert_eq!(site.online().await, ["gw-1", "gw-2"]);
}

#[tokio::test]
async fn a_node_that_leaves_a_relay_is_not_online_there_any_more() {
    let site = Fixture::new();
    site.write(|write, _| db::nodes::put(write, &row(1, "payment")).unwrap())
        .await;
    site.broker_for("payment").await;
    let (mut plant, mut own) = (site.reports("plant"), site.reports("controller"));
    plant.take(vec![site.alive(1, "online")], false).await;
    site.broker_for("other").await;
    plant.take(vec![site.alive(1, "offline")], false).await;
    assert!(site.online().await.is_empty());
    own.take(vec![site.alive(1, "online")], false).await;
    assert_eq!(site.online().await, ["gw-1"], "it fell back");
    // Back again, by another label of the node and not by another manifest.
    site.write(|write, _| db::nodes::put(write, &row(1, "other")).unwrap())
        .await;
    own.take(vec![site.alive(1, "offline")], false).await;
    plant.take(vec![site.alive(1, "online")], false).await;
    assert_eq!(site.online().await, ["gw-1"]);
}

#[tokio::test]
async fn a_node_that_floods_loses_its_own_reports_and_one_event_says_so() {
    let site = Fixture::new();
    site.write(|write, _| {
        for seed in [1, 2] {
            db::nodes::put(write, &row(seed, "edge")).unwrap();
        }
    })
    .await;
    let mut own = site.reports("controller");
    for _ in 0..25 {
        let flood = (0..100).map(|_| site.message(&Topic::Status(node(1)), "HAAR"));
        own.take(flood.collect(), false).await;
    }
    own.take(
        vec![site.alive(1, "online"), site.alive(2, "online")],
        false,
    )
    .await;
    assert_eq!(site.events("reports_dropped").await, 1);
    assert_eq!(site.events("status_refused").await, 1);
    assert_eq!(site.online().await, ["gw-1", "gw-2"]);
}
