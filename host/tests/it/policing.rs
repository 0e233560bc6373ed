//! The device has the last word: what its policy does not allow, and what its release does not know, is
//! refused for one microservice. The others run.

use std::os::unix::fs::symlink;
use std::path::Path;

use haar_conformance_artifacts as artifacts;
use haar_host::policy::Rules;
use haar_protocol::assignment::Microservice;
use haar_protocol::grants::{Access, DirectoryGrant, Mount};
use haar_protocol::keys::SecretKey;
use haar_protocol::signed;
use haar_protocol::status::{State, Status};
use serde_json::{Value, json};

use crate::driver::Driver;
use crate::node::{Node, microservice, of, route};
use crate::site::Site;

fn is_refused(status: &Status, name: &str, text: &str) -> bool {
    of(status, name).is_some_and(|one| {
        let reason = one.reason.as_deref().unwrap_or_default();
        one.state == State::Refused && one.calls == 0 && reason.contains(text)
    })
}

fn runs(status: &Status, name: &str) -> bool {
    of(status, name).is_some_and(|one| one.state == State::Running)
}

fn with_directory(mut spec: Microservice, host: &Path, optional: bool) -> Microservice {
    spec.grants.directories.push(DirectoryGrant {
        host: host.to_str().unwrap().into(),
        guest: "/data".into(),
        access: Access::ReadWrite,
        quota: None,
        optional,
        mount: Default::default(),
    });
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_the_policy_does_not_allow_is_refused_and_allowed_after_a_restart() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::FILES), &site.publisher);
    let folder = tempfile::tempdir().unwrap();
    let spec = |name| microservice(name, module, &["out"], &["in"]);
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![
        spec("free"),
        with_directory(spec("granted"), folder.path(), false),
        with_directory(spec("optional"), folder.path(), true),
        with_directory(spec("own"), node.data.path(), true),
    ];
    node.start();
    site.assign(&assignment).await;
    let refused = |status: &Status| {
        runs(status, "free")
            && is_refused(status, "granted", "with the line `directories = [{ path =")
            // What may be absent is not what may be forbidden.
            && is_refused(status, "optional", "agent.toml")
            && is_refused(status, "own", "the agent's own data directory")
    };
    let status = site.status(&node.id, refused).await;
    assert_eq!(status.applied, 1);
    assert_eq!(status.policy.unwrap().directories, []);
    node.stop().await;

    node.rules = Rules::default().allowing(folder.path(), Access::ReadWrite);
    node.start();
    let allowed = |status: &Status| {
        runs(status, "granted")
            && runs(status, "optional")
            && is_refused(status, "own", "the agent's own data directory")
    };
    let status = site.status(&node.id, allowed).await;
    assert_eq!(status.policy.unwrap().directories.len(), 1);
    node.stop().await;

    // What is ready on the disk does not run under a stricter policy.
    node.rules = Rules::default().allowing(folder.path(), Access::ReadOnly);
    node.start();
    let strict = |status: &Status| is_refused(status, "granted", "not to write to it");
    site.status(&node.id, strict).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_something_must_be_mounted_a_plain_directory_is_none() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::FILES), &site.publisher);
    let folder = tempfile::tempdir().unwrap();
    let spec = |name, optional| {
        let spec = microservice(name, module, &["out"], &["in"]);
        let mut spec = with_directory(spec, folder.path(), optional);
        spec.grants.directories[0].mount = Mount::Required;
        spec
    };
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![spec("needs", false), spec("may", true)];
    node.rules = Rules::default().allowing(folder.path(), Access::ReadWrite);
    node.start();
    site.assign(&assignment).await;
    let waits = |status: &Status| {
        let needs = of(status, "needs").unwrap_or_else(|| panic!("{status:?}"));
        let reason = needs.reason.as_deref().unwrap_or_default();
        runs(status, "may") && needs.calls == 0 && reason.contains("nothing is mounted at")
    };
    let assigned = |status: &Status| status.applied == 1 && waits(status);
    site.status(&node.id, assigned).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_goes_on_when_the_change_after_it_is_refused() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let echo = node.install(&artifacts::read(artifacts::ECHO), &site.publisher);
    let files = node.install(&artifacts::read(artifacts::FILES), &site.publisher);
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![microservice("it", echo, &["out"], &["in"])];
    node.start();
    site.assign(&assignment).await;
    let before = site.status(&node.id, |status| runs(status, "it")).await;

    let folder = tempfile::tempdir().unwrap();
    let changed = microservice("it", files, &["out"], &["in"]);
    assignment.microservices = vec![with_directory(changed, folder.path(), false)];
    assignment.number = 2;
    site.assign(&assignment).await;
    let told =
        |status: &Status| of(status, "it").is_some_and(|one| one.refused_module == Some(files.0));
    let after = site.status(&node.id, told).await;
    let (before, after) = (of(&before, "it").unwrap(), of(&after, "it").unwrap());
    assert_eq!(
        (after.state, after.module, after.since_ms),
        (State::Running, echo.0, before.since_ms)
    );
    let reason = after.reason.as_deref().unwrap();
    assert!(reason.contains("allows no directory"), "{reason}");

    // Taking the change back leaves nothing of it.
    assignment.microservices = vec![microservice("it", echo, &["out"], &["in"])];
    assignment.number = 3;
    site.assign(&assignment).await;
    let back = |status: &Status| {
        status.applied == 3 && of(status, "it").is_some_and(|one| one.refused_module.is_none())
    };
    let status = site.status(&node.id, back).await;
    assert_eq!(of(&status, "it").unwrap().since_ms, before.since_ms);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_comes_to_lead_elsewhere_is_found_out_when_the_instance_starts() {
    let site = Site::start().await;
    let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
    let trap = node.install(&artifacts::read(artifacts::TRAP), &site.publisher);
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link");
    std::fs::create_dir(folder.path().join("real")).unwrap();
    symlink(folder.path().join("real"), &link).unwrap();
    node.rules = Rules::default().allowing(folder.path(), Access::ReadWrite);
    let mut assignment = node.assignment(&site, 1);
    let mut victim = with_directory(microservice("trap", trap, &["out"], &["in"]), &link, false);
    victim.retry.attempts = 1;
    assignment.microservices = vec![victim];
    let poison = route(other.port("driver", "out"), node.port("trap", "in"));
    assignment.routes = vec![poison.clone()];
    assignment.peers = vec![other.peer()];
    node.start();
    site.assign(&assignment).await;
    site.status(&node.id, |status| runs(status, "trap")).await;
    // Somebody on the device turns the link, and the instance has to start again.
    std::fs::remove_file(&link).unwrap();
    symlink(node.data.path(), &link).unwrap();
    let driver = Driver::connect(&site, &other).await;
    driver.send(&node, poison.id, "panic").await;
    let refused = |status: &Status| {
        of(status, "trap").is_some_and(|one| {
            let reason = one.reason.as_deref().unwrap_or_default();
            one.state == State::Refused && reason.contains("the agent's own data directory")
        })
    };
    site.status(&node.id, refused).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_the_owner_does_not_demand_is_refused_offline_too() {
    let mut site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::ECHO), &site.publisher);
    let mut assignment = node.assignment(&site, 1);
    assignment.microservices = vec![microservice("echo", module, &["out"], &["in"])];
    node.start();
    site.assign(&assignment).await;
    site.status(&node.id, |status| runs(status, "echo")).await;
    node.stop().await;
    site.stop_relay().await;

    let owners = SecretKey::from_seed([88; 32]).public();
    node.rules = Rules::default().demanding(vec![owners]);
    node.start();
    // Nobody hears of it before the relay is back.
    site.start_relay().await;
    let key = site.publisher.public().to_string();
    let refused = |status: &Status| is_refused(status, "echo", &key);
    let status = site.status(&node.id, refused).await;
    assert_eq!(status.policy.unwrap().publishers, Some(vec![owners]));
    node.stop().await;

    node.rules = Rules::default().demanding(vec![owners, site.publisher.public()]);
    node.start();
    site.status(&node.id, |status| runs(status, "echo")).await;
    node.stop().await;
}

