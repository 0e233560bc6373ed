//! `haar get`: what a site has, as tables, or as the API's own JSON.

mod filter;
mod long;
mod named;
mod tables;
mod microservices;
mod routes;

use std::time::Duration;

use haar_protocol::ids::Name;
use haar_protocol::quantity::Millis;
use haar_protocol::relay::RelayInfo;
use haar_protocol::rest::{
    Application, Event, List, Microservice, Module, Node, Route, TrustedPublisher,
};
use serde_json::Value;

use super::instances;
use crate::client::Client;
use crate::config::Options;
use crate::error::{CommandError, Result};
use crate::interrupt;
use crate::kinds::Kind;
use crate::output::{self, Format};
use filter::Filter;
use named::Chosen;

pub(super) use long::{LONG, Remarks, worst_first};
pub(super) use routes::{count_remarks, counted, counted_by_all, end, route_problems};
pub(super) use tables::{
    assignment, health, health_cell, instances, node_cell, relay_controller, relay_place,
    relay_role, remarks, running, since_age, state_cell,
};
pub(crate) use tables::{labels, node_state, state};

/// More events than a site keeps: one that is named may be any of them.
const EVENTS_ALL: u32 = 1_000_000;
const REFRESH: Duration = Duration::from_secs(2);
/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// List what the site has
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What to list: one of it is as good as all of it, `get node edge` as `get nodes edge` or `get node/edge`
    #[arg(value_name = "KIND")]
    kind: Kind,
    /// Only these; all when there is none
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Only microservices, instances or routes of this application
    #[arg(long, value_name = "NAME")]
    application: Option<Name>,
    /// Only so many of the last events [default: 100, or all with --since]
    #[arg(long, value_name = "COUNT")]
    tail: Option<u32>,
    /// Only events of the last time, such as 90s, 10m or 2h
    #[arg(long, value_name = "TIME")]
    since: Option<Millis>,
    #[command(flatten)]
    filter: Filter,
    /// Show it again every two seconds
    #[arg(long, short)]
    watch: bool,
}

/// Runs `haar get`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    arguments.check()?;
    let client = Client::of(options)?;
    arguments.filter.check(arguments.kind, &client)?;
    let path = arguments.path(&client)?;
    loop {
        let mut answer = client.get_text(&path)?;
        let mut missing = Ok(());
        if !arguments.names.is_empty() {
            let chosen = Chosen::of(&client, arguments.kind, &answer, &arguments.names)?;
            (answer, missing) = (chosen.answer, chosen.missing);
        }
        answer = arguments.filter.apply(arguments.kind, &client, answer)?;
        if arguments.watch && !options.is_json() && output::is_watched() {
            output::text(CLEAR)?;
        }
        arguments.show(&client, &answer, options)?;
        missing?;
        if !arguments.watch {
            return Ok(());
        }
        interrupt::sleep(REFRESH)?;
    }
}

impl Arguments {
    fn check(&self) -> Result<()> {
        let has_application = matches!(
            self.kind,
            Kind::Microservices | Kind::Instances | Kind::Routes
        );
        if self.application.is_some() && !has_application {
            return Err(CommandError::usage(
                "--application goes with `get microservices`, `get instances` and `get routes` only",
            ));
        }
        if self.since.is_some() && self.kind != Kind::Events {
            return Err(CommandError::usage("--since goes with `get events` only"));
        }
        Ok(())
    }

    fn path(&self, client: &Client) -> Result<String> {
        let path = self.kind.path();
        Ok(match (&self.application, self.kind) {
            (Some(application), _) => format!("{path}?application={application}"),
            (None, Kind::Events) => {
                let since = client.since(self.since)?;
                let tail = self.event_tail();
                let tail = tail.map_or_else(String::new, |tail| format!("tail={tail}"));
                format!("{path}?{since}{tail}")
            }
            (None, _) => path.to_owned(),
        })
    }

    /// How many events to ask for; none leaves it to the site.
    fn event_tail(&self) -> Option<u32> {
        let all = (!self.names.is_empty()).then_some(EVENTS_ALL);
        self.tail.or(all)
    }

    fn show(&self, client: &Client, answer: &str, options: &Options) -> Result<()> {
        match options.output {
            Format::Json | Format::Yaml => output::answer(answer),
            Format::Name => {
                let mut last = String::new();
                for item in client.parse::<List<Value>>(answer)?.items {
                    let names = self.kind.names(&item);
                    let name = names.first().expect("everything is called something");
                    let name = format!("{}/{}", self.kind.singular(), output::printable(name));
                    // Instances on several nodes are next to each other, and so are a publisher's keys.
                    if name != last {
                        output::line(&name)?;
                    }
                    last = name;
                }
                Ok(())
            }
            Format::Table | Format::Wide => {
                let is_named = !self.names.is_empty();
                if is_named && client.parse::<List<Value>>(answer)?.items.is_empty() {
                    return Ok(()); // the error says what there is not
                }
                output::text(&self.table(client, answer, options.is_wide())?)
            }
        }
    }

    /// True when instances of the application are asked for: then what has no place is told of it.
    fn is_about(&self, application: &Name) -> bool {
        if let Some(wanted) = &self.application {
            return wanted == application;
        }
        if self.names.is_empty() {
            return true;
        }
        let mut applications = self.names.iter().filter_map(|name| name.split_once('/'));
        applications.any(|(of, _)| of == application.as_str())
    }

    /// What was answered, for people.
    fn table(&self, client: &Client, answer: &str, wide: bool) -> Result<String> {
        let (now, filter) = (output::now_ms(), &self.filter);
        let (none, all) = (|usual| filter.none(usual), filter.problems);
        Ok(match self.kind {
            Kind::Nodes => {
                let items = client.parse::<List<Node>>(answer)?.items;
                let usual = "No nodes. Let one join: `haar node token`.";
                tables::nodes(&items, now, wide, all, none(usual))
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
                applications.retain(|one| self.is_about(&one.name));
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn an_event_is_looked_for_among_all() {
        for (line, tail) in [
            ("get events", None),
            ("get events --tail 5", Some(5)),
            ("get event 12", Some(EVENTS_ALL)),
            ("get event 12 --tail 5", Some(5)),
        ] {
            let line = Line::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(line.arguments.event_tail(), tail);
        }
    }
}
