//! A Mosquitto of the benchmark's own on loopback, and a publisher and a subscriber out of its tools.

use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use haar_protocol::relay::{NodeCredentials, RelayAccess, RelayRole};
use tokio::net::TcpSocket;

const MISSING: &str =
    "Mosquitto is missing: apt-get install -y --no-install-recommends mosquitto mosquitto-clients";

/// Lines for one `mosquitto_pub`. Beyond 65,535 it takes an early acknowledgement with the packet id of
/// the last line for that of the last line, and leaves.
const LINES_MAX: usize = 60_000;

/// A broker that lets everybody in and queues without a bound. It ends with the benchmark.
pub struct Mosquitto {
    folder: tempfile::TempDir,
    port: u16,
    _reserved: TcpSocket,
    child: Child,
}

impl Mosquitto {
    /// Starts one with more of a configuration.
    pub fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The system gives the port to nobody as long as this socket, which does not listen, has it.
        let reserved = TcpSocket::new_v4().unwrap();
        reserved.set_reuseaddr(true).unwrap();
        reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = reserved.local_addr().unwrap().port();
        let place = folder.path().display();
        let text = format!(
            "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\nlog_dest none\n\
             max_queued_messages 0\nset_tcp_nodelay true\npersistence true\n\
             persistence_location {place}/\n{more}"
        );
        let configuration = folder.path().join("mosquitto.conf");
        std::fs::write(&configuration, text).unwrap();
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(configuration).stderr(Stdio::null());
        let child = command.spawn().expect(MISSING);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Self {
            folder,
            port,
            _reserved: reserved,
            child,
        }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address())
    }

    /// How nodes reach it.
    pub fn access(&self) -> RelayAccess {
        RelayAccess {
            name: "plant".parse().unwrap(),
            role: RelayRole::Links,
            url: Some(self.url().parse().unwrap()),
            ca_pem: None,
            credentials: NodeCredentials::Anonymous,
            session_expiry_s: None,
            client: None,
        }
    }

    /// Has it write its store now, and waits until it has.
    pub fn save(&self) {
        let id = self.child.id().to_string();
        let told = Command::new("kill").args(["-USR1", &id]).status().unwrap();
        assert!(told.success());
        // It writes a file beside the old one and renames it: the size settles.
        let mut before = None;
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let now = self.store_bytes();
            if now.is_some() && now == before {
                return;
            }
            before = now;
        }
    }

    fn store_bytes(&self) -> Option<u64> {
        let store: PathBuf = self.folder.path().join("mosquitto.db");
        Some(std::fs::metadata(store).ok()?.len())
    }

    /// What its process has written.
    pub fn written_bytes(&self) -> u64 {
        crate::written_bytes(&self.child.id().to_string())
    }

    /// Makes a session that the broker keeps for whoever comes with this id.
    pub fn keep_session(&self, id: &str) {
        let mut tool = self.tool("mosquitto_sub", id);
        assert!(
            tool.args(["-c", "-i", id, "-E"])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Publishes lines at QoS 1, and returns when the broker has acknowledged all of them.
    pub fn publish(&self, id: &str, messages: usize, size: usize) {
        for begin in (0..messages).step_by(LINES_MAX) {
            let mut child = self.publisher(id, LINES_MAX.min(messages - begin), size);
            assert!(child.wait().unwrap().success());
        }
    }

    fn publisher(&self, id: &str, messages: usize, size: usize) -> Child {
        let mut tool = self.tool("mosquitto_pub", id);
        let mut child = tool.arg("-l").stdin(Stdio::piped()).spawn().expect(MISSING);
        let mut lines = BufWriter::new(child.stdin.take().unwrap());
        std::thread::spawn(move || {
            let mut line = vec![b'x'; size];
            line.push(b'\n');
            for _ in 0..messages {
                lines.write_all(&line).unwrap();
            }
        });
        child
    }

    /// Takes messages of a kept session, and returns how many came in a second.
    pub fn subscribe(&self, id: &str, messages: usize) -> f64 {
        let mut tool = self.tool("mosquitto_sub", id);
        tool.args(["-c", "-i", id, "-C", &messages.to_string()]);
        let mut child = tool.stdout(Stdio::piped()).spawn().expect(MISSING);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n');
        lines.next().unwrap().unwrap();
        let began = Instant::now();
        let more = lines.map_while(Result::ok).count();
        let took = began.elapsed();
        assert!(child.wait().unwrap().success());
        more as f64 / took.as_secs_f64()
    }

    /// Messages per second from `mosquitto_pub -l` to `mosquitto_sub`, QoS 1 both ways.
    pub fn pair(&self, id: &str, messages: usize, size: usize) -> f64 {
        self.keep_session(id);
        std::thread::scope(|scope| {
            let subscriber = scope.spawn(|| self.subscribe(id, messages));
            std::thread::sleep(Duration::from_millis(100));
            self.publish(id, messages, size);
            subscriber.join().unwrap()
        })
    }

    fn tool(&self, name: &str, id: &str) -> Command {
        let mut command = Command::new(name);
        let port = self.port.to_string();
        command.args(["-h", "127.0.0.1", "-p", &port, "-V", "mqttv5", "-q", "1"]);
        command.args(["-t", &format!("bench/{id}")]);
        command
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
