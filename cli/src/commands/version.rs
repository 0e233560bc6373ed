//! `haar version`: what this is, and what the site is.

use haar_protocol::rest::SiteInfo;
use serde::Serialize;

use crate::client::Client;
use crate::config::Options;
use crate::error::Result;
use crate::output;

/// Show the version of haar, and of the site's controller
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Ask the site, too: its version and its clock
    #[arg(long)]
    site: bool,
}

#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    target: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<SiteInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_skew_ms: Option<i64>,
}

/// Runs `haar version`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let mut version = Version {
        version: env!("CARGO_PKG_VERSION"),
        target: env!("HAAR_TARGET"),
        site: None,
        clock_skew_ms: None,
    };
    if arguments.site {
        let site: SiteInfo = Client::of(options)?.get("site")?;
        let now = output::now_ms();
        let apart = i64::try_from(site.time_ms.abs_diff(now)).unwrap_or(i64::MAX);
        version.clock_skew_ms = Some(if site.time_ms >= now { apart } else { -apart });
        version.site = Some(site);
    }
    if options.is_json() {
        return output::json(&version);
    }
    output::line(format!("haar {} ({})", version.version, version.target))?;
    if let (Some(site), Some(skew)) = (&version.site, version.clock_skew_ms) {
        let mut clock = output::timestamp(site.time_ms);
        if skew.unsigned_abs() > 2_000 {
            let direction = if skew > 0 { "ahead of" } else { "behind" };
            clock = format!(
                "{clock}, {} {direction} this machine's",
                output::duration(skew.unsigned_abs())
            );
        }
        output::text(&output::facts(&[
            ("Site", format!("{} ({})", site.name, site.id)),
            ("Controller", site.version.clone()),
            ("Its clock", clock),
        ]))?;
    }
    Ok(())
}
