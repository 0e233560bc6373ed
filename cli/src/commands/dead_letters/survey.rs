//! `haar dead-letters list`: asks nodes for all the dead letters that they keep, and says which
//! nodes were not heard.

use std::collections::BTreeSet;

use haar_protocol::dead_letters::{DeadLetter, DeadLetterPage};
use haar_protocol::ids::Name;
use haar_protocol::rest::{Microservice, Node};
use serde::Serialize;

use crate::client::Client;
use crate::config::Options;
use crate::error::Result;
use crate::output::{self, Table};

/// Whose letters.
pub(super) struct Filter {
    pub(super) application: Option<Name>,
    pub(super) microservice: Option<Name>,
}

/// A letter and the node that keeps it.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    pub(super) node: Name,
    #[serde(flatten)]
    pub(super) letter: DeadLetter,
}

/// A node that was not heard.
#[derive(Debug, Serialize)]
struct Unheard {
    node: Name,
    message: String,
}

/// Everything that was found.
#[derive(Debug, Default, Serialize)]
struct Survey {
    items: Vec<Found>,
    unheard: Vec<Unheard>,
}

/// Runs `haar dead-letters list`.
pub(super) fn list(node: Option<&Name>, filter: &Filter, options: &Options) -> Result<()> {
    let client = Client::of(options)?;
    let survey = match node {
        Some(node) => {
            let mut survey = Survey::default();
            collect(&client, node, filter, &mut survey.items)?;
            survey
        }
        None => everywhere(&client, filter)?,
    };
    if survey.items.is_empty() && survey.unheard.is_empty() {
        let (application, microservice) = (&filter.application, &filter.microservice);
        client.check_names(application.as_ref(), microservice.as_ref(), node)?;
    }
    if options.is_json() {
        return output::json(&survey);
    }
    output::text(&table(&survey.items, output::now_ms()))?;
    for unheard in &survey.unheard {
        output::warning(format!(
            "node {} was not heard: {}",
            unheard.node,
            output::printable(&unheard.message)
        ));
    }
    Ok(())
}

/// Asks every node that runs something. One that does not answer does not hide the others.
fn everywhere(client: &Client, filter: &Filter) -> Result<Survey> {
    let instances: Vec<Microservice> = client.list("microservices")?;
    let busy: BTreeSet<Name> = instances.into_iter().map(|one| one.node).collect();
    let nodes: Vec<Node> = client.list("nodes")?;
    let mut survey = Survey::default();
    for node in nodes.into_iter().filter(|node| busy.contains(&node.name)) {
        if let Err(error) = collect(client, &node.name, filter, &mut survey.items) {
            survey.unheard.push(Unheard {
                node: node.name,
                message: error.message,
            });
        }
    }
    Ok(survey)
}

/// All pages of one node.
fn collect(client: &Client, node: &Name, filter: &Filter, items: &mut Vec<Found>) -> Result<()> {
    let parts = [
        ("application", &filter.application),
        ("microservice", &filter.microservice),
    ];
    // Names need no escapes in a URL.
    let query: String = parts
        .iter()
        .filter_map(|(key, name)| name.as_ref().map(|name| format!("{key}={name}&")))
        .collect();
    let mut after = Some(0);
    while let Some(last) = after {
        let path = format!("nodes/{node}/dead-letters?{query}after={last}");
        let page: DeadLetterPage = client.get(&path)?;
        items.extend(page.items.into_iter().map(|letter| Found {
            node: node.clone(),
            letter,
        }));
        // What does not go on ends here: a node does not keep us for ever.
        after = page.next_after.filter(|next| *next > last);
    }
    Ok(())
}

pub(super) fn table(items: &[Found], now: u64) -> String {
    let mut table = Table::new(&[
        "ID",
        "NODE",
        "MICROSERVICE",
        "INLET",
        "DIED",
        "ATTEMPTS",
        "SIZE",
        "REASON",
    ]);
    for found in items {
        let letter = &found.letter;
        table.row([
            letter.id.to_string(),
            found.node.to_string(),
            letter.owner.to_string(),
            output::printable(&letter.inlet),
            output::age(now, letter.died_ms),
            letter.attempts.to_string(),
            output::bytes(letter.body_bytes),
            output::printable(letter.reason.lines().next().unwrap_or_default()),
        ]);
    }
    table.render("No dead letters.")
}
