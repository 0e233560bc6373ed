//! `haar get`: what a site has, as tables, or as the API's own JSON.

mod tables;
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

pub(super) use routes::{count_remarks, counted, counted_by_all, route_problems};
pub(super) use tables::{
    assignment, health, microservices, relay_controller, relay_place, relay_role, remarks, running,
    since_age, with_remarks,
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
    /// Only microservices or routes of this application
    #[arg(long, value_name = "NAME")]
    application: Option<Name>,
    /// Only so many of the last events
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    tail: u32,
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
    /// Instances: what should run where, and what does
    #[value(alias = "microservice")]
    Microservices,
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
    loop {
        let answer = client.get_text(&path)?;
        let shown = if options.is_json() {
            format!("{}\n", answer.trim_end())
        } else {
            let of = arguments.application.as_ref();
            arguments
                .kind
                .table(&client, &answer, options.is_wide(), of)?
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
            Kind::Microservices => "microservices".to_owned(),
            Kind::Routes => "routes".to_owned(),
            Kind::Publishers => "publishers".to_owned(),
            Kind::Relays => "relays".to_owned(),
            Kind::Events => format!("events?tail={}", self.tail),
        };
        match (&self.application, self.kind) {
            (None, _) => Ok(path),
            (Some(application), Kind::Microservices | Kind::Routes) => {
                Ok(format!("{path}?application={application}"))
            }
            (Some(_), _) => Err(CommandError::usage(
                "--application goes with `get microservices` and `get routes` only",
            )),
        }
    }
}

impl Kind {
    /// What was answered, for people; `of` is the application that was asked for.
    fn table(self, client: &Client, answer: &str, wide: bool, of: Option<&Name>) -> Result<String> {
        let now = output::now_ms();
        Ok(match self {
            Kind::Nodes => tables::nodes(&client.parse::<List<Node>>(answer)?.items, now),
            Kind::Modules => tables::modules(&client.parse::<List<Module>>(answer)?.items, now),
            Kind::Applications => {
                tables::applications(&client.parse::<List<Application>>(answer)?.items, now)
            }
            Kind::Microservices => {
                let items = client.parse::<List<Microservice>>(answer)?.items;
                let table = match wide {
                    false => tables::microservices(&items, now),
                    true => instances::wide(&items, now),
                };
                let mut applications: Vec<Application> = client.list("applications")?;
                applications.retain(|one| of.is_none_or(|name| *name == one.name));
                tables::with_remarks(table, &tables::without_place(&applications))
            }
            Kind::Routes => routes::routes(&client.parse::<List<Route>>(answer)?.items, now),
            Kind::Publishers => {
                tables::publishers(&client.parse::<List<TrustedPublisher>>(answer)?.items, now)
            }
            Kind::Relays => tables::relays(&client.parse::<List<RelayInfo>>(answer)?.items),
            Kind::Events => tables::events(&client.parse::<List<Event>>(answer)?.items),
        })
    }
}
