//! Relays over the API: applied, listed, written down for brokers, deleted.

use haar_protocol::relay::{CLIENT_PURPOSE, RelayApplied, RelayCredentials, RelayInfo};
use haar_protocol::rest::{List, NodeDetail, RelayDetail, RelayTrial};
use haar_protocol::status::{RelayStatus, Status};

use crate::support::device::{Device, Link, now_ms};
use crate::support::modules::recipe;
use crate::support::site::TestSite;
use crate::support::wait::until;

const PLANT: &str = "api_version: haar/v1\nkind: Relay\nname: plant\nurl: mqtts://127.0.0.2:1\n";
const GIVEN: &str = "api_version: haar/v1\nkind: Relay\nname: plant\nurl: mqtts://127.0.0.1:1\ncredentials: {user: haar, password: a-very-secret-word}\n";
const NEAR: &str =
    "api_version: haar/v1\nkind: Relay\nname: near\nnode: gw\naddress: 192.0.2.1:7422\n";

fn apply(site: &TestSite, name: &str, yaml: &str) -> RelayApplied {
    let path = format!("/relays/{name}");
    site.client.put(&path, yaml.as_bytes()).ok()
}

#[test]
fn a_relay_is_applied_shown_changed_and_deleted() {
    let site = TestSite::start();
    let device = Device::join(&site, 1, "gw", &[]);
    let mut link = device.connect(&site);
    let list: List<RelayInfo> = site.client.get("/relays").ok();
    assert_eq!(list.items.len(), 1);
    assert_eq!(list.items[0].name.as_str(), "controller");
    let applied = apply(&site, "plant", PLANT);
    assert!(applied.changed && applied.assignments.len() == 1);
    link.assignment(|assignment| assignment.relays.len() == 2);
    assert!(!apply(&site, "plant", PLANT).changed);
    let info: RelayInfo = site.client.get("/relays/plant").ok();
    assert_eq!((info.nodes, info.nodes_connected), (1, 0));
    site.client.delete("/relays/plant").done();
    link.assignment(|assignment| assignment.relays.is_empty());
    let text = site
        .client
        .delete("/relays/plant")
        .refused(404, "unknown_relay");
    assert!(text.contains("plant"), "{text}");
    let kinds = site.event_kinds();
    assert!(kinds.iter().any(|kind| kind == "relay_applied"));
    assert!(kinds.iter().any(|kind| kind == "relay_deleted"));
}

#[test]
fn a_dry_run_of_a_relay_changes_nothing() {
    let site = TestSite::start();
    let reply = site
        .client
        .put("/relays/plant?dry_run=true", PLANT.as_bytes());
    let applied: RelayApplied = reply.ok();
    assert!(applied.changed && applied.dry_run);
    site.client
        .get("/relays/plant")
        .refused(404, "unknown_relay");
}

#[test]
fn what_can_not_be_a_relay_is_refused() {
    let site = TestSite::start();
    let put = |name: &str, yaml: &str| {
        let path = format!("/relays/{name}");
        site.client.put(&path, yaml.as_bytes())
    };
    put("other", PLANT).refused(400, "name_mismatch");
    put("near", NEAR).refused(404, "unknown_node");
    let ca = "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----";
    put("plant", &format!("{PLANT}ca: \"{ca}\"\n")).refused(400, "bad_relay");
    let application = "api_version: haar/v1\nkind: Application\nname: plant\nmicroservices: []\n";
    put("plant", application).refused(400, "bad_manifest");
}

#[test]
fn credentials_are_those_that_nodes_compute_and_follow_who_attaches() {
    let site = TestSite::start();
    let device = Device::join(&site, 1, "gw", &[]);
    apply(&site, "plant", PLANT);
    let found: RelayCredentials = site.client.get("/relays/plant/credentials").ok();
    let [controller, node, ..] = found.users.as_slice() else {
        panic!("{:?}", found.users);
    };
    assert_eq!(controller.user, site.id().to_string());
    assert_eq!(node.user, device.id.to_string());
    let shared = device.key.shared_with(&site.key);
    assert_eq!(node.password, shared.relay_password(&found.relay));
    assert!(found.certificate.is_none());
    let path = "/relays/plant/credentials?certificate=true";
    let found: RelayCredentials = site.client.get(path).ok();
    let pem = found.certificate.unwrap().certificate_pem;
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"));
    site.client
        .get("/relays/controller/credentials")
        .refused(409, "no_credentials");
}

