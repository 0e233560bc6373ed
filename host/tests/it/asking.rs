//! The site asks a node about its dead letters, and has them replayed and dropped.

use std::time::{SystemTime, UNIX_EPOCH};

use haar_conformance_artifacts as artifacts;
use haar_host::bus::message::Source;
use haar_host::store::Store;
use haar_host::store::dead_letters::DeadLetter;
use haar_protocol::dead_letters::{DeadLetterSelection, LettersOf, NamedLetters, Replayed};
use haar_protocol::ids::NodeId;
use haar_protocol::keys::SecretKey;
use haar_protocol::request::{Operation, Outcome, Refusal, Request, RequestId};
use haar_protocol::signed;
use haar_protocol::status::{State, Status};

use crate::node::{Node, TYPE, microservice, name, of};
use crate::site::Site;

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn letter(owner: &str, inlet: &str, body: &str) -> DeadLetter {
    DeadLetter {
        owner: name(owner),
        inlet: inlet.into(),
        source: Source {
            site: "site".into(),
            node: "other".into(),
            application: "app".into(),
            microservice: "driver".into(),
            outlet: "out".into(),
        },
        sequence: 7,
        published_ms: 1,
        content_type: TYPE.into(),
        headers: vec![("trace".into(), "1".into())],
        body: body.into(),
        attempts: 3,
        reason: "it panicked".into(),
        died_ms: 2,
    }
}

/// A node that keeps `letters` and runs `victim`, which logs what it handles.
struct Scene {
    site: Site,
    node: Node,
    asked: u8,
}

impl Scene {
    async fn start(letters: Vec<DeadLetter>) -> Self {
        let site = Site::start().await;
        let mut node = Node::enrol(&site, "one");
        let module = node.install(&artifacts::read(artifacts::TRAP), &site.publisher);
        let mut assignment = node.assignment(&site, 1);
        assignment.microservices = vec![microservice("victim", module, &[], &["in"])];
        let (store, thread) = Store::open(node.data.path()).unwrap();
        for letter in letters {
            store.add_dead_letter(letter, 100).await.unwrap();
        }
        drop(store);
        thread.join();
        node.start();
        site.assign(&assignment).await;
        let runs =
            |status: &Status| of(status, "victim").is_some_and(|one| one.state == State::Running);
        site.status(&node.id, runs).await;
        Self {
            site,
            node,
            asked: 0,
        }
    }

    fn request(&mut self, node: &NodeId, operation: Operation) -> Request {
        self.asked += 1;
        Request {
            site: self.site.id(),
            node: node.clone(),
            id: RequestId([self.asked; 16]),
            issued_ms: now_ms(),
            operation,
        }
    }

    async fn send(&self, request: &Request, key: &SecretKey) {
        let envelope = signed::seal(request, key).unwrap();
        self.site.send_request(&self.node.id, envelope).await;
    }

    async fn ask(&mut self, operation: Operation) -> Outcome {
        let request = self.request(&self.node.id.clone(), operation);
        self.send(&request, &self.site.key).await;
        self.site.answer(request.id).await.0
    }

    /// Ids of the letters that the node keeps.
    async fn ids(&mut self, after: u64, limit: u32) -> (Vec<u64>, Option<u64>) {
        let operation = Operation::ListDeadLetters {
            application: Some("app".parse().unwrap()),
            microservice: None,
            after,
            limit,
        };
        let Outcome::DeadLetters(page) = self.ask(operation).await else {
            panic!("no page");
        };
        let ids = page.items.iter().map(|letter| letter.id).collect();
        (ids, page.next_after)
    }
}

fn named(ids: &[u64]) -> DeadLetterSelection {
    DeadLetterSelection::Named(NamedLetters { ids: ids.to_vec() })
}

