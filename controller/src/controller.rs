//! A running controller: starts the parts in order, owns them, and stops them in order. `cli` runs
//! one until it is told to stop; tests run several in one process.
//!
//! ```text
//! start: directory ─► database ─► module files, compilers ─► relay ─► API
//! stop:  API drained ─► compilers ended ─► session flushed, relay closed ─► database closed ─► lock released
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{self, App, Checks, Parts};
use crate::change;
use crate::cli::RunArguments;
use crate::compilation::Compilation;
use crate::config;
use crate::db::{self, Database, DatabaseThread};
use crate::descriptors;
use crate::module_store::ModuleStore;
use crate::relay_link::Relay;
use crate::server::Server;
use crate::site::{self, Lock};

/// A running controller. Dropping it cuts everything off; [`Controller::stop`] ends it in order.
pub struct Controller {
    url: String,
    relay_url: String,
    site_id: String,
    context: PathBuf,
    stop: CancellationToken,
    server: JoinSet<()>,
    compilation: Compilation,
    relay: Relay,
    database: Database,
    thread: DatabaseThread,
    _lock: Lock,
}

impl Controller {
    /// Starts a controller, and makes the site on the first start. When it returns, everything
    /// listens.
    ///
    /// # Errors
    /// What can't be had, where, and what to do; for a person.
    pub async fn start(arguments: &RunArguments) -> anyhow::Result<Self> {
        let settings = config::read(arguments.flags())?;
        let shares = descriptors::claim();
        let (site, connection, lock) = site::open(&settings)?;
        let site = Arc::new(site);
        let known = db::modules::digests(&connection)?;
        let modules = ModuleStore::open(&site.directory, &known)?;
        db::modules::complete(&connection, &modules)?;
        change::begin_first_lives(&connection)?;
        let compilation = Compilation::open(
            &site.directory,
            &known,
            &db::statuses::platforms(&connection)?,
            modules.clone(),
            site.key.clone(),
            &settings.compilation,
        )?;
        let server = Server::bind(settings.listen, &site.server, shares.api).await?;
        let url = site.url(server.address().port());
        let context = site::admin_context(&site, &connection, &url)?;
        let (database, thread) = db::start(connection)?;
        let (relay, relay_link) =
            Relay::start(settings.relay_listen, shares.relay, &site, &database).await?;
        let relay_url = site.relay_url(relay.address().port());
        let stop = CancellationToken::new();
        let app = App::new(Parts {
            site: Arc::clone(&site),
            database: database.clone(),
            modules,
            compilation: compilation.clone(),
            relay: relay_link,
            url: url.clone(),
            relays: vec![relay_url.clone()],
            stop: stop.clone(),
            checks: Checks::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(server.run(api::router(app), stop.clone()));
        tracing::info!(site = %site.id, %url, relay = %relay_url, "the controller is ready");
        Ok(Self {
            url,
            relay_url,
            site_id: site.id.to_string(),
            context,
            stop,
            server: tasks,
            compilation,
            relay,
            database,
            thread,
            _lock: lock,
        })
    }

    /// The base URL of the API.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of the relay.
    pub fn relay_url(&self) -> &str {
        &self.relay_url
    }

    /// The id of the site.
    pub fn site(&self) -> &str {
        &self.site_id
    }

    /// How many plans it has made since it started.
    pub fn plans(&self) -> u64 {
        *self.database.feeds.plans.borrow()
    }

    /// The administrator's context file.
    pub fn context(&self) -> &Path {
        &self.context
    }

    /// Waits until a part fails; none does by itself.
    pub async fn failed(&mut self) {
        tokio::select! {
            _ = self.server.join_next() => {}
            () = self.relay.failed() => {}
        }
    }

    /// Stops taking requests, sends what is queued, closes everything, and releases the directory.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.server.join_next().await.is_some() {}
        self.compilation.stop().await;
        self.relay.stop().await;
        self.database.stop(self.thread).await;
    }
}
