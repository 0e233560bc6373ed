//! People ask a node for its dead letters, through the controller and the relay.

use haar_protocol::dead_letters::{DeadLetterPage, Dropped, Replayed};
use haar_protocol::keys::SecretKey;
use haar_protocol::request::{Operation, Outcome, Refusal, Request, Response};
use haar_protocol::rest::NodeDetail;
use haar_protocol::signed;
use haar_protocol::topics::Topic;
use haar_relay::{Outgoing, SessionEvent};

use crate::support::device::{Device, Link};
use crate::support::http::Reply;
use crate::support::site::TestSite;
use crate::support::wait::until;

/// A site with a node `gw` that is online.
fn online() -> (TestSite, Device, Link) {
    let site = TestSite::start();
    let device = Device::join(&site, 1, "gw", &[]);
    let link = device.connect(&site);
    link.publish(device.alive("online"));
    until("the node is online", || {
        let detail: NodeDetail = site.client.get("/nodes/gw").ok();
        detail.node.online.then_some(())
    });
    (site, device, link)
}

/// Does `ask` while the device answers its request; gives the request and what came back.
fn answered(
    site: &TestSite,
    link: &mut Link,
    ask: impl FnOnce(&crate::support::http::Client) -> Reply + Send,
    answer: impl FnOnce(&Request) -> Vec<Outgoing>,
) -> (Request, Reply) {
    let client = site.client.clone();
    let key = site.key;
    std::thread::scope(|scope| {
        let asking = scope.spawn(move || ask(&client));
        let request: Request = link.until("a request", |event| match event {
            SessionEvent::Message { topic, payload, .. } if topic.ends_with("/ctl/request") => {
                Some(signed::open(&payload, &key).unwrap())
            }
            _ => None,
        });
        for message in answer(&request) {
            link.publish(message);
        }
        (request, asking.join().unwrap())
    })
}

fn response(device: &Device, request: &Request, outcome: Outcome, key: &SecretKey) -> Outgoing {
    let response = Response {
        site: device.site.clone(),
        node: device.id.clone(),
        id: request.id,
        outcome,
    };
    Outgoing {
        topic: Topic::Response(device.id.clone()).text(&device.site),
        payload: signed::seal(&response, key).unwrap().into(),
        at_least_once: true,
        retain: false,
    }
}

fn page(next_after: Option<u64>) -> Outcome {
    Outcome::DeadLetters(DeadLetterPage {
        items: Vec::new(),
        next_after,
    })
}

#[test]
fn what_people_ask_reaches_the_node_and_its_answer_comes_back() {
    let (site, device, mut link) = online();
    let one = |request: &Request, outcome| vec![response(&device, request, outcome, &device.key)];
    let path = "/nodes/gw/dead-letters?application=app&microservice=one&after=3&limit=9999";
    let (request, reply) = answered(
        &site,
        &mut link,
        |client| client.get(path),
        |request| one(request, page(Some(7))),
    );
    assert_eq!(reply.ok::<DeadLetterPage>().next_after, Some(7));
    assert_eq!((&request.site, &request.node), (&device.site, &device.id));
    assert_eq!(
        request.operation,
        Operation::ListDeadLetters {
            application: Some("app".parse().unwrap()),
            microservice: Some("one".parse().unwrap()),
            after: 3,
            limit: 500,
        }
    );

    let (request, reply) = answered(
        &site,
        &mut link,
        |client| client.get("/nodes/gw/dead-letters/8"),
        |request| {
            let refused = Outcome::Refused {
                why: Refusal::UnknownDeadLetter,
                message: "there is no 8".into(),
            };
            one(request, refused)
        },
    );
    assert_eq!(request.operation, Operation::ShowDeadLetter { id: 8 });
    let text = reply.refused(404, "unknown_dead_letter");
    assert!(text.contains("there is no 8"), "{text}");

    let ids = serde_json::json!({"ids": [1, 2]});
    let (request, reply) = answered(
        &site,
        &mut link,
        |client| client.post_json("/nodes/gw/dead-letters/replay", &ids),
        |request| {
            one(
                request,
                Outcome::Replayed(Replayed {
                    replayed: 2,
                    ..Replayed::default()
                }),
            )
        },
    );
    assert!(matches!(request.operation, Operation::ReplayDeadLetters(_)));
    assert_eq!(reply.ok::<Replayed>().replayed, 2);

    let all = serde_json::json!({"application": "app", "microservice": "one"});
    let (request, reply) = answered(
        &site,
        &mut link,
        |client| client.post_json("/nodes/gw/dead-letters/drop", &all),
        |request| one(request, Outcome::Dropped(Dropped { dropped: 5 })),
    );
    assert!(matches!(request.operation, Operation::DropDeadLetters(_)));
    assert_eq!(reply.ok::<Dropped>().dropped, 5);
}

#[test]
fn an_answer_counts_only_when_the_node_has_signed_it_for_this_request() {
    let (site, device, mut link) = online();
    let (_, reply) = answered(
        &site,
        &mut link,
        |client| client.get("/nodes/gw/dead-letters"),
        |request| {
            let mut other = request.clone();
            other.id.0[0] ^= 1;
            let mut garbage = response(&device, request, page(Some(1)), &device.key);
            garbage.payload = b"garbage".as_slice().into();
            vec![
                garbage,
                response(
                    &device,
                    request,
                    page(Some(2)),
                    &SecretKey::from_seed([9; 32]),
                ),
                response(&device, &other, page(Some(3)), &device.key),
                response(&device, request, page(Some(4)), &device.key),
                response(&device, request, page(Some(5)), &device.key),
            ]
        },
    );
    assert_eq!(reply.ok::<DeadLetterPage>().next_after, Some(4));
}

#[test]
fn a_node_that_is_not_there_or_says_nothing_is_told_apart() {
    let (site, device, link) = online();
    let text = site
        .client
        .get("/nodes/gw/dead-letters")
        .refused(504, "node_did_not_answer");
    assert!(text.contains("`gw`"), "{text}");
    link.publish(device.alive("offline"));
    until("the node is offline", || {
        let detail: NodeDetail = site.client.get("/nodes/gw").ok();
        (!detail.node.online).then_some(())
    });
    let text = site
        .client
        .get("/nodes/gw/dead-letters")
        .refused(409, "node_offline");
    assert!(
        text.contains("last seen") && text.contains("s ago"),
        "{text}"
    );
    site.client
        .get("/nodes/nobody/dead-letters")
        .refused(404, "unknown_node");
}

#[test]
fn a_question_that_makes_no_sense_reaches_no_node() {
    let (site, _device, _link) = online();
    let client = &site.client;
    client
        .get("/nodes/gw/dead-letters?microservice=one")
        .refused(400, "bad_query");
    client
        .get("/nodes/gw/dead-letters?after=x")
        .refused(400, "bad_query");
    client
        .get("/nodes/gw/dead-letters/x")
        .refused(400, "bad_name");
    let replay = "/nodes/gw/dead-letters/replay";
    client
        .post_json(replay, &serde_json::json!({}))
        .refused(400, "bad_json");
    let many: Vec<u64> = (0..1_001).collect();
    client
        .post_json(replay, &serde_json::json!({ "ids": many }))
        .refused(400, "too_many_ids");
    client
        .with_authorization(None)
        .post_json(replay, &serde_json::json!({"ids": [1]}))
        .refused(401, "unauthenticated");
}
