//! What a change takes away: told before it is made; and whose data there are from then on.

use std::collections::BTreeMap;

use haar_protocol::assignment::{Assignment, MicroserviceName};
use haar_protocol::ids::RouteId;
use haar_protocol::keys::SecretKey;
use haar_protocol::rest::{ApplyResult, LossKind, Preview, PublisherRequest};
use haar_protocol::status::{MicroserviceStatus, Overflow, RouteStatus, Status};

use crate::support::device::{Device, Link};
use crate::support::modules::{content_path, recipe};
use crate::support::site::{TestSite, publisher};
use crate::support::wait::until;

const ROUTED: &str = "api_version: haar/v1
kind: Application
name: app
microservices:
- {name: source, module: sampler@1.0.0, place: {node: gw}, outlets: {out: text/plain}}
- {name: sink, module: sampler@1.0.0, place: {node: gw}, inlets: {in: text/plain}}
routes:
- {from: source.out, to: sink.in, delivery: durable}
";

fn other_publisher() -> SecretKey {
    SecretKey::from_seed([78; 32])
}

/// A site with one node on which [`ROUTED`] is placed.
struct Scene {
    site: TestSite,
    device: Device,
    link: Link,
    sequence: u64,
}

impl Scene {
    fn start() -> Self {
        let site = TestSite::with_publisher();
        site.push(&recipe("sampler", "1.0.0"));
        let device = Device::join(&site, 1, "gw", &[]);
        site.apply("app", ROUTED);
        let link = device.connect(&site);
        Self {
            site,
            device,
            link,
            sequence: 1,
        }
    }

    fn assignment(&mut self, is_it: impl Fn(&Assignment) -> bool) -> Assignment {
        self.link.assignment(is_it).0
    }

    /// The node reports that messages wait on the route, and that its source has stored something.
    fn report(&mut self, route: RouteId, waiting: u64, change: impl FnOnce(&mut Status)) {
        self.sequence += 1;
        let json = serde_json::json!({
            "application": "app", "microservice": "source",
            "module": haar_protocol::ids::Digest::of(b"m"), "module_label": "m@1", "state": "running",
            "reason": null, "since_ms": 1, "restarts": 0, "calls": 0, "failures": 0, "fuel": 0,
            "memory_bytes": 20 << 20, "log_lines_dropped": 0, "key_value_bytes": 3 << 20, "dead_letters": 2,
        });
        let source: MicroserviceStatus = serde_json::from_value(json).unwrap();
        let mut status = self.device.status(self.sequence, 1, vec![source]);
        status.routes = vec![RouteStatus {
            id: route,
            peer: "gw".parse().unwrap(),
            topic: None,
            counted_after_s: 0,
            sent: 100,
            delivered: 0,
            handled: 0,
            dropped: 0,
            waiting,
            problem: None,
            problem_after_s: None,
        }];
        change(&mut status);
        self.link
            .publish(self.device.sealed(&status, &self.device.key));
        let sequence = self.sequence;
        until("the status is there", || {
            let node = self.site.client.get("/nodes/gw").json();
            (node["status_sequence"] == sequence).then_some(())
        });
    }

    fn try_apply(&self, query: &str, yaml: &str) -> ApplyResult {
        let path = format!("/applications/app?{query}");
        self.site.client.put(&path, yaml.as_bytes()).ok()
    }

    fn preview(&self, path: &str) -> Preview {
        self.site
            .client
            .delete(&format!("{path}?dry_run=true"))
            .ok()
    }
}

fn messages(preview: &Preview) -> Vec<&str> {
    let losses = preview.losses.iter();
    losses.map(|loss| loss.message.as_str()).collect()
}

fn life(assignment: &Assignment, microservice: &str) -> u64 {
    let name = MicroserviceName {
        application: "app".parse().unwrap(),
        microservice: microservice.parse().unwrap(),
    };
    let lives = assignment.lives.as_ref().expect("it tells lives");
    lives.get(&name.to_string()).copied().unwrap_or(0)
}

