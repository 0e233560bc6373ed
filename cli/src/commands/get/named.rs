//! The items of a list that somebody names. Those that are there are shown; a name that nothing has is an
//! error all the same, with the name that may be meant.

use haar_protocol::ids::Name;
use haar_protocol::manifest::meant;
use haar_protocol::rest::List;
use serde_json::Value;

use crate::client::Client;
use crate::commands::describe::runs_nowhere;
use crate::error::{CommandError, Result};
use crate::kinds::Kind;

/// What was found.
pub(super) struct Chosen {
    /// The list with only the named items.
    pub(super) answer: String,
    /// An error when something named is not in the list.
    pub(super) missing: Result<()>,
}

impl Chosen {
    /// The items of `answer` that have one of `names`, in the order of the list.
    pub(super) fn of(client: &Client, kind: Kind, answer: &str, names: &[String]) -> Result<Self> {
        let mut list: List<Value> = client.parse(answer)?;
        let is_there = |name: &&String| list.items.iter().any(|item| kind.is_called(item, name));
        let missing = match names.iter().find(|name| !is_there(name)) {
            None => Ok(()),
            Some(name) => Err(not_there(client, kind, name, &list.items)),
        };
        list.items
            .retain(|item| names.iter().any(|name| kind.is_called(item, name)));
        let answer = serde_json::to_string_pretty(&list)
            .map_err(|error| CommandError::failure(format!("can't write the result: {error}")))?;
        Ok(Self { answer, missing })
    }
}

/// Nothing of the kind is called `name`.
fn not_there(client: &Client, kind: Kind, name: &str, items: &[Value]) -> CommandError {
    if matches!(kind, Kind::Microservices | Kind::Instances)
        && let Some(error) = no_instance(client, name)
    {
        return error;
    }
    let known: Vec<String> = items.iter().flat_map(|item| kind.names(item)).collect();
    let (one, all) = (kind.singular(), kind.plural());
    let code = match kind {
        Kind::Nodes => "unknown_node",
        Kind::Modules => "unknown_module",
        Kind::Applications => "unknown_application",
        Kind::Microservices | Kind::Instances => "unknown_microservice",
        Kind::Routes => "unknown_route",
        Kind::Publishers => "unknown_publisher",
        Kind::Relays => "unknown_relay",
        Kind::Events => "unknown_event",
    };
    let near = meant(name, known.iter().map(String::as_str))
        .unwrap_or_else(|| format!("`haar get {all}` lists what there is."));
    CommandError::not_found(code, format!("there is no {one} `{name}`")).hinted(near)
}

/// A microservice may be of an application and run nowhere: the site tells this from one that nobody knows.
fn no_instance(client: &Client, name: &str) -> Option<CommandError> {
    let (application, microservice) = match name.split_once('/') {
        Some((application, microservice)) => (Some(application), microservice),
        None => (None, name),
    };
    let application: Option<Name> = application.map(str::parse).transpose().ok()?;
    let microservice: Name = microservice.parse().ok()?;
    Some(runs_nowhere(
        client,
        application.as_ref(),
        &microservice,
        None,
    ))
}
