//! A site that runs in this process, in a directory of its own.

use haar_controller::cli::RunArguments;
use haar_controller::controller::Controller;
use haar_engine::compiler::Program;
use haar_protocol::context::Context;
use haar_protocol::ids::SiteId;
use haar_protocol::keys::{PublicKey, SecretKey};
use haar_protocol::rest::{ApplyResult, PublisherRequest, SiteInfo};
use tempfile::TempDir;

use super::http::{Client, Reply};
use super::modules::{Recipe, content_path};
use super::wait::TestRuntime;

/// The publisher that [`TestSite::with_publisher`] trusts.
pub(crate) fn publisher() -> SecretKey {
    SecretKey::from_seed([77; 32])
}

pub(crate) struct TestSite {
    pub(crate) runtime: TestRuntime,
    pub(crate) directory: TempDir,
    controller: Option<Controller>,
    pub(crate) client: Client,
    pub(crate) context: Context,
    pub(crate) key: PublicKey,
}

pub(crate) fn arguments(directory: &std::path::Path) -> RunArguments {
    RunArguments {
        data: directory.to_owned(),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        relay_listen: Some("127.0.0.1:0".parse().unwrap()),
        name: None,
        advertise: None,
        compilers: Vec::new(),
        own_compiler: Some(Program {
            path: env!("CARGO_BIN_EXE_haar-controller").into(),
            arguments: Vec::new(),
        }),
        announce: false,
        stop_on_stdin_close: false,
    }
}

impl TestSite {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| ())
    }

    /// Starts one with other arguments.
    pub(crate) fn start_with(change: impl FnOnce(&mut RunArguments)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime = TestRuntime::new();
        let mut arguments = arguments(directory.path());
        change(&mut arguments);
        let started = runtime.finish("the controller starts", Controller::start(&arguments));
        Self::of(runtime, directory, started.unwrap())
    }

    fn of(runtime: TestRuntime, directory: TempDir, controller: Controller) -> Self {
        let context: Context =
            toml::from_str(&std::fs::read_to_string(controller.context()).unwrap()).unwrap();
        let bearer = format!("Bearer {}", context.token);
        let client = Client::new(&context.url, &context.ca_pem, Some(bearer));
        let info: SiteInfo = client.get("/site").ok();
        Self {
            runtime,
            directory,
            controller: Some(controller),
            client,
            context,
            key: info.key,
        }
    }

    pub(crate) fn with_publisher() -> Self {
        let site = Self::start();
        site.trust("acme", &publisher());
        site
    }

    pub(crate) fn id(&self) -> SiteId {
        self.context.site.clone()
    }

    pub(crate) fn relay_url(&self) -> String {
        self.controller.as_ref().unwrap().relay_url().to_owned()
    }

    pub(crate) fn trust(&self, name: &str, key: &SecretKey) {
        let request = PublisherRequest { key: key.public() };
        self.client
            .put_json(&format!("/publishers/{name}"), &request)
            .done();
    }

    /// Builds, signs and pushes a module; gives the file.
    pub(crate) fn push(&self, recipe: &Recipe) -> Vec<u8> {
        let file = recipe.signed(&publisher());
        let reply = self.client.put(&content_path(&file), &file);
        assert_eq!(reply.status, 201, "{}", reply.json());
        file
    }

    pub(crate) fn try_apply(&self, name: &str, yaml: &str) -> Reply {
        self.client
            .put(&format!("/applications/{name}"), yaml.as_bytes())
    }

    #[track_caller]
    pub(crate) fn apply(&self, name: &str, yaml: &str) -> ApplyResult {
        self.try_apply(name, yaml).ok()
    }

    /// How many plans the controller has made since it started.
    pub(crate) fn plans(&self) -> u64 {
        self.controller.as_ref().unwrap().plans()
    }

    /// Stops the controller in order.
    pub(crate) fn stop(&mut self) {
        if let Some(controller) = self.controller.take() {
            let has_stopped = self.runtime.within(controller.stop()).is_some();
            // A test that is failing already says why.
            let is_failing = std::thread::panicking();
            assert!(has_stopped || is_failing, "the controller does not stop");
        }
    }

    /// Stops the controller and starts it again in the same directory, at other ports.
    pub(crate) fn restart(mut self) -> Self {
        self.stop();
        let Self {
            ref runtime,
            ref directory,
            ..
        } = self;
        let arguments = arguments(directory.path());
        let started = runtime.finish("the controller starts again", Controller::start(&arguments));
        let controller = started.unwrap();
        let context: Context =
            toml::from_str(&std::fs::read_to_string(controller.context()).unwrap()).unwrap();
        let bearer = format!("Bearer {}", context.token);
        self.client = Client::new(&context.url, &context.ca_pem, Some(bearer));
        self.context = context;
        self.controller = Some(controller);
        self
    }

    /// The kinds of the newest events.
    pub(crate) fn event_kinds(&self) -> Vec<String> {
        let events = self.client.get("/events").json();
        events["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["kind"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for TestSite {
    fn drop(&mut self) {
        self.stop();
    }
}
