//! The site's certificate authority and the certificate of its servers. ECDSA P-256.
//!
//! Both begin in 1970: a device whose clock was never set must get as far as the API, which tells
//! it so; a TLS error would blame the wrong thing. Certificates for other servers end after a time,
//! and none is issued for a name of the controller itself: its holder could stand in for it.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use haar_protocol::ids::SiteId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rusqlite::Connection;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use super::directory;
use crate::config::Settings;
use crate::db;

const YEAR_MS: u64 = 31_556_952_000;
const SERVER_LIFE_MS: u64 = 20 * YEAR_MS;
/// How long a certificate is good that leaves the site: nothing can revoke it.
pub(crate) const HANDED_OUT_LIFE_MS: u64 = YEAR_MS;
/// How long the certificate of a relay is good that a node runs. Its key is sealed for the node, and
/// the site renews it when a third is left: neighbours can be on their own for a year at least.
pub(crate) const NEIGHBOURHOOD_LIFE_MS: u64 = 3 * YEAR_MS;
/// A server certificate with less to go than this is made anew at start.
const SERVER_LEFT_MIN_MS: u64 = 10 * YEAR_MS;
const AUTHORITY_END_YEAR: i32 = 2200;
/// A certificate that outlives its authority is not valid: the end of 2199.
const UNTIL_MS_MAX: u64 = 229 * YEAR_MS;

/// The site's certificate authority.
pub(super) struct Authority {
    pub(super) certificate_pem: String,
    key_pem: String,
}

/// What the servers of the site show.
#[derive(Clone)]
pub(crate) struct ServerCertificate {
    /// The certificate in PEM.
    pub(crate) certificate_pem: String,
    /// Its key in PEM.
    pub(crate) key_pem: String,
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ServerCertificate(..)")
    }
}

/// A certificate for a server that is not the controller.
#[derive(Debug, Clone)]
pub(crate) struct Issued {
    /// The certificate and its key.
    pub(crate) certificate: ServerCertificate,
    /// Its end, in milliseconds since the Unix epoch.
    pub(crate) until_ms: u64,
    /// What it is, for people: its host, its fingerprint and its end.
    pub(crate) description: String,
}

/// What the server certificate on disk says, so that nobody has to parse it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Terms {
    names: Vec<String>,
    until_ms: u64,
}

impl Authority {
    /// SHA-256 of the certificate (DER) in hexadecimal digits.
    pub(super) fn sha256(&self) -> anyhow::Result<String> {
        let der = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())
            .map_err(|error| anyhow::anyhow!("the site's CA certificate is not PEM: {error}"))?;
        Ok(hex::encode(super::sha256(&der)))
    }
}

/// Reads the authority, or makes it for a new site.
pub(super) fn authority(directory: &Path, site: &SiteId) -> anyhow::Result<Authority> {
    let (certificate, key) = (directory.join("ca.pem"), directory.join("ca.key"));
    if !certificate.exists() && !key.exists() {
        let made = make_authority(site)?;
        directory::write_private(&key, &made.key_pem)?;
        directory::write_private(&certificate, &made.certificate_pem)?;
        return Ok(made);
    }
    let authority = Authority {
        certificate_pem: directory::read(&certificate)?,
        key_pem: directory::read(&key)?,
    };
    let damaged = || {
        format!(
            "{} and {} are not readable as a certificate and its key: put both back from a backup (nodes trust no other)",
            certificate.display(),
            key.display()
        )
    };
    let pair = KeyPair::from_pem(&authority.key_pem).with_context(damaged)?;
    let issuer =
        Issuer::from_ca_cert_pem(&authority.certificate_pem, pair).with_context(damaged)?;
    drop(issuer);
    Ok(authority)
}

fn make_authority(site: &SiteId) -> anyhow::Result<Authority> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = distinguished_name(&format!("Haar site {site}"));
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(AUTHORITY_END_YEAR, 1, 1);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok(Authority {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    })
}

