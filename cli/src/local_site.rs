//! A site on this machine, for `haar up` and `haar demo`: a controller with its relay and agents
//! beside it, started exactly as a person would start them one by one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use haar_protocol::ids::{Name, SiteId};
use haar_protocol::rest::{Token, TokenRequest};
use serde::Deserialize;

use crate::children::{self, Echo, Running};
use crate::client::Client;
use crate::config;
use crate::error::{CommandError, Result, about_file};
use crate::files::{self, Readers};

/// How long an enrolment may take.
const ENROL_TIME: Duration = Duration::from_secs(30);

/// How a controller is started.
/// What is left out the controller takes from its own configuration file or its defaults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ControllerOrder<'a> {
    pub(crate) data: &'a Path,
    pub(crate) name: Option<&'a str>,
    pub(crate) listen: Option<&'a str>,
    pub(crate) relay_listen: Option<&'a str>,
    pub(crate) advertise: Option<&'a str>,
    pub(crate) echo: Echo,
}

/// What a controller says when it is ready.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Ready {
    /// Base URL of its REST API.
    pub(crate) url: String,
    /// URL of its relay.
    pub(crate) relay: String,
    /// The file with which a person reaches it.
    pub(crate) context: PathBuf,
    /// The site's id.
    pub(crate) site: SiteId,
}

/// Starts a controller and waits until it answers.
pub(crate) fn start_controller(order: ControllerOrder<'_>) -> Result<(Running, Ready, Client)> {
    let mut arguments: Vec<OsString> = vec![
        "controller".into(),
        "run".into(),
        "--data".into(),
        order.data.into(),
    ];
    let settings = [
        ("--name", order.name),
        ("--listen", order.listen),
        ("--relay-listen", order.relay_listen),
        ("--advertise", order.advertise),
    ];
    for (flag, value) in settings {
        arguments.extend(
            value
                .into_iter()
                .flat_map(|value| [flag.into(), value.into()]),
        );
    }
    arguments.extend(["--announce".into(), "--stop-on-stdin-close".into()]);
    let mut controller = children::start("controller", arguments, order.echo)?;
    let said = controller.wait_ready()?;
    let ready: Ready = serde_json::from_value(said).map_err(|error| {
        CommandError::failure(format!(
            "the controller's first words are not understood: {error}"
        ))
    })?;
    let client = Client::new(config::read_context(&ready.context)?, &ready.context)?;
    Ok((controller, ready, client))
}

/// Makes the device behind the directory `data` a node of the site.
pub(crate) fn enrol(
    client: &Client,
    name: &Name,
    labels: BTreeMap<String, String>,
    data: &Path,
) -> Result<()> {
    let request = TokenRequest {
        name: Some(name.clone()),
        labels,
        expires_in_s: Some(300),
    };
    let token: Token = client.parse(&client.post_text("tokens", &request)?)?;
    let arguments = [
        "agent".into(),
        "enrol".into(),
        token.token.into(),
        "--data".into(),
        data.into(),
    ];
    children::run_to_end(
        &format!("the enrolment of {name}"),
        Vec::<OsString>::from(arguments),
        ENROL_TIME,
    )
}

/// What the owner of this machine may set for the agent, all of it in comments: a policy that allows
/// the site every publisher that it trusts, and no directory.
const SETTINGS: &str = include_str!("../../packaging/agent.toml");

/// Writes the agent's settings beside its data, unless there are some.
fn write_settings(data: &Path) -> Result<()> {
    let file = data.join("agent.toml");
    match files::write(&file, SETTINGS.as_bytes(), Readers::Owner, false) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(about_file("write", &file)(error))
        }
        _ => Ok(()),
    }
}

/// Starts the agent that lives in the directory `data`, with settings of its own to edit, and waits until
/// it runs.
/// `status_interval` is how often it reports at least; its own default when left out.
pub(crate) fn start_agent(
    label: &str,
    data: &Path,
    status_interval: Option<&str>,
    echo: Echo,
) -> Result<Running> {
    write_settings(data)?;
    let mut arguments: Vec<OsString> =
        vec!["agent".into(), "run".into(), "--data".into(), data.into()];
    arguments.extend(
        status_interval
            .into_iter()
            .flat_map(|interval| ["--status-interval".into(), interval.into()]),
    );
    arguments.extend(["--announce".into(), "--stop-on-stdin-close".into()]);
    let mut agent = children::start(label, arguments, echo)?;
    agent.wait_ready()?;
    Ok(agent)
}
