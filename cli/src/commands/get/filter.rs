//! Which things of a list are shown: those on a node, with labels, in a state, or with problems. JSON
//! has the same ones, each as the site says it.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::ids::Name;
use haar_protocol::relay::RelayInfo;
use haar_protocol::rest::{Application, Health, HealthState, List, Microservice, Node, Route};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Kind;
use super::tables::{node_state, state};
use crate::client::Client;
use crate::commands::node::parse_label;
use crate::error::{CommandError, Result};

/// What is shown of a list.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Filter {
    /// Only what runs on this node, and routes that begin or end there
    #[arg(long, value_name = "NAME")]
    node: Option<Name>,
    /// Only nodes with this label, and what runs on them; may be repeated
    #[arg(long, short = 'l', value_name = "NAME=VALUE", value_parser = parse_label, value_delimiter = ',')]
    label: Vec<(String, String)>,
    /// Only what is in this state
    #[arg(long, value_enum, value_name = "STATE", value_delimiter = ',')]
    state: Vec<State>,
    /// Only what is not healthy, with all remarks
    #[arg(long)]
    pub(super) problems: bool,
}

/// The states by which lists are filtered: of health, of nodes, and of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum State {
    Healthy,
    Progressing,
    Degraded,
    Failed,
    Unknown,
    Online,
    Offline,
    Preparing,
    Running,
    Hibernating,
    BackOff,
    Refused,
    Stopping,
}

impl State {
    /// True of something with this health, that tables show in one of these words.
    fn is_of(self, health: &Health, words: &[String]) -> bool {
        let state = match self {
            State::Healthy => HealthState::Healthy,
            State::Progressing => HealthState::Progressing,
            State::Degraded => HealthState::Degraded,
            State::Failed => HealthState::Failed,
            State::Unknown => HealthState::Unknown,
            other => {
                let value = clap::ValueEnum::to_possible_value(&other);
                let name = value.as_ref().map(|value| value.get_name());
                return words.iter().any(|word| Some(word.as_str()) == name);
            }
        };
        health.state == state
    }
}

impl Filter {
    /// True when everything is shown.
    pub(super) fn is_none(&self) -> bool {
        self.node.is_none() && self.label.is_empty() && self.state.is_empty() && !self.problems
    }

    /// What a table without rows says: `usual`, unless something was left out.
    pub(super) fn none<'t>(&self, usual: &'t str) -> &'t str {
        match self.is_none() {
            true => usual,
            false => "Nothing matches.",
        }
    }

    /// Checks that what is asked for can be told of a list, and that there is such a node.
    pub(super) fn check(&self, kind: Kind, client: &Client) -> Result<()> {
        let is_of_nodes = matches!(kind, Kind::Microservices | Kind::Instances | Kind::Routes);
        let has_health = matches!(
            kind,
            Kind::Nodes | Kind::Applications | Kind::Microservices | Kind::Instances | Kind::Relays
        );
        let wrong = [
            (
                self.node.is_some() && !is_of_nodes,
                "--node goes with `get microservices`, `get instances` and `get routes` only",
            ),
            (
                !self.label.is_empty()
                    && !matches!(kind, Kind::Nodes | Kind::Microservices | Kind::Instances),
                "--label goes with `get nodes`, `get microservices` and `get instances` only",
            ),
            (
                !self.state.is_empty() && !has_health,
                "--state goes with what has a health: nodes, applications, microservices, instances, relays",
            ),
            (
                self.problems && !has_health && kind != Kind::Routes,
                "--problems does not go with modules, publishers and events",
            ),
        ];
        if let Some((_, message)) = wrong.iter().find(|(is_wrong, _)| *is_wrong) {
            return Err(CommandError::usage(*message));
        }
        match &self.node {
            Some(node) => client.check_names(None, None, Some(node)),
            None => Ok(()),
        }
    }

    /// The answer without what is not shown.
    pub(super) fn apply(&self, kind: Kind, client: &Client, answer: String) -> Result<String> {
        if self.is_none() {
            return Ok(answer);
        }
        let labels = match self.label.is_empty() || kind == Kind::Nodes {
            true => BTreeMap::new(),
            false => {
                let nodes = client.list::<Node>("nodes")?.into_iter();
                nodes.map(|node| (node.name, node.labels)).collect()
            }
        };
        let list: List<Value> = client.parse(&answer)?;
        let mut items = Vec::new();
        for item in list.items {
            if self.shows(kind, client, &item, &labels)? {
                items.push(item);
            }
        }
        serde_json::to_string(&List { items })
            .map_err(|error| CommandError::failure(format!("can't write the result: {error}")))
    }

    fn shows(
        &self,
        kind: Kind,
        client: &Client,
        item: &Value,
        labels: &BTreeMap<Name, BTreeMap<String, String>>,
    ) -> Result<bool> {
        fn read<T: DeserializeOwned>(client: &Client, item: &Value) -> Result<T> {
            client.parse(&item.to_string())
        }
        Ok(match kind {
            Kind::Nodes => self.has_node(&read(client, item)?),
            Kind::Applications => self.has_health(&read::<Application>(client, item)?.health, &[]),
            Kind::Relays => self.has_health(&read::<RelayInfo>(client, item)?.health, &[]),
            Kind::Microservices | Kind::Instances => {
                let instance: Microservice = read(client, item)?;
                let its = labels.get(&instance.node);
                self.has_instance(&instance, its)
            }
            Kind::Routes => self.has_route(&read(client, item)?),
            Kind::Modules | Kind::Publishers | Kind::Events => true,
        })
    }

    fn has_node(&self, node: &Node) -> bool {
        let word = if node.online { "online" } else { "offline" };
        self.has_labels(&node.labels)
            && self.has_health(&node.health, &[word.to_owned(), node_state(node)])
    }

    fn has_instance(
        &self,
        instance: &Microservice,
        labels: Option<&BTreeMap<String, String>>,
    ) -> bool {
        let is_there = self.node.as_ref().is_none_or(|node| *node == instance.node);
        let has_labels =
            self.label.is_empty() || labels.is_some_and(|labels| self.has_labels(labels));
        is_there && has_labels && self.has_health(&instance.health, &[state(instance)])
    }

    fn has_route(&self, route: &Route) -> bool {
        let ends: BTreeSet<&Name> = route.from_nodes.iter().chain(&route.to_nodes).collect();
        let is_there = self.node.as_ref().is_none_or(|node| ends.contains(node));
        let is_wrong = !route.problems.is_empty() || !route.uncounted.is_empty();
        is_there && (is_wrong || !self.problems)
    }

    fn has_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let mut wanted = self.label.iter();
        wanted.all(|(name, value)| labels.get(name) == Some(value))
    }

    fn has_health(&self, health: &Health, words: &[String]) -> bool {
        let is_in_state =
            self.state.is_empty() || self.state.iter().any(|state| state.is_of(health, words));
        is_in_state && !(self.problems && health.is_healthy())
    }
}

#[cfg(test)]
mod tests;
