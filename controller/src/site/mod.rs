//! The site on disk: its data directory with the lock, the site's key, the certificates and the
//! people's context files. Opened once at start, made on the first one; nothing in it changes while
//! the controller runs.
//!
//! ```text
//! DIR/ controller.lock  site.key  ca.pem ca.key  server.pem server.key
//!      controller.toml  controller.db  context.toml  modules/  uploads/  relay/
//! ```

mod directory;
mod modes;
mod certificates;
mod people;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use haar_protocol::ids::{Name, SiteId};
use haar_protocol::keys::SecretKey;
use rusqlite::Connection;

pub(crate) use certificates::{
    HANDED_OUT_LIFE_MS, Issued, NEIGHBOURHOOD_LIFE_MS, ServerCertificate,
};
pub(crate) use directory::Lock;
pub(crate) use modes::make_private_from_now_on;
pub(crate) use people::{admin_context, further_context, sha256};

use crate::config::Settings;
use crate::failure::{Failure, Kind};
use crate::{clock, db};

const DEFAULT_NAME: &str = "site";

/// Who this controller is.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// Its id, derived from its key.
    pub(crate) id: SiteId,
    /// Its name.
    pub(crate) name: Name,
    /// Its key.
    pub(crate) key: SecretKey,
    /// The certificate of its authority.
    pub(crate) ca_pem: String,
    /// SHA-256 of that certificate (DER) in hexadecimal digits.
    pub(crate) ca_sha256: String,
    /// What its servers show.
    pub(crate) server: ServerCertificate,
    /// The name or address that nodes reach it by.
    pub(crate) advertise: String,
    /// The names that its own certificate carries.
    pub(crate) names: Vec<String>,
    /// Its data directory.
    pub(crate) directory: PathBuf,
}

impl Site {
    /// The base URL of the API behind `port`.
    pub(crate) fn url(&self, port: u16) -> String {
        format!("https://{}:{port}", self.host())
    }

    /// The URL of the relay behind `port`.
    pub(crate) fn relay_url(&self, port: u16) -> String {
        format!("mqtts://{}:{port}", self.host())
    }

    /// Issues a certificate of the site's authority for a server at `host`, good until `until_ms`
    /// (milliseconds since the Unix epoch).
    ///
    /// # Errors
    /// When `host` is the controller itself, or no name that a certificate can carry, or the
    /// authority can't be read.
    pub(crate) fn certificate_for(&self, host: &str, until_ms: u64) -> Result<Issued, Failure> {
        if certificates::is_one_of(host, &self.names) {
            return Err(Failure::new(
                Kind::Refused,
                "host_of_controller",
                format!(
                    "no certificate is issued for `{host}`: it is a name of the controller, and the holder of such a certificate could stand in for the controller"
                ),
            )
            .hint("give the relay a name or an address of its own, or a certificate from another authority (`ca` in its manifest)"));
        }
        certificates::issue(&self.directory, &self.id, host, until_ms)
            .map_err(|error| Failure::internal(format_args!("{error:#}")))
    }

    fn host(&self) -> String {
        if self.advertise.contains(':') {
            format!("[{}]", self.advertise)
        } else {
            self.advertise.clone()
        }
    }
}

/// Opens the data directory, or makes the site in it. The directory is ours until the lock drops.
///
/// # Errors
/// When the directory is in use, another program's, or damaged; the text says what and where.
pub(crate) fn open(settings: &Settings) -> anyhow::Result<(Site, Connection, Lock)> {
    let directory = &settings.data;
    let lock = directory::claim(directory)?;
    let database = directory.join("controller.db");
    let key_path = directory.join("site.key");
    let is_new = !key_path.exists();
    if is_new && database.exists() {
        bail!(
            "{} is missing, but {} is there: put the site's key back from a backup, or choose an empty directory for a new site",
            key_path.display(),
            database.display()
        );
    }
    if is_new {
        directory::check_unused(directory)?;
        directory::write_private(&key_path, &SecretKey::from_seed(random()?).to_pem())?;
    }
    let key = SecretKey::from_pem(&directory::read(&key_path)?).with_context(|| {
        format!(
            "{} is not readable as a key: put it back from a backup",
            key_path.display()
        )
    })?;
    let id = SiteId::of(&key.public());
    if directory.join("ca.pem").exists() && is_gone(&database) {
        bail!(
            "{} is missing or empty, but the site's authority is there: nothing is begun without what the site was; restore the database from a backup",
            database.display()
        );
    }
    // SQLite gives the files beside it the mode of this one.
    directory::make_private_file(&database)?;
    let connection = db::open_connection(&database)?;
    db::check(&connection, &database)?;
    let name = check_owner(&connection, &id, settings)?;
    let authority = certificates::authority(directory, &id)?;
    let advertise = settings.advertised();
    let server = certificates::server(
        directory,
        &connection,
        &authority,
        settings,
        &advertise,
        clock::now_ms(),
    )?;
    let site = Site {
        id,
        name,
        key,
        ca_sha256: authority.sha256()?,
        ca_pem: authority.certificate_pem,
        server,
        names: certificates::names(settings, &advertise),
        advertise,
        directory: directory.clone(),
    };
    Ok((site, connection, lock))
}

/// True when there is no database, or nothing in its file.
fn is_gone(database: &Path) -> bool {
    std::fs::metadata(database).is_ok_and(|file| file.len() == 0) || !database.exists()
}

/// The database must be this site's. Returns the site's name, which flags may change.
fn check_owner(connection: &Connection, id: &SiteId, settings: &Settings) -> anyhow::Result<Name> {
    let file = settings.data.join("controller.db");
    match db::meta::get(connection, db::meta::SITE)? {
        Some(owner) if owner != id.as_str() => bail!(
            "{} belongs to the site {owner}, but the key beside it is that of {id}: the two files are from different sites; put the right one back",
            file.display()
        ),
        Some(_) => {}
        None => db::meta::set(connection, db::meta::SITE, id.as_str())?,
    }
    let stored = db::meta::get(connection, db::meta::NAME)?;
    let name = match (&settings.name, stored) {
        (Some(name), _) => name.clone(),
        (None, Some(stored)) => stored
            .parse()
            .with_context(|| format!("the site's name in {}", file.display()))?,
        (None, None) => DEFAULT_NAME.parse().context("the default name of a site")?,
    };
    db::meta::set(connection, db::meta::NAME, name.as_str())?;
    Ok(name)
}

/// 32 random bytes from the system.
///
/// # Errors
/// When the system has none to give.
pub(crate) fn random() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow::anyhow!("no random numbers from the system: {error}"))?;
    Ok(bytes)
}
