//! `haar relay check`: tries from this machine what a broker does with messages, and says what will be
//! lost.

use std::path::{Path, PathBuf};

use haar_protocol::ids::Name;
use haar_protocol::relay::RelayUrl;
use haar_protocol::rest::{Grade, RelayDetail, RelayFinding, RelaySession, RelayTrial};
use haar_relay::{CheckOptions, ClientCertificate, Credentials, Endpoint, Identity};
use serde_json::json;

use crate::client::Client;
use crate::commands::describe;
use crate::config::Options;
use crate::error::{CommandError, Exit, Result};
use crate::files;
use crate::output;

/// Try from this machine what a broker does with messages, and say what will be lost
///
/// Takes about half a minute. Uses topics of its own, which no other subscription takes in, and clears
/// them. The exit code is 7 when anything falls short.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A relay of the site, or the address of any broker: mqtts://HOST:PORT, or mqtt:// on this machine
    #[arg(value_name = "NAME|URL")]
    broker: String,
    /// Run no trial; show what this node reports of its own session with the relay
    #[arg(long, value_name = "NAME", conflicts_with_all = ["ca", "user", "password_file", "client_certificate"])]
    node: Option<Name>,
    /// The certificate of the broker's authority, or the broker's own, in PEM; for a URL
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// As whom to connect; that of the relay when left out
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// The file with the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The certificate to show to the broker, in PEM
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// That certificate's private key, in PEM
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
}

/// Runs `haar relay check`.
pub(super) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    if let Some(node) = &arguments.node {
        let findings = of_node(arguments, options, node)?;
        return report(options, &arguments.broker, &findings);
    }
    let run = random_name()?;
    let trial = match arguments.broker.contains("://") {
        true => by_address(arguments)?,
        false => of_site(arguments, options)?,
    };
    let clients = clients(arguments, &trial, &run)?;
    let endpoint = endpoint(arguments, &trial)?;
    let url = trial.url.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::failure(format!("can't begin: {error}")))?;
    let findings = runtime.block_on(haar_relay::check(&CheckOptions {
        endpoint,
        clients,
        run,
    }));
    report(options, &url, &findings)
}

/// Shows the findings. Fails when anything falls short.
fn report(options: &Options, broker: &str, findings: &[RelayFinding]) -> Result<()> {
    match options.is_json() {
        true => output::json(&json!({ "broker": broker, "findings": findings }))?,
        false => output::text(&table(findings))?,
    }
    let short = findings.iter().filter(|one| one.grade != Grade::Works);
    let short = short.count();
    if short == 0 {
        return Ok(());
    }
    let message = format!(
        "{broker} falls short in {short} of {} points",
        findings.len()
    );
    Err(CommandError::new(
        Exit::Short,
        "broker_falls_short",
        message,
    ))
}

/// The state of a node's sessions with a relay of the site. A broker treats messages the same from
/// everywhere; whether a node reaches it, and as which user, differs.
fn of_node(arguments: &Arguments, options: &Options, node: &Name) -> Result<Vec<RelayFinding>> {
    let name = relay_name(arguments)?;
    let client = Client::of(options)?;
    let detail: RelayDetail = client.parse(&client.get_text(&format!("relays/{name}"))?)?;
    let sessions = detail.sessions.iter().filter(|one| &one.node == node);
    let findings: Vec<RelayFinding> = sessions.map(finding).collect();
    if !findings.is_empty() {
        return Ok(findings);
    }
    client.check_names(None, None, Some(node))?;
    Err(CommandError::not_found(
        "no_session",
        format!("node `{node}` has nothing to do with relay `{name}`"),
    )
    .hinted(format!(
        "`haar describe relay {name}` lists the nodes that need it."
    )))
}

fn finding(session: &RelaySession) -> RelayFinding {
    let what = match session.devices {
        true => "session for devices",
        false => "session for nodes and site",
    };
    let seen = describe::session(session, output::now_ms());
    match (session.is_connected(), session.reason()) {
        (true, None) => RelayFinding::works(what, seen),
        (true, Some(_)) => RelayFinding::short(what, seen, "not all of its routes work"),
        (false, _) => RelayFinding::fails(what, seen, "its routes wait until it is connected"),
    }
}

fn relay_name(arguments: &Arguments) -> Result<Name> {
    let name = arguments.broker.parse();
    name.map_err(|error: haar_protocol::ids::InvalidId| CommandError::usage(error.0))
}

