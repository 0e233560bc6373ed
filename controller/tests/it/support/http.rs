//! A person's HTTP client: the site's CA and nothing else, and a bearer token.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::{HeaderMap, Request};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, SendBody};

/// A client of one site.
#[derive(Clone)]
pub(crate) struct Client {
    agent: Agent,
    /// `https://…/api/v1`
    pub(crate) base: String,
    authorization: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }

    /// The value inside a success.
    #[track_caller]
    pub(crate) fn ok<T: DeserializeOwned>(self) -> T {
        assert!(
            (200..300).contains(&self.status),
            "{}: {}",
            self.status,
            String::from_utf8_lossy(&self.bytes)
        );
        serde_json::from_slice(&self.bytes).unwrap()
    }

    /// A success without a body that matters.
    #[track_caller]
    pub(crate) fn done(self) {
        assert!(
            (200..300).contains(&self.status),
            "{}: {}",
            self.status,
            String::from_utf8_lossy(&self.bytes)
        );
    }

    /// A refusal with this status and code. Gives message and hint together.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> String {
        let body = self.json();
        assert_eq!(
            (self.status, body["code"].as_str()),
            (status, Some(code)),
            "{body}"
        );
        format!(
            "{} {}",
            body["message"].as_str().unwrap(),
            body["hint"].as_str().unwrap_or_default()
        )
    }
}

impl Client {
    pub(crate) fn new(url: &str, ca_pem: &str, authorization: Option<String>) -> Self {
        let certificate = Certificate::from_pem(ca_pem.as_bytes()).unwrap();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&[certificate]))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            // Every request on a connection of its own: one that the server has just closed, after
            // an answer that did not need the whole body, may still look open here.
            .max_idle_connections(0)
            .build()
            .new_agent();
        Self {
            agent,
            base: format!("{url}/api/v1"),
            authorization,
        }
    }

    pub(crate) fn with_authorization(&self, authorization: Option<String>) -> Self {
        Self {
            authorization,
            ..self.clone()
        }
    }

    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> Reply {
        self.try_send(method, path, headers, body).unwrap()
    }

    pub(crate) fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> Result<Reply, ureq::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut response = if ["PUT", "POST"].contains(&method) {
            self.agent.run(
                request
                    .body(SendBody::from_owned_reader(std::io::Cursor::new(
                        body.to_vec(),
                    )))
                    .unwrap(),
            )?
        } else {
            self.agent.run(request.body(()).unwrap())?
        };
        let bytes = response
            .body_mut()
            .with_config()
            .limit(256 << 20)
            .read_to_vec()?;
        Ok(Reply {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            bytes,
        })
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    pub(crate) fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, &[], b"")
    }

    pub(crate) fn put(&self, path: &str, body: &[u8]) -> Reply {
        self.send("PUT", path, &[], body)
    }

    pub(crate) fn put_json(&self, path: &str, body: &impl Serialize) -> Reply {
        self.put(path, &serde_json::to_vec(body).unwrap())
    }

    pub(crate) fn post_json(&self, path: &str, body: &impl Serialize) -> Reply {
        self.send("POST", path, &[], &serde_json::to_vec(body).unwrap())
    }

    /// The stream of server-sent events at `path`.
    pub(crate) fn stream(&self, path: &str) -> impl std::io::BufRead + use<> {
        self.stream_after(path, None)
    }

    /// That stream behind the event with this id.
    pub(crate) fn stream_after(
        &self,
        path: &str,
        last: Option<&str>,
    ) -> impl std::io::BufRead + use<> {
        let mut request = Request::builder()
            .method("GET")
            .uri(format!("{}{path}", self.base));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let response = self.agent.run(request.body(()).unwrap()).unwrap();
        assert_eq!(response.status().as_u16(), 200);
        std::io::BufReader::new(response.into_body().into_reader())
    }
}
