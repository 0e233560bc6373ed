//! `haar relay credentials`: users, rules and certificates for a broker that is not ours.

use std::fmt::Write as _;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
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
/// What Mosquitto reads first of what is written for it.
const CONFIGURATION: &str = "zz-haar.conf";

/// Write down for a broker who may connect and who may do what
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The relay, as its manifest calls it
    name: Name,
    /// The folder to write to; it is made when it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The folder in which the broker will find the files; the one of --out when left out
    #[arg(long, value_name = "DIR")]
    broker_folder: Option<PathBuf>,
    /// For which broker
    #[arg(long, value_enum, default_value_t = Format::Mosquitto)]
    format: Format,
    /// Write a certificate for the broker, too, signed by the site's authority
    #[arg(long)]
    certificate: bool,
}

/// Who reads the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Mosquitto: password file, ACL file and a piece of configuration
    Mosquitto,
    /// One JSON document with passwords in clear, to feed to other brokers
    Json,
}

/// Runs `haar relay credentials`.
pub(super) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let Arguments {
        name,
        out: folder,
        broker_folder,
        format,
        certificate,
    } = arguments;
    let client = Client::of(options)?;
    let answer = client.get_text(&format!(
        "relays/{name}/credentials?certificate={certificate}"
    ))?;
    let credentials: RelayCredentials = client.parse(&answer)?;
    std::fs::create_dir_all(folder).map_err(about_file("make", folder))?;
    let files = match format {
        Format::Json => vec![File::secret("haar.json", answer)],
        Format::Mosquitto => {
            let absolute = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.clone());
            mosquitto(&credentials, broker_folder.as_ref().unwrap_or(&absolute))?
        }
    };
    let files = files.into_iter().chain(certificate_files(&credentials));
    let group = mosquitto_group().filter(|_| *format == Format::Mosquitto);
    let (mut written, mut is_readable) = (Vec::new(), true);
    for file in files {
        let path = folder.join(file.name);
        let about = about_file("write", &path);
        files::write(&path, file.text.as_bytes(), file.readers, true).map_err(about)?;
        if file.readers == Readers::Owner {
            is_readable &= group.is_some_and(|group| let_read(&path, group).is_ok());
        }
        written.push(path);
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
    if *format == Format::Mosquitto && !is_readable {
        let folder = folder.display();
        output::line(format!(
            "Mosquitto's user must be able to read them: `sudo chown -R mosquitto {folder}`, where they are in the end."
        ))?;
    }
    output::line(format!(
        "{} users. Write them down again after nodes have joined or left.",
        credentials.users.len()
    ))
}

/// A file for a broker.
struct File {
    name: &'static str,
    text: String,
    readers: Readers,
}

impl File {
    fn secret(name: &'static str, text: String) -> Self {
        let readers = Readers::Owner;
        Self {
            name,
            text,
            readers,
        }
    }

    fn public(name: &'static str, text: String) -> Self {
        let readers = Readers::Everybody;
        Self {
            name,
            text,
            readers,
        }
    }
}

/// What Mosquitto reads, of which it finds the others in `folder`.
fn mosquitto(credentials: &RelayCredentials, folder: &Path) -> Result<Vec<File>> {
    Ok(vec![
        File::secret("haar.passwords", passwords(&credentials.users)?),
        File::secret("haar.acl", acl(credentials)),
        File::public(CONFIGURATION, configuration(credentials, folder)),
    ])
}

fn certificate_files(credentials: &RelayCredentials) -> Vec<File> {
    let Some(certificate) = &credentials.certificate else {
        return Vec::new();
    };
    vec![
        File::public("ca.pem", credentials.ca_pem.clone()),
        File::public("server.pem", certificate.certificate_pem.clone()),
        File::secret("server.key", certificate.key_pem.clone()),
    ]
}

/// The number of Mosquitto's group on this machine, if it has one.
fn mosquitto_group() -> Option<u32> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    let line = groups
        .lines()
        .find_map(|line| line.strip_prefix("mosquitto:"))?;
    line.split(':').nth(1)?.parse().ok()
}

/// Lets a group read a file: root can, and its owner who is in the group.
#[cfg(unix)]
fn let_read(path: &Path, group: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::os::unix::fs::chown(path, None, Some(group))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640))
}

#[cfg(not(unix))]
fn let_read(_path: &Path, _group: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
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

/// The ACL file (mosquitto.conf(5), `acl_file`). Where all listeners of the broker share it, clients
/// without a user keep what they had, but for what is Haar's own.
fn acl(credentials: &RelayCredentials) -> String {
    let mut text = format!(
        "# Written by `haar relay credentials {}`, which replaces it each time.\n\
         # Clients without a user, if the broker lets them in:\n\
         topic readwrite #\n\
         topic read $SYS/#\n\
         topic readwrite $haar-check/#\n\
         topic deny haar/#\n",
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

/// A listener. It says neither `per_listener_settings`, which only the first file can, nor
/// `allow_anonymous`, which would be said for the listeners of others: so it goes with what they say.
/// Without a user name nobody gets in here in any case (`use_username_as_clientid`).
fn configuration(credentials: &RelayCredentials, folder: &Path) -> String {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut text = format!(
        "# A listener for the Haar site {}. Mosquitto reads the files of a folder by name: with this\n\
         # name it is the last one, so that any other may say `per_listener_settings`.\n\
         # Where another file says `password_file` or `acl_file`, write `per_listener_settings true`\n\
         # at the beginning of mosquitto.conf, and these settings below the listener that they are for.\n\
         listener {}\n\
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
mod layouts;

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
