//! The agent's settings: `agent.toml` (all of it optional), and the environment variables that it
//! reads: what to log, and what a service manager says. Raw as written, then checked.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use haar_engine::compiler::CompileLimits;
use haar_protocol::quantity::{ByteSize, Millis};
use serde::Deserialize;
use tracing_subscriber::filter::Targets;

use crate::policy;

/// Default pause between two statuses when nothing changes but counters.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// The shortest pause that may be set.
const STATUS_INTERVAL_MS_MIN: u64 = 200;
/// The least memory that a compiler may be given: below, it can't compile the smallest module.
const COMPILE_MEMORY_MIN: ByteSize = ByteSize(32 << 20);
/// The least and most time that a compiler may be given, in milliseconds.
const COMPILE_TIME_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;

/// The file as people write it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    status_interval: Option<Millis>,
    guest_threads: Option<usize>,
    location: Option<Location>,
    precompiled: Precompiled,
    flash_budget: Option<ByteSize>,
    compile: RawCompile,
    policy: policy::Raw,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCompile {
    memory: Option<ByteSize>,
    time: Option<Millis>,
}

/// Checked settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// A status is sent at least so often.
    pub status_interval: Duration,
    /// Threads for guests.
    pub guest_threads: usize,
    /// Where the device stands.
    pub location: Option<Location>,
    /// Whether code that the controller has compiled is taken.
    pub precompiled: Precompiled,
    /// Bytes that a day should write to the flash at most; more is told.
    pub flash_budget: Option<ByteSize>,
    /// What compiling one module may take.
    pub compile: CompileLimits,
    /// What the owner of the device allows the site.
    pub policy: policy::Rules,
}

/// What a node thinks of code that it has not compiled itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precompiled {
    /// What the site has signed is good.
    #[default]
    Accept,
    /// It compiles all of it itself.
    Refuse,
}

/// Where a device stands (WGS 84).
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Metres above the ellipsoid.
    pub altitude: Option<f64>,
}

impl Settings {
    /// Reads a file, if there is one.
    ///
    /// # Errors
    /// When it is there and is not right; the text names file, line and key.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("can't read {}", path.display()));
            }
        };
        let raw: Raw = toml::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        raw.check()
            .with_context(|| format!("{} is not right", path.display()))
    }
}

impl Raw {
    fn check(self) -> anyhow::Result<Settings> {
        let status_interval = match self.status_interval {
            Some(Millis(ms)) if ms < STATUS_INTERVAL_MS_MIN => {
                bail!("status_interval = {ms}ms is too short: at least {STATUS_INTERVAL_MS_MIN}ms")
            }
            Some(Millis(ms)) => Duration::from_millis(ms),
            None => STATUS_INTERVAL,
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let guest_threads = match self.guest_threads {
            Some(0) => bail!("guest_threads = 0: at least one thread is needed"),
            Some(threads) => threads.min(cores * 4),
            None => cores,
        };
        let location = self.location;
        if let Some(Location {
            latitude,
            longitude,
            ..
        }) = location
            && !((-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude))
        {
            bail!("location: latitude goes from -90 to 90, longitude from -180 to 180");
        }
        if self.precompiled == Precompiled::Refuse && !cfg!(feature = "compiler") {
            bail!(
                "precompiled = \"refuse\": this agent was built without the compiler and can't compile modules itself; install the build with it (`--features compiler`), or remove the line"
            );
        }
        Ok(Settings {
            precompiled: self.precompiled,
            status_interval,
            guest_threads,
            location,
            flash_budget: self.flash_budget,
            compile: self.compile.check()?,
            policy: self.policy.check()?,
        })
    }
}

impl RawCompile {
    fn check(self) -> anyhow::Result<CompileLimits> {
        let usual = CompileLimits::default();
        let limits = CompileLimits {
            memory: self.memory.unwrap_or(usual.memory),
            time: self.time.unwrap_or(usual.time),
        };
        if limits.memory < COMPILE_MEMORY_MIN {
            bail!(
                "compile.memory = {} is too little for any module: at least {COMPILE_MEMORY_MIN}",
                limits.memory
            );
        }
        if !COMPILE_TIME_MS.contains(&limits.time.0) {
            bail!(
                "compile.time = {}: from {} to {}",
                limits.time,
                Millis(*COMPILE_TIME_MS.start()),
                Millis(*COMPILE_TIME_MS.end())
            );
        }
        Ok(limits)
    }
}

/// What `HAAR_LOG` asks to be logged, such as `debug` or `info,haar_relay=trace`; informative lines
/// when it is not set.
///
/// # Errors
/// When it says something else.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
pub fn log_filter() -> anyhow::Result<Targets> {
    let text = std::env::var("HAAR_LOG").unwrap_or_else(|_| "info".into());
    let filter = text.parse::<Targets>();
    filter.with_context(|| format!("HAAR_LOG={text} is not understood: write levels and targets, such as info,haar_relay=trace"))
}

/// What a service manager asks of a process that it starts (sd_notify(3), sd_watchdog_enabled(3)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Supervision {
    /// The socket on which it listens: a path, or `@` and an abstract name.
    pub socket: Option<OsString>,
    /// It must hear that the process is well at least so often.
    pub watchdog: Option<Duration>,
}

