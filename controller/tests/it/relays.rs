//! Relays over the API: applied, listed, written down for brokers, deleted.

use haar_protocol::relay::{RelayApplied, RelayCredentials, RelayInfo};
use haar_protocol::rest::List;

use crate::support::device::Device;
use crate::support::site::TestSite;

const PLANT: &str = "api_version: haar/v1\nkind: Relay\nname: plant\nurl: mqtts://127.0.0.1:1\n";
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
