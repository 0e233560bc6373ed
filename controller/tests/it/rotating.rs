//! A publisher goes over to another key: both are trusted for a while, and what was pushed is signed again.

use haar_protocol::ids::Digest;
use haar_protocol::keys::SecretKey;
use haar_protocol::module::{self, Signatures};
use haar_protocol::rest::{List, Module, TrustedPublisher, UploadState};
use serde_json::json;

use crate::support::device::Device;
use crate::support::modules::{content_path, recipe};
use crate::support::site::{TestSite, publisher};

const APP: &str = "api_version: haar/v1\nkind: Application\nname: app\nmicroservices:\n- {name: one, module: sampler@1.0.0, place: {node: gw-1}}\n";

fn new_key() -> SecretKey {
    SecretKey::from_seed([78; 32])
}

fn add_key(site: &TestSite, name: &str, key: &SecretKey) {
    let path = format!("/publishers/{name}/keys/{}", key.public());
    site.client.put_json(&path, &json!({})).done();
}

fn keys(site: &TestSite) -> Vec<String> {
    let publishers: List<TrustedPublisher> = site.client.get("/publishers").ok();
    let publishers = publishers.items.into_iter();
    publishers
        .map(|one| format!("{} {}", one.name, one.key.fingerprint()))
        .collect()
}

#[test]
fn signatures_of_keys_that_nobody_trusts_leave_room_for_those_that_somebody_does() {
    let site = TestSite::with_publisher();
    let mut file = recipe("sampler", "1.0.0").signed(&publisher());
    for seed in 100..115 {
        file = module::sign(&file, &SecretKey::from_seed([seed; 32])).unwrap();
    }
    assert_eq!(Signatures::of(&file).unwrap().count(), 16);
    let digest = Digest::of(&file);
    site.client.put(&content_path(&file), &file).ok::<Module>();
    add_key(&site, "beta", &new_key());
    let again = recipe("sampler", "1.0.0").signed(&new_key());
    let module: Module = site.client.put(&content_path(&again), &again).ok();
    assert_eq!(module.digest, digest);
    let publishers: Vec<&str> = module.publishers.iter().map(|one| one.as_str()).collect();
    assert_eq!(publishers, ["acme", "beta"]);
}

#[test]
fn a_version_that_is_signed_again_stays_the_same_version() {
    let site = TestSite::with_publisher();
    let file = site.push(&recipe("sampler", "1.0.0"));
    let digest = Digest::of(&file);
    let device = Device::join(&site, 1, "gw-1", &[]);
    let mut link = device.connect(&site);
    site.apply("app", APP);
    let (first, _) = link.assignment(|assignment| !assignment.microservices.is_empty());
    assert!(first.signatures.is_empty());

    add_key(&site, "acme", &new_key());
    let (both, _) = link.assignment(|assignment| assignment.publishers.len() == 2);
    assert_eq!(both.microservices, first.microservices);

    // Signed with both, and with the new one alone.
    for again in [
        module::sign(&file, &new_key()).unwrap(),
        module::sign_alone(&file, &new_key()).unwrap(),
    ] {
        let module: Module = site.client.put(&content_path(&again), &again).ok();
        assert_eq!(module.digest, digest);
        assert_eq!(module.publishers.len(), 1, "one publisher, two keys");
        let upload = format!("/modules/{}/upload", Digest::of(&again));
        assert!(site.client.get(&upload).ok::<UploadState>().complete);
        let other_name = format!("/modules/{}", Digest::of(&again));
        assert_eq!(site.client.get(&other_name).ok::<Module>().digest, digest);
    }
    let kept = std::fs::read_dir(site.directory.path().join("modules"));
    assert_eq!(kept.unwrap().count(), 1, "one file is kept");
    let (signed, _) = link.assignment(|assignment| !assignment.signatures.is_empty());
    let later = Signatures::from_text(&signed.signatures[&digest.to_string()]).unwrap();
    assert!(later.verify(&[new_key().public()]).is_ok());
    assert_eq!(signed.microservices, first.microservices);

    let old = publisher().public();
    site.client
        .delete(&format!("/publishers/acme/keys/{old}"))
        .done();
    let (last, _) = link.assignment(|assignment| assignment.publishers.len() == 1);
    assert_eq!(last.microservices, first.microservices);
    assert_eq!(last.signatures, signed.signatures);
    assert_eq!(last.publishers[0].key, new_key().public());

    // It may be applied again, by any of its digests, and outlives a restart.
    let site = site.restart();
    site.apply("app", APP);
    let resigned = module::sign_alone(&file, &new_key()).unwrap();
    let by_digest = APP.replace("sampler@1.0.0", &Digest::of(&resigned).to_string());
    site.apply("app", &by_digest);

    // Other code does not pass for it, whoever signs it.
    let mut other = recipe("sampler", "1.0.0");
    other.padding = 10;
    let other = other.signed(&new_key());
    site.client
        .put(&content_path(&other), &other)
        .refused(409, "version_exists");
}

#[test]
fn a_module_that_two_keys_have_signed_belongs_to_the_one_that_is_trusted_later_too() {
    let site = TestSite::with_publisher();
    let file = recipe("sampler", "1.0.0").signed(&publisher());
    let file = module::sign(&file, &new_key()).unwrap();
    site.client.put(&content_path(&file), &file).ok::<Module>();
    let _device = Device::join(&site, 1, "gw-1", &[]);
    // An earlier release has kept nothing of the signatures: the file has them.
    let mut site = site;
    site.stop();
    let database = site.directory.path().join("controller.db");
    let database = rusqlite::Connection::open(database).unwrap();
    let forget = "UPDATE modules SET signatures = NULL, memory_bytes = NULL";
    assert_eq!(database.execute(forget, []).unwrap(), 1);
    drop(database);
    let site = site.restart();
    site.trust("newcomer", &new_key());
    let path = format!("/modules/{}", Digest::of(&file));
    let module: Module = site.client.get(&path).ok();
    let names: Vec<&str> = module.publishers.iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["acme", "newcomer"]);
    site.client.delete("/publishers/acme").done();
    site.apply("app", APP);
}

#[test]
fn keys_of_a_publisher_come_and_go_one_by_one_or_all_at_once() {
    let site = TestSite::with_publisher();
    let (old, new) = (publisher().public(), new_key().public());
    add_key(&site, "acme", &new_key());
    add_key(&site, "acme", &new_key());
    let of = |key: &haar_protocol::keys::PublicKey| format!("acme {}", key.fingerprint());
    assert_eq!(keys(&site), [of(&old), of(&new)]);
    let path = format!("/publishers/other/keys/{new}");
    site.client
        .put_json(&path, &json!({}))
        .refused(409, "key_taken");
    let cut = format!("/publishers/acme/keys/{}", &new.to_string()[..20]);
    site.client.delete(&cut).refused(400, "bad_name");

    // In the place of all others.
    site.trust("acme", &new_key());
    assert_eq!(keys(&site), [of(&new)]);
    let gone = format!("/publishers/acme/keys/{old}");
    site.client.delete(&gone).refused(404, "unknown_publisher");
    site.trust("acme", &publisher());
    assert_eq!(keys(&site), [of(&old)]);
    add_key(&site, "acme", &new_key());
    site.client.delete("/publishers/acme").done();
    assert!(keys(&site).is_empty());
}
