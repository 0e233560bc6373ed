//! `haar get`: what a site has, as tables, or as the API's own JSON.

mod named;
mod tables;
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
use named::Chosen;

pub(super) use routes::{count_remarks, counted, counted_by_all, route_problems};
pub(super) use tables::{
    assignment, health, microservices, node_cell, relay_controller, relay_place, relay_role,
    remarks, running, since_age, state_cell, with_remarks,
};
pub(crate) use tables::{labels, node_state, state};

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
    /// Only microservices or routes of this application
    #[arg(long, value_name = "NAME")]
    application: Option<Name>,
    /// Only so many of the last events [default: 100, or all with --since]
    #[arg(long, value_name = "COUNT")]
    tail: Option<u32>,
    /// Only events of the last time, such as 90s, 10m or 2h
    #[arg(long, value_name = "TIME")]
    since: Option<Millis>,
    /// Show it again every two seconds
    #[arg(long, short)]
    watch: bool,
}

/// Runs `haar get`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    arguments.check()?;
    let client = Client::of(options)?;
    let path = arguments.path(&client)?;
    loop {
        let mut answer = client.get_text(&path)?;
        let mut missing = Ok(());
        if !arguments.names.is_empty() {
            let chosen = Chosen::of(&client, arguments.kind, &answer, &arguments.names)?;
            (answer, missing) = (chosen.answer, chosen.missing);
        }
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
        let has_application = matches!(self.kind, Kind::Microservices | Kind::Routes);
        if self.application.is_some() && !has_application {
            return Err(CommandError::usage(
                "--application goes with `get microservices` and `get routes` only",
            ));
        }
        if self.since.is_some() && self.kind != Kind::Events {
            return Err(CommandError::usage("--since goes with `get events` only"));
        }
        Ok(())
    }

    fn path(&self, client: &Client) -> Result<String> {
        let path = self.kind.plural();
        Ok(match (&self.application, self.kind) {
            (Some(application), _) => format!("{path}?application={application}"),
            (None, Kind::Events) => {
                let since = client.since(self.since)?;
                let tail = self
                    .tail
                    .map_or_else(String::new, |tail| format!("tail={tail}"));
                format!("{path}?{since}{tail}")
            }
            (None, _) => path.to_owned(),
        })
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
                // What has no place is told of the applications that were asked for.
                let of = |name: &Name| match &self.application {
                    Some(application) => application == name,
                    None => self.names.is_empty() || self.names_instance_of(name),
                };
                output::text(&table(self.kind, client, answer, options.is_wide(), &of)?)
            }
        }
    }

    /// True when a microservice of the application is named with it.
    fn names_instance_of(&self, application: &Name) -> bool {
        let mut applications = self.names.iter().filter_map(|name| name.split_once('/'));
        applications.any(|(of, _)| of == application.as_str())
    }
}

/// What was answered, for people; `of` says whether an application was asked for.
fn table(
    kind: Kind,
    client: &Client,
    answer: &str,
    wide: bool,
    of: &dyn Fn(&Name) -> bool,
) -> Result<String> {
    let now = output::now_ms();
    Ok(match kind {
        Kind::Nodes => tables::nodes(&client.parse::<List<Node>>(answer)?.items, now, wide),
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
            applications.retain(|one| of(&one.name));
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