#[test]
fn an_apply_that_loses_waiting_messages_says_how_many_and_is_refused_when_careful() {
    let mut scene = Scene::start();
    let route = scene.assignment(|one| !one.routes.is_empty()).routes[0].id;
    scene.report(route, 47, |_| ());
    let renamed = ROUTED.replace("sink", "drain");
    let retyped = ROUTED.replace("text/plain", "text/html");
    let removed = &ROUTED[..ROUTED.find("routes:").unwrap()];
    let live = ROUTED.replace("durable", "live");
    for yaml in [&renamed, &retyped, removed, &live] {
        let told = scene.try_apply("dry_run=true", yaml);
        let lost: Vec<_> = told
            .losses
            .iter()
            .filter(|loss| loss.kind == LossKind::Messages)
            .collect();
        assert_eq!(lost.len(), 1, "{told:?}");
        assert_eq!((lost[0].count, lost[0].nodes[0].as_str()), (47, "gw"));
        let text = &lost[0].message;
        assert!(
            text.starts_with("47 messages waiting on `source.out` -> `sink.in` will be lost"),
            "{text}"
        );
        let refused = scene
            .site
            .client
            .put("/applications/app?careful=true", yaml.as_bytes())
            .refused(409, "would_lose");
        assert!(refused.contains("47 messages"), "{refused}");
    }
    let detail = scene.site.client.get("/applications/app").json();
    assert_eq!(detail["revision"], 1, "nothing was changed");
    assert_eq!(detail["routes"][0]["waiting"], 47);

    // What loses nothing is not asked about.
    let larger = ROUTED.replace(
        "delivery: durable",
        "delivery: durable, backlog: {size: 32MiB}",
    );
    let result = scene.try_apply("careful=true", &larger);
    assert_eq!((result.revision, result.losses.len()), (2, 0));
    // Who does not care gets it done.
    assert_eq!(scene.try_apply("careful=false", &renamed).revision, 3);
}

#[test]
fn deleting_tells_what_stops_and_what_is_lost_and_does_nothing_when_only_tried() {
    let mut scene = Scene::start();
    let route = scene.assignment(|one| !one.routes.is_empty()).routes[0].id;
    scene.report(route, 1, |_| ());
    let of_application = [
        "app/sink stops on gw",
        "app/source stops on gw",
        "1 message waiting on `source.out` -> `sink.in` will be lost (as of ",
        "what app/source has stored on gw is deleted: 3MiB of pairs, 2 dead letters",
    ];
    for (path, expected) in [
        ("/applications/app", of_application),
        (
            "/nodes/gw",
            [
                of_application[0],
                of_application[1],
                of_application[2],
                "what app/source has stored on gw is left behind: 3MiB of pairs",
            ],
        ),
    ] {
        let preview = scene.preview(path);
        let found = messages(&preview);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.into_iter().zip(expected) {
            assert!(found.starts_with(expected), "{found} {expected}");
        }
        scene
            .site
            .client
            .delete(&format!("{path}?careful=true"))
            .refused(409, "would_lose");
    }
    let preview = scene.preview("/publishers/acme");
    assert_eq!(
        messages(&preview),
        [
            "app/sink stops on gw: no publisher of its module is trusted any more",
            "app/source stops on gw: no publisher of its module is trusted any more"
        ]
    );
    let replacement = PublisherRequest {
        key: other_publisher().public(),
    };
    let refused = scene
        .site
        .client
        .put_json("/publishers/acme?careful=true", &replacement)
        .refused(409, "would_lose");
    assert!(refused.contains("app/sink stops on gw"), "{refused}");
    // Another publisher takes nothing away.
    scene
        .site
        .client
        .put_json("/publishers/others?careful=true", &replacement)
        .done();

    // Kept data are not lost, and nothing of all that has happened.
    let path = "/applications/app?dry_run=true&keep_data=true";
    let kept: Preview = scene.site.client.delete(path).ok();
    assert!(kept.losses.iter().all(|loss| loss.kind == LossKind::Stop));
    assert!(
        scene
            .site
            .event_kinds()
            .iter()
            .all(|kind| kind != "application_deleted")
    );
    scene
        .site
        .client
        .delete("/applications/app?careful=false")
        .done();
    scene.site.client.delete("/nodes/gw?careful=true").done();
}

