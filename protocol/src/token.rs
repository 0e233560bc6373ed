//! Enrolment tokens: one text that tells a new device where its site is, how to recognise it, and
//! that it may join. `haar1.` and base64url of JSON.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::ids::{InvalidId, SiteId};

const PREFIX: &str = "haar1.";
const TOKEN_BYTES_MAX: usize = 4_096;

/// What an enrolment token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentToken {
    /// Base URL of the controller's REST API, such as `https://192.0.2.7:7420`.
    pub url: String,
    /// The site, so that a device of another site is recognised at once.
    pub site: SiteId,
    /// SHA-256 of the site's CA certificate (DER) in hexadecimal digits: what makes the TLS
    /// connection trusted.
    pub ca_sha256: String,
    /// The one-use secret, 32 random bytes in hexadecimal digits. The controller keeps its hash.
    pub secret: String,
    /// When it stops working: milliseconds since the Unix epoch by the controller's clock.
    pub expires_ms: u64,
}

impl std::fmt::Display for EnrolmentToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let json = serde_json::to_vec(self).expect("a token always serialises");
        write!(formatter, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl std::str::FromStr for EnrolmentToken {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || {
            InvalidId("this is not an enrolment token: copy the whole text that `haar node token` printed, beginning with `haar1.`".into())
        };
        let text = text.trim();
        if text.len() > TOKEN_BYTES_MAX {
            return Err(invalid());
        }
        let body = text.strip_prefix(PREFIX).ok_or_else(invalid)?;
        let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| invalid())?;
        crate::number::from_slice(&json).map_err(|_| invalid())
    }
}
