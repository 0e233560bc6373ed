//! `haar up`: a whole site on this machine, as for production: controller, relay and one agent,
//! each a process of its own, all data below one directory. Started again it goes on where it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use haar_protocol::ids::Name;
use haar_protocol::rest::Node;
use serde::Serialize;

use crate::children::{Echo, Site};
use crate::client::Client;
use crate::config::{self, Options};
use crate::error::{CommandError, Exit, Result, about_file};
use crate::files::{self, Readers};
use crate::local_site::{self, ControllerOrder, Ready};
use crate::progress::Progress;
use crate::{interrupt, output};

/// Run a site on this machine: controller, relay and one agent
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = "./haar-site")]
    data: PathBuf,
    /// Address and port of the controller's REST API [default: 127.0.0.1:7420]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address and port of the relay [default: 127.0.0.1:7421]
    #[arg(long, value_name = "ADDRESS")]
    relay_listen: Option<String>,
    /// Name or address by which nodes on other machines reach this one
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Name of the site, chosen on the first start
    #[arg(long)]
    name: Option<Name>,
    /// Name of this machine's node
    #[arg(long, value_name = "NAME", default_value = "local")]
    node: Name,
}

/// What runs, for programs: one line of JSON on stdout.
#[derive(Debug, Serialize)]
struct Running<'a> {
    event: &'static str,
    site: &'a str,
    url: &'a str,
    relay: &'a str,
    context: &'a Path,
    node: &'a Name,
}

/// Runs `haar up` until somebody stops it.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    interrupt::hold();
    let mut site = Site::default();
    let result = run_site(arguments, options, &mut site);
    let stopping = progress(options).step("Stopping");
    let killed = site.stop();
    match killed.as_slice() {
        [] => stopping.done("Stopped in order"),
        killed => output::warning(format!(
            "had to kill {}: it did not end in time",
            killed.join(" and ")
        )),
    }
    match result {
        // Ctrl-C is how this command ends: it has done what it should.
        Err(error) if error.exit == Exit::Interrupted && killed.is_empty() => Ok(()),
        other => other,
    }
}

fn run_site(arguments: &Arguments, options: &Options, site: &mut Site) -> Result<()> {
    let echo = if options.quiet {
        Echo::Silent
    } else {
        Echo::Lines
    };
    let data = make_folder(&arguments.data)?;
    let step = progress(options).step("Starting the controller");
    let (controller, ready, client) = local_site::start_controller(ControllerOrder {
        data: &data.join("controller"),
        name: arguments.name.as_ref().map(Name::as_str),
        listen: arguments.listen.as_deref(),
        relay_listen: arguments.relay_listen.as_deref(),
        advertise: arguments.advertise.as_deref(),
        echo,
    })?;
    site.controller = Some(controller);
    step.done(format!("The controller runs at {}", ready.url));

    let step = progress(options).step("Starting the agent");
    let agent_data = data.join("agent");
    let addresses = Addresses {
        file: data.join("addresses"),
        text: format!("{}\n{}\n", ready.url, ready.relay),
    };
    if !is_enrolled(&client, &arguments.node, &agent_data)? || !addresses.are_known() {
        // The same key enrols again when the site has moved: the node learns its new addresses.
        local_site::enrol(&client, &arguments.node, BTreeMap::new(), &agent_data)?;
        addresses.remember()?;
    }
    site.agents
        .push(local_site::start_agent("agent", &agent_data, None, echo)?);
    step.done(format!("The agent runs as node {}", arguments.node));

    tell(arguments, options, &ready, &client)?;
    loop {
        site.check()?;
        interrupt::sleep(interrupt::POLL * 4)?;
    }
}

/// Lines also on a terminal: a spinner would run into the lines of the children.
fn progress(options: &Options) -> Progress {
    match options.progress() {
        Progress::Terminal | Progress::Lines => Progress::Lines,
        Progress::Quiet => Progress::Quiet,
    }
}

/// The directory as an absolute path, for its owner alone.
fn make_folder(folder: &Path) -> Result<PathBuf> {
    files::make_private_folder(folder).map_err(about_file("make", folder))?;
    folder.canonicalize().map_err(about_file("use", folder))
}

/// Where the site listened when this machine's node enrolled, as a file.
struct Addresses {
    file: PathBuf,
    text: String,
}

impl Addresses {
    fn are_known(&self) -> bool {
        fs::read_to_string(&self.file).is_ok_and(|known| known == self.text)
    }

    fn remember(&self) -> Result<()> {
        files::write(&self.file, self.text.as_bytes(), Readers::Owner, true)
            .map_err(about_file("write", &self.file))
    }
}

/// Whether an earlier run made this machine a node: the site knows the node, and its data is here.
fn is_enrolled(client: &Client, node: &Name, data: &Path) -> Result<bool> {
    let known = client
        .list::<Node>("nodes")?
        .iter()
        .any(|known| known.name == *node);
    let has_data = fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_some());
    match (known, has_data) {
        (true, true) => Ok(true),
        (false, _) => Ok(false),
        (true, false) => Err(CommandError::refused("node_without_data", format!("the site has a node {node}, and its data is not in {}", data.display()))
            .hinted(format!("If it is lost, stop this site, bring it up with --node OTHER-NAME, and then `haar delete node {node}`."))),
    }
}

fn tell(arguments: &Arguments, options: &Options, ready: &Ready, client: &Client) -> Result<()> {
    let installed = install_context(ready)?;
    if options.is_json() {
        let running = Running {
            event: "ready",
            site: ready.site.as_str(),
            url: &ready.url,
            relay: &ready.relay,
            context: &ready.context,
            node: &arguments.node,
        };
        let line = serde_json::to_string(&running)
            .map_err(|error| CommandError::failure(error.to_string()))?;
        return output::line(line);
    }
    output::text(&output::facts(&[
        (
            "Site",
            format!("{} ({})", client.context().name, ready.site),
        ),
        ("Controller", ready.url.clone()),
        ("Relay", ready.relay.clone()),
        ("Context", ready.context.display().to_string()),
    ]))?;
    let next = match installed {
        Installed::Yes(file) => format!(
            "Other terminals reach it by {}: try `haar get nodes`.",
            file.display()
        ),
        Installed::OtherSite(file) => format!(
            "Hint: {} is of another site, so it stays. Reach this one with `haar --context {} get nodes`, or set HAAR_CONTEXT.",
            file.display(),
            ready.context.display()
        ),
        Installed::Nowhere => format!(
            "Reach it with `haar --context {} get nodes`.",
            ready.context.display()
        ),
    };
    progress(options).say(format!("{next}\nCtrl-C stops it."));
    Ok(())
}

enum Installed {
    Yes(PathBuf),
    OtherSite(PathBuf),
    Nowhere,
}

/// Puts the context where every command looks for it, unless one of another site is there.
fn install_context(ready: &Ready) -> Result<Installed> {
    let Ok(file) = config::default_context_file() else {
        return Ok(Installed::Nowhere);
    };
    match config::read_context(&file) {
        Ok(there) if there.site != ready.site => return Ok(Installed::OtherSite(file)),
        Err(error) if error.exit != Exit::NotFound => return Ok(Installed::OtherSite(file)),
        Ok(_) | Err(_) => {}
    }
    let text = files::read_text(&ready.context)?;
    let written = file
        .parent()
        .map_or(Ok(()), files::make_private_folder)
        .and_then(|()| files::write(&file, text.as_bytes(), Readers::Owner, true));
    Ok(if written.is_ok() {
        Installed::Yes(file)
    } else {
        Installed::Nowhere
    })
}
