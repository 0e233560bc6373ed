//! Values that many tests begin with. Keys grow from constant seeds, so that every run signs alike.

use std::collections::BTreeMap;

use haar_protocol::assignment::{
    Assignment, MicroserviceName, Peer, Port, Publisher, Route, TopicEnd, TopicRoute, TopicTarget,
};
use haar_protocol::grants::{Access, DirectoryGrant, Grants};
use haar_protocol::ids::{Digest, MediaType, Name, NodeId, PortName, RouteId, SiteId};
use haar_protocol::keys::{LinkKey, SecretKey};
use haar_protocol::limits::{Budget, Limits};
use haar_protocol::manifest::{Delivery, Manifest};
use haar_protocol::module::{self, Signatures};
use haar_protocol::mqtt::Retained;
use haar_protocol::quantity::ByteSize;
use haar_protocol::relay::{NodeCredentials, RelayAccess, RelayRole};
use haar_protocol::status::{
    AllowedDirectory, BacklogStatus, EngineStatus, FlashStatus, MicroserviceStatus, Overflow,
    PolicyStatus, RefusedAssignment, RelayStatus, RouteStatus, State, Status, StoreDamage,
    StoreStatus,
};

/// The manifest that shows every key.
pub(crate) const FULL_MANIFEST: &str = include_str!("../golden/full.yaml");
/// A moment: 2026-01-02 03:04:05.678 UTC.
pub(crate) const NOW_MS: u64 = 1_767_323_045_678;

fn later_signatures() -> String {
    let file = module::sign(&crate::modules::small_component(), &key(5)).unwrap();
    Signatures::of(&file).unwrap().to_text()
}

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

pub(crate) fn site() -> SiteId {
    SiteId::of(&key(1).public())
}

