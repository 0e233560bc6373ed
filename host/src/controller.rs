//! The agent's side of the controller's REST API: enrolment and fetching modules. Blocking; called
//! from threads that may block. Trusts the site's CA and nothing else.

use std::io::Read;
use std::time::Duration;

use anyhow::{Context as _, bail};
use haar_protocol::ids::{Digest, NodeId, SiteId};
use haar_protocol::keys::SecretKey;
use haar_protocol::number;
use haar_protocol::proof::{self, Audience, Claims};
use haar_protocol::rest::{Enrolment, EnrolmentRequest, ErrorBody, SiteInfo};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use crate::local_api::state::now_ms;

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a small answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a module over a slow network.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3_600);
/// Bytes of a small answer.
const ANSWER_BYTES_MAX: u64 = 256 << 10;

/// The controller of this node's site.
#[derive(Debug, Clone)]
pub struct Controller {
    url: String,
    agent: ureq::Agent,
}

/// An answer of the controller that is not a success.
#[derive(Debug, thiserror::Error)]
#[error("{}{}", .0.message, .0.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
pub struct Refused(pub ErrorBody);

/// Who asks for modules.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The site.
    pub site: SiteId,
    /// This node.
    pub node: NodeId,
    /// Its key.
    pub key: SecretKey,
}

impl Credentials {
    /// A fresh proof for the controller.
    ///
    /// # Errors
    /// When the machine has no randomness to give.
    pub fn proof(&self) -> anyhow::Result<String> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let claims = Claims {
            audience: Audience::Controller,
            site: self.site.clone(),
            subject: self.node.to_string(),
            issued_ms: now_ms(),
            nonce: hex::encode(nonce),
            relay: None,
        };
        Ok(proof::make(&claims, &self.key))
    }
}

