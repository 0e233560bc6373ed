//! `haar relay`: what a broker that is not ours must know of the site.

use std::fmt::Write as _;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Subcommand, ValueEnum};
use haar_protocol::ids::Name;
use haar_protocol::relay::{RelayCredentials, RelayUser};
use ring::pbkdf2;
use serde_json::json;

use crate::client::Client;
use crate::config::Options;
use crate::error::{CommandError, Result, about_file};
use crate::files::{self, Readers};
use crate::output;

/// Rounds of PBKDF2 that Mosquitto 2.0 itself uses. The passwords are 256 random bits: more rounds
/// would add nothing.
const ROUNDS: NonZeroU32 = NonZeroU32::new(101).expect("it is not zero");
const SALT_BYTES: usize = 12;
const HASH_BYTES: usize = 64;

/// Work with the brokers between the site and its nodes
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write down for a broker who may connect and who may do what
    Credentials {
        /// The relay, as its manifest calls it
        name: Name,
        /// The folder to write to; it is made when it is missing
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// For which broker
        #[arg(long, value_enum, default_value_t = Format::Mosquitto)]
        format: Format,
        /// Write a certificate for the broker, too, signed by the site's authority
        #[arg(long)]
        certificate: bool,
    },
}

/// Who reads the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Mosquitto: password file, ACL file and a piece of configuration
    Mosquitto,
    /// One JSON document with passwords in clear, to feed to other brokers
    Json,
}

/// Runs `haar relay …`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let Command::Credentials {
        name,
        out,
        format,
        certificate,
    } = &arguments.command;
    let client = Client::of(options)?;
    let answer = client.get_text(&format!(
        "relays/{name}/credentials?certificate={certificate}"
    ))?;
    let credentials: RelayCredentials = client.parse(&answer)?;
    let folder = out;
    std::fs::create_dir_all(folder).map_err(about_file("make", folder))?;
    let mut written = Vec::new();
    let mut write = |name: &str, text: &str, readers: Readers| -> Result<()> {
        let path = folder.join(name);
        files::write(&path, text.as_bytes(), readers, true).map_err(about_file("write", &path))?;
        written.push(path);
        Ok(())
    };
    match format {
        Format::Json => write("haar.json", &answer, Readers::Owner)?,
        Format::Mosquitto => {
            write(
                "haar.passwords",
                &passwords(&credentials.users)?,
                Readers::Owner,
            )?;
            write("haar.acl", &acl(&credentials), Readers::Owner)?;
            let configuration = configuration(&credentials, folder);
            write("haar.conf", &configuration, Readers::Everybody)?;
        }
    }
    if let Some(certificate) = &credentials.certificate {
        write("ca.pem", &credentials.ca_pem, Readers::Everybody)?;
        write(
            "server.pem",
            &certificate.certificate_pem,
            Readers::Everybody,
        )?;
        write("server.key", &certificate.key_pem, Readers::Owner)?;
    }
    if options.is_json() {
        let files: Vec<_> = written
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        return output::json(
            &json!({ "relay": name, "users": credentials.users.len(), "files": files }),
        );
    }
    for path in &written {
        output::line(format!("Wrote {}.", path.display()))?;
    }
    if let Some(certificate) = &credentials.certificate {
        output::line(format!(
            "The certificate is good until {}: run this command again before.",
            output::timestamp(certificate.until_ms)
        ))?;
    }
    output::line(format!(
        "{} users. Write them down again after nodes have joined or left.",
        credentials.users.len()
    ))
}

/// The password file: a line for each user, as `mosquitto_passwd` of Mosquitto 2.0 writes it.
fn passwords(users: &[RelayUser]) -> Result<String> {
    let mut text = String::new();
    for user in users {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|error| {
            let error = io::Error::other(error.to_string());
            CommandError::failure(format!("the machine has no random numbers: {error}"))
        })?;
        let line = password_line(user, &salt);
        let _ = writeln!(text, "{line}"); // writing to a string never fails
    }
    Ok(text)
}

fn password_line(user: &RelayUser, salt: &[u8]) -> String {
    let mut hash = [0; HASH_BYTES];
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA512;
    pbkdf2::derive(algorithm, ROUNDS, salt, user.password.as_bytes(), &mut hash);
    let (salt, hash) = (STANDARD.encode(salt), STANDARD.encode(hash));
    format!("{}:$7${ROUNDS}${salt}${hash}", user.user)
}

/// The ACL file (mosquitto.conf(5), `acl_file`).
fn acl(credentials: &RelayCredentials) -> String {
    let mut text = format!(
        "# Written by `haar relay credentials {}`; it is written anew each time.\n",
        credentials.relay
    );
    for user in &credentials.users {
        let _ = writeln!(
            text,
            "\n# {}\nuser {}",
            output::printable(&user.name),
            user.user
        );
        for filter in &user.publish {
            let _ = writeln!(text, "topic write {filter}");
        }
        for filter in &user.subscribe {
            let _ = writeln!(text, "topic read {filter}");
        }
    }
    text
}

fn configuration(credentials: &RelayCredentials, folder: &Path) -> String {
    let folder = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let file = |name: &str| folder.join(name).display().to_string();
    let mut text = format!(
        "# A listener for the Haar site {}: include it from mosquitto.conf.\n\
         # Devices of your own need a listener of their own, with files of their own.\n\
         per_listener_settings true\n\n\
         listener {}\n\
         allow_anonymous false\n\
         use_username_as_clientid true\n\
         password_file {}\n\
         acl_file {}\n",
        credentials.site,
        credentials.url.address.port,
        file("haar.passwords"),
        file("haar.acl"),
    );
    if credentials.url.encrypted {
        let _ = match &credentials.certificate {
            Some(_) => writeln!(
                text,
                "certfile {}\nkeyfile {}",
                file("server.pem"),
                file("server.key")
            ),
            None => writeln!(
                text,
                "# certfile and keyfile: those that the broker has already"
            ),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_line_is_what_mosquitto_writes() {
        let user = RelayUser {
            user: "node".into(),
            password: "secret".into(),
            name: "gateway".into(),
            publish: Vec::new(),
            subscribe: Vec::new(),
        };
        // By Python: base64(hashlib.pbkdf2_hmac("sha512", b"secret", b"0123456789ab", 101)).
        assert_eq!(
            password_line(&user, b"0123456789ab"),
            "node:$7$101$MDEyMzQ1Njc4OWFi$EO/lLlkeUgIiBaS8G8UK0ZMP1u508TA7Tl+AdJ1cEsmlbGyEPAERErpfq84j1kepISs0UzmcdL4ucgZ2uodxfQ=="
        );
    }
}
