//! Sessions of revoked nodes at a broker on loopback: when they count as ended, whose they are, how many
//! are tried at a time, and what is told of the rest.

use std::io::ErrorKind;

use haar_protocol::keys::SecretKey;
use haar_protocol::limits::Budget;
use haar_protocol::quantity::ByteSize;
use haar_relay::Credentials;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::db::nodes::NodeRow;

/// CONNACK of MQTT 5 without properties: success, not authorised, busy.
const WELCOME: &[u8] = &[0x20, 3, 0, 0, 0];
const REFUSED: &[u8] = &[0x20, 3, 0, 0x87, 0];
const BUSY: &[u8] = &[0x20, 3, 0, 0x89, 0];

fn row(seed: u8) -> NodeRow {
    let key = SecretKey::from_seed([seed; 32]).public();
    NodeRow {
        id: NodeId::of(&key),
        name: format!("gw-{seed}").parse().unwrap(),
        key,
        labels: Default::default(),
        budget: Budget::new(ByteSize(1 << 20), 4),
        agent_version: String::new(),
        target: String::new(),
        enrolled_ms: 1,
        online: false,
        last_seen_ms: None,
        link_key: None,
        link_key_generation: 0,
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn session(listener: &TcpListener) -> DeviceSession {
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    DeviceSession {
        relay: "plant".parse().unwrap(),
        endpoint: Endpoint::parse(&url, None).unwrap(),
        identities: ["own", "former"].map(|id| Identity {
            client_id: id.to_owned(),
            credentials: Credentials::Anonymous,
        }),
    }
}

/// True when nobody else has connected.
fn is_quiet(listener: TcpListener) -> bool {
    let accepted = listener.into_std().unwrap().accept(); // does not wait
    accepted.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

struct Scene {
    _directory: TempDir,
    database: Database,
    stop: CancellationToken,
    leaving: Leaving,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let connection = db::open_connection(&directory.path().join("a.db")).unwrap();
        let (database, _thread) = db::start(connection).unwrap(); // ends with the last handle
        let stop = CancellationToken::new();
        Self {
            _directory: directory,
            leaving: Leaving::new(database.clone(), stop.clone()),
            database,
            stop,
        }
    }

    /// Stops it. Returns the nodes of which a session is kept, as events say.
    async fn kept(self) -> Vec<String> {
        self.stop.cancel();
        self.leaving.close().await;
        let events = self.database.read(|sql| db::events::tail(sql, 0, 100));
        let events = events.await.unwrap().into_iter();
        let kept = events.filter(|event| event.kind == "device_session_kept");
        kept.map(|event| event.subject).collect()
    }
}

/// One attempt at a broker that answers these to the present user and to the former one. Returns why
/// something may be kept, and who came.
async fn attempt(
    is_ended: &mut [bool; 2],
    [own, former]: [&[u8]; 2],
) -> (Option<DisconnectReason>, Vec<&'static str>) {
    let listener = listener().await;
    let session = session(&listener);
    let mut came = Vec::new();
    let broker = async {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut first = [0; 1_024];
            let bytes = stream.read(&mut first).await.unwrap();
            let is_former = first[..bytes].windows(6).any(|at| at == b"former");
            came.push(if is_former { "former" } else { "own" });
            let answer = if is_former { former } else { own };
            stream.write_all(answer).await.unwrap();
            drop(stream.read_u8().await); // DISCONNECT, or the end
        }
    };
    let kept = tokio::select! {
        kept = session.attempt(is_ended) => kept,
        () = broker => panic!("the broker has ended"),
    };
    (kept, came)
}

#[tokio::test]
async fn only_a_refused_user_is_excused_by_the_other_one() {
    let both = ["own", "former"];
    for (answers, kept) in [
        ([WELCOME, WELCOME], None),
        ([WELCOME, REFUSED], None),
        ([REFUSED, WELCOME], None),
        ([BUSY, WELCOME], Some("busy")),
        ([WELCOME, BUSY], Some("busy")),
        ([REFUSED, BUSY], Some("not authorised")),
        ([REFUSED, REFUSED], Some("not authorised")),
    ] {
        let (reason, came) = attempt(&mut [false; 2], answers).await;
        let reason = reason.map(|reason| reason.to_string());
        let is_expected = match (&reason, kept) {
            (Some(reason), Some(kept)) => reason.contains(kept),
            (reason, kept) => reason.is_none() && kept.is_none(),
        };
        assert!(is_expected, "{answers:?}: {reason:?}");
        assert_eq!(came, both, "{answers:?}");
    }
}

#[tokio::test]
async fn what_is_ended_is_not_tried_again() {
    let mut is_ended = [false; 2];
    let (reason, _) = attempt(&mut is_ended, [BUSY, WELCOME]).await;
    assert!(reason.is_some());
    assert_eq!(is_ended, [false, true]);
    let (reason, came) = attempt(&mut is_ended, [WELCOME, WELCOME]).await;
    assert_eq!((reason, came), (None, vec!["own"]));
}

#[tokio::test]
async fn a_device_that_has_joined_again_keeps_its_session() {
    let mut scene = Scene::new();
    let (listener, row) = (listener().await, row(1));
    let (id, name) = (row.id.clone(), row.name.clone());
    scene.leaving.end(&id, &name, vec![session(&listener)]);
    let (mut stream, _) = listener.accept().await.unwrap(); // and is not answered
    let joined = scene
        .database
        .write(move |write| db::nodes::put(write, &row));
    joined.await.unwrap();
    assert_eq!(scene.leaving.next_done().await, Some(()));
    let mut sent = Vec::new();
    drop(stream.read_to_end(&mut sent).await); // the attempt is given up
    // Nor is another one begun.
    scene.leaving.end(&id, &name, vec![session(&listener)]);
    assert_eq!(scene.leaving.next_done().await, Some(()));
    assert!(is_quiet(listener));
    assert_eq!(scene.kept().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_few_are_tried_at_a_time_and_the_end_of_the_controller_tells_what_is_left() {
    let mut scene = Scene::new();
    let listener = listener().await;
    let rows: Vec<NodeRow> = (1..=30).map(row).collect();
    for row in &rows {
        let sessions = vec![session(&listener)];
        scene.leaving.end(&row.id, &row.name, sessions);
    }
    let mut open = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        open.push(listener.accept().await.unwrap()); // and is not answered
    }
    let mut kept = scene.kept().await;
    assert!(is_quiet(listener), "nobody else had a turn");
    let mut names: Vec<String> = rows.iter().map(|row| row.name.to_string()).collect();
    kept.sort();
    names.sort();
    assert_eq!(kept, names);
}