pub(crate) fn node(seed: u8) -> NodeId {
    NodeId::of(&key(seed).public())
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn media_type() -> MediaType {
    "application/vnd.acme.reading+json".parse().unwrap()
}

pub(crate) fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

pub(crate) fn manifest() -> Manifest {
    haar_protocol::manifest::parse(FULL_MANIFEST, "full.yaml").unwrap()
}

pub(crate) fn microservice_name() -> MicroserviceName {
    MicroserviceName {
        application: name("plant-monitor"),
        microservice: name("sampler"),
    }
}

pub(crate) fn digest() -> Digest {
    Digest::of(b"a module")
}

pub(crate) fn budget() -> Budget {
    Budget::new(ByteSize(48 << 20), 8)
}

pub(crate) fn route_id() -> RouteId {
    let port = |text: &str| text.parse::<PortName>().unwrap();
    RouteId::of(
        &name("plant-monitor"),
        &port("sampler.readings"),
        &port("collector.in"),
        &media_type(),
    )
}

pub(crate) fn assignment() -> Assignment {
    let port = |node, microservice: &str, port: &str| Port {
        node,
        microservice: MicroserviceName {
            application: name("plant-monitor"),
            microservice: name(microservice),
        },
        port: name(port),
    };
    Assignment {
        site: site(),
        node: node(2),
        node_name: name("gateway-02"),
        labels: texts(&[("role", "gateway"), ("site/hall", "north")]),
        number: 7,
        issued_ms: NOW_MS,
        publishers: vec![Publisher {
            name: name("acme"),
            key: key(4).public(),
        }],
        signatures: BTreeMap::from([(Digest::of(b"module").to_string(), later_signatures())]),
        relays: relays(),
        serves: vec![],
        link_key_generation: 3,
        peers: vec![Peer {
            id: node(3),
            name: name("gateway-03"),
            link_key: Some(LinkKey::from_bytes([3; 32])),
            relays: vec![name("plant"), name("controller")],
        }],
        microservices: vec![haar_protocol::assignment::Microservice {
            name: microservice_name(),
            module: digest(),
            module_bytes: 123_456,
            module_label: "sampler@1.4.2".to_owned(),
            limits: Limits::default(),
            grants: Grants {
                directories: vec![DirectoryGrant {
                    host: "/sys/bus/iio".to_owned(),
                    guest: "/sensors".to_owned(),
                    access: Access::ReadOnly,
                    quota: None,
                    optional: false,
                    mount: Default::default(),
                }],
                ..Grants::default()
            },
            configuration: texts(&[("period_ms", "500")]),
            outlets: BTreeMap::from([(name("readings"), media_type())]),
            inlets: BTreeMap::new(),
            log_level: Default::default(),
            restart: Default::default(),
            retry: Default::default(),
            inlet_history: BTreeMap::new(),
            outlet_history: BTreeMap::new(),
            unknown: Vec::new(),
            life: Some(4_711),
        }],
        routes: vec![Route {
            id: route_id(),
            from: port(node(2), "sampler", "readings"),
            to: port(node(3), "collector", "in"),
            content_type: media_type(),
            delivery: Delivery::Live,
            backlog: Default::default(),
        }],
        topics: vec![topic_route()],
        brokers: vec![relays().remove(0)],
        lives: Some(BTreeMap::from([(microservice_name().to_string(), 4_711)])),
        ended: vec!["plant-monitor/collector".to_owned()],
    }
}

fn topic_route() -> TopicRoute {
    TopicRoute {
        id: route_id(),
        relay: name("plant"),
        topic: TopicEnd::To(TopicTarget {
            topic: "plant/alerts".parse().unwrap(),
            retain: true,
            will: Some("offline".to_owned()),
        }),
        microservice: microservice_name(),
        port: name("readings"),
        content_type: media_type(),
        delivery: Delivery::Durable,
        backlog: Default::default(),
        retained: Some(Retained::ClearOnDelete),
    }
}

pub(crate) fn microservice_status() -> MicroserviceStatus {
    MicroserviceStatus {
        name: microservice_name(),
        module: digest(),
        module_label: "sampler@1.4.2".to_owned(),
        state: State::BackOff,
        reason: Some("it trapped: unreachable".to_owned()),
        since_ms: NOW_MS - 1_000,
        restarts: 3,
        counted_after_s: 60,
        discarded: 2,
        hibernations: 3,
        calls: 1_000,
        failures: 4,
        fuel: 5_000_000,
        memory_bytes: 1_114_112,
        log_lines_dropped: 2,
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

pub(crate) fn route_status() -> RouteStatus {
    RouteStatus {
        id: route_id(),
        peer: name("gateway-03"),
        topic: None,
        counted_after_s: 0,
        sent: 10,
        delivered: 0,
        handled: 0,
        dropped: 1,
        waiting: 3,
        problem: None,
        problem_after_s: None,
    }
}

pub(crate) fn backlog_status() -> BacklogStatus {
    BacklogStatus {
        name: microservice_name(),
        outlet: name("readings"),
        bytes: 16_384,
        bytes_max: 16_384,
        refused: Overflow {
            episodes: 1,
            messages: 185,
        },
        dropped: Overflow::default(),
    }
}

pub(crate) fn refused() -> RefusedAssignment {
    RefusedAssignment {
        number: Some(8),
        reason: "it over-commits the node's memory".to_owned(),
    }
}

pub(crate) fn policy() -> PolicyStatus {
    PolicyStatus {
        publishers: Some(vec![key(4).public()]),
        directories: vec![AllowedDirectory {
            path: "/var/lib/plant".to_owned(),
            access: Access::ReadWrite,
        }],
        left_out: 0,
    }
}

pub(crate) fn status() -> Status {
    Status {
        site: site(),
        node: node(2),
        sequence: 42,
        sent_ms: NOW_MS,
        started_ms: NOW_MS - 60_000,
        uptime_ms: Some(60_000),
        interval_ms: Some(10_000),
        start: None,
        agent_version: "0.1.0".to_owned(),
        target: "aarch64-unknown-linux-musl".to_owned(),
        engine: Some(EngineStatus {
            fingerprint: "5f".repeat(32),
            target: "aarch64-linux".to_owned(),
            compiler: false,
            precompiled: true,
        }),
        applied: 7,
        refused: Some(refused()),
        link_key: Some(LinkKey::from_bytes([2; 32])),
        link_key_generation: 3,
        budget: budget(),
        memory_source: Some("half of 256MiB: the machine's memory".into()),
        policy: Some(policy()),
        resident_bytes: 9_000_000,
        flash: Some(FlashStatus {
            written_bytes: 3_000_000,
            today_bytes: 1_000_000,
            budget_bytes: Some(500 << 20),
        }),
        store: Some(StoreStatus {
            problem: Some("database or disk is full".to_owned()),
            since_ms: Some(NOW_MS - 8),
            free_bytes: Some(4_096),
            damage: Some(StoreDamage {
                found_ms: NOW_MS - 90_000,
                reason: "database disk image is malformed".to_owned(),
                missing: vec!["pairs".to_owned()],
                messages: 12,
                messages_missing: 3,
            }),
        }),
        microservices: vec![microservice_status()],
        routes: vec![route_status()],
        backlogs: vec![backlog_status()],
        discarded: Overflow {
            episodes: 1,
            messages: 47,
        },
        frames_refused: 5,
        relays: vec![RelayStatus {
            name: name("plant"),
            connected: false,
            reason: Some("the relay can't be reached: no answer in time".to_owned()),
            since_ms: Some(NOW_MS - 60_000),
        }],
        brokers: vec![],
        device_messages_dropped: 0,
        device_properties_dropped: 0,
        serves: vec![],
        omitted: None,
    }
}

fn relays() -> Vec<RelayAccess> {
    let plant = RelayAccess {
        name: name("plant"),
        role: RelayRole::Links,
        url: Some("mqtts://192.0.2.9:8883".parse().unwrap()),
        ca_pem: None,
        credentials: NodeCredentials::Generated,
        session_expiry_s: None,
        client: None,
    };
    let embedded = RelayAccess {
        name: name("controller"),
        role: RelayRole::Everything,
        url: None,
        ca_pem: None,
        credentials: NodeCredentials::Proof,
        session_expiry_s: None,
        client: None,
    };
    vec![plant, embedded]
}
