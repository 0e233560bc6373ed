//! The REST API: one table of routes, from which both the router and the OpenAPI document are made.
//! One file per resource; each handler reads its request, does one database call, and answers.
//!
//! Who may call a route stands in the table and is enforced here, so no handler can forget it.

mod answers;
mod authentication;
mod openapi;

mod applications;
mod changing;
mod dead_letters;
mod enrolments;
mod events;
mod health;
mod files;
mod following;
mod logs;
mod microservices;
mod module_check;
mod module_code;
mod module_content;
mod modules;
mod nodes;
mod publishers;
mod relays;
mod site;
mod tokens;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, delete, get, post, put};
use haar_protocol::{dead_letters as letters, manifest, relay, rest};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::compilation::Compilation;
use crate::db::Database;
use crate::module_store::ModuleStore;
use crate::relay_link::RelayLink;
use crate::site::Site;
use openapi::Content;

/// The largest body of a request beside modules, in bytes.
const BODY_BYTES_MAX: usize = manifest::MANIFEST_BYTES_MAX;
/// Modules that are checked at one time: each is in memory as a whole.
const CHECKS_MAX: usize = 2;

/// What handlers work with.
#[derive(Clone)]
pub(crate) struct App(Arc<Parts>);

/// See [`App`].
pub(crate) struct Parts {
    /// Who we are.
    pub(crate) site: Arc<Site>,
    /// The database.
    pub(crate) database: Database,
    /// The module files.
    pub(crate) modules: ModuleStore,
    /// Their code.
    pub(crate) compilation: Compilation,
    /// The relay.
    pub(crate) relay: RelayLink,
    /// The base URL of this API.
    pub(crate) url: String,
    /// URLs of the site's relays.
    pub(crate) relays: Vec<String>,
    /// Cancelled when the controller stops: streams end then.
    pub(crate) stop: CancellationToken,
    /// Taken for each module that is checked.
    pub(crate) checks: Checks,
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// Puts the parts together.
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

/// Permits to check modules.
pub(crate) struct Checks(Semaphore);

impl Default for Checks {
    fn default() -> Self {
        Self(Semaphore::new(CHECKS_MAX))
    }
}

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Everybody.
    Open,
    /// People with a bearer token.
    People,
    /// People, and nodes with a proof; the handler looks at which node it is.
    PeopleAndNodes,
}

/// One row of the table.
struct Route {
    method: &'static str,
    path: &'static str,
    access: Access,
    summary: &'static str,
    query: &'static [&'static str],
    body: Content,
    answer: Content,
    handler: fn() -> MethodRouter<App>,
}

