//! The files for Mosquitto beside those that others have, with a real Mosquitto: it starts, devices
//! keep what they had, and nodes have what is theirs.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use haar_protocol::ids::SiteId;
use haar_protocol::keys::SecretKey;
use haar_protocol::rest::{Grade, RelayFinding};
use haar_relay::{CheckOptions, Credentials, Endpoint, Identity};

use super::*;

const MISSING: &str =
    "Mosquitto is missing: apt-get install -y --no-install-recommends mosquitto mosquitto-clients";
/// What the two who try the broker may use.
const TRIALS: [&str; 2] = ["$haar-check/#", "haar-check/#"];
/// What a device says to hear everything.
const EVERYTHING: &str = "#";

/// A Mosquitto with these files in its folder `conf.d`, and the files of the command.
struct Layout {
    folder: tempfile::TempDir,
    broker: Child,
    ports: [u16; 2],
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn user(name: &str, publish: &str, subscribe: &str) -> RelayUser {
    RelayUser {
        user: name.to_owned(),
        password: format!("{name}-secret"),
        name: name.to_owned(),
        publish: vec![publish.to_owned()],
        subscribe: vec![subscribe.to_owned()],
    }
}

fn trial(name: &str) -> RelayUser {
    let topics = TRIALS.map(str::to_owned).to_vec();
    RelayUser {
        publish: topics.clone(),
        subscribe: topics,
        ..user(name, "", "")
    }
}

impl Layout {
    /// `DEVICES` in a text stands for the port of devices.
    fn start(main: &str, others: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = [free_port(), free_port()];
        let credentials = RelayCredentials {
            site: SiteId::of(&SecretKey::from_seed([1; 32]).public()),
            relay: "plant".parse().unwrap(),
            url: format!("mqtt://127.0.0.1:{}", ports[0]).parse().unwrap(),
            ca_pem: String::new(),
            certificate: None,
            users: vec![
                user("site", "haar/s/+/ctl/#", "haar/s/+/up/#"),
                user("node", "haar/s/node/up/#", "haar/s/node/ctl/#"),
                trial("trial-1"),
                trial("trial-2"),
            ],
        };
        let own = folder.path().join("conf.d");
        std::fs::create_dir(&own).unwrap();
        let as_root = mosquitto_group();
        for file in mosquitto(&credentials, &own).unwrap() {
            let path = own.join(file.name);
            files::write(&path, file.text.as_bytes(), file.readers, true).unwrap();
            if let Some(group) = as_root {
                // Refused to anybody but root, and then Mosquitto runs as the owner of the files.
                let _ = let_read(&path, group);
            }
        }
        for (name, text) in others {
            let text = text.replace("DEVICES", &ports[1].to_string());
            std::fs::write(own.join(name), text).unwrap();
        }
        let place = own.display();
        let text = format!("log_dest stderr\n{main}\ninclude_dir {place}\n");
        let file = folder.path().join("mosquitto.conf");
        std::fs::write(&file, text).unwrap();
        open_to_all(folder.path());
        let mut command = Command::new("/usr/sbin/mosquitto");
        let command = command.arg("-c").arg(&file).stderr(Stdio::piped());
        let mut broker = command.spawn().expect(MISSING);
        let mut log = String::new();
        let mut lines = BufReader::new(broker.stderr.take().unwrap()).lines();
        let is_up = lines.by_ref().map_while(|line| line.ok()).any(|line| {
            log.push_str(&line);
            log.push('\n');
            line.contains(" running")
        });
        assert!(is_up, "{log}");
        // Read to the end, so that the broker never waits for somebody to read.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            folder,
            broker,
            ports,
        }
    }

    /// A tool as `user` at Haar's listener, or as a device without a user at the other one.
    fn tool(&self, name: &str, user: Option<&str>, arguments: &[&str]) -> Command {
        let mut command = Command::new(name);
        let [own, devices] = self.ports;
        let port = if user.is_some() { own } else { devices };
        command.args(["-V", "5", "-h", "127.0.0.1", "-p", &port.to_string()]);
        if let Some(user) = user {
            command.args(["-u", user, "-P", &format!("{user}-secret")]);
        }
        command.args(arguments);
        command
    }

    fn says(&self, user: Option<&str>, topic: &str, text: &str) {
        let arguments = ["-q", "1", "-r", "-t", topic, "-m", text];
        let output = self.tool("mosquitto_pub", user, &arguments).output();
        assert!(output.expect(MISSING).status.success());
    }

