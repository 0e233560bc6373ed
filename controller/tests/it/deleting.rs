//! Deleting and revoking.

use std::net::TcpListener;
use std::process::Command;

use haar_protocol::ids::Digest;
use haar_protocol::relay::device_user;
use haar_relay::{DisconnectReason, SessionEvent};

use crate::support::device::{Device, post, token};
use crate::support::modules::{content_path, recipe};
use crate::support::program::{Program, output_within};
use crate::support::site::TestSite;
use crate::support::wait::{DEADLINE, until};

const APPLICATION: &str = "api_version: haar/v1\nkind: Application\nname: app\nmicroservices:\n- {name: one, module: sampler@1.0.0, place: {labels: {}, count: 1}}\n";

#[test]
fn a_module_stays_while_an_application_uses_it() {
    let site = TestSite::with_publisher();
    let file = site.push(&recipe("sampler", "1.0.0"));
    Device::join(&site, 1, "gw", &[]);
    site.apply("app", APPLICATION);
    let path = format!("/modules/{}", Digest::of(&file));
    let text = site.client.delete(&path).refused(409, "module_in_use");
    assert!(text.contains("`app`"), "{text}");
    site.client.delete("/applications/app").done();
    site.client
        .delete("/applications/app")
        .refused(404, "unknown_application");
    site.client.delete(&path).done();
    site.client.delete(&path).refused(404, "unknown_module");
    site.client
        .get(&content_path(&file))
        .refused(404, "unknown_module");
    assert!(
        site.directory
            .path()
            .join("modules")
            .read_dir()
            .unwrap()
            .next()
            .is_none()
    );
    assert_eq!(
        site.client.put(&content_path(&file), &file).status,
        201,
        "it may come back"
    );
}

#[test]
fn a_deleted_application_leaves_its_nodes() {
    let site = TestSite::with_publisher();
    site.push(&recipe("sampler", "1.0.0"));
    let device = Device::join(&site, 1, "gw", &[]);
    let mut link = device.connect(&site);
    site.apply("app", APPLICATION);
    link.assignment(|assignment| assignment.microservices.len() == 1);
    site.client.delete("/applications/app").done();
    link.assignment(|assignment| assignment.microservices.is_empty());
}

#[test]
fn a_revoked_node_is_cut_off_and_its_work_goes_elsewhere() {
    let site = TestSite::with_publisher();
    site.push(&recipe("sampler", "1.0.0"));
    let first = Device::join(&site, 1, "gw-1", &[]);
    let second = Device::join(&site, 2, "gw-2", &[]);
    let placed = site.apply("app", APPLICATION).placements[0].node.clone();
    assert_eq!(placed.as_str(), "gw-1", "by name, when all are alike");
    let mut link = first.connect(&site);
    link.assignment(|assignment| assignment.microservices.len() == 1);
    let mut other = second.connect(&site);
    site.client.delete("/nodes/gw-1").done();
    site.client
        .delete("/nodes/gw-1")
        .refused(404, "unknown_node");
    other.assignment(|assignment| assignment.microservices.len() == 1);
    link.until("the revoked node is refused", |event| match event {
        SessionEvent::Disconnected {
            reason: DisconnectReason::Refused(_),
        } => Some(()),
        _ => None,
    });
    assert!(site.event_kinds().contains(&"node_revoked".to_owned()));
}

#[test]
fn a_revoked_device_that_may_come_back_gets_a_higher_number() {
    let site = TestSite::with_publisher();
    let device = Device::join(&site, 1, "gw", &[]);
    let (before, _) = device.connect(&site).assignment(|_| true);
    site.client.delete("/nodes/gw").done();
    post(&site, &device.request(&token(&site, Some("gw"), &[]), None)).done();
    let mut link = device.connect(&site);
    let (after, _) = link.assignment(|_| true);
    assert!(
        after.number > before.number,
        "{} > {}",
        after.number,
        before.number
    );
    until("the node is listed with it", || {
        (site.client.get("/nodes/gw").json()["assignment"] == after.number).then_some(())
    });
}

#[test]
fn the_session_of_a_revoked_node_at_a_broker_of_devices_is_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("mosquitto.conf");
    let text =
        format!("listener {port} 127.0.0.1\nallow_anonymous true\nlog_dest stderr\nlog_type all\n");
    std::fs::write(&configuration, text).unwrap();
    let mut command = Command::new("mosquitto");
    command.arg("-c").arg(&configuration);
    let mut broker = Program::start(&mut command);
    broker.logs(" running");

    let site = TestSite::with_publisher();
    site.push(&recipe("sampler", "1.0.0"));
    let device = Device::join(&site, 1, "gw", &[]);
    let relay = format!(
        "api_version: haar/v1\nkind: Relay\nname: plant\nurl: mqtt://127.0.0.1:{port}\ncarries: topics\ncredentials: anonymous\n"
    );
    site.client.put("/relays/plant", relay.as_bytes()).done();
    site.apply("app", "api_version: haar/v1\nkind: Application\nname: app\nmicroservices:\n- {name: one, module: sampler@1.0.0, place: {node: gw}, inlets: {in: text/plain}}\nroutes:\n- {from: \"mqtt:plant/#\", to: one.in, relay: plant}\n");
    let user = device_user(&device.id, &"plant".parse().unwrap());
    let session = format!("-p {port} -c -i {user} -V 5 -x 3600 -q 1 -t plant/# -E");
    let mut subscribe = Command::new("mosquitto_sub");
    let subscribed = output_within(subscribe.args(session.split(' ')), DEADLINE);
    assert!(subscribed.status.success(), "{subscribed:?}");
    broker.logs(&format!("Client {user} disconnected"));
    site.client.delete("/nodes/gw").done();
    broker.logs(&format!("as {user} (p5, c1"));
    broker.logs(&format!("Client {user} disconnected"));
}
