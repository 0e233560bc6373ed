//! The bodies of the REST API in their written form.

use std::collections::BTreeMap;

use haar_protocol::log::{Level, LogLine, Stream};
use haar_protocol::rest::*;
use haar_protocol::status::State;

use crate::fixtures::{
    NOW_MS, backlog_status, budget, digest, key, manifest, microservice_name, microservice_status,
    name, node, route_status, site, texts,
};
use crate::golden;

mod samples;

use samples::{a_node, application, counted, health, microservice, route, unplaced};

#[test]
fn bodies_about_the_site_and_its_people_keep_their_form() {
    golden::check_json(
        "rest-site.json",
        &SiteInfo {
            id: site(),
            name: name("plant"),
            key: key(1).public(),
            version: "0.1.0".to_owned(),
            ca_sha256: "ab".repeat(32),
            time_ms: NOW_MS,
        },
    );
    golden::check_json(
        "rest-health.json",
        &SiteHealth {
            name: name("plant"),
            health: health(),
            nodes: HealthCount::from_iter([HealthState::Healthy, HealthState::Unknown]),
            applications: HealthCount::from_iter([HealthState::Degraded]),
            instances: application().count,
            relays: HealthCount::from_iter([HealthState::Healthy]),
            time_ms: NOW_MS,
        },
    );
    golden::check_json(
        "rest-error.json",
        &ErrorBody {
            code: "unknown_module".to_owned(),
            message: "there is no module `sampler@1.4.2`".to_owned(),
            hint: Some("push it with `haar push`".to_owned()),
        },
    );
    golden::check_json(
        "rest-event.json",
        &Event {
            id: 9,
            time_ms: NOW_MS,
            kind: "node_enrolled".to_owned(),
            subject: "gateway-02".to_owned(),
            message: "gateway-02 joined".to_owned(),
        },
    );
    golden::check_json(
        "rest-publisher.json",
        &TrustedPublisher {
            name: name("acme"),
            key: key(4).public(),
            added_ms: NOW_MS,
        },
    );
    golden::check_json(
        "rest-publisher-request.json",
        &PublisherRequest {
            key: key(4).public(),
        },
    );
}

#[test]
fn bodies_about_nodes_keep_their_form() {
    golden::check_json(
        "rest-nodes.json",
        &List {
            items: vec![a_node()],
        },
    );
    golden::check_json(
        "rest-node.json",
        &NodeDetail {
            node: a_node(),
            enrolled_ms: NOW_MS - 1,
            engine: crate::fixtures::status().engine,
            memory_source: crate::fixtures::status().memory_source,
            policy: Some(crate::fixtures::policy()),
            status_sequence: Some(42),
            statuses_missed: 1,
            counted: Some(Counted {
                since_ms: NOW_MS - 7_000,
                until_ms: NOW_MS,
            }),
            microservices: vec![microservice_status()],
            routes: vec![route_status()],
            backlogs: vec![backlog_status()],
            frames_refused: 2,
            relays: Vec::new(),
            brokers: Vec::new(),
            device_messages_dropped: 3,
            device_properties_dropped: 0,
            serves: Vec::new(),
            omitted: None,
        },
    );
    golden::check_json(
        "rest-enrolment-request.json",
        &EnrolmentRequest {
            secret: "cd".repeat(32),
            key: key(2).public(),
            proof: "haar-proof-1.BODY.SIGNATURE".to_owned(),
            name: Some(name("gateway-02")),
            labels: texts(&[("role", "gateway")]),
            budget: budget(),
            agent_version: "0.1.0".to_owned(),
            target: "aarch64-unknown-linux-musl".to_owned(),
        },
    );
    golden::check_json(
        "rest-enrolment.json",
        &Enrolment {
            site: site(),
            site_key: key(1).public(),
            node: node(2),
            name: name("gateway-02"),
            relays: vec!["mqtts://192.0.2.7:7421".to_owned()],
            ca_pem: "-----BEGIN CERTIFICATE-----\n".to_owned(),
        },
    );
    golden::check_json(
        "rest-token-request.json",
        &TokenRequest {
            name: Some(name("gateway-02")),
            labels: texts(&[("a", "b")]),
            expires_in_s: Some(60),
        },
    );
    golden::check_json(
        "rest-token.json",
        &Token {
            token: "haar1.TEXT".to_owned(),
            expires_ms: NOW_MS,
        },
    );
}

