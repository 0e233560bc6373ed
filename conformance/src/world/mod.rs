//! `haar-conformance world`: the devices' side of Haar with brokers and clients that others make. A suite of
//! our own parts proves only that we agree with ourselves.

mod devices;
pub(crate) mod tools;
mod broker;
mod client;
pub(crate) mod witness;
mod scene;
mod checks;
mod deviations;
mod report;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;

use broker::Tried;
use checks::Check;
use client::Client;
use devices::Protocol;
use report::{Outcome, Row};
use scene::{Stage, World};
use tools::Tools;

use crate::interrupt;
use crate::programs::{Choice, Programs};
use crate::report::Format;
use crate::run::in_folder;
use crate::site::Site;

/// Try brokers and clients that others make
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A broker to try; may be given several times
    #[arg(long, value_name = "BROKER", default_values = ["mosquitto"])]
    broker: Vec<broker::Kind>,
    /// A client to try; may be given several times
    #[arg(long, value_name = "CLIENT", default_values = ["mosquitto-tools", "paho", "mqtt-js"])]
    client: Vec<client::Kind>,
    /// All brokers and clients; those that the distribution does not have are built or fetched
    #[arg(long, conflicts_with_all = ["broker", "client"])]
    all: bool,
    /// Only checks with this text in their name
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// How many messages a burst has
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    burst: u32,
    #[command(flatten)]
    programs: Choice,
    /// Keep data and logs of all processes in this directory, which must be empty or not there
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// How to write the outcome: `table` for people, `json` for programs
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// Runs `world`. False when something failed that is not a known deviation of a broker, or such a
/// deviation is none any more.
pub(crate) fn world(arguments: &Arguments) -> anyhow::Result<bool> {
    let programs = Programs::of(&arguments.programs)?;
    interrupt::listen()?;
    let (brokers, clients) = match arguments.all {
        true => (all::<broker::Kind>(), all::<client::Kind>()),
        false => (arguments.broker.clone(), arguments.client.clone()),
    };
    let began = Instant::now();
    let rows = in_folder(arguments.keep.as_deref(), |folder| {
        let tools = Tools::beside_us()?;
        let clients = clients.iter().map(|kind| {
            let folder = folder.join(kind.name().replace(['/', ' '], "-"));
            Client::new(*kind, &tools, &folder).with_context(|| kind.name())
        });
        let clients = clients.collect::<anyhow::Result<Vec<Client>>>()?;
        // What the owner of each device of the suite allows.
        let granted = folder.join("files");
        std::fs::create_dir_all(&granted)?;
        let mut site = Site::start(programs, folder)?;
        let agent = site.new_agent("world", &["--memory", "1GiB"], "")?;
        let mut world = World {
            site: &mut site,
            agent,
            witnesses: 0,
            running: None,
            folder: granted,
        };
        let mut rows = Vec::new();
        for kind in brokers {
            let folder = folder.join(format!("broker-{}", kind.name()));
            let mut broker = Tried::start(kind, &tools, &folder).with_context(|| kind.name())?;
            world.apply_relay(broker.port(Protocol::V5))?;
            for client in &clients {
                try_all(&mut world, &mut broker, client, arguments, &mut rows)?;
            }
        }
        Ok(rows)
    })?;
    let time = began.elapsed();
    match arguments.output {
        Format::Table => println!("{}", report::summary(&rows, time)),
        Format::Json => println!(
            "{}",
            serde_json::to_string_pretty(&report::json(&rows, time))?
        ),
    }
    Ok(!rows.iter().any(|row| row.outcome == Outcome::Failed))
}

fn all<T: clap::ValueEnum + Clone>() -> Vec<T> {
    T::value_variants().to_vec()
}

fn try_all(
    world: &mut World<'_>,
    broker: &mut Tried,
    client: &Client,
    arguments: &Arguments,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let wanted = |check: &&Check| check.name.contains(&arguments.filter);
    for check in checks::ALL.iter().filter(wanted) {
        if check.needs_survivor && !client.survives_restarts() {
            continue;
        }
        for protocol in check.protocols {
            interrupt::check()?;
            let row = try_one(world, broker, client, check, *protocol, arguments.burst);
            if arguments.output == Format::Table {
                println!("{}", report::line(&row));
            }
            rows.push(row);
        }
    }
    Ok(())
}

fn try_one(
    world: &mut World<'_>,
    broker: &mut Tried,
    client: &Client,
    check: &Check,
    protocol: Protocol,
    burst: u32,
) -> Row {
    let began = Instant::now();
    let (kind, version) = (broker.kind, broker.version.clone());
    let mut stage = Stage {
        world,
        broker,
        client,
        protocol,
        burst,
        deviations: Vec::new(),
    };
    let tried = (check.run)(&mut stage);
    let deviations = std::mem::take(&mut stage.deviations);
    // A check that failed leaves its application behind, and may leave a broker that has ended.
    let mut tried = world.end().and(tried);
    if tried.is_err() {
        tried = broker.renew().and(tried);
    }
    let (mut outcome, mut note) = deviations::judged(tried, kind, check.name, protocol);
    if outcome == Outcome::Ok && !deviations.is_empty() {
        outcome = Outcome::Deviates;
        note = format!(
            "{note}; of no use at this broker: {}",
            deviations.join(", ")
        );
    }
    Row {
        broker: kind.name(),
        broker_version: version,
        client: client.kind.name(),
        client_version: client.version.clone(),
        protocol: protocol.name(),
        check: check.name,
        outcome,
        note,
        time: began.elapsed(),
    }
}
