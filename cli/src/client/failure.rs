//! Why a site could not be reached, for people: nothing listens, the wrong site listens, a clock
//! is wrong, or nothing comes back. Pure: errors in, words out.

use std::io;
use std::path::Path;

use haar_protocol::context::Context;
use rustls::CertificateError;

use crate::error::CommandError;
use crate::output;

/// Turns an error of the HTTP client into one for people.
pub(super) fn explain(error: ureq::Error, context: &Context, file: &Path) -> CommandError {
    let place = Place {
        site: context.name.as_str(),
        url: &context.url,
        file,
    };
    match error {
        ureq::Error::Io(error) => match find_tls(&error) {
            Some(tls) => place.tls(tls),
            None => place.io(&error),
        },
        ureq::Error::Rustls(error) => place.tls(&error),
        ureq::Error::Timeout(_) => place.timeout(),
        ureq::Error::HostNotFound => place
            .problem(
                "host_not_found",
                "its name is not known to the network's name service",
            )
            .hinted(place.check_url()),
        ureq::Error::ConnectionFailed => place
            .problem("connection_failed", "no connection")
            .hinted(place.check_url()),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => CommandError::refused(
            "bad_context",
            format!("{}: `{}` is not a URL", file.display(), context.url),
        ),
        ureq::Error::BodyExceedsLimit(limit) => CommandError::failure(format!(
            "the answer of the site `{}` has more than {}",
            place.site,
            output::bytes(limit)
        )),
        other => place
            .problem("connection_failed", &other.to_string())
            .hinted(format!(
                "Is it Haar's controller that listens at {}?",
                place.url
            )),
    }
}

struct Place<'a> {
    site: &'a str,
    url: &'a str,
    file: &'a Path,
}

impl Place<'_> {
    fn problem(&self, code: &'static str, why: &str) -> CommandError {
        CommandError::unreachable(
            code,
            format!(
                "can't reach the site `{}` at {}: {why}",
                self.site, self.url
            ),
        )
    }

    fn check_url(&self) -> String {
        format!("Check the url in {}, and the network.", self.file.display())
    }

    fn io(&self, error: &io::Error) -> CommandError {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => self
                .problem("connection_refused", "nothing listens there")
                .hinted(format!("Does the controller run? Start it (on this machine: `haar up`), or check the url in {}.", self.file.display())),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => self.timeout(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                self.problem("connection_cut", "the connection was cut").hinted("Try again; if it stays so, look at the controller's log.")
            }
            _ => self.problem("connection_failed", &crate::error::reason(error)).hinted(self.check_url()),
        }
    }

    fn timeout(&self) -> CommandError {
        self.problem("timeout", "no answer in time").hinted(format!(
            "Is the machine on, and does a firewall let its port through? The url comes from {}.",
            self.file.display()
        ))
    }

    fn tls(&self, error: &rustls::Error) -> CommandError {
        let rustls::Error::InvalidCertificate(certificate) = error else {
            return self
                .problem(
                    "not_tls",
                    &format!("what answers there does not speak TLS as Haar does ({error})"),
                )
                .hinted(format!(
                    "Is it Haar's controller that listens at {}?",
                    self.url
                ));
        };
        match certificate {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => self
                .problem("wrong_site", "what answers there is another site: its certificate is not from the CA in the context")
                .hinted(format!("Was the site made anew? Then copy its context file again; this one is {}.", self.file.display())),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => self
                .problem("certificate_expired", "its certificate has expired")
                .hinted(format!("{} If that is right, restart the controller: it renews its certificate.", self.clock())),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                self.problem("certificate_not_valid_yet", "its certificate is not valid yet").hinted(self.clock())
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => self
                .problem("wrong_name", "its certificate is for other names or addresses")
                .hinted(format!("Use a name or address that the controller was started with, in the url in {}.", self.file.display())),
            other => self.problem("bad_certificate", &format!("its certificate is not accepted ({other})")).hinted("Look at the controller's log."),
        }
    }

    fn clock(&self) -> String {
        format!(
            "Is this machine's clock right? It says {}.",
            output::timestamp(output::now_ms())
        )
    }
}

/// rustls' error inside of an error of the operating system's kind.
fn find_tls(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
        return Some(tls);
    }
    let mut source = inner.source();
    while let Some(next) = source {
        if let Some(tls) = next.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        source = next.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(error: ureq::Error) -> CommandError {
        let context = Context {
            site: "saaaaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap(),
            name: "plant".parse().unwrap(),
            url: "https://192.0.2.7:7420".into(),
            token: "secret".into(),
            ca_pem: String::new(),
        };
        explain(error, &context, Path::new("context.toml"))
    }

    fn wrapped(error: rustls::Error) -> ureq::Error {
        ureq::Error::Io(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn the_ways_of_not_reaching_a_site_are_told_apart() {
        let certificate = |error| wrapped(rustls::Error::InvalidCertificate(error));
        let cases = [
            (
                ureq::Error::Io(io::ErrorKind::ConnectionRefused.into()),
                "connection_refused",
            ),
            (ureq::Error::Io(io::ErrorKind::TimedOut.into()), "timeout"),
            (
                ureq::Error::Io(io::ErrorKind::ConnectionReset.into()),
                "connection_cut",
            ),
            (ureq::Error::HostNotFound, "host_not_found"),
            (certificate(CertificateError::UnknownIssuer), "wrong_site"),
            (certificate(CertificateError::BadSignature), "wrong_site"),
            (
                certificate(CertificateError::NotValidYet),
                "certificate_not_valid_yet",
            ),
            (
                certificate(CertificateError::Expired),
                "certificate_expired",
            ),
            (certificate(CertificateError::NotValidForName), "wrong_name"),
            (
                wrapped(rustls::Error::InvalidMessage(
                    rustls::InvalidMessage::InvalidContentType,
                )),
                "not_tls",
            ),
        ];
        for (error, code) in cases {
            let explained = explained(error);
            assert_eq!(explained.code, code);
            assert!(explained.hint.is_some(), "{code} has a hint");
            assert!(!explained.message.contains("secret"));
        }
    }
}
