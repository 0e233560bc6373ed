//! Publishes what enters its inlet `in` on its outlet `out`. A message of its inlet `ask` is a query:
//! a direction, a port, and any of `since=MS`, `until=MS`, `node=N`, `from=A/M`, `first=S`, `last=S`,
//! `limit=N`, `newest`, `token=T`. It logs `QUERY -> SEQUENCE:BODY,… pages=N`, with `token` only one
//! page.

use haar_guest::history::{HistoryError, Query};
use haar_guest::{Message, Microservice, Rejection, log, publish};

#[derive(Default)]
struct History;

impl Microservice for History {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        if message.inlet != "ask" {
            publish("out", &message.body, &[("kind", "echo")])?;
            return Ok(());
        }
        let text = message.text()?;
        let answer = ask(text).unwrap_or_else(|error| format!("{error:?}"));
        log::info!("{text} -> {answer}");
        Ok(())
    }
}

fn ask(text: &str) -> Result<String, HistoryError> {
    let mut words = text.split(' ');
    let (direction, port) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let mut query = match direction {
        "outlet" => Query::outlet(port),
        _ => Query::inlet(port),
    };
    let mut token = None;
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "since" => query.since_ms = value.parse().ok(),
            "until" => query.until_ms = value.parse().ok(),
            "node" => query.node = Some(value.to_owned()),
            "from" => query.microservice = Some(value.to_owned()),
            "first" => query.first_sequence = value.parse().ok(),
            "last" => query.last_sequence = value.parse().ok(),
            "limit" => query.limit = value.parse().unwrap_or(1),
            "newest" => query.newest_first = true,
            "token" => token = Some(value.to_owned()),
            _ => {}
        }
    }
    let only_one = token.is_some();
    let (mut found, mut pages) = (Vec::new(), 0);
    loop {
        let page = query.read(token.as_deref())?;
        pages += 1;
        found.extend(page.messages.iter().map(show));
        token = page.next;
        if token.is_none() || only_one {
            return Ok(format!("{} pages={pages}", found.join(",")));
        }
    }
}

fn show(message: &Message) -> String {
    let body = String::from_utf8_lossy(&message.body);
    let source = &message.source;
    let header = message.header("kind").unwrap_or("-");
    format!(
        "{}:{body}:{}:{header}",
        message.sequence, source.microservice
    )
}

haar_guest::export!(History);
