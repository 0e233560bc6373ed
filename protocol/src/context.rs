//! What a person's `haar` needs to reach a site: a file that the controller writes on the machine
//! it runs on, and that people copy to theirs. TOML; keep it in files that only their owner reads.

use serde::{Deserialize, Serialize};

use crate::ids::{Name, SiteId};

/// How to reach a site, and as whom.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The site.
    pub site: SiteId,
    /// Its name.
    pub name: Name,
    /// Base URL of the controller's REST API, such as `https://127.0.0.1:7420`.
    pub url: String,
    /// The person's bearer token.
    pub token: String,
    /// The site's CA certificate in PEM: the only one that is trusted.
    pub ca_pem: String,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Context")
            .field("site", &self.site)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
