//! What the controller is told by flags, by `DIR/controller.toml` and by the environment: raw first,
//! then checked. Flags win over the file. The only place that reads the environment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use haar_engine::compiler::{CompileLimits, Program};
use haar_protocol::ids::Name;
use haar_protocol::quantity::{ByteSize, Millis};
use rustls_pki_types::ServerName;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use crate::compilation;

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7420);
const RELAY_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7421);
const FILE: &str = "controller.toml";

/// How a controller runs.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The data directory.
    pub(crate) data: PathBuf,
    /// Where the API listens.
    pub(crate) listen: SocketAddr,
    /// Where the relay listens.
    pub(crate) relay_listen: SocketAddr,
    /// The site's name, when it is given.
    pub(crate) name: Option<Name>,
    /// The DNS name or address that nodes reach the site by, when it is given.
    pub(crate) advertise: Option<String>,
    /// How modules are compiled for nodes.
    pub(crate) compilation: compilation::Settings,
}

/// The flags of `run`, as they came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    pub(crate) data: PathBuf,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) relay_listen: Option<SocketAddr>,
    pub(crate) name: Option<Name>,
    pub(crate) advertise: Option<String>,
    pub(crate) compilers: Vec<PathBuf>,
    pub(crate) own_compiler: Option<Program>,
}

/// `controller.toml`; everything may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<SocketAddr>,
    relay_listen: Option<SocketAddr>,
    name: Option<Name>,
    advertise: Option<String>,
    compilers: Option<Vec<PathBuf>>,
    #[serde(default)]
    compile: Compile,
}

/// What compiling one module for nodes may take.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Compile {
    memory: Option<ByteSize>,
    time: Option<Millis>,
}

impl Compile {
    fn limits(&self) -> CompileLimits {
        let usual = CompileLimits::default();
        CompileLimits {
            memory: self.memory.unwrap_or(usual.memory),
            time: self.time.unwrap_or(usual.time),
        }
    }
}

impl Settings {
    /// The name or address that nodes reach the site by.
    pub(crate) fn advertised(&self) -> String {
        match &self.advertise {
            Some(host) => host.clone(),
            None if self.listen.ip().is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            None => self.listen.ip().to_string(),
        }
    }
}

/// Puts flags and file together.
///
/// # Errors
/// When the file can't be read, has an unknown key (the text gives the line) or a wrong value.
pub(crate) fn read(flags: Flags) -> anyhow::Result<Settings> {
    let path = flags.data.join(FILE);
    let file = if path.is_file() {
        parse_file(&path)?
    } else {
        File::default()
    };
    let advertise = flags
        .advertise
        .or(file.advertise)
        .map(|host| check_host(&host))
        .transpose()?;
    let compilation = compilation::Settings {
        own: flags.own_compiler,
        others: match flags.compilers {
            none if none.is_empty() => file.compilers.unwrap_or_default(),
            named => named,
        },
        limits: file.compile.limits(),
    };
    let settings = Settings {
        compilation,
        data: flags.data,
        listen: flags.listen.or(file.listen).unwrap_or(LISTEN),
        relay_listen: flags
            .relay_listen
            .or(file.relay_listen)
            .unwrap_or(RELAY_LISTEN),
        name: flags.name.or(file.name),
        advertise,
    };
    if settings.advertise.is_none() && settings.listen.ip().is_unspecified() {
        tracing::warn!(
            "listening on every address, but nodes are told 127.0.0.1: give the name or address that they reach this machine by with --advertise"
        );
    }
    Ok(settings)
}

fn parse_file(path: &Path) -> anyhow::Result<File> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("in {}", path.display()))
}

/// A host as it goes into URLs and the certificate: an address, or a DNS name in lower case.
fn check_host(text: &str) -> anyhow::Result<String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        if address.is_unspecified() {
            bail!(
                "`{text}` can't be advertised: nobody can reach it; give the machine's name or address"
            );
        }
        return Ok(address.to_string());
    }
    let name = text.to_ascii_lowercase();
    match ServerName::try_from(name.clone()) {
        Ok(ServerName::DnsName(_)) => Ok(name),
        _ => {
            bail!("`{text}` can't be advertised: write a DNS name or an IP address, without a port")
        }
    }
}

/// Which of our own messages go to standard error: `HAAR_LOG`, as `tracing-subscriber`'s filters.
pub(crate) fn log_filter() -> EnvFilter {
    EnvFilter::try_from_env("HAAR_LOG").unwrap_or_else(|_| EnvFilter::new("info,mqtt5=warn"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_directory(file: &str, change: impl FnOnce(&mut Flags)) -> anyhow::Result<Settings> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), file).unwrap();
        let mut flags = Flags {
            data: directory.path().to_owned(),
            ..Flags::default()
        };
        change(&mut flags);
        read(flags)
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = "listen = '127.0.0.1:1'\nadvertise = 'GW.example'\n";
        let settings = in_directory(file, |flags| {
            flags.listen = Some("127.0.0.1:2".parse().unwrap())
        })
        .unwrap();
        assert_eq!(settings.listen.port(), 2);
        assert_eq!(settings.relay_listen, RELAY_LISTEN);
        assert_eq!(settings.advertised(), "gw.example");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = format!(
            "{:#}",
            in_directory("name = 'a'\nlistne = 'x'\n", |_| {}).unwrap_err()
        );
        assert!(
            error.contains("line 2") && error.contains("listne") && error.contains(FILE),
            "{error}"
        );
    }

    #[test]
    fn what_nobody_can_reach_is_not_advertised() {
        for host in ["0.0.0.0", "::", "a b", "host:1", "https://host", ""] {
            let result = in_directory("", |flags| flags.advertise = Some(host.into()));
            assert!(result.is_err(), "{host}");
        }
        let settings = in_directory("", |flags| flags.advertise = Some("[::1]".into())).unwrap();
        assert_eq!(settings.advertised(), "::1");
        let settings = in_directory("listen = '0.0.0.0:7420'", |_| {}).unwrap();
        assert_eq!(settings.advertised(), "127.0.0.1");
    }
}