#[test]
fn a_password_that_is_given_stands_nowhere_in_clear() {
    let mut site = TestSite::start();
    Device::join(&site, 1, "gw", &[]);
    apply(&site, "plant", GIVEN);
    apply(&site, "near", NEAR);
    assert!(!apply(&site, "plant", GIVEN).changed);
    let other = GIVEN.replace("a-very-secret-word", "another-word");
    assert!(apply(&site, "plant", &other).changed);
    assert!(apply(&site, "plant", GIVEN).changed);
    site.client
        .get("/relays/plant/credentials")
        .refused(409, "no_credentials");
    let shown = site.client.get("/relays").json().to_string();
    assert!(!shown.contains("a-very-secret-word"), "{shown}");
    site.stop();
    let mut files = 0;
    for entry in site.directory.path().read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            for secret in ["a-very-secret-word", "another-word"] {
                let is_there = bytes
                    .windows(secret.len())
                    .any(|at| at == secret.as_bytes());
                assert!(!is_there, "{secret} in {}", path.display());
            }
            files += 1;
        }
    }
    assert!(files > 5);
}

#[test]
fn no_certificate_is_issued_for_a_name_of_the_controller() {
    let site = TestSite::start();
    Device::join(&site, 1, "gw", &[]);
    for host in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "LocalHost.",
    ] {
        let yaml = PLANT.replace("127.0.0.2", host);
        apply(&site, "plant", &yaml);
        let path = "/relays/plant/credentials?certificate=true";
        let why = site.client.get(path).refused(422, "host_of_controller");
        assert!(why.contains("`ca`"), "{why}");
        site.client.get("/relays/plant/credentials").done();
        let near = format!(
            "api_version: haar/v1\nkind: Relay\nname: near\nnode: gw\naddress: \"{host}:7422\"\n"
        );
        let refused = site.client.put("/relays/near", near.as_bytes());
        refused.refused(422, "host_of_controller");
    }
    assert!(
        !site
            .event_kinds()
            .contains(&"certificate_issued".to_owned())
    );
}

#[test]
fn each_certificate_is_an_event_and_ends_within_a_year() {
    let site = TestSite::start();
    apply(&site, "plant", PLANT);
    let path = "/relays/plant/credentials?certificate=true";
    let found: RelayCredentials = site.client.get(path).ok();
    let left_ms = found.certificate.unwrap().until_ms - now_ms();
    assert!((364..=366).contains(&(left_ms / 86_400_000)), "{left_ms}");
    let events = site.client.get("/events").json();
    let issued = events["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (issued["kind"].as_str(), issued["subject"].as_str()),
        (Some("certificate_issued"), Some("plant"))
    );
    let message = issued["message"].as_str().unwrap();
    assert!(
        message.contains("`127.0.0.2`")
            && message.contains("SHA-256")
            && message.contains("good until 20"),
        "{message}"
    );
    let info: RelayInfo = site.client.get("/relays/plant").ok();
    let problem = info.problem.unwrap_or_default();
    assert!(!problem.contains("certificate"), "{problem}");
}