/// What the service manager that started this process asks of it, if one did.
pub fn supervision() -> Supervision {
    supervision_of(std::process::id(), |name| std::env::var_os(name))
}

fn supervision_of(process: u32, variable: impl Fn(&str) -> Option<OsString>) -> Supervision {
    let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
    // The watchdog may be for another process than the one that inherited the variables.
    let is_ours =
        variable("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(u64::from(process));
    Supervision {
        socket: variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()),
        watchdog: number("WATCHDOG_USEC")
            .filter(|microseconds| is_ours && *microseconds > 0)
            .map(Duration::from_micros),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Settings> {
        let data = tempfile::tempdir()?;
        let file = data.path().join("agent.toml");
        std::fs::write(&file, text)?;
        Settings::read(&file)
    }

    #[test]
    fn a_service_manager_says_where_it_listens_and_how_often_it_wants_to_hear() {
        let of = |variables: &[(&str, &str)]| {
            supervision_of(7, |name| {
                let found = variables.iter().find(|(one, _)| *one == name)?;
                Some(found.1.into())
            })
        };
        let socket = ("NOTIFY_SOCKET", "/run/systemd/notify");
        let every_minute = ("WATCHDOG_USEC", "60000000");
        assert_eq!(of(&[]), Supervision::default());
        let both = of(&[socket, every_minute, ("WATCHDOG_PID", "7")]);
        assert_eq!(both.socket, Some("/run/systemd/notify".into()));
        assert_eq!(both.watchdog, Some(Duration::from_secs(60)));
        assert_eq!(of(&[socket, every_minute]), both);
        for other in ["8", "", "seven"] {
            let of_another = of(&[socket, every_minute, ("WATCHDOG_PID", other)]);
            assert_eq!(of_another.watchdog, None, "{other}");
        }
        for nothing in ["0", "-1", "soon"] {
            assert_eq!(of(&[("WATCHDOG_USEC", nothing)]).watchdog, None);
        }
        assert_eq!(of(&[("NOTIFY_SOCKET", "")]).socket, None);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = read("guest_threads = 1\nstatus_intervall = \"1s\"\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("line 2") && error.contains("status_intervall"),
            "{error}"
        );
    }

    #[test]
    fn settings_are_read_and_have_defaults() {
        assert_eq!(
            read("status_interval = \"1s\"").unwrap().status_interval,
            Duration::from_secs(1)
        );
        assert_eq!(read("").unwrap().status_interval, STATUS_INTERVAL);
        assert!(read("status_interval = \"1ms\"").is_err());
        let budget = read("flash_budget = \"500MiB\"").unwrap().flash_budget;
        assert_eq!(budget, Some(ByteSize(500 << 20)));
        assert!(read("guest_threads = 0").is_err());
        let compile = read("compile = { memory = \"64MiB\", time = \"5s\" }")
            .unwrap()
            .compile;
        assert_eq!(
            (compile.memory, compile.time),
            (ByteSize(64 << 20), Millis(5_000))
        );
        assert_eq!(read("").unwrap().compile, CompileLimits::default());
        assert_eq!(read("").unwrap().precompiled, Precompiled::Accept);
        let refuse = read("precompiled = \"refuse\"");
        assert_eq!(refuse.is_ok(), cfg!(feature = "compiler"), "{refuse:?}");
        assert!(read("compile = { memory = \"1MiB\" }").is_err());
        assert!(read("compile = { time = \"0s\" }").is_err());
    }
}
