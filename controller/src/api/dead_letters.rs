//! `/nodes/{name}/dead-letters`: what a node keeps, asked of the node itself.

use axum::Json;
use axum::extract::State;
use haar_protocol::dead_letters::{
    DeadLetterPage, DeadLetterSelection, Dropped, LETTERS_NAMED_MAX, PAGE_LETTERS_MAX, Replayed,
    WholeDeadLetter,
};
use haar_protocol::ids::Name;
use haar_protocol::number::Number;
use haar_protocol::request::{Operation, Outcome, Refusal};
use serde::Deserialize;

use super::App;
use super::answers::{Answer, JsonBody, Named, Parameters};
use crate::failure::{Failure, Kind};
use crate::{change, db};

const PAGE_LETTERS: u32 = 100;
const MESSAGE_CHARACTERS_MAX: usize = 300;

/// Which letters.
#[derive(Deserialize)]
pub(super) struct LetterQuery {
    application: Option<Name>,
    microservice: Option<Name>,
    #[serde(default)]
    after: Number,
    limit: Option<u32>,
}

/// `GET /nodes/{name}/dead-letters`
pub(super) async fn list(
    State(app): State<App>,
    Named(name): Named<Name>,
    Parameters(query): Parameters<LetterQuery>,
) -> Answer<Json<DeadLetterPage>> {
    if query.microservice.is_some() && query.application.is_none() {
        return Err(Failure::new(
            Kind::Invalid,
            "bad_query",
            "`microservice` goes with `application` only",
        ));
    }
    let operation = Operation::ListDeadLetters {
        application: query.application,
        microservice: query.microservice,
        after: query.after.0,
        limit: query
            .limit
            .unwrap_or(PAGE_LETTERS)
            .clamp(1, PAGE_LETTERS_MAX),
    };
    match ask(&app, name, operation).await? {
        Outcome::DeadLetters(page) => Ok(Json(page)),
        other => Err(unexpected(other)),
    }
}

/// `GET /nodes/{name}/dead-letters/{id}`
pub(super) async fn show(
    State(app): State<App>,
    Named((name, Number(id))): Named<(Name, Number)>,
) -> Answer<Json<WholeDeadLetter>> {
    match ask(&app, name, Operation::ShowDeadLetter { id }).await? {
        Outcome::DeadLetter(letter) => Ok(Json(letter)),
        other => Err(unexpected(other)),
    }
}

/// `POST /nodes/{name}/dead-letters/replay`
pub(super) async fn replay(
    State(app): State<App>,
    Named(name): Named<Name>,
    JsonBody(selection): JsonBody<DeadLetterSelection>,
) -> Answer<Json<Replayed>> {
    check(&selection)?;
    match ask(&app, name, Operation::ReplayDeadLetters(selection)).await? {
        Outcome::Replayed(replayed) => Ok(Json(replayed)),
        other => Err(unexpected(other)),
    }
}

/// `POST /nodes/{name}/dead-letters/drop`
pub(super) async fn discard(
    State(app): State<App>,
    Named(name): Named<Name>,
    JsonBody(selection): JsonBody<DeadLetterSelection>,
) -> Answer<Json<Dropped>> {
    check(&selection)?;
    match ask(&app, name, Operation::DropDeadLetters(selection)).await? {
        Outcome::Dropped(dropped) => Ok(Json(dropped)),
        other => Err(unexpected(other)),
    }
}

fn check(selection: &DeadLetterSelection) -> Answer<()> {
    match selection {
        DeadLetterSelection::Named(named) if named.ids.len() > LETTERS_NAMED_MAX => {
            Err(Failure::new(
                Kind::Invalid,
                "too_many_ids",
                format!(
                    "{} ids are more than the limit of {LETTERS_NAMED_MAX}",
                    named.ids.len()
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// Asks the node called `name`, if it is there.
async fn ask(app: &App, name: Name, operation: Operation) -> Answer<Outcome> {
    let node = app
        .database
        .read(move |sql| {
            db::nodes::by_name(sql, name.as_str())?.ok_or_else(|| change::unknown_node(sql, &name))
        })
        .await?;
    if !node.online {
        let seen = match node.last_seen_ms {
            Some(seen_ms) => format!("it was last seen {}", ago(seen_ms)),
            None => "it was never seen".to_owned(),
        };
        return Err(Failure::new(
            Kind::Conflict,
            "node_offline",
            format!("node `{}` is offline: {seen}", node.name),
        )
        .hint("its dead letters are kept on the node: ask again when it is back"));
    }
    app.relay.ask(&app.site, &node, operation).await
}

/// How long ago, in whole seconds.
fn ago(then_ms: u64) -> String {
    let seconds = crate::clock::now_ms().saturating_sub(then_ms) / 1_000;
    format!("{seconds} s ago")
}

/// What a node says, as people may be shown it.
fn clipped(text: &str) -> String {
    let shown = text.chars().filter(|character| !character.is_control());
    shown.take(MESSAGE_CHARACTERS_MAX).collect()
}

/// The node refused, or answered something else than it was asked.
fn unexpected(outcome: Outcome) -> Failure {
    let Outcome::Refused { why, message } = outcome else {
        return Failure::new(
            Kind::NodeFailed,
            "node_failed",
            "the node answered something else than it was asked",
        );
    };
    let message = clipped(&message);
    match why {
        Refusal::UnknownDeadLetter => Failure::new(Kind::NotFound, "unknown_dead_letter", message)
            .hint("`haar dead-letters list` shows what there is"),
        Refusal::NotFresh => Failure::new(Kind::Conflict, "clocks_disagree", message)
            .hint("set the clock of the node or of the controller"),
        Refusal::TooLarge => Failure::new(Kind::NodeFailed, "answer_too_large", message),
        Refusal::Failed => Failure::new(Kind::NodeFailed, "node_failed", message),
    }
}
