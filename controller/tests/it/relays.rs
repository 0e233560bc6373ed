//! Relays over the API: applied, listed, written down for brokers, deleted.

use haar_protocol::relay::{RelayApplied, RelayCredentials, RelayInfo};
use haar_protocol::rest::List;

use crate::support::device::{Device, Link, now_ms};
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
    let [controller, node] = found.users.as_slice() else {
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
    assert_eq!(info.problem, None);
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
