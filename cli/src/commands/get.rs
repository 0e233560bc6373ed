//! `haar get`: what a site has, as tables, or as the API's own JSON.

mod filter;
mod long;
mod tables;
mod microservices;
mod routes;

use std::time::Duration;

use clap::ValueEnum;
use haar_protocol::ids::Name;
use haar_protocol::relay::RelayInfo;
use haar_protocol::rest::{
    Application, Event, List, Microservice, Module, Node, Route, TrustedPublisher,
};

use super::instances;
use crate::client::Client;
use crate::config::Options;
use crate::error::{CommandError, Result};
use crate::interrupt;
use crate::output;
use filter::Filter;

pub(super) use long::{LONG, Remarks, worst_first};
pub(super) use routes::{count_remarks, counted, counted_by_all, end, route_problems};
pub(super) use tables::{
    assignment, health, instances, relay_controller, relay_place, relay_role, remarks, running,
    since_age,
};
pub(crate) use tables::{labels, node_state, state};

const REFRESH: Duration = Duration::from_secs(2);
/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// List what the site has
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What to list
    kind: Kind,
    /// Only microservices, instances or routes of this application
    #[arg(long, value_name = "NAME")]
    application: Option<Name>,
    /// Only so many of the last events
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    tail: u32,
    #[command(flatten)]
    filter: Filter,
    /// Show it again every two seconds
    #[arg(long, short)]
    watch: bool,
}

/// What a site has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Devices that run an agent
    #[value(alias = "node")]
    Nodes,
    /// Pushed WebAssembly components
    #[value(alias = "module")]
    Modules,
    /// What was applied
    #[value(aliases = ["application", "apps"])]
    Applications,
    /// What runs, one line for each however many instances it has
    #[value(alias = "microservice")]
    Microservices,
    /// Instances of microservices: what should run where, and what does
    #[value(alias = "instance")]
    Instances,
    /// Ways of messages, with their counters
    #[value(alias = "route")]
    Routes,
    /// Keys whose modules run
    #[value(alias = "publisher")]
    Publishers,
    /// Brokers between the site and its nodes
    #[value(alias = "relay")]
    Relays,
    /// What happened
    #[value(alias = "event")]
    Events,
}

/// Runs `haar get`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let path = arguments.path()?;
    let client = Client::of(options)?;
    arguments.filter.check(arguments.kind, &client)?;
    loop {
        let answer = client.get_text(&path)?;
        let answer = arguments.filter.apply(arguments.kind, &client, answer)?;
        let shown = if options.is_json() {
            format!("{}\n", answer.trim_end())
        } else {
            arguments.table(&client, &answer, options.is_wide())?
        };
        if arguments.watch && !options.is_json() && output::is_watched() {
            output::text(CLEAR)?;
        }
        output::text(&shown)?;
        if !arguments.watch {
            return Ok(());
        }
        interrupt::sleep(REFRESH)?;
    }
}

impl Arguments {
    fn path(&self) -> Result<String> {
        let path = match self.kind {
            Kind::Nodes => "nodes".to_owned(),
            Kind::Modules => "modules".to_owned(),
            Kind::Applications => "applications".to_owned(),
            Kind::Microservices | Kind::Instances => "microservices".to_owned(),
            Kind::Routes => "routes".to_owned(),
            Kind::Publishers => "publishers".to_owned(),
            Kind::Relays => "relays".to_owned(),
            Kind::Events => format!("events?tail={}", self.tail),
        };
        match (&self.application, self.kind) {
            (None, _) => Ok(path),
            (Some(application), Kind::Microservices | Kind::Instances | Kind::Routes) => {
                Ok(format!("{path}?application={application}"))
            }
            (Some(_), _) => Err(CommandError::usage(
                "--application goes with `get microservices`, `get instances` and `get routes` only",
            )),
        }
    }

    /// What was answered, for people.
    fn table(&self, client: &Client, answer: &str, wide: bool) -> Result<String> {
        let (now, filter) = (output::now_ms(), &self.filter);
        let (none, all) = (|usual| filter.none(usual), filter.problems);
        Ok(match self.kind {
            Kind::Nodes => {
                let items = client.parse::<List<Node>>(answer)?.items;
                let usual = "No nodes. Let one join: `haar node token`.";
                tables::nodes(&items, now, all, none(usual))
            }
            Kind::Modules => tables::modules(&client.parse::<List<Module>>(answer)?.items, now),
            Kind::Applications => {
                let items = client.parse::<List<Application>>(answer)?.items;
                let usual = "No applications. Apply one: `haar apply -f FILE`.";
                tables::applications(&items, now, all, none(usual))
            }
            Kind::Microservices | Kind::Instances => {
                let items = client.parse::<List<Microservice>>(answer)?.items;
                let none = none("No microservices. Apply an application: `haar apply -f FILE`.");
                let table = match (self.kind, wide) {
                    (Kind::Microservices, false) => {
                        microservices::microservices(&items, now, all, none)
                    }
                    (_, false) => tables::instances(&items, now, all, none),
                    (_, true) => instances::wide(&items, now, all, none),
                };
                let mut applications: Vec<Application> = client.list("applications")?;
                let of = self.application.as_ref();
                applications.retain(|one| of.is_none_or(|name| *name == one.name));
                tables::with_remarks(table, &tables::without_place(&applications))
            }
            Kind::Routes => {
                let items = client.parse::<List<Route>>(answer)?.items;
                routes::routes(&items, now, wide, none("No routes."))
            }
            Kind::Publishers => {
                tables::publishers(&client.parse::<List<TrustedPublisher>>(answer)?.items, now)
            }
            Kind::Relays => {
                let items = client.parse::<List<RelayInfo>>(answer)?.items;
                tables::relays(&items, now, all, none("No relays."))
            }
            Kind::Events => tables::events(&client.parse::<List<Event>>(answer)?.items),
        })
    }
}