/// Reads the server certificate, or makes one when there is none, its names have changed or its
/// end is near.
pub(super) fn server(
    directory: &Path,
    connection: &Connection,
    authority: &Authority,
    settings: &Settings,
    advertise: &str,
    now_ms: u64,
) -> anyhow::Result<ServerCertificate> {
    let (certificate, key) = (directory.join("server.pem"), directory.join("server.key"));
    let names = names(settings, advertise);
    let stored = db::meta::get(connection, db::meta::CERTIFICATE)?
        .and_then(|text| serde_json::from_str::<Terms>(&text).ok());
    let good = stored.is_some_and(|terms| {
        terms.names == names && terms.until_ms > now_ms.saturating_add(SERVER_LEFT_MIN_MS)
    });
    if good && certificate.exists() && key.exists() {
        let read = ServerCertificate {
            certificate_pem: directory::read(&certificate)?,
            key_pem: directory::read(&key)?,
        };
        if is_usable(&read) {
            return Ok(read);
        }
        tracing::warn!(file = %certificate.display(), "the server certificate is damaged: making a new one");
    }
    let until_ms = now_ms.saturating_add(SERVER_LIFE_MS);
    let made =
        make_server(authority, names.clone(), until_ms).context("making the server certificate")?;
    let (made, terms) = (made.certificate, Terms { names, until_ms });
    directory::write_private(&key, &made.key_pem)?;
    directory::write_private(&certificate, &made.certificate_pem)?;
    db::meta::set(
        connection,
        db::meta::CERTIFICATE,
        &serde_json::to_string(&terms)?,
    )?;
    Ok(made)
}

/// Issues a certificate for a server that is not the controller.
pub(super) fn issue(
    directory: &Path,
    site: &SiteId,
    host: &str,
    until_ms: u64,
) -> anyhow::Result<Issued> {
    let authority = authority(directory, site)?;
    let made = make_server(&authority, vec![host.to_owned()], until_ms)
        .with_context(|| format!("making a certificate for {host}"))?;
    Ok(Issued {
        description: format!(
            "for `{host}`, good until {}, SHA-256 {}",
            made.end, made.sha256
        ),
        certificate: made.certificate,
        until_ms,
    })
}

/// True when `host` is one of `names`, however it is written: upper case, a dot at the end, brackets,
/// an IPv4 address as IPv6.
pub(super) fn is_one_of(host: &str, names: &[String]) -> bool {
    let host = normalised(host);
    names.iter().any(|name| normalised(name) == host)
}

fn normalised(host: &str) -> String {
    let bare = host.trim_start_matches('[').trim_end_matches([']', '.']);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => bare.to_ascii_lowercase(),
    }
}

fn is_usable(server: &ServerCertificate) -> bool {
    crate::server::tls_config(server).is_ok()
}

/// The names that the controller's certificate carries: those of this machine, and the advertised
/// one. Everybody who trusts the site verifies the controller by one of them.
pub(super) fn names(settings: &Settings, advertise: &str) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .to_vec();
    let listening = [settings.listen.ip(), settings.relay_listen.ip()];
    let concrete = listening
        .iter()
        .filter(|ip| !ip.is_unspecified())
        .map(ToString::to_string);
    for name in concrete.chain([advertise.to_owned()]) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A certificate that was made, with what people are told of it.
struct Made {
    certificate: ServerCertificate,
    /// The last day.
    end: String,
    /// SHA-256 of the certificate (DER) in hexadecimal digits.
    sha256: String,
}

fn make_server(authority: &Authority, names: Vec<String>, until_ms: u64) -> anyhow::Result<Made> {
    ensure!(
        until_ms < UNTIL_MS_MAX,
        "the clock of this machine is wrong: set it and try again"
    );
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = distinguished_name("Haar server");
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_millis(until_ms);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let end = params.not_after.date().to_string();
    let issuer = Issuer::from_ca_cert_pem(
        &authority.certificate_pem,
        KeyPair::from_pem(&authority.key_pem)?,
    )?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Made {
        certificate: ServerCertificate {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        },
        end,
        sha256: hex::encode(super::sha256(certificate.der())),
    })
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_however_it_is_written() {
        let names = ["gw.example", "127.0.0.1", "::1", "2001:db8::7"].map(str::to_owned);
        for host in [
            "gw.example",
            "GW.Example",
            "gw.example.",
            "GW.EXAMPLE..",
            "127.0.0.1",
            "[127.0.0.1]",
            "::ffff:127.0.0.1",
            "[::ffff:7f00:1]",
            "0:0:0:0:0:0:0:1",
            "[::1]",
            "2001:DB8:0::7",
            "127.0.0.1.",
        ] {
            assert!(is_one_of(host, &names), "{host}");
        }
        for host in [
            "127.0.0.2",
            "gw.example.org",
            "www.gw.example",
            "example",
            "::2",
            "",
        ] {
            assert!(!is_one_of(host, &names), "{host}");
        }
    }
}
