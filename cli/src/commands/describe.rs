//! `haar describe`: everything about one thing.

mod microservice;
mod module;
mod node;
mod relay;
mod route;

pub(super) use microservice::runs_nowhere;
pub(super) use relay::session;

use clap::Subcommand;
use haar_protocol::ids::Name;
use haar_protocol::manifest::ModuleReference;
use haar_protocol::rest::{ApplicationDetail, List, Module, SiteHealth, TrustedPublisher};
use serde::de::DeserializeOwned;

use super::{get, instances};
use crate::client::Client;
use crate::config::Options;
use crate::error::{CommandError, Result};
use crate::kinds::DIGITS_MIN;
use crate::output::{self, facts};

/// Show everything about one thing
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A device that runs an agent
    Node { name: Name },
    /// A pushed WebAssembly component
    Module {
        /// NAME@VERSION, or the digest, whole or its beginning
        module: String,
    },
    /// What was applied
    Application { name: Name },
    /// The site as a whole
    Site,
    /// The instances of a microservice
    #[command(alias = "instance")]
    Microservice {
        /// APPLICATION/MICROSERVICE, or the microservice alone
        name: microservice::Argument,
        /// Only its instance on this node
        #[arg(long, value_name = "NAME")]
        node: Option<Name>,
    },
    /// A key whose modules run
    Publisher { name: Name },
    /// A broker between the site, its nodes and devices
    Relay { name: Name },
    /// Ways of messages, pair by pair
    #[command(aliases = ["routes", "rt"])]
    Route {
        /// APPLICATION/FROM, such as plant/filter.out or plant/mqtt:hall/+/t; an application, a microservice
        /// or an id stands for all of its routes
        name: String,
        /// The other end
        to: Option<String>,
    },
}

/// Runs `haar describe`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let client = Client::of(options)?;
    match &arguments.what {
        What::Node { name } => one(&client, options, &format!("nodes/{name}"), node::described),
        What::Application { name } => one(
            &client,
            options,
            &format!("applications/{name}"),
            application,
        ),
        What::Site => one(&client, options, "health", site),
        What::Module { module } => {
            let module = find_module(&client, module)?;
            let code = client.list(&format!("modules/{}/code", module.digest))?;
            let module = module::ModuleWithCode { module, code };
            if options.is_json() {
                return output::json(&module);
            }
            output::text(&module::described(&module))
        }
        What::Microservice { name, node } => {
            microservice::show(&client, options, name, node.as_ref())
        }
        What::Route { name, to } => route::run(&client, options, name, to.as_deref()),
        What::Relay { name } => one(
            &client,
            options,
            &format!("relays/{name}"),
            relay::described,
        ),
        What::Publisher { name } => publisher(&client, options, name),
    }
}

/// Shows what `path` answers: as it is for programs, by `show` for people.
fn one<T: DeserializeOwned>(
    client: &Client,
    options: &Options,
    path: &str,
    show: fn(&T) -> String,
) -> Result<()> {
    let answer = client.get_text(path)?;
    if options.is_json() {
        return output::answer(&answer);
    }
    output::text(&show(&client.parse(&answer)?))
}

/// The module that `text` names: by name and version (the newest), or by its digest or the
/// beginning of it.
pub(super) fn find_module(client: &Client, text: &str) -> Result<Module> {
    let modules: Vec<Module> = client.list("modules")?;
    let labels: Vec<String> = modules
        .iter()
        .map(|module| format!("{}@{}", module.name, module.version))
        .collect();
    let not_found = || CommandError::unknown("module", text, labels.iter().map(String::as_str));
    if let Ok(ModuleReference::Version { name, version }) = text.parse() {
        let matching = modules
            .into_iter()
            .filter(|module| module.name == name && module.version == version);
        return matching
            .max_by_key(|module| module.pushed_ms)
            .ok_or_else(not_found);
    }
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_digest =
        digits.len() >= DIGITS_MIN && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_digest {
        return Err(
            CommandError::usage(format!("`{text}` does not name a module"))
                .hinted("Write NAME@VERSION, or at least 6 digits of its digest."),
        );
    }
    let mut matching = modules
        .into_iter()
        .filter(|module| module.digest.to_hex().starts_with(digits));
    let module = matching.next().ok_or_else(not_found)?;
    if matching.next().is_some() {
        return Err(CommandError::usage(format!(
            "more than one module has a digest that begins with `{digits}`"
        ))
        .hinted("Give more of its digits."));
    }
    Ok(module)
}