#[test]
fn an_application_that_was_deleted_begins_another_life_and_one_of_kept_data_goes_on() {
    let mut scene = Scene::start();
    let first = scene.assignment(|one| !one.routes.is_empty());
    assert_eq!((life(&first, "source"), first.ended.len()), (0, 0));
    scene
        .site
        .client
        .delete("/applications/app?keep_data=true")
        .done();
    let kept = scene.assignment(|one| one.microservices.is_empty());
    assert_eq!(kept.ended, Vec::<String>::new());
    scene.site.apply("app", ROUTED);
    let again = scene.assignment(|one| !one.routes.is_empty());
    assert_eq!(
        (life(&again, "source"), again.routes[0].id),
        (0, first.routes[0].id)
    );

    scene.site.client.delete("/applications/app").done();
    let deleted = scene.assignment(|one| one.microservices.is_empty());
    assert_eq!(deleted.ended, ["app/sink", "app/source"]);
    scene.site.apply("app", ROUTED);
    let second = scene.assignment(|one| !one.routes.is_empty());
    assert_ne!(life(&second, "source"), 0);
    assert!(second.ended.is_empty());
    assert_ne!(second.routes[0].id, first.routes[0].id);

    // A microservice that leaves the manifest is deleted too, unless its data are kept.
    let alone = "api_version: haar/v1\nkind: Application\nname: app\nmicroservices:\n- {name: source, module: sampler@1.0.0, place: {node: gw}}\n";
    scene.try_apply("keep_data=true", alone);
    scene.site.apply("app", ROUTED);
    let third = scene.assignment(|one| !one.routes.is_empty() && one.number > second.number + 1);
    assert_eq!(life(&third, "sink"), life(&second, "sink"));
    scene.site.apply("app", alone);
    let without = scene.assignment(|one| one.microservices.len() == 1);
    assert_eq!(without.ended, ["app/sink"]);
    scene.site.apply("app", ROUTED);
    let fourth = scene.assignment(|one| one.microservices.len() == 2);
    assert_eq!(life(&fourth, "source"), life(&second, "source"));
    assert_ne!(life(&fourth, "sink"), life(&second, "sink"));
}

