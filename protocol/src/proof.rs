//! How a node, or the site, proves to the relay and to the controller's REST API who it is:
//! a text made with its own key, fresh for every connection, worthless after a minute and for
//! any other audience. No password is stored anywhere.
//!
//! ```text
//! haar-proof-1 . BODY . SIGNATURE      BODY = base64url(JSON), SIGNATURE = base64url(ed25519)
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::ids::{Name, SiteId};
use crate::keys::{PublicKey, SecretKey};

const PREFIX: &str = "haar-proof-1";
/// How long a proof is good for, in milliseconds.
pub const PROOF_LIFE_MS: u64 = 60_000;
/// How far the two clocks may be apart, in milliseconds.
pub const CLOCK_SKEW_MS: u64 = 120_000;
const PROOF_BYTES_MAX: usize = 1024;

/// Who may be convinced by a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// A relay of the site.
    Relay,
    /// The controller's REST API.
    Controller,
}

/// What a proof states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// For whom it is meant.
    pub audience: Audience,
    /// In which site.
    pub site: SiteId,
    /// Who makes the statement: a node's id, a site's id, or the MQTT client id on relays.
    pub subject: String,
    /// When it was made: milliseconds since the Unix epoch by the maker's clock.
    pub issued_ms: u64,
    /// 16 random bytes in hexadecimal digits, so that no two proofs are alike.
    pub nonce: String,
    /// The one relay that it is for; none for the controller's own. A node that runs a relay for its
    /// neighbours must not be able to use their proofs elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Name>,
}

/// Why a proof was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not a proof at all.
    #[error("not a proof of identity")]
    Malformed,
    /// Meant for somebody else, or made by somebody else.
    #[error("the proof is for another audience, site or subject")]
    WrongClaims,
    /// Not signed by the expected key.
    #[error("the proof is not signed by the expected key")]
    WrongSignature,
    /// The clocks are too far apart, or the proof is old.
    #[error(
        "the proof is out of its time: the maker's clock is {} ms {} the verifier's; set the clock (NTP) and try again",
        .skew_ms.unsigned_abs(), if *.skew_ms < 0 { "behind" } else { "ahead of" }
    )]
    OutOfTime {
        /// The maker's clock minus the verifier's, in milliseconds.
        skew_ms: i64,
    },
}

/// Makes a proof.
pub fn make(claims: &Claims, key: &SecretKey) -> String {
    let json = serde_json::to_vec(claims).expect("claims always serialise");
    let body = URL_SAFE_NO_PAD.encode(json);
    let signature = URL_SAFE_NO_PAD.encode(key.sign(format!("{PREFIX}.{body}").as_bytes()));
    format!("{PREFIX}.{body}.{signature}")
}

/// Reads who a proof claims to come from, without believing it: to look the key up.
pub fn claimed_subject(proof: &str) -> Result<String, ProofError> {
    Ok(parse(proof)?.0.subject)
}

fn parse(proof: &str) -> Result<(Claims, [u8; 64], usize), ProofError> {
    if proof.len() > PROOF_BYTES_MAX {
        return Err(ProofError::Malformed);
    }
    let (signed, signature) = proof.rsplit_once('.').ok_or(ProofError::Malformed)?;
    let body = signed
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_prefix('.'))
        .ok_or(ProofError::Malformed)?;
    let json = URL_SAFE_NO_PAD
        .decode(body)
        .map_err(|_| ProofError::Malformed)?;
    let claims = crate::number::from_slice(&json).map_err(|_| ProofError::Malformed)?;
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| ProofError::Malformed)?;
    let signature = signature.try_into().map_err(|_| ProofError::Malformed)?;
    Ok((claims, signature, signed.len()))
}

/// Checks a proof. `relay` is the name of the relay that a node runs and that asks; `now_ms` is the
/// verifier's clock.
///
/// # Errors
/// See [`ProofError`]. The signature is checked before the time, so `OutOfTime` tells the truth
/// about the maker's clock.
pub fn check(
    proof: &str,
    key: &PublicKey,
    audience: Audience,
    site: &SiteId,
    subject: &str,
    relay: Option<&Name>,
    now_ms: u64,
) -> Result<Claims, ProofError> {
    let (claims, signature, signed_bytes) = parse(proof)?;
    if !key.verifies(&proof.as_bytes()[..signed_bytes], &signature) {
        return Err(ProofError::WrongSignature);
    }
    let is_for_us = claims.audience == audience && claims.relay.as_ref() == relay;
    if !is_for_us || &claims.site != site || claims.subject != subject {
        return Err(ProofError::WrongClaims);
    }
    let too_old = claims
        .issued_ms
        .saturating_add(PROOF_LIFE_MS + CLOCK_SKEW_MS)
        < now_ms;
    let too_new = claims.issued_ms > now_ms.saturating_add(CLOCK_SKEW_MS);
    if too_old || too_new {
        let skew = i128::from(claims.issued_ms) - i128::from(now_ms);
        let skew_ms = i64::try_from(skew).unwrap_or(if skew < 0 { i64::MIN } else { i64::MAX });
        return Err(ProofError::OutOfTime { skew_ms });
    }
    Ok(claims)
}