fn site(site: &SiteHealth) -> String {
    let about = facts(&[
        ("Site", site.name.to_string()),
        ("Health", get::health(&site.health, output::now_ms())),
    ]);
    let mut table = output::Table::new(&[
        "OF ITS",
        "ALL",
        "HEALTHY",
        "PROGRESSING",
        "DEGRADED",
        "FAILED",
        "UNKNOWN",
    ]);
    for (what, count) in [
        ("nodes", site.nodes),
        ("applications", site.applications),
        ("instances", site.instances),
        ("relays", site.relays),
    ] {
        let counts = [
            count.all(),
            count.healthy,
            count.progressing,
            count.degraded,
            count.failed,
            count.unknown,
        ];
        let [all, healthy, progressing, degraded, failed, unknown] =
            counts.map(|count| count.to_string());
        table.row([
            what.to_owned(),
            all,
            healthy,
            progressing,
            degraded,
            failed,
            unknown,
        ]);
    }
    format!("{about}\n{}", table.render(""))
}

fn application(detail: &ApplicationDetail) -> String {
    let (application, now) = (&detail.application, output::now_ms());
    let pairs = facts(&[
        ("Application", application.name.to_string()),
        ("Revision", application.revision.to_string()),
        ("Applied", output::timestamp(application.applied_ms)),
        ("Health", get::health(&application.health, now)),
        ("Running", get::running(application)),
    ]);
    let now = output::now_ms();
    let mut unplaced = String::new();
    for one in &detail.unplaced {
        let line = format!(
            "{} of {}, since {}: {}\n",
            one.instances,
            one.microservice,
            output::timestamp(one.since_ms),
            output::printable(&one.reason)
        );
        unplaced.push_str(&line);
    }
    if !unplaced.is_empty() {
        unplaced = format!("\nWithout a place:\n{unplaced}");
    }
    let mut routes = output::Table::new(&[
        "FROM", "TO", "SENT", "HANDLED", "DROPPED", "WAITING", "COUNTED",
    ]);
    for route in &detail.routes {
        routes.row([
            route.from.clone(),
            route.to.clone(),
            route.sent.to_string(),
            route.handled.to_string(),
            route.dropped.to_string(),
            route.waiting.to_string(),
            get::counted_by_all(route, now),
        ]);
    }
    let routes = routes.render("It has no routes.") + &get::route_problems(&detail.routes);
    format!(
        "{pairs}{unplaced}\n{}\n{routes}{}",
        instances::described(&detail.microservices, now),
        get::count_remarks(&detail.routes, now)
    )
}

fn publisher(client: &Client, options: &Options, name: &Name) -> Result<()> {
    let publishers: Vec<TrustedPublisher> = client.list("publishers")?;
    let (items, others): (Vec<TrustedPublisher>, Vec<_>) = publishers
        .into_iter()
        .partition(|publisher| publisher.name == *name);
    if items.is_empty() {
        let others = others.iter().map(|other| other.name.as_str());
        return Err(CommandError::unknown("publisher", name.as_str(), others));
    }
    if options.is_json() {
        return output::json(&List { items });
    }
    let mut pairs = vec![("Publisher", name.to_string())];
    for publisher in &items {
        pairs.extend([
            ("Key", publisher.key.to_string()),
            ("Fingerprint", publisher.key.fingerprint()),
            ("Trusted since", output::timestamp(publisher.added_ms)),
        ]);
    }
    output::text(&facts(&pairs))
}