#[test]
fn a_certificate_of_a_relay_that_a_node_runs_is_renewed_and_one_for_a_broker_is_asked_for() {
    let mut site = TestSite::start();
    let device = Device::join(&site, 1, "gw", &[]);
    let mut link = device.connect(&site);
    apply(&site, "near", NEAR);
    apply(&site, "plant", PLANT);
    site.client
        .get("/relays/plant/credentials?certificate=true")
        .done();
    let certificate = |link: &mut Link| {
        let (assignment, _) = link.assignment(|assignment| !assignment.serves.is_empty());
        assignment.serves[0].certificate_pem.clone()
    };
    let first = certificate(&mut link);
    drop(link);
    site.stop();
    let database = rusqlite::Connection::open(site.directory.path().join("controller.db")).unwrap();
    let soon = now_ms() + 86_400_000 * 30;
    let query = "UPDATE relays SET certificate_until_ms = ?1, issued_until_ms = ?1";
    database.execute(query, [soon]).unwrap();
    drop(database);
    let site = site.restart();
    let mut link = device.connect(&site);
    until("there is another certificate", || {
        (certificate(&mut link) != first).then_some(())
    });
    let kinds = site.event_kinds().into_iter();
    assert_eq!(kinds.filter(|kind| kind == "certificate_issued").count(), 3);
    let info: RelayInfo = site.client.get("/relays/plant").ok();
    let problem = info.problem.unwrap();
    assert!(
        problem.contains("ends in 29 days") && problem.contains("haar relay credentials plant"),
        "{problem}"
    );
}

const TOPICS: &str =
    "api_version: haar/v1\nkind: Relay\nname: plant\nurl: mqtts://127.0.0.2:1\ncarries: topics\n";

fn application(filter: &str) -> String {
    format!(
        "api_version: haar/v1\nkind: Application\nname: devices\nmicroservices:\n  - name: sampler\n    module: sampler@1.0.0\n    place: {{ node: gw }}\n    inlets: {{ in: text/plain }}\nroutes:\n  - {{ from: \"mqtt:{filter}\", to: sampler.in, relay: plant }}\n"
    )
}

/// What the site shows of the relay `plant`: nodes that need it, those of them that are connected, and
/// the problem.
fn plant(site: &TestSite) -> (u64, u64, Option<String>) {
    let info: RelayInfo = site.client.get("/relays/plant").ok();
    (info.nodes, info.nodes_connected, info.problem)
}

#[test]
fn a_relay_that_carries_topics_shows_which_nodes_are_connected_and_why_others_are_not() {
    let site = TestSite::with_publisher();
    let device = Device::join(&site, 1, "gw", &[]);
    let link = device.connect(&site);
    site.push(&recipe("sampler", "1.0.0"));
    apply(&site, "plant", TOPICS);
    assert_eq!(plant(&site), (0, 0, None));
    let yaml = application("hall/#");
    site.client
        .put("/applications/devices", yaml.as_bytes())
        .done();
    assert_eq!(plant(&site), (1, 0, None));
    link.publish(device.alive("online"));
    let report = |sequence: u64, connected: bool, reason: Option<&str>| {
        let broker = RelayStatus {
            name: "plant".parse().unwrap(),
            connected,
            reason: reason.map(str::to_owned),
            since_ms: Some(now_ms() - 60_000),
        };
        let status = Status {
            brokers: vec![broker],
            device_messages_dropped: 7,
            ..device.status(sequence, 1, Vec::new())
        };
        link.publish(device.sealed(&status, &device.key));
    };
    report(1, false, Some("the broker wants a certificate"));
    until("the reason is known", || {
        let problem = plant(&site).2?;
        (problem == "gw: the broker wants a certificate").then_some(())
    });
    assert_eq!(plant(&site).1, 0);
    report(2, true, None);
    until("it is connected", || {
        (plant(&site) == (1, 1, None)).then_some(())
    });
    let detail: RelayDetail = site.client.get("/relays/plant").ok();
    let [session] = detail.sessions.as_slice() else {
        panic!("{:?}", detail.sessions);
    };
    assert!(session.devices && session.node_online);
    assert!(session.status.as_ref().unwrap().since_ms.is_some());
    let node: NodeDetail = site.client.get("/nodes/gw").ok();
    assert_eq!(node.device_messages_dropped, 7);
    // What a node said before it went away is not true for ever.
    link.publish(device.alive("offline"));
    until("it counts no longer", || {
        (plant(&site).1 == 0).then_some(())
    });
}