#[test]
fn data_belong_to_a_publisher_through_rotations_of_its_key_and_to_no_other() {
    let mut scene = Scene::start();
    let with = |version: &str| ROUTED.replace("sampler@1.0.0", &format!("sampler@{version}"));
    let push = |scene: &Scene, version: &str, keys: &[SecretKey]| {
        let mut file = recipe("sampler", version).build();
        for key in keys {
            file = haar_protocol::module::sign(&file, key).unwrap();
        }
        let reply = scene.site.client.put(&content_path(&file), &file);
        assert_eq!(reply.status, 201, "{}", reply.json());
    };
    let lives = |scene: &mut Scene, version: &str| {
        scene.site.apply("app", &with(version));
        let label = format!("sampler@{version}");
        let assignment = scene.assignment(|one| {
            one.microservices
                .iter()
                .any(|one| one.module_label == label)
        });
        life(&assignment, "source")
    };
    let first = scene.assignment(|one| !one.routes.is_empty());
    assert_eq!(life(&first, "source"), 0);
    // The publisher gets another key: it is who the site has called so.
    scene.site.trust("acme", &other_publisher());
    push(&scene, "1.1.0", &[other_publisher()]);
    assert_eq!(lives(&mut scene, "1.1.0"), 0);
    // The orderly way: both keys for a while, then the older one goes.
    let fresh = SecretKey::from_seed([80; 32]);
    let add = format!("/publishers/acme/keys/{}", fresh.public());
    assert_eq!(scene.site.client.put(&add, b"{}").status, 200);
    let old = format!("/publishers/acme/keys/{}", other_publisher().public());
    scene.site.client.delete(&old).done();
    push(&scene, "1.1.1", std::slice::from_ref(&fresh));
    assert_eq!(lives(&mut scene, "1.1.1"), 0);
    scene.site.trust("acme", &other_publisher());
    assert_eq!(lives(&mut scene, "1.1.0"), 0);
    // Another publisher, with a name of its own.
    let third = SecretKey::from_seed([79; 32]);
    scene.site.trust("third", &third);
    push(&scene, "2.0.0", &[third]);
    let strangers = lives(&mut scene, "2.0.0");
    assert_ne!(strangers, 0);
    // The first one comes back to a name that is not its own any more.
    let back = lives(&mut scene, "1.1.0");
    assert!(back != 0 && back != strangers);
    // A publisher that is deleted takes its name with it: whoever gets it is another one.
    scene.site.client.delete("/publishers/acme").done();
    scene.site.trust("acme", &publisher());
    push(&scene, "1.2.0", &[publisher()]);
    let renamed = lives(&mut scene, "1.2.0");
    assert!(renamed != back && renamed != 0);
}

#[test]
fn a_lower_limit_than_what_is_held_is_warned_of() {
    let mut scene = Scene::start();
    let route = scene.assignment(|one| !one.routes.is_empty()).routes[0].id;
    scene.report(route, 0, |status| {
        let json = serde_json::json!({
            "application": "app", "microservice": "source", "outlet": "out", "bytes": 2 << 20,
            "bytes_max": 16 << 20, "refused": {"episodes": 0, "messages": 0},
            "dropped": {"episodes": 0, "messages": 0},
        });
        status.backlogs = vec![serde_json::from_value(json).unwrap()];
    });
    let lower = ROUTED.replace(
        "place: {node: gw}, outlets",
        "limits: {memory: 8MiB, key_value_size: 512KiB}, grants: {key_value: true}, place: {node: gw}, outlets",
    );
    let lower = lower.replace(
        "delivery: durable",
        "delivery: durable, backlog: {size: 1MiB}",
    );
    let result = scene.try_apply("careful=true", &lower);
    for expected in [
        "source on gw has 20MiB of memory, more than its limit from now on (8MiB): it is restarted",
        "source on gw has 3MiB of pairs, more than its limit from now on (512KiB): it stays, and nothing is added",
        "2MiB wait in the backlog of source.out on gw, more than its limit from now on (1MiB): as `when_full` says, the oldest make room or nothing more is taken",
    ] {
        let is_told = result.warnings.iter().any(|one| one == expected);
        assert!(is_told, "{:?}", result.warnings);
    }
}

#[test]
fn messages_that_a_node_has_discarded_are_an_event_with_their_number() {
    let mut scene = Scene::start();
    let route = scene.assignment(|one| !one.routes.is_empty()).routes[0].id;
    scene.report(route, 47, |_| ());
    let discarded = Overflow {
        episodes: 1,
        messages: 47,
    };
    scene.report(route, 0, |status| status.discarded = discarded);
    scene.report(route, 0, |status| status.discarded = discarded);
    let events = scene.site.client.get("/events").json();
    let of_kind = |event: &&serde_json::Value| event["kind"] == "messages_discarded";
    let items = events["items"].as_array().unwrap();
    let found: BTreeMap<&str, &str> = items
        .iter()
        .filter(of_kind)
        .map(|event| {
            let text = |key: &str| event[key].as_str().unwrap();
            (text("subject"), text("message"))
        })
        .collect();
    assert_eq!(items.iter().filter(of_kind).count(), 1);
    assert!(found["gw"].contains("discarded 47 messages"), "{found:?}");
}