fn all_of_victim() -> DeadLetterSelection {
    DeadLetterSelection::All(LettersOf {
        application: "app".parse().unwrap(),
        microservice: "victim".parse().unwrap(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_listed_shown_replayed_into_a_running_guest_and_dropped() {
    let letters = ["first", "second", "third"].map(|body| letter("victim", "in", body));
    let mut scene = Scene::start(letters.to_vec()).await;
    let (ids, next) = scene.ids(0, 2).await;
    assert_eq!((ids.len(), next), (2, Some(ids[1])));
    let (rest, next) = scene.ids(ids[1], 2).await;
    assert_eq!((rest.len(), next), (1, None));

    let shown = scene.ask(Operation::ShowDeadLetter { id: ids[0] }).await;
    let Outcome::DeadLetter(whole) = shown else {
        panic!("{shown:?}");
    };
    assert_eq!(whole.body.0, b"first");
    assert_eq!(
        (whole.headers[0].name.as_str(), whole.letter.sequence),
        ("trace", 7)
    );

    let replayed = scene
        .ask(Operation::ReplayDeadLetters(named(&ids[..1])))
        .await;
    let one = Replayed {
        replayed: 1,
        ..Replayed::default()
    };
    assert_eq!(replayed, Outcome::Replayed(one.clone()));
    let handled = |body: &str| format!("handled {body}");
    let id = scene.node.id.clone();
    scene
        .site
        .line(&id, |line| line.text == handled("first"))
        .await;
    assert_eq!(scene.ids(0, 9).await.0, [ids[1], rest[0]]);

    let dropped = scene
        .ask(Operation::DropDeadLetters(named(&[ids[1], 999])))
        .await;
    assert!(matches!(dropped, Outcome::Dropped(ref dropped) if dropped.dropped == 1));
    let replayed = scene
        .ask(Operation::ReplayDeadLetters(all_of_victim()))
        .await;
    assert_eq!(replayed, Outcome::Replayed(one));
    scene
        .site
        .line(&id, |line| line.text == handled("third"))
        .await;
    assert!(scene.ids(0, 9).await.0.is_empty());
    let none_left = |status: &Status| of(status, "victim").is_some_and(|one| one.dead_letters == 0);
    scene.site.status(&id, none_left).await;
    let gone = scene.ask(Operation::ShowDeadLetter { id: ids[0] }).await;
    assert!(matches!(
        gone,
        Outcome::Refused {
            why: Refusal::UnknownDeadLetter,
            ..
        }
    ));
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_nobody_takes_any_more_stays_with_the_reason() {
    let mut foreign = letter("victim", "in", "x");
    foreign.content_type = "text/plain".into();
    let mut scene = Scene::start(vec![
        letter("gone", "in", "x"),
        letter("victim", "old", "x"),
        foreign,
    ])
    .await;
    let (ids, _) = scene.ids(0, 9).await;
    let outcome = scene.ask(Operation::ReplayDeadLetters(named(&ids))).await;
    let Outcome::Replayed(replayed) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!((replayed.replayed, replayed.left), (0, 0));
    let reasons: Vec<&str> = replayed
        .refused
        .iter()
        .map(|one| one.reason.as_str())
        .collect();
    assert!(
        reasons[0].contains("is not assigned to this node any more"),
        "{reasons:?}"
    );
    assert!(reasons[1].contains("no inlet `old`"), "{reasons:?}");
    assert!(
        reasons[2].contains("takes application/octet-stream now"),
        "{reasons:?}"
    );
    assert_eq!(scene.ids(0, 9).await.0, ids);
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_another_or_for_another_or_seen_before_is_not_answered() {
    let mut scene = Scene::start(vec![letter("victim", "in", "x")]).await;
    let own = scene.node.id.clone();
    let drop_all = || Operation::DropDeadLetters(all_of_victim());
    let forged = scene.request(&own, drop_all());
    scene.send(&forged, &SecretKey::from_seed([99; 32])).await;
    let other = NodeId::of(&SecretKey::from_seed([98; 32]).public());
    let misled = scene.request(&other, drop_all());
    scene.send(&misled, &scene.site.key).await;
    let mut stale = scene.request(&own, drop_all());
    stale.issued_ms -= 61_000;
    scene.send(&stale, &scene.site.key).await;
    let list = Operation::ListDeadLetters {
        application: None,
        microservice: None,
        after: 0,
        limit: 1,
    };
    let twice = scene.request(&own, list);
    scene.send(&twice, &scene.site.key).await;
    scene.send(&twice, &scene.site.key).await;
    let (ids, _) = scene.ids(0, 9).await; // answered after all of them
    assert_eq!(ids.len(), 1, "nothing was dropped");
    let (stale_outcome, responses) = scene.site.answer(stale.id).await;
    assert!(matches!(
        stale_outcome,
        Outcome::Refused {
            why: Refusal::NotFresh,
            ..
        }
    ));
    let count = |id| responses.iter().filter(|one| one.id == id).count();
    assert_eq!(
        (count(forged.id), count(misled.id), count(twice.id)),
        (0, 0, 1)
    );
    scene.node.stop().await;
}