/// Sends an assignment as a newer release would write it.
async fn assign(site: &Site, node: &Node, json: &Value) {
    /// A document that is whatever it is.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(transparent)]
    struct Newer(Value);

    impl signed::Document for Newer {
        const KIND: u8 = 1;
        const VERSION: u8 = 1;
        const WHAT: &'static str = "assignment";
    }
    let envelope = signed::seal(&Newer(json.clone()), &site.key).unwrap();
    site.send_envelope(&node.id, envelope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_release_says_of_one_microservice_is_refused_for_it_alone() {
    let site = Site::start().await;
    let mut node = Node::enrol(&site, "one");
    let module = node.install(&artifacts::read(artifacts::ECHO), &site.publisher);
    let names = ["plain", "grant", "limit", "key", "value", "route"];
    let mut assignment = node.assignment(&site, 1);
    let specs = names.map(|name| microservice(name, module, &["out"], &["in"]));
    assignment.microservices = specs.to_vec();
    assignment.routes = vec![route(node.port("plain", "out"), node.port("grant", "in"))];
    // It runs as this release has it, before a newer controller says more.
    node.start();
    site.assign(&assignment).await;
    let all = |status: &Status| names.iter().all(|name| runs(status, name));
    site.status(&node.id, all).await;

    assignment.number = 2;
    let mut json = serde_json::to_value(&assignment).unwrap();
    json["microservices"][1]["grants"]["camera"] = json!({"device": "/dev/video0"});
    json["microservices"][2]["limits"]["flash_per_day"] = "1MiB".into();
    json["microservices"][3]["schedule"] = "0 4 * * *".into();
    json["microservices"][4]["log_level"] = "verbose".into();
    let mut other = json["routes"][0].clone();
    other["from"]["microservice"] = "route".into();
    other["to"]["microservice"] = "route".into();
    other["filter"] = "value > 3".into();
    json["routes"].as_array_mut().unwrap().push(other);
    assign(&site, &node, &json).await;
    let release = format!(
        "this agent (release {}) does not know",
        env!("CARGO_PKG_VERSION")
    );
    let status = site
        .status(&node.id, |status| {
            status.applied == 2
                && status.microservices.iter().all(|one| {
                    one.name.microservice.as_str() == "plain" || one.state == State::Refused
                })
        })
        .await;
    assert!(runs(&status, "plain") && status.refused.is_none());
    for (name, text) in [
        ("grant", "the grant `camera`"),
        ("limit", "the limit `flash_per_day`"),
        ("key", "the key `schedule`"),
        ("value", "the key `log_level` (unknown variant `verbose`"),
        ("route", "the key `filter` of a route"),
    ] {
        let reason = of(&status, name).unwrap().reason.clone().unwrap();
        assert!(
            reason.starts_with(&release) && reason.contains(text),
            "{name}: {reason}"
        );
    }

    // Without it they run again; so they would after an update.
    assignment.number = 3;
    site.assign(&assignment).await;
    site.status(&node.id, all).await;
    node.stop().await;
}
