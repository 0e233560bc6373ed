//! Requests find their replies, and nobody else's.

use std::time::{Duration, Instant};

use haar_guest::request::{CORRELATION_HEADER, Requests, reply};
use haar_guest::testing::{Harness, Published, message};
use haar_guest::{Message, Microservice, Rejection, publish};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks what enters `questions`, and tells what came of it on `told`. `expire` in `commands` lets
/// ten seconds pass.
struct Requester(Requests<String>);

impl Default for Requester {
    fn default() -> Self {
        Self(Requests::new("requests").with_pending_max(3))
    }
}

impl Microservice for Requester {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        match message.inlet.as_str() {
            "questions" => {
                let question = message.text()?.to_owned();
                self.0
                    .send(&message.body, &[("kind", "sum")], question, TIMEOUT)?;
            }
            "commands" => {
                for question in self.0.expire(Instant::now() + TIMEOUT) {
                    publish("told", format!("{question}: nobody knows"), &[])?;
                }
            }
            _ => {
                if let Some(question) = self.0.take_reply(&message) {
                    publish("told", format!("{question} = {}", message.text()?), &[])?;
                }
            }
        }
        Ok(())
    }
}

/// Adds up the numbers of a request.
#[derive(Default)]
struct Responder;

impl Microservice for Responder {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let numbers = message.text()?.split('+');
        let sum: u32 = numbers
            .filter_map(|number| number.parse::<u32>().ok())
            .sum();
        reply(&message, "replies", sum.to_string(), &[("kind", "answer")])?;
        Ok(())
    }
}

fn ask(requester: &mut Harness<Requester>, question: &str) -> Result<(), Rejection> {
    requester.deliver(message("questions", question))
}

/// Brings everything that was asked to a responder, and returns its replies.
fn answers(requester: &mut Harness<Requester>) -> Vec<Published> {
    let mut responder = Harness::<Responder>::new();
    for request in requester.published() {
        responder
            .deliver(request.into_message("node-1", "requests"))
            .unwrap();
    }
    responder.published()
}

fn told(requester: &mut Harness<Requester>) -> Vec<String> {
    requester.published().iter().map(Published::text).collect()
}

#[test]
fn replies_find_their_requests_in_whatever_order_they_come() {
    let mut requester = Harness::new();
    ask(&mut requester, "1+2").unwrap();
    ask(&mut requester, "3+4").unwrap();
    for answer in answers(&mut requester).into_iter().rev() {
        assert_eq!(answer.headers[1], ("kind".to_owned(), "answer".to_owned()));
        requester
            .deliver(answer.into_message("node-2", "replies"))
            .unwrap();
    }
    assert_eq!(told(&mut requester), ["3+4 = 7", "1+2 = 3"]);
}

#[test]
fn a_reply_to_another_requester_is_ignored() {
    let (mut ours, mut theirs) = (Harness::new(), Harness::new());
    ask(&mut ours, "1+1").unwrap();
    ours.published();
    ask(&mut theirs, "2+2").unwrap();
    for answer in answers(&mut theirs) {
        ours.deliver(answer.into_message("node-2", "replies"))
            .unwrap();
    }
    assert_eq!(told(&mut ours), [""; 0]);
}

#[test]
fn a_second_reply_and_one_that_is_too_late_are_ignored() {
    let mut requester = Harness::new();
    ask(&mut requester, "1+1").unwrap();
    let answer = answers(&mut requester).remove(0);
    for _ in 0..2 {
        let again = answer.clone().into_message("node-2", "replies");
        requester.deliver(again).unwrap();
    }
    assert_eq!(told(&mut requester), ["1+1 = 2"]);

    ask(&mut requester, "2+2").unwrap();
    let late = answers(&mut requester).remove(0);
    requester.deliver(message("commands", "expire")).unwrap();
    requester
        .deliver(late.into_message("node-2", "replies"))
        .unwrap();
    assert_eq!(told(&mut requester), ["2+2: nobody knows"]);
}

#[test]
fn what_is_no_reply_is_none() {
    let mut requester = Harness::new();
    ask(&mut requester, "1+1").unwrap();
    let prefix = requester.published().remove(0).headers.remove(0).1;
    let prefix = prefix.strip_suffix("-1").unwrap().to_owned();
    for id in [
        "",
        "-",
        "1",
        "-1",
        &format!("{prefix}-x"),
        &format!("{prefix}-2"),
        &prefix,
    ] {
        let headers = vec![(CORRELATION_HEADER.to_owned(), id.to_owned())];
        let stray = Message {
            headers,
            ..message("replies", "42")
        };
        requester.deliver(stray).unwrap();
    }
    requester.deliver(message("replies", "42")).unwrap();
    assert_eq!(told(&mut requester), [""; 0]);
}

#[test]
fn no_more_requests_wait_than_allowed() {
    let mut requester = Harness::new();
    for _ in 0..3 {
        ask(&mut requester, "1+1").unwrap();
    }
    let refused = ask(&mut requester, "1+1").unwrap_err();
    assert!(matches!(refused, Rejection::Retry(_)), "{refused}");
    requester.deliver(message("commands", "expire")).unwrap();
    ask(&mut requester, "1+1").unwrap();
}

#[test]
fn a_message_that_is_no_request_is_not_replied_to() {
    let refused = Harness::<Responder>::new().deliver(message("requests", "1+1"));
    assert!(matches!(refused, Err(Rejection::Discard(_))), "{refused:?}");
}