impl Controller {
    /// The controller at `url`, which must show a certificate of the CA in `ca_pem`.
    ///
    /// # Errors
    /// When the certificate can't be read.
    pub fn new(url: &str, ca_pem: &str) -> anyhow::Result<Self> {
        let ca = Certificate::from_pem(ca_pem.as_bytes())
            .context("the site's CA certificate can't be read")?;
        let roots = RootCerts::new_with_certs(&[ca.to_owned()]);
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            agent: agent(roots, false),
        })
    }

    /// The controller at `url`, recognised by the SHA-256 of its CA certificate alone: fetches the
    /// certificate over a connection that is not trusted with anything else.
    ///
    /// # Errors
    /// When the controller can't be reached, or its CA is another.
    pub fn by_fingerprint(url: &str, ca_sha256: &str) -> anyhow::Result<(Self, String)> {
        let url = url.trim_end_matches('/');
        let untrusting = agent(RootCerts::WebPki, true);
        let mut answer = untrusting
            .get(format!("{url}/api/v1/site/ca"))
            .call()
            .map_err(|error| unreachable(url, &error))?;
        let pem = text(&mut answer)?;
        let ca = Certificate::from_pem(pem.as_bytes())
            .with_context(|| format!("{url} does not answer like a Haar controller"))?;
        let found = Digest::of(ca.der()).to_hex();
        if !found.eq_ignore_ascii_case(ca_sha256) {
            bail!(
                "the controller at {url} is not the one that made the token (CA {}…, token says {}…): check the address, and that nobody is in between",
                &found[..12],
                ca_sha256.get(..12).unwrap_or(ca_sha256)
            );
        }
        Ok((Self::new(url, &pem)?, pem))
    }

    /// What anybody may know about the site; its clock is what this is asked for.
    ///
    /// # Errors
    /// When the controller can't be reached.
    pub fn site(&self) -> anyhow::Result<SiteInfo> {
        let url = format!("{}/api/v1/site", self.url);
        let mut answer = self
            .agent
            .get(&url)
            .call()
            .map_err(|error| unreachable(&self.url, &error))?;
        json(&mut answer)
    }

    /// Joins the site.
    ///
    /// # Errors
    /// [`Refused`] with the controller's own words, or why it can't be reached.
    pub fn enrol(&self, request: &EnrolmentRequest) -> anyhow::Result<Enrolment> {
        let url = format!("{}/api/v1/enrolments", self.url);
        let body = serde_json::to_vec(request)?;
        let mut answer = self
            .agent
            .post(&url)
            .content_type("application/json")
            .send(&body[..])
            .map_err(|error| unreachable(&self.url, &error))?;
        json(&mut answer)
    }

    /// Opens a module's content from `offset` on. Returns the reader, and whether it really begins
    /// there (a server may ignore the wish and begin at the start).
    ///
    /// # Errors
    /// [`Refused`] with the controller's own words, or why it can't be reached.
    pub fn module(
        &self,
        digest: &Digest,
        offset: u64,
        credentials: &Credentials,
    ) -> anyhow::Result<(impl Read, bool)> {
        let answer = self.fetch(&format!("{digest}/content"), offset, credentials)?;
        let partial = answer.status() == 206;
        Ok((answer.into_body().into_reader(), partial))
    }

    /// Opens a module's code for `target` and the engine with this `fingerprint`, packed
    /// ([`haar_engine::artifact`]), from `offset` on. The controller compiles it when it has not yet.
    /// Returns what [`Controller::module`] does.
    ///
    /// # Errors
    /// [`Refused`] with the controller's own words, or why it can't be reached.
    pub fn code(
        &self,
        digest: &Digest,
        target: &str,
        fingerprint: &str,
        offset: u64,
        credentials: &Credentials,
    ) -> anyhow::Result<(impl Read + use<>, bool)> {
        let path = format!("{digest}/code/{target}?engine={fingerprint}");
        let answer = self.fetch(&path, offset, credentials)?;
        let partial = answer.status() == 206;
        Ok((answer.into_body().into_reader(), partial))
    }

    /// Asks for something of a module, as this node, from `offset` on.
    fn fetch(
        &self,
        path: &str,
        offset: u64,
        credentials: &Credentials,
    ) -> anyhow::Result<ureq::http::Response<ureq::Body>> {
        let mut request = self
            .agent
            .get(format!("{}/api/v1/modules/{path}", self.url))
            .config()
            .timeout_global(Some(FETCH_TIMEOUT))
            .build()
            .header(
                "Authorization",
                format!("Haar-Proof {}", credentials.proof()?),
            );
        if offset > 0 {
            request = request.header("Range", format!("bytes={offset}-"));
        }
        let mut answer = request
            .call()
            .map_err(|error| unreachable(&self.url, &error))?;
        if answer.status().is_success() {
            Ok(answer)
        } else {
            Err(refused(&mut answer))
        }
    }
}

fn agent(roots: RootCerts, disable_verification: bool) -> ureq::Agent {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(roots)
        .disable_verification(disable_verification)
        .unversioned_rustls_crypto_provider(std::sync::Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .build();
    ureq::Agent::config_builder()
        .tls_config(tls)
        .https_only(true)
        .max_redirects(0)
        .proxy(None)
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(ANSWER_TIMEOUT))
        .build()
        .new_agent()
}

fn unreachable(url: &str, error: &ureq::Error) -> anyhow::Error {
    anyhow::anyhow!("the controller at {url} can't be reached: {error}")
}

fn text(answer: &mut ureq::http::Response<ureq::Body>) -> anyhow::Result<String> {
    if !answer.status().is_success() {
        return Err(refused(answer));
    }
    Ok(answer
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES_MAX)
        .read_to_string()?)
}

fn json<T: serde::de::DeserializeOwned>(
    answer: &mut ureq::http::Response<ureq::Body>,
) -> anyhow::Result<T> {
    let text = text(answer)?;
    number::from_slice(text.as_bytes())
        .context("the controller's answer is not understood: is it of another release?")
}

fn refused(answer: &mut ureq::http::Response<ureq::Body>) -> anyhow::Error {
    let status = answer.status();
    let body = answer
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES_MAX)
        .read_to_string()
        .unwrap_or_default();
    let error = serde_json::from_str(&body).unwrap_or_else(|_| ErrorBody {
        code: "http".into(),
        message: format!("the controller answered {status}"),
        hint: None,
    });
    Refused(error).into()
}
