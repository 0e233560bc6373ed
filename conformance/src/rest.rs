//! The controller's REST API, as a person's program uses it: the context file says where it is, who
//! we are and whom to trust.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use haar_protocol::context::Context;
use haar_protocol::ids::Digest;
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Asks a controller.
pub(crate) struct Client {
    agent: ureq::Agent,
    context: Context,
}

impl Client {
    /// The client of a context file.
    pub(crate) fn new(context: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(context)
            .with_context(|| format!("can't read {}", context.display()))?;
        let context: Context = toml::from_str(&text)?;
        let certificate = ureq::tls::Certificate::from_pem(context.ca_pem.as_bytes())?;
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::new_with_certs(&[certificate]))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .build()
            .new_agent();
        Ok(Self { agent, context })
    }

    /// What the path below `/api/v1/` answers.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        let mut response = self
            .agent
            .get(self.url(path))
            .header("authorization", self.bearer())
            .call()?;
        let status = response.status();
        let text = response.body_mut().read_to_string()?;
        if !status.is_success() {
            bail!("GET {path}: {status} {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Pushes a file as it is, with nothing in between that would refuse it first. The status and
    /// the error's words.
    pub(crate) fn push(&self, file: &[u8]) -> anyhow::Result<(u16, String)> {
        let path = format!("modules/{}/content", Digest::of(file));
        let mut response = self
            .agent
            .put(self.url(&path))
            .header("authorization", self.bearer())
            .content_type("application/wasm")
            .send(file)?;
        let status = response.status().as_u16();
        Ok((status, response.body_mut().read_to_string()?))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.context.url)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.context.token)
    }
}