    /// The first `count` retained messages that somebody gets for a filter.
    fn hears(&self, user: Option<&str>, filter: &str, count: &str) -> Vec<String> {
        let arguments = ["-t", filter, "-v", "-C", count, "-W", "30"];
        let output = self.tool("mosquitto_sub", user, &arguments).output();
        let text = String::from_utf8(output.expect(MISSING).stdout).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Devices talk as before, nodes are heard by the site, and nobody gets in without a user.
    fn works(&self) {
        self.says(None, "plant/7", "21");
        assert_eq!(self.hears(None, "plant/#", "1"), ["plant/7 21"]);
        self.says(Some("node"), "haar/s/node/up/status", "well");
        self.says(Some("node"), "haar/s/other/up/status", "forged");
        self.says(Some("node"), "haar/s/node/up/last", "end");
        let heard = ["haar/s/node/up/last end", "haar/s/node/up/status well"];
        assert_eq!(self.hears(Some("site"), EVERYTHING, "2"), heard);
        let mut without = self.tool("mosquitto_pub", None, &["-t", "plant/8", "-m", "x"]);
        without.args(["-p", &self.ports[0].to_string()]);
        assert!(!without.output().unwrap().status.success());
    }
}

impl Layout {
    /// What `haar relay check` finds.
    fn check(&self) -> Vec<RelayFinding> {
        let url = format!("mqtt://127.0.0.1:{}", self.ports[0]);
        let options = CheckOptions {
            endpoint: Endpoint::parse(&url, None).unwrap(),
            clients: ["trial-1", "trial-2"].map(|user| Identity {
                client_id: user.to_owned(),
                credentials: Credentials::Password {
                    user: user.to_owned(),
                    password: format!("{user}-secret"),
                },
            }),
            run: "test".to_owned(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(haar_relay::check(&options))
    }
}

#[cfg(unix)]
fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

impl Drop for Layout {
    fn drop(&mut self) {
        let _ = self.broker.kill();
        let _ = self.broker.wait();
        let _ = &self.folder;
    }
}

const OPEN: &str = "listener DEVICES 127.0.0.1\nallow_anonymous true\n";
const OWN_SETTINGS: &str =
    "per_listener_settings true\nlistener DEVICES 127.0.0.1\nallow_anonymous true\n";
const BRIDGE: &str = "listener DEVICES 127.0.0.1\nallow_anonymous true\n\
    connection cloud\naddress 127.0.0.1:9\ntopic plant/# out 1\n";

#[test]
fn beside_settings_of_each_listener() {
    for name in ["devices.conf", "mosquitto.conf", "zigbee2mqtt.conf"] {
        Layout::start("", &[(name, OWN_SETTINGS)]).works();
    }
    Layout::start("per_listener_settings true", &[("z.conf", OPEN)]).works();
}

#[test]
fn beside_a_listener_that_is_open_to_everybody() {
    for name in ["devices.conf", "zzz-devices.conf"] {
        Layout::start("", &[(name, OPEN)]).works();
    }
    let main = "allow_anonymous true";
    Layout::start(main, &[("a.conf", "listener DEVICES 127.0.0.1\n")]).works();
}

#[test]
fn beside_a_bridge() {
    for name in ["bridge.conf", "zzz-bridge.conf"] {
        Layout::start("", &[(name, BRIDGE)]).works();
    }
}

#[test]
fn devices_without_a_user_do_not_speak_for_nodes_where_all_listeners_share_the_rules() {
    let layout = Layout::start("", &[("devices.conf", OPEN)]);
    layout.says(None, "haar/s/node/up/status", "forged");
    layout.says(Some("node"), "haar/s/node/up/status", "well");
    let heard = layout.hears(Some("site"), EVERYTHING, "1");
    assert_eq!(heard, ["haar/s/node/up/status well"]);
}

#[test]
fn a_check_says_what_mosquitto_keeps_fills_no_queue_of_others_and_leaves_nothing_behind() {
    const QUEUE: &str = "messages for a session that is away";
    let settings = "per_listener_settings true\npersistence false";
    let layout = Layout::start(settings, &[("devices.conf", OPEN)]);
    // Somebody who keeps everything and is away.
    let logger = ["-c", "-i", "logger", "-q", "1", "-t", EVERYTHING];
    let mut subscribing = layout.tool("mosquitto_sub", None, &logger);
    let subscribed = subscribing
        .args(["-x", "600", "-E"])
        .status()
        .expect(MISSING);
    assert!(subscribed.success());
    let findings = layout.check();
    let grade = |findings: &[RelayFinding], what: &str| {
        let found = findings.iter().find(|finding| finding.what == what);
        found.unwrap_or_else(|| panic!("{findings:#?}")).clone()
    };
    let queue = grade(&findings, QUEUE);
    assert_eq!(queue.grade, Grade::Short, "{findings:#?}");
    assert!(queue.means.contains("max_queued_messages"), "{queue:?}");
    for what in [
        "connection",
        "QoS 0",
        "QoS 1",
        "QoS 2",
        "content type and user properties",
        "retained messages",
        "shared subscriptions",
        "message size",
    ] {
        assert_eq!(grade(&findings, what).grade, Grade::Works, "{findings:#?}");
    }
    let mut kept = layout.tool("mosquitto_sub", None, &logger);
    kept.args(["-x", "600", "-W", "1"]);
    // Nothing but the one message to a shared subscription.
    let kept = kept.output().unwrap().stdout;
    assert_eq!(String::from_utf8(kept).unwrap(), "one\n");
    let arguments = ["-t", TRIALS[0], "--retained-only", "-W", "1"];
    let mut retained = layout.tool("mosquitto_sub", Some("trial-1"), &arguments);
    assert!(retained.output().unwrap().stdout.is_empty());
    let settings = format!("{settings}\nmax_queued_messages 0");
    let generous = Layout::start(&settings, &[("devices.conf", OPEN)]).check();
    assert_eq!(grade(&generous, QUEUE).grade, Grade::Works, "{generous:#?}");
}
