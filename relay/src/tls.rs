//! The TLS configurations of both ends: rustls with ring, TLS 1.2 and 1.3. The client trusts one
//! certificate authority and one name, or the very certificate that it was given, and shows one of
//! its own where it has one; the relay shows one certificate and asks for none.

use std::sync::Arc;

#[cfg(feature = "broker")]
use rustls::ServerConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::endpoint::{RelayError, TlsTrust};
use crate::reason;

/// What a session needs to connect to `host` and trust nobody but `trust`.
///
/// # Errors
/// When the certificate authority or the name can't be read.
pub(crate) fn client_config(trust: &TlsTrust, host: &str) -> Result<ClientConfig, RelayError> {
    let unusable = |error: &dyn std::fmt::Display| {
        RelayError(format!(
            "the CA certificate of the relay is not usable: {error}"
        ))
    };
    let mut roots = RootCertStore::empty();
    let pinned = certificates(&trust.ca_pem).map_err(|error| unusable(&error))?;
    for certificate in &pinned {
        let added = roots.add(certificate.clone());
        added.map_err(|error| unusable(&error))?;
    }
    let name = ServerName::try_from(trust.server_name.clone()).map_err(|_| {
        RelayError(format!(
            "`{}` is neither a DNS name nor an IP address",
            trust.server_name
        ))
    })?;
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| unusable(&error))?;
    let verifier = NamedVerifier {
        verifier,
        name,
        pinned,
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &trust.client {
        None => config.with_no_client_auth(),
        Some(client) => {
            let unusable = |error: &dyn std::fmt::Display| {
                RelayError(format!(
                    "the client certificate or its key is not usable: {error}"
                ))
            };
            let chain = certificates(&client.certificate_pem).map_err(|error| unusable(&error))?;
            let key = PrivateKeyDer::from_pem_slice(client.key_pem.as_bytes())
                .map_err(|error| unusable(&error))?;
            let config = config.with_client_auth_cert(chain, key);
            config.map_err(|error| unusable(&error))?
        }
    };
    // rumqttc announces the host that it dials; announcing a name that nobody checks helps nobody.
    config.enable_sni = trust.server_name == host;
    Ok(config)
}

/// What the embedded relay shows to its clients.
///
/// # Errors
/// When the PEM texts can't be read or don't belong together.
#[cfg(feature = "broker")]
pub(crate) fn server_config(cert_pem: &str, key_pem: &str) -> Result<ServerConfig, RelayError> {
    let unusable = |error: &dyn std::fmt::Display| {
        RelayError(format!(
            "the relay's certificate or its key is not usable: {error}"
        ))
    };
    let chain = certificates(cert_pem).map_err(|error| unusable(&error))?;
    let key =
        PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| unusable(&error))?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| unusable(&error))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, RelayError> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| RelayError(error.to_string()))?;
    if certificates.is_empty() {
        return Err(RelayError("there is no certificate in the PEM text".into()));
    }
    Ok(certificates)
}

/// Checks a certificate as webpki does, but for the configured name: rumqttc knows only one name,
/// the host that it dials, which may be an address that no certificate carries.
///
/// A broker may also show one of the trusted certificates itself, as one that signed its own does.
/// Nobody but its owner has its key: then neither its name nor its being an authority matters. That it
/// is not expired webpki has checked before both.
#[derive(Debug)]
struct NamedVerifier {
    verifier: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for NamedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.verifier.verify_server_cert(
            end_entity,
            intermediates,
            &self.name,
            ocsp_response,
            now,
        );
        match verified {
            Err(error)
                if self.pinned.iter().any(|pinned| pinned == end_entity)
                    && (reason::is_of_authority(&error) || reason::is_of_other_name(&error)) =>
            {
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// rustls shows no such certificate itself, other brokers do.
    #[test]
    fn a_certificate_of_version_1_says_to_make_one_of_version_3() {
        let shown = certificates(include_str!("../tests/it/version_1.pem")).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(shown[0].clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let verifier = NamedVerifier {
            verifier: verifier.build().unwrap(),
            name: name.clone(),
            pinned: shown.clone(),
        };
        let verified = verifier.verify_server_cert(&shown[0], &[], &name, &[], UnixTime::now());
        let cure = reason::cure(&verified.unwrap_err());
        assert!(cure.contains("as X.509 version 3"), "{cure}");
    }
}