#[rustfmt::skip]
fn routes() -> Vec<Route> {
    use Access::{Open, People, PeopleAndNodes};
    let row = |method, path, access, query, body, answer, summary, handler| {
        Route { method, path, access, summary, query, body, answer, handler }
    };
    fn json<T: schemars::JsonSchema>() -> Content {
        Content::json::<T>()
    }
    let none = || Content::None;
    vec![
        row("GET",    "/site",                     Open,   &[], none(), json::<rest::SiteInfo>(), "What anybody may know about the site", || get(site::show)),
        row("GET",    "/health",                   People, &[], none(), json::<rest::SiteHealth>(), "How the site does as a whole", || get(health::show)),
        row("GET",    "/site/ca",                  Open,   &[], none(), Content::Pem, "The CA certificate", || get(site::authority)),
        row("GET",    "/openapi.json",             Open,   &[], none(), Content::AnyJson, "This document", || get(openapi::show)),
        row("GET",    "/schemas/application.json", Open,   &[], none(), Content::AnyJson, "JSON Schema of an application's manifest", || get(openapi::manifest_schema)),
        row("GET",    "/schemas/relay.json",       Open,   &[], none(), Content::AnyJson, "JSON Schema of a relay's manifest", || get(openapi::relay_schema)),
        row("POST",   "/enrolments",               Open,   &[], json::<rest::EnrolmentRequest>(), json::<rest::Enrolment>(), "A device joins; the token in the body authorises it", || post(enrolments::create)),
        row("POST",   "/tokens",                   People, &[], json::<rest::TokenRequest>(), json::<rest::Token>(), "Makes an enrolment token", || post(tokens::create)),
        row("GET",    "/nodes",                    People, &[], none(), json::<rest::List<rest::Node>>(), "All nodes", || get(nodes::list)),
        row("GET",    "/nodes/{name}",             People, &[], none(), json::<rest::NodeDetail>(), "Everything about a node", || get(nodes::show)),
        row("DELETE", "/nodes/{name}",             People, &["dry_run", "careful"], none(), json::<rest::Preview>(), "Revokes a node's key", || delete(nodes::revoke)),
        row("POST",   "/nodes/{name}/link-key/rotate", People, &[], none(), json::<rest::LinkKeyRotation>(), "Has a node make another key for its links", || post(nodes::rotate_link_key)),
        row("GET",    "/nodes/{name}/dead-letters", People, &["application", "microservice", "after", "limit"], none(), json::<letters::DeadLetterPage>(), "Messages that no instance on the node could handle; asked of the node", || get(dead_letters::list)),
        row("GET",    "/nodes/{name}/dead-letters/{id}", People, &[], none(), json::<letters::WholeDeadLetter>(), "One of them, with headers and body", || get(dead_letters::show)),
        row("POST",   "/nodes/{name}/dead-letters/replay", People, &[], json::<letters::DeadLetterSelection>(), json::<letters::Replayed>(), "Puts dead letters back into their inboxes", || post(dead_letters::replay)),
        row("POST",   "/nodes/{name}/dead-letters/drop", People, &[], json::<letters::DeadLetterSelection>(), json::<letters::Dropped>(), "Forgets dead letters", || post(dead_letters::discard)),
        row("GET",    "/publishers",               People, &[], none(), json::<rest::List<rest::TrustedPublisher>>(), "Trusted publishers", || get(publishers::list)),
        row("PUT",    "/publishers/{name}",        People, &["dry_run", "careful"], json::<rest::PublisherRequest>(), json::<rest::TrustedPublisher>(), "Trusts a key, and no other of this publisher", || put(publishers::trust)),
        row("DELETE", "/publishers/{name}",        People, &["dry_run", "careful"], none(), json::<rest::Preview>(), "No longer trusts a publisher", || delete(publishers::distrust)),
        row("PUT",    "/publishers/{name}/keys/{key}", People, &[], none(), json::<rest::TrustedPublisher>(), "Trusts a key beside those that the publisher has", || put(publishers::add_key)),
        row("DELETE", "/publishers/{name}/keys/{key}", People, &["dry_run", "careful"], none(), json::<rest::Preview>(), "No longer trusts one key of a publisher", || delete(publishers::remove_key)),
        row("GET",    "/relays",                   People, &[], none(), json::<rest::List<relay::RelayInfo>>(), "All relays", || get(relays::list)),
        row("GET",    "/relays/{name}",            People, &[], none(), json::<rest::RelayDetail>(), "A relay, and the sessions that nodes have with it", || get(relays::show)),
        row("PUT",    "/relays/{name}",            People, &["dry_run", "careful"], Content::Yaml, json::<relay::RelayApplied>(), "Applies the manifest of a relay", || put(relays::apply)),
        row("DELETE", "/relays/{name}",            People, &["dry_run", "careful"], none(), json::<rest::Preview>(), "Nodes leave a relay", || delete(relays::remove)),
        row("GET",    "/relays/{name}/credentials", People, &["certificate"], none(), json::<relay::RelayCredentials>(), "Who may do what at a broker that is not ours, with passwords", || get(relays::credentials)),
        row("GET",    "/relays/{name}/trial",      People, &[], none(), json::<rest::RelayTrial>(), "What it takes to try a broker that is not ours, with passwords", || get(relays::trial)),
        row("GET",    "/modules",                  People, &[], none(), json::<rest::List<rest::Module>>(), "Pushed modules", || get(modules::list)),
        row("GET",    "/modules/{digest}",         People, &[], none(), json::<rest::Module>(), "One module", || get(modules::show)),
        row("DELETE", "/modules/{digest}",         People, &[], none(), none(), "Removes a module that no application uses", || delete(modules::remove)),
        row("GET",    "/modules/{digest}/content", PeopleAndNodes, &[], none(), Content::Bytes, "The file; Range is honoured", || get(module_content::download)),
        row("PUT",    "/modules/{digest}/content", People, &[], Content::Bytes, json::<rest::Module>(), "The file, or the rest of it with Content-Range; 202 with an UploadState when more is to come", || put(uploads::upload)),
        row("GET",    "/modules/{digest}/code",    People, &[], none(), json::<rest::List<rest::ModuleCode>>(), "For which engines and targets the module was compiled", || get(module_code::list)),
        row("GET",    "/modules/{digest}/code/{target}", PeopleAndNodes, &["engine"], none(), Content::Bytes, "Compiled code, sealed and packed, compiled now if it was not before; Range is honoured", || get(module_code::download)),
        row("GET",    "/modules/{digest}/upload",  People, &[], none(), json::<rest::UploadState>(), "How much of an upload has arrived", || get(uploads::state)),
        row("GET",    "/applications",             People, &[], none(), json::<rest::List<rest::Application>>(), "All applications", || get(applications::list)),
        row("GET",    "/applications/{name}",      People, &[], none(), json::<rest::ApplicationDetail>(), "Everything about an application", || get(applications::show)),
        row("PUT",    "/applications/{name}",      People, &["dry_run", "careful", "keep_data"], Content::Yaml, json::<rest::ApplyResult>(), "Applies a manifest", || put(applications::apply)),
        row("DELETE", "/applications/{name}",      People, &["dry_run", "careful", "keep_data"], none(), json::<rest::Preview>(), "Deletes an application", || delete(applications::remove)),
        row("GET",    "/microservices",            People, &["application"], none(), json::<rest::List<rest::Microservice>>(), "Instances, desired and reported", || get(microservices::list)),
        row("GET",    "/routes",                   People, &["application"], none(), json::<rest::List<rest::Route>>(), "Routes with their counters", || get(microservices::routes)),
        row("GET",    "/routes/{route}",           People, &[], none(), json::<rest::RouteDetail>(), "A route, and the pairs of its ends, the worst of very many", || get(microservices::route)),
        row("GET",    "/logs",                     People, &["application", "microservice", "node", "tail", "since_ms", "follow"], none(), json::<rest::List<rest::LogEntry>>(), "Log lines; server-sent events with follow=true", || get(logs::list)),
        row("GET",    "/events",                   People, &["tail", "since_ms", "follow"], none(), json::<rest::List<rest::Event>>(), "What happened; server-sent events with follow=true", || get(events::list)),
    ]
}