/// A broker of which only the address and the command line are known.
fn by_address(arguments: &Arguments) -> Result<RelayTrial> {
    let url: RelayUrl = arguments
        .broker
        .parse()
        .map_err(|error: haar_protocol::ids::InvalidId| CommandError::usage(error.0))?;
    if url.encrypted && arguments.ca.is_none() {
        return Err(CommandError::usage(
            "whom to trust is not said: no authority is trusted by itself",
        )
        .hinted(
            "Give the certificate of the broker's authority, or the broker's own, with --ca FILE.",
        ));
    }
    Ok(RelayTrial {
        url,
        ca_pem: String::new(),
        users: Vec::new(),
        shared_user: None,
        client_certificate: false,
    })
}

/// A relay of the site, with the users that the site generated for the check.
fn of_site(arguments: &Arguments, options: &Options) -> Result<RelayTrial> {
    let name = relay_name(arguments)?;
    let client = Client::of(options)?;
    let answer = client.get_text(&format!("relays/{name}/trial"))?;
    let trial: RelayTrial = client.parse(&answer)?;
    if let (Some(user), None) = (&trial.shared_user, &arguments.password_file) {
        return Err(CommandError::usage(format!(
            "the site does not give away the password of `{user}`"
        ))
        .hinted("Give it with --password-file FILE."));
    }
    if trial.client_certificate && arguments.client_certificate.is_none() {
        return Err(CommandError::usage(
            "the broker wants a client certificate, and the site does not give its key away",
        )
        .hinted("Give both with --client-certificate FILE --client-key FILE."));
    }
    Ok(trial)
}

fn clients(arguments: &Arguments, trial: &RelayTrial, run: &str) -> Result<[Identity; 2]> {
    if let (None, [one, two]) = (&arguments.password_file, trial.users.as_slice()) {
        return Ok([one, two].map(|user| Identity {
            client_id: user.user.clone(),
            credentials: Credentials::Password {
                user: user.user.clone(),
                password: user.password.clone(),
            },
        }));
    }
    let user = arguments.user.as_ref().or(trial.shared_user.as_ref());
    let credentials = match (user, &arguments.password_file) {
        (Some(user), Some(file)) => Credentials::Password {
            user: user.clone(),
            password: files::read_text(file)?.trim_end().to_owned(),
        },
        (None, Some(_)) => {
            return Err(CommandError::usage("whose password it is, is not said")
                .hinted("Give the name with --user NAME."));
        }
        _ => Credentials::Anonymous,
    };
    Ok([1, 2].map(|number| Identity {
        client_id: format!("haar-check-{run}-{number}"),
        credentials: credentials.clone(),
    }))
}

fn endpoint(arguments: &Arguments, trial: &RelayTrial) -> Result<Endpoint> {
    let read = |file: &Option<PathBuf>| file.as_deref().map(read_pem).transpose();
    let ca = read(&arguments.ca)?.unwrap_or_else(|| trial.ca_pem.clone());
    let client = read(&arguments.client_certificate)?.zip(read(&arguments.client_key)?);
    let client = client.map(|(certificate_pem, key_pem)| ClientCertificate {
        certificate_pem,
        key_pem,
    });
    Endpoint::new(&trial.url, Some(&ca))
        .and_then(|endpoint| endpoint.showing(client))
        .map_err(|error| CommandError::usage(error.0))
}

fn read_pem(file: &Path) -> Result<String> {
    files::read_text(file)
}

/// A random name that distinguishes this check from others.
fn random_name() -> Result<String> {
    let random = getrandom::u64().map_err(|error| {
        CommandError::failure(format!("the machine has no random numbers: {error}"))
    })?;
    Ok(format!("{random:016x}"))
}

fn table(findings: &[RelayFinding]) -> String {
    let mut table = output::Table::new(&["TRIED", "RESULT", "SEEN"]);
    let mut remarks = String::new();
    for finding in findings {
        let grade = match finding.grade {
            Grade::Works => "works",
            Grade::Short => "falls short",
            Grade::Fails => "fails",
        };
        let seen = output::printable(&finding.found);
        table.row([finding.what.clone(), grade.to_owned(), seen]);
        if !finding.means.is_empty() {
            remarks.push_str(&format!("{}: {}\n", finding.what, finding.means));
        }
    }
    let table = table.render("Nothing was tried.");
    match remarks.is_empty() {
        true => table,
        false => format!("{table}\n{remarks}"),
    }
}
