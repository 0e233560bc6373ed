//! A Mosquitto of the test's own on loopback, and the tools that come with it as devices.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use haar_protocol::ids::NodeId;
use haar_protocol::relay::{NodeCredentials, RelayAccess, RelayRole, device_user};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::sync::watch;

use crate::site::DEADLINE;

const MISSING: &str =
    "Mosquitto is missing: apt-get install -y --no-install-recommends mosquitto mosquitto-clients";

/// How long a tool may run that does not end by itself.
const TOOL_DEADLINE: Duration = Duration::from_secs(2 * DEADLINE.as_secs());

/// A port that the system gives to nobody as long as this socket is there. Whoever asks for it by its
/// number and with `SO_REUSEADDR` (as servers do) may listen there, because this socket does not.
pub fn reserved_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// A broker. It ends with the test.
pub struct Mosquitto {
    folder: tempfile::TempDir,
    port: u16,
    _reserved: TcpSocket,
    child: Option<Child>,
    /// What it has logged since it was started last.
    log: watch::Sender<Vec<String>>,
}

/// Writes the file `passwords` that a broker's configuration may name.
pub fn write_passwords(folder: &Path, users: &[(&str, &str)]) {
    let file = folder.join("passwords");
    std::fs::write(&file, "").unwrap();
    for (user, password) in users {
        let mut tool = Command::new("mosquitto_passwd");
        let tool = tool.arg("-b").arg(&file).args([user, password]);
        assert!(tool.status().unwrap().success());
    }
}

impl Mosquitto {
    /// One that lets everybody in.
    pub async fn start() -> Self {
        Self::start_with("allow_anonymous true\n", |_| {}).await
    }

    /// One with more of a configuration, and files that it names.
    pub async fn start_with(configuration: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let (reserved, port) = reserved_port();
        let place = folder.path().display().to_string();
        let configuration = configuration.replace("FOLDER", &place);
        let text = format!(
            "user root\nlistener {port} 127.0.0.1\n{configuration}persistence true\n\
             persistence_location {place}/\nlog_dest stderr\nlog_type all\n"
        );
        std::fs::write(folder.path().join("mosquitto.conf"), text).unwrap();
        let (log, _) = watch::channel(Vec::new());
        let mut broker = Self {
            folder,
            port,
            _reserved: reserved,
            child: None,
            log,
        };
        broker.start_again().await;
        broker
    }

    /// Starts it on the port that it had before.
    pub async fn start_again(&mut self) {
        let mut command = Command::new("mosquitto");
        command
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"));
        let mut child = command.stderr(Stdio::piped()).spawn().expect(MISSING);
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        self.log.send_replace(Vec::new());
        let log = self.log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                log.send_modify(|log| log.push(line));
            }
        });
        self.child = Some(child);
        self.logged(1, |line| line.contains(" running")).await;
    }

    /// Ends it in order: what it keeps is on the disk then.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let id = child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(told.success());
        let deadline = Instant::now() + DEADLINE;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() >= deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the broker does not end: {:#?}", self.log.borrow());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What it has logged since it was started last.
    pub fn log(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    /// What `mosquitto_rr` with these arguments prints.
    pub async fn request(&self, arguments: &[&str]) -> String {
        let output = self.tool("mosquitto_rr", arguments).await;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until it has logged so many lines that are as they should be.
    pub async fn logged(&self, times: usize, is_so: impl Fn(&str) -> bool) {
        let mut log = self.log.subscribe();
        let enough = |log: &Vec<String>| log.iter().filter(|line| is_so(line)).count() >= times;
        let found = log.wait_for(enough);
        if tokio::time::timeout(DEADLINE, found).await.is_err() {
            panic!("never logged: {:#?}", self.log.borrow());
        }
    }

    /// Waits until the node has subscribed so many times, since the broker was started last.
    pub async fn subscribed(&self, node: &NodeId, times: usize) {
        let words = format!(
            "Sending SUBACK to {}",
            device_user(node, &"plant".parse().unwrap())
        );
        self.logged(times, |line| line.contains(&words)).await;
    }

    /// Waits until the node has left so many times.
    pub async fn left(&self, node: &NodeId, times: usize) {
        let words = format!(
            "Client {} disconnected",
            device_user(node, &"plant".parse().unwrap())
        );
        self.logged(times, |line| line.contains(&words)).await;
    }

    /// How nodes reach it.
    pub fn access(&self, credentials: NodeCredentials) -> RelayAccess {
        RelayAccess {
            name: "plant".parse().unwrap(),
            role: RelayRole::Links,
            url: Some(format!("mqtt://127.0.0.1:{}", self.port).parse().unwrap()),
            ca_pem: None,
            credentials,
            session_expiry_s: None,
            client: None,
        }
    }

    /// `mosquitto_pub` with these arguments.
    pub async fn publish(&self, arguments: &[&str]) {
        let output = self.tool("mosquitto_pub", arguments).await;
        assert!(output.status.success(), "{output:?}");
    }

    /// `mosquitto_pub` with these arguments and these lines as its input.
    pub async fn publish_lines(&self, arguments: &[&str], lines: String) {
        let output = self.run("mosquitto_pub", arguments, lines).await;
        assert!(output.status.success(), "{output:?}");
    }

    /// What `mosquitto_sub` with these arguments prints.
    pub async fn subscribe(&self, arguments: &[&str]) -> String {
        let output = self.tool("mosquitto_sub", arguments).await;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn tool(&self, name: &'static str, arguments: &[&str]) -> Output {
        let wait = DEADLINE.as_secs().to_string();
        let wait = ["-W", &wait];
        let arguments = match name {
            "mosquitto_pub" => arguments.to_vec(),
            _ => [&wait[..], arguments].concat(),
        };
        self.run(name, &arguments, String::new()).await
    }

    /// Runs a tool with this input to its end. One that does not end is killed, and the test fails.
    async fn run(&self, name: &str, arguments: &[&str], input: String) -> Output {
        let port = self.port.to_string();
        let mut child = tokio::process::Command::new(name)
            .args(["-h", "127.0.0.1", "-p", &port, "-V", "mqttv5"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect(MISSING);
        let mut stdin = child.stdin.take().unwrap();
        let write = async move {
            // Why a tool does not take its input it says itself.
            let _ = stdin.write_all(input.as_bytes()).await;
        };
        let ran = async { tokio::join!(write, child.wait_with_output()).1 };
        match tokio::time::timeout(TOOL_DEADLINE, ran).await {
            Ok(output) => output.unwrap(),
            Err(_) => panic!("{name} does not end: {arguments:?}"),
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
