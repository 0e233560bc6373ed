//! Who calls: people by bearer token, nodes by a proof of their key. A layer around every route
//! that is not open to everybody.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use haar_protocol::ids::NodeId;
use haar_protocol::proof::{self, Audience};

use super::App;
use super::answers::linger;
use crate::change::proof_failure;
use crate::failure::{Failure, Kind};
use crate::server::{TooManyAttempts, Visitor};
use crate::site::sha256;
use crate::{clock, db};

const TOKEN_BYTES_MAX: usize = 1_024;

/// Who calls; stands in the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// A person.
    Person,
    /// A node that is enrolled.
    Node(NodeId),
}

/// Lets people through.
pub(super) async fn people(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let caller = caller(&app, request.headers().get(header::AUTHORIZATION).cloned()).await;
    let person = caller.and_then(|caller| match caller {
        Caller::Person => Ok(caller),
        Caller::Node(_) => Err(Failure::new(
            Kind::Forbidden,
            "not_for_nodes",
            "nodes may fetch their modules, and nothing else",
        )),
    });
    pass(person, request, next).await
}

/// Lets people and nodes through.
pub(super) async fn people_and_nodes(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let caller = caller(&app, request.headers().get(header::AUTHORIZATION).cloned()).await;
    pass(caller, request, next).await
}

async fn pass(
    caller: Result<Caller, Failure>,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let visitor = request.extensions().get::<Visitor>().cloned();
    let caller = match (caller, visitor) {
        (Ok(caller), Some(visitor)) if visitor.admit() => Ok(caller),
        (Ok(caller), None) => Ok(caller),
        (Ok(_), Some(_)) => Err(Failure::new(
            Kind::Overloaded,
            "too_many_connections",
            "too many connections to the controller, or from this address",
        )
        .hint("close some, or try again later")),
        (Err(failure), visitor) => Err(refuse(failure, visitor).await),
    };
    match caller {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            Ok(next.run(request).await)
        }
        Err(failure) => {
            let (parts, body) = request.into_parts();
            linger(&parts.headers, body).await;
            Err(failure)
        }
    }
}

/// Keeps whoever guesses tokens waiting.
async fn refuse(failure: Failure, visitor: Option<Visitor>) -> Failure {
    match visitor {
        Some(visitor) if failure.kind == Kind::Unauthenticated => {
            visitor.failed();
            visitor.turn().await.err().map_or(failure, Failure::from)
        }
        _ => failure,
    }
}

impl From<TooManyAttempts> for Failure {
    fn from(_: TooManyAttempts) -> Self {
        Failure::new(
            Kind::TooOften,
            "too_many_attempts",
            "too many attempts from this address",
        )
        .hint("try again in some seconds")
    }
}

async fn caller(app: &App, value: Option<HeaderValue>) -> Result<Caller, Failure> {
    let missing = || {
        Failure::new(Kind::Unauthenticated, "unauthenticated", "this needs an access token")
            .hint("use the site's context file: `haar --context FILE …`, made by `haar controller access-token NAME`")
    };
    let value = value.ok_or_else(missing)?;
    let value = value.to_str().map_err(|_| missing())?;
    if value.len() > TOKEN_BYTES_MAX {
        return Err(missing());
    }
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            person(app, token.trim()).await
        }
        Some((scheme, proof)) if scheme.eq_ignore_ascii_case("haar-proof") => {
            node(app, proof.trim())
        }
        _ => Err(missing()),
    }
}

async fn person(app: &App, token: &str) -> Result<Caller, Failure> {
    let hash = sha256(token.as_bytes());
    match app.database.read(move |sql| db::access_tokens::owner(sql, &hash)).await? {
        Some(_) => Ok(Caller::Person),
        None => Err(Failure::new(Kind::Unauthenticated, "unknown_token", "the site does not know this access token")
            .hint("the context file may be of another site, or replaced: get a new one from whoever runs the controller")),
    }
}

fn node(app: &App, proof: &str) -> Result<Caller, Failure> {
    let subject = proof::claimed_subject(proof).map_err(proof_failure)?;
    let unknown = || {
        Failure::new(
            Kind::Unauthenticated,
            "unknown_node",
            "no node of this site has this id: it was never enrolled, or is revoked",
        )
    };
    let id: NodeId = subject.parse().map_err(|_| unknown())?;
    let key = app
        .database
        .feeds
        .nodes
        .borrow()
        .get(&id)
        .copied()
        .ok_or_else(unknown)?;
    proof::check(
        proof,
        &key,
        Audience::Controller,
        &app.site.id,
        id.as_str(),
        None,
        clock::now_ms(),
    )
    .map_err(proof_failure)?;
    Ok(Caller::Node(id))
}