#[test]
fn bodies_about_modules_keep_their_form() {
    golden::check_json(
        "rest-module.json",
        &Module {
            digest: digest(),
            name: name("sampler"),
            version: "1.4.2".to_owned(),
            bytes: 123_456,
            publishers: vec![name("acme")],
            imports: vec!["haar:local/messaging@0.1.0".to_owned()],
            exports: vec!["haar:local/handler@0.1.0".to_owned()],
            pushed_ms: NOW_MS,
        },
    );
    golden::check_json(
        "rest-upload.json",
        &UploadState {
            offset: 4_096,
            complete: false,
        },
    );
}

#[test]
fn bodies_about_applications_keep_their_form() {
    golden::check_json(
        "rest-application.json",
        &ApplicationDetail {
            application: application(),
            manifest: manifest(),
            microservices: vec![microservice()],
            unplaced: vec![unplaced()],
            routes: vec![route()],
        },
    );
    golden::check_json(
        "rest-apply.json",
        &ApplyResult {
            name: name("plant-monitor"),
            revision: 3,
            changed: true,
            dry_run: false,
            placements: vec![Placement {
                microservice: name("sampler"),
                node: name("gateway-02"),
            }],
            differences: vec![Difference {
                kind: DifferenceKind::Microservice,
                name: "sampler".to_owned(),
                change: Change::Changed,
                keys: vec![KeyDifference {
                    key: "limits.memory".to_owned(),
                    before: Some("8MiB".to_owned()),
                    after: Some("16MiB".to_owned()),
                }],
            }],
            losses: vec![Loss {
                kind: LossKind::Messages,
                subject: "sampler.readings -> collector.in".to_owned(),
                nodes: vec![name("gateway-02")],
                count: 47,
                known_ms: Some(NOW_MS),
                message: "47 messages waiting on `sampler.readings` -> `collector.in` will be lost"
                    .to_owned(),
            }],
            unplaced: vec![unplaced()],
            warnings: vec!["no route leads to the inlet `a.b`".to_owned()],
            assignments: BTreeMap::from([(name("gateway-02"), 8)]),
        },
    );
    golden::check_json(
        "rest-route.json",
        &RouteDetail {
            route: route(),
            health: health(),
            pairs: vec![RoutePair {
                from: name("gateway-02"),
                to: name("gateway-03"),
                relays: vec![RouteRelay {
                    name: name("controller"),
                    connected: Some(true),
                }],
                health: health(),
                reports: BTreeMap::from([(
                    name("gateway-02"),
                    RouteReport {
                        counted: counted(),
                        sent: 4,
                        delivered: 0,
                        handled: 0,
                        dropped: 1,
                        waiting: 2,
                        problem: Some("the broker does not retain messages".to_owned()),
                        problem_since_ms: Some(NOW_MS - 7_000),
                    },
                )]),
            }],
            pairs_omitted: 0,
            backlogs: BTreeMap::from([(name("gateway-02"), backlog_status())]),
            receivers: BTreeMap::from([(
                name("gateway-03"),
                RouteReceiver {
                    counted: counted(),
                    discarded: 1,
                    dead_letters: 2,
                },
            )]),
        },
    );
    golden::check_json(
        "rest-log.json",
        &LogEntry {
            node: name("gateway-02"),
            line: LogLine {
                name: microservice_name(),
                sequence: 1,
                time_ms: NOW_MS,
                level: Level::Info,
                stream: Stream::Stdout,
                context: String::new(),
                text: "ready".to_owned(),
                gap: None,
            },
        },
    );
}

#[test]
fn an_answer_of_a_newer_release_is_understood() {
    let detail = ApplicationDetail {
        application: application(),
        manifest: manifest(),
        microservices: vec![microservice()],
        unplaced: vec![unplaced()],
        routes: vec![route()],
    };
    let mut json = serde_json::to_value(&detail).unwrap();
    json["colour"] = "green".into();
    json["manifest"]["colour"] = "green".into();
    json["manifest"]["microservices"][0]["colour"] = "green".into();
    json["routes"][0]["colour"] = "green".into();
    assert_eq!(
        serde_json::from_value::<ApplicationDetail>(json).unwrap(),
        detail
    );
}

#[test]
fn an_instance_that_no_node_has_spoken_of_is_being_prepared() {
    assert_eq!(microservice().state(), State::BackOff);
    assert_eq!(
        Microservice {
            status: None,
            ..microservice()
        }
        .state(),
        State::Preparing
    );
}

#[test]
fn what_a_controller_of_another_release_says_of_health_is_understood_or_unknown() {
    let mut json = serde_json::to_value(application()).unwrap();
    json["health"] = serde_json::json!({"state": "degraded", "cause": "moonlight"});
    let newer: Application = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(newer.health.cause, Some(Cause::Other));
    json.as_object_mut().unwrap().remove("health");
    let older: Application = serde_json::from_value(json).unwrap();
    assert_eq!(older.health.state, HealthState::Unknown);
}