#[test]
fn a_relay_that_the_controller_does_not_reach_says_why() {
    let site = TestSite::start();
    apply(&site, "plant", PLANT);
    let info: RelayInfo = until("there is a reason", || {
        let info: RelayInfo = site.client.get("/relays/plant").ok();
        let reason = info.controller_reason.as_ref()?;
        reason.contains("can't be reached").then_some(info)
    });
    assert_eq!(info.controller_connected, Some(false));
    assert!(info.problem.unwrap().starts_with("the controller: "));
}

#[test]
fn a_relay_over_which_more_passes_takes_no_routes_from_topics_of_every_name() {
    let site = TestSite::with_publisher();
    Device::join(&site, 1, "gw", &[]);
    site.push(&recipe("sampler", "1.0.0"));
    apply(&site, "plant", TOPICS);
    let yaml = application("+/events/rpc");
    let put = |yaml: &str| site.client.put("/applications/devices", yaml.as_bytes());
    put(&yaml).done();
    let everything = site.client.put("/relays/plant", PLANT.as_bytes());
    let why = everything.refused(422, "takes_own_topics");
    assert!(why.contains("+/events/rpc"), "{why}");
    put(&application("plant/#")).done();
    apply(&site, "plant", PLANT);
    put(&yaml).refused(422, "takes_own_topics");
}

#[test]
fn a_broker_is_tried_as_users_of_their_own_and_passwords_that_people_gave_are_not_told() {
    let site = TestSite::start();
    apply(&site, "plant", PLANT);
    let trial: RelayTrial = site.client.get("/relays/plant/trial").ok();
    let found: RelayCredentials = site.client.get("/relays/plant/credentials").ok();
    let [controller, ..] = found.users.as_slice() else {
        panic!("no users");
    };
    for user in &trial.users {
        assert!(found.users.contains(user) && user.password != controller.password);
        assert!(
            user.subscribe
                .iter()
                .all(|filter| filter.contains("haar-check/"))
        );
    }
    assert_eq!(trial.users.len(), 2);
    apply(&site, "plant", GIVEN);
    let shown = site.client.get("/relays/plant/trial").json().to_string();
    assert!(!shown.contains("a-very-secret-word"), "{shown}");
    site.client
        .get("/relays/controller/trial")
        .refused(409, "own_relay");
}

#[test]
fn the_key_of_a_client_certificate_stands_nowhere_in_clear() {
    let mut site = TestSite::start();
    let device = Device::join(&site, 1, "gw", &[]);
    let mut link = device.connect(&site);
    let text = include_str!("../../../relay/tests/it/client.pem");
    let (certificate, key) = text.split_once("-----BEGIN PRIVATE KEY-----").unwrap();
    let key = format!("-----BEGIN PRIVATE KEY-----{key}");
    let secret = key.lines().nth(1).unwrap();
    let json = serde_json::json!({ "certificate": certificate, "key": key });
    let yaml = format!("{PLANT}client_certificate: {json}\n");
    apply(&site, "plant", &yaml);
    assert!(!apply(&site, "plant", &yaml).changed);
    let wrong = serde_json::json!({ "certificate": certificate, "key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" });
    let wrong = format!("{PLANT}client_certificate: {wrong}\n");
    let refused = site.client.put("/relays/plant", wrong.as_bytes());
    let why = refused.refused(400, "bad_relay");
    assert!(why.contains("client certificate or its key"), "{why}");
    let (assignment, _) = link.assignment(|assignment| assignment.relays.len() == 2);
    let plant = assignment.relays.iter().find(|one| one.client.is_some());
    let client = plant.unwrap().client.clone().unwrap();
    let shared = device.key.shared_with(&site.key);
    assert_eq!(shared.open(CLIENT_PURPOSE, &client.key).unwrap(), key);
    for path in ["/relays", "/relays/plant", "/relays/plant/trial"] {
        let shown = site.client.get(path).json().to_string();
        assert!(!shown.contains(secret), "{path}");
    }
    drop(link);
    site.stop();
    for entry in site.directory.path().read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            let mut windows = bytes.windows(secret.len());
            assert!(
                !windows.any(|at| at == secret.as_bytes()),
                "{}",
                path.display()
            );
        }
    }
}
