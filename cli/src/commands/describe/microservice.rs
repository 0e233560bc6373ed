//! The instances of a microservice as `haar describe` shows them.

use haar_protocol::ids::{InvalidId, Name};
use haar_protocol::rest::{List, Microservice};

use crate::client::Client;
use crate::commands::instances;
use crate::config::Options;
use crate::error::{CommandError, Result};
use crate::output;

/// `APPLICATION/MICROSERVICE`, or one of them.
#[derive(Debug, Clone)]
pub(super) struct Argument {
    application: Option<Name>,
    microservice: Name,
}

impl std::str::FromStr for Argument {
    type Err = InvalidId;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(match text.split_once('/') {
            Some((application, microservice)) => Self {
                application: Some(application.parse()?),
                microservice: microservice.parse()?,
            },
            None => Self {
                application: None,
                microservice: text.parse()?,
            },
        })
    }
}

/// Shows the instances.
pub(super) fn show(
    client: &Client,
    options: &Options,
    wanted: &Argument,
    node: Option<&Name>,
) -> Result<()> {
    let query = wanted
        .application
        .as_ref()
        .map_or_else(String::new, |application| {
            format!("?application={application}")
        });
    let answer = client.get_text(&format!("microservices{query}"))?;
    let instances: Vec<Microservice> = client.parse::<List<Microservice>>(&answer)?.items;
    let is_wanted = |instance: &Microservice| {
        instance.name.microservice == wanted.microservice
            && node.is_none_or(|node| *node == instance.node)
            && wanted
                .application
                .as_ref()
                .is_none_or(|application| *application == instance.name.application)
    };
    let matching: Vec<Microservice> = instances.into_iter().filter(is_wanted).collect();
    if matching.is_empty() {
        let application = wanted.application.as_ref();
        return Err(runs_nowhere(
            client,
            application,
            &wanted.microservice,
            node,
        ));
    }
    if options.is_json() {
        return output::json(&List { items: matching });
    }
    output::text(&instances::described(&matching, output::now_ms()))
}

/// A microservice that has no instance, or none on a node: nobody knows it, or it has no place.
pub(in crate::commands) fn runs_nowhere(
    client: &Client,
    application: Option<&Name>,
    microservice: &Name,
    node: Option<&Name>,
) -> CommandError {
    match client.check_names(application, Some(microservice), node) {
        Err(error) => error,
        Ok(()) => CommandError::not_found(
            "unknown_microservice",
            match node {
                Some(node) => format!("`{microservice}` does not run on `{node}`"),
                None => format!("microservice `{microservice}` runs on no node"),
            },
        )
        .hinted("`haar describe application NAME` says where it should run."),
    }
}