/// The whole API below `/api/v1`.
pub(crate) fn router(app: App) -> Router {
    let mut api = Router::new();
    for route in routes() {
        let handler = (route.handler)();
        let guarded = match route.access {
            Access::Open => handler,
            Access::People => handler.route_layer(axum::middleware::from_fn_with_state(
                app.clone(),
                authentication::people,
            )),
            Access::PeopleAndNodes => handler.route_layer(axum::middleware::from_fn_with_state(
                app.clone(),
                authentication::people_and_nodes,
            )),
        };
        api = api.route(route.path, guarded);
    }
    Router::new()
        .nest("/api/v1", api)
        .fallback(answers::unknown_path)
        .method_not_allowed_fallback(answers::wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(app)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The protocol's documentation is the contract; the router is made from the table.
    #[test]
    fn the_table_has_exactly_the_routes_that_the_protocol_documents() {
        let source = include_str!("../../../protocol/src/rest.rs");
        let mut documented: Vec<(String, String)> = source
            .lines()
            .filter_map(|line| line.strip_prefix("//! "))
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let method = words
                    .next()
                    .filter(|word| ["GET", "PUT", "POST", "DELETE"].contains(word))?;
                let path = words.next()?.strip_prefix("/api/v1")?;
                Some((
                    method.to_owned(),
                    path.split('?').next().unwrap_or(path).to_owned(),
                ))
            })
            .collect();
        let mut listed: Vec<(String, String)> = routes()
            .iter()
            .map(|route| (route.method.to_owned(), route.path.to_owned()))
            .collect();
        documented.sort();
        listed.sort();
        assert_eq!(listed, documented);
    }

    #[test]
    fn what_is_open_to_everybody_is_what_the_protocol_says() {
        let open: Vec<&str> = routes()
            .iter()
            .filter(|route| route.access == Access::Open)
            .map(|route| route.path)
            .collect();
        assert_eq!(
            open,
            [
                "/site",
                "/site/ca",
                "/openapi.json",
                "/schemas/application.json",
                "/schemas/relay.json",
                "/enrolments"
            ]
        );
    }
}
