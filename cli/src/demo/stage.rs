//! Sets the stage: from sources to three nodes that run the application.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use haar_protocol::ids::Name;
use haar_protocol::manifest::Manifest;
use haar_protocol::rest::{ApplyResult, PublisherRequest};

use crate::children::{Echo, Site};
use crate::client::Client;
use crate::commands::{application, build, key, module, sign};
use crate::error::{CommandError, Result, about_file};
use crate::files::{self, Readers};
use crate::local_site::{self, ControllerOrder};
use crate::progress::Progress;
use crate::wait;

/// Packages of the example that become modules.
const PACKAGES: [&str; 3] = ["fleet-sampler", "fleet-detector", "fleet-recorder"];
/// The nodes; each has its name as label `role`.
const NODES: [&str; 3] = ["gateway", "recorder", "sensor"];
const PUBLISHER: &str = "demo";
/// Somebody watches: counters are to move every second.
const STATUS_INTERVAL: &str = "1s";
/// A port that is free.
const ANY_PORT: &str = "127.0.0.1:0";
/// How long the application may take to run everywhere.
const RUN_TIME: Duration = Duration::from_secs(60);

/// A site that runs the application. Dropping it stops its processes in order.
pub(super) struct Stage {
    site: Site,
    client: Client,
    /// The application that runs.
    pub(super) manifest: Manifest,
}

impl Stage {
    /// Builds the modules of `example`, starts a site in `folder` and applies the application.
    pub(super) fn set(example: &Path, folder: &Path, progress: Progress) -> Result<Self> {
        let (manifest_text, manifest) =
            application::read_application(&example.join("application.yaml"))?;
        let modules = build_modules(example, progress)?;
        let mut site = Site::default();
        let client = start_controller(&mut site, folder, progress)?;
        for node in NODES {
            start_node(&mut site, &client, node, folder, progress)?;
        }
        push(&client, &modules, folder, progress)?;
        let answer = client.put_manifest(
            &format!("applications/{}?dry_run=false", manifest.name),
            &manifest_text,
        )?;
        let applied: ApplyResult = client.parse(&answer)?;
        wait::until_running(&client, &applied, RUN_TIME, progress).result?;
        Ok(Self {
            site,
            client,
            manifest,
        })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Names and process ids of the agents.
    pub(super) fn agent_ids(&self) -> Vec<(String, u32)> {
        self.site
            .agents
            .iter()
            .map(|agent| (agent.name().to_owned(), agent.id()))
            .collect()
    }

    /// An error when a process has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        self.site.check()
    }

    /// Stops everything; the names of those that had to be killed.
    pub(super) fn stop(&mut self) -> Vec<String> {
        self.site.stop()
    }
}

fn build_modules(example: &Path, progress: Progress) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for package in PACKAGES {
        progress.say(format!(
            "Building {package}: cargo build for wasm32-wasip2 ..."
        ));
        let started = std::time::Instant::now();
        let order = build::Order {
            folder: example,
            package: Some(package),
            debug: false,
            quiet: progress == Progress::Quiet,
            out: None,
        };
        let built = build::build(order)?;
        module::warn_of_lacking(&built.inspected);
        let size = crate::output::bytes(built.inspected.bytes);
        progress.say(format!(
            "Built {package}: {size} ({:.1} s)",
            started.elapsed().as_secs_f64()
        ));
        files.push(built.file);
    }
    Ok(files)
}

fn start_controller(site: &mut Site, folder: &Path, progress: Progress) -> Result<Client> {
    let step = progress.step("Starting the controller and its relay");
    let (controller, ready, client) = local_site::start_controller(ControllerOrder {
        data: &folder.join("controller"),
        name: Some("demo"),
        listen: Some(ANY_PORT),
        relay_listen: Some(ANY_PORT),
        advertise: None,
        echo: Echo::Silent,
    })?;
    site.controller = Some(controller);
    step.done(format!(
        "The controller runs at {}, its relay at {}",
        ready.url, ready.relay
    ));
    Ok(client)
}

fn start_node(
    site: &mut Site,
    client: &Client,
    node: &str,
    folder: &Path,
    progress: Progress,
) -> Result<()> {
    let step = progress.step(format!("Enrolling the node {node}"));
    let name: Name = node
        .parse()
        .expect("the names of the demo's nodes are names");
    let data = folder.join(node);
    local_site::enrol(
        client,
        &name,
        BTreeMap::from([("role".to_owned(), node.to_owned())]),
        &data,
    )?;
    step.now(format!("Starting the agent of {node}"));
    site.agents.push(local_site::start_agent(
        node,
        &data,
        Some(STATUS_INTERVAL),
        Echo::Silent,
    )?);
    step.done(format!("The node {node} has joined and runs"));
    Ok(())
}

/// Makes a publisher, has the site trust it, and signs and pushes the modules.
fn push(client: &Client, modules: &[PathBuf], folder: &Path, progress: Progress) -> Result<()> {
    let step = progress.step("Making a publisher's key, signing and pushing the modules");
    let secret = key::make()?;
    let key_file = folder.join(format!("{PUBLISHER}.key"));
    files::write(&key_file, secret.to_pem().as_bytes(), Readers::Owner, false)
        .map_err(about_file("write", &key_file))?;
    client.put_text(
        &format!("publishers/{PUBLISHER}"),
        &PublisherRequest {
            key: secret.public(),
        },
    )?;
    let signed_folder = folder.join("modules");
    fs::create_dir_all(&signed_folder).map_err(about_file("make", &signed_folder))?;
    for built in modules {
        let file_name = built
            .file_name()
            .ok_or_else(|| CommandError::failure("a module was built without a name"))?;
        let signed = signed_folder.join(file_name);
        sign::sign_file(built, &secret, &signed)?;
        let (content, inspected) = module::read_signed(&signed)?;
        module::push_one(client, Progress::Quiet, &signed, &content, &inspected)?;
    }
    step.done(format!("Signed and pushed {} modules", modules.len()));
    Ok(())
}
