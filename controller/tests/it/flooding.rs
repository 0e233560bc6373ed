//! One node that reports far too much: it costs the site one plan, and others nothing.

use std::time::Instant;

use haar_relay::Outgoing;

use crate::support::device::{Device, Link};
use crate::support::modules::recipe;
use crate::support::site::TestSite;
use crate::support::wait::until;

const NODES: u16 = 300;

fn send_budgets(
    site: &TestSite,
    device: &Device,
    link: &Link,
    sequences: std::ops::RangeInclusive<u64>,
) {
    let last = *sequences.end();
    for sequence in sequences {
        let mut status = device.status(sequence, 1, Vec::new());
        status.budget.memory.0 += 1 + sequence % 2; // never what it enrolled with
        link.publish(device.sealed(&status, &device.key));
    }
    site.client.get("/publishers").done();
    until("the last status is there", || {
        let node = site.client.get("/nodes/gw-0").json();
        (node["status_sequence"] == last).then_some(())
    });
}

#[test]
fn many_statuses_with_other_budgets_cost_one_plan_a_minute() {
    let site = TestSite::with_publisher();
    site.push(&recipe("sampler", "1.0.0"));
    let devices: Vec<Device> = (0..NODES)
        .map(|number| Device::join_as(&site, number))
        .collect();
    site.apply("app", "api_version: haar/v1\nkind: Application\nname: app\nmicroservices:\n- {name: one, module: sampler@1.0.0, place: {labels: {}}}\n");
    let link = devices[0].connect(&site);
    let (before, begin) = (site.plans(), Instant::now());
    let allowed = || 1 + begin.elapsed().as_secs() / 60;
    send_budgets(&site, &devices[0], &link, 1..=20);
    until("the first budget is taken over", || {
        (site.plans() > before).then_some(())
    });
    send_budgets(&site, &devices[0], &link, 21..=420);
    let made = site.plans() - before;
    assert!(made <= allowed(), "{made} plans for 420 statuses");
    drop(link);
    drop(site); // stops: nothing is left to do that would hold it up
}

#[test]
fn news_of_many_nodes_that_come_together_share_their_plans() {
    let site = TestSite::start();
    let devices: Vec<Device> = (0..20)
        .map(|number| Device::join_as(&site, number))
        .collect();
    let links: Vec<Link> = devices.iter().map(|device| device.connect(&site)).collect();
    let before = site.plans();
    for (device, link) in devices.iter().zip(&links) {
        let mut status = device.status(1, 1, Vec::new());
        status.budget.microservices = 9;
        link.publish(device.sealed(&status, &device.key));
    }
    until("all budgets are taken over", || {
        let nodes = site.client.get("/nodes").json();
        let mut nodes = nodes["items"].as_array().unwrap().iter();
        nodes
            .all(|node| node["budget"]["microservices"] == 9)
            .then_some(())
    });
    assert!(site.plans() - before <= 20);
}

#[test]
fn what_waits_for_its_minute_survives_a_restart_of_the_controller() {
    let site = TestSite::start();
    let device = Device::join_as(&site, 0);
    let link = device.connect(&site);
    for (sequence, microservices) in [(1, 7), (2, 8)] {
        let mut status = device.status(sequence, 1, Vec::new());
        status.budget.microservices = microservices;
        link.publish(device.sealed(&status, &device.key));
        until("the status is there", || {
            let node = site.client.get("/nodes/gw-0").json();
            (node["status_sequence"] == sequence).then_some(())
        });
        if sequence == 1 {
            until("the first budget is taken over", || {
                let node = site.client.get("/nodes/gw-0").json();
                (node["budget"]["microservices"] == 7).then_some(())
            });
        }
    }
    drop(link);
    let site = site.restart();
    until("the last budget is taken over", || {
        let node = site.client.get("/nodes/gw-0").json();
        (node["budget"]["microservices"] == 8).then_some(())
    });
}

#[test]
fn a_node_that_comes_and_goes_all_the_time_evicts_nothing_of_what_people_did() {
    let site = TestSite::with_publisher();
    let device = Device::join_as(&site, 0);
    let link = device.connect(&site);
    for _ in 0..600 {
        link.publish(device.alive("offline"));
        link.publish(device.alive("online"));
    }
    link.publish(Outgoing {
        payload: vec![b'x'; 5_000].into(),
        ..device.alive("online")
    });
    link.publish(device.sealed(&device.status(1, 1, Vec::new()), &device.key));
    until("the last status is there", || {
        let node = site.client.get("/nodes/gw-0").json();
        (node["status_sequence"] == 1 && node["online"] == true).then_some(())
    });
    let events = site.client.get("/events?tail=10000").json();
    let kinds: Vec<&str> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["kind"].as_str().unwrap())
        .collect();
    let of_presence = kinds
        .iter()
        .filter(|kind| kind.starts_with("node_o"))
        .count();
    assert!((100..200).contains(&of_presence), "{of_presence}");
    assert!(kinds.contains(&"publisher_trusted") && kinds.contains(&"node_enrolled"));
}
