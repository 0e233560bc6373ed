//! Code comes from the controller over a network that ends in the middle, and from a controller that
//! sends what it should not.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use haar_conformance_artifacts as artifacts;
use haar_engine::artifact::{self, Origin, PIECE_BYTES};
use haar_engine::{compiler, configuration};
use haar_host::controller::{Controller, Credentials};
use haar_host::modules::code::CodeSources;
use haar_host::modules::compile::Compiler;
use haar_host::modules::{Modules, PrepareError, Trust};
use haar_host::policy::{Policy, Rules};
use haar_host::runtime::GuestRuntime;
use haar_protocol::assignment::Microservice;
use haar_protocol::ids::{Digest, NodeId, SiteId};
use haar_protocol::keys::{PublicKey, SecretKey};
use haar_protocol::module::{Signatures, sign};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::node::microservice;
use crate::site::{DEADLINE, Tls};

/// What the controller does with one request.
#[derive(Debug, Clone)]
enum Answer {
    /// Sends what is asked for.
    Good,
    /// Sends so many bytes of it, and the connection ends.
    Cut(usize),
    /// Sends all of it, whatever range is asked for.
    Whole,
    /// Sends other bytes than it should, from this one on.
    Wrong(usize),
}

/// A controller that knows one module's code.
struct Scripted {
    url: String,
    ca_pem: String,
    /// What was asked for: paths, and where ranges began.
    asked: Arc<Mutex<Vec<(String, usize)>>>,
    thread: JoinHandle<()>,
}

impl Scripted {
    /// Answers as many requests as there are answers.
    fn start(packed: Vec<u8>, answers: Vec<Answer>) -> Self {
        let tls = Tls::new();
        let cert = CertificateDer::from_pem_slice(tls.cert_pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(tls.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let note = Arc::clone(&asked);
        let thread = std::thread::spawn(move || {
            for answer in answers {
                let (stream, _) = listener.accept().unwrap();
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let stream = StreamOwned::new(connection, stream);
                note.lock().unwrap().push(serve(stream, &packed, &answer));
            }
        });
        Self {
            url,
            ca_pem: tls.ca_pem,
            asked,
            thread,
        }
    }

    /// Where each request wanted to begin. All of them were for code.
    fn offsets(self) -> Vec<usize> {
        let deadline = Instant::now() + DEADLINE;
        while !self.thread.is_finished() {
            assert!(Instant::now() < deadline, "there were fewer requests");
            std::thread::sleep(Duration::from_millis(2));
        }
        self.thread.join().unwrap();
        let asked = self.asked.lock().unwrap();
        assert!(asked.iter().all(|(path, _)| path.contains("/code/")));
        asked.iter().map(|(_, offset)| *offset).collect()
    }
}

/// Answers one request, closes the connection, and returns what it was.
fn serve(
    stream: StreamOwned<ServerConnection, TcpStream>,
    packed: &[u8],
    answer: &Answer,
) -> (String, usize) {
    let mut reader = BufReader::new(stream);
    let (mut path, mut offset) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let lower = line.trim_end().to_lowercase();
        if let Some(target) = lower.strip_prefix("get ") {
            target.split(' ').next().unwrap().clone_into(&mut path);
        } else if let Some(range) = lower.strip_prefix("range: bytes=") {
            offset = range.trim_end_matches('-').parse().unwrap();
        } else if lower.is_empty() {
            break;
        }
    }
    let mut body = packed.to_vec();
    let mut from = offset;
    let mut end = body.len();
    match answer {
        Answer::Good => {}
        Answer::Cut(bytes) => end = from + bytes,
        Answer::Whole => from = 0,
        Answer::Wrong(at) => body[*at..].fill(0x55),
    }
    let status = if from > 0 {
        "206 Partial Content"
    } else {
        "200 OK"
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        packed.len() - from
    );
    // Whoever has what it needs, or wants no more of it, goes away.
    let mut stream = reader.into_inner();
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&body[from..end]))
        .and_then(|()| stream.flush());
    if !matches!(answer, Answer::Cut(_)) {
        stream.conn.send_close_notify();
        let _ = stream.flush();
    }
    (path, offset)
}

/// A node that compiles nothing, and a module that its site has compiled.
struct Bench {
    folder: tempfile::TempDir,
    spec: Microservice,
    packed: Vec<u8>,
    site: PublicKey,
    publisher: PublicKey,
    runtime: Arc<GuestRuntime>,
}

impl Bench {
    fn new() -> Self {
        let (site, publisher) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
        let module = sign(&artifacts::read(artifacts::ECHO), &publisher).unwrap();
        let digest = Digest::of(&module);
        let runtime = GuestRuntime::new(1).unwrap();
        let target = configuration::target();
        let code = compiler::child::precompile(runtime.engine(), &target, &module).unwrap();
        assert!(code.len() > 2 * PIECE_BYTES, "too little to be cut");
        let origin = Origin {
            module: &digest,
            signatures: &Signatures::of(&module).unwrap(),
            fingerprint: runtime.fingerprint(),
            target: &target,
        };
        let packed = artifact::pack(&artifact::seal(&origin, &code, &site), &code);
        Self {
            folder: tempfile::tempdir().unwrap(),
            spec: microservice("it", (digest, module.len() as u64), &["out"], &["in"]),
            packed,
            site: site.public(),
            publisher: publisher.public(),
            runtime,
        }
    }

    /// Prepares the module, once for each of the numbers of answers that follow. Where its requests
    /// began, and what each attempt came to.
    fn fetch(&self, answers: &[Answer], attempts: usize) -> (Vec<usize>, Vec<Outcome>) {
        self.fetch_for(self.publisher, answers, attempts)
    }

    fn fetch_for(
        &self,
        publisher: PublicKey,
        answers: &[Answer],
        attempts: usize,
    ) -> (Vec<usize>, Vec<Outcome>) {
        let controller = Scripted::start(self.packed.clone(), answers.to_vec());
        let key = SecretKey::from_seed([3; 32]);
        let credentials = Credentials {
            site: SiteId::of(&self.site),
            node: NodeId::of(&key.public()),
            key,
        };
        let sources = CodeSources {
            compiler: Compiler::None,
            precompiled_by: Some(self.site),
        };
        let client = Controller::new(&controller.url, &controller.ca_pem).unwrap();
        let data = self.folder.path();
        let policy = Policy::new(Rules::default(), data.join("agent.toml"), data.into());
        let modules = Modules::open(data, client, credentials, sources, Arc::new(policy)).unwrap();
        let trust = Trust {
            publishers: vec![publisher],
            later: None,
        };
        let outcomes = (0..attempts)
            .map(|_| {
                modules
                    .prepare(&self.spec, trust.clone(), &self.runtime)
                    .map(drop)
            })
            .collect();
        (controller.offsets(), outcomes)
    }

    fn file(&self, end: &str) -> PathBuf {
        let name = format!("compiled/{}.{end}", self.spec.module.to_hex());
        self.folder.path().join(name)
    }
}

type Outcome = Result<(), PrepareError>;

fn not_yet(outcome: &Outcome) -> &str {
    match outcome {
        Err(PrepareError::NotYet(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fetch_of_code_that_was_cut_goes_on_where_it_stopped_and_needs_no_module() {
    let bench = Bench::new();
    let cut = bench.packed.len() / 2;
    let answers = [Answer::Cut(cut), Answer::Good, Answer::Good];
    let (offsets, outcomes) = bench.fetch(&answers, 2);
    let why = not_yet(&outcomes[0]);
    assert!(why.contains("the fetch ended after"), "{why}");
    assert!(outcomes[1].is_ok(), "{outcomes:?}");
    // The second attempt reads the seal, and then what is lacking.
    assert_eq!(offsets[..2], [0, 0]);
    assert!((1_000..=cut).contains(&offsets[2]), "{offsets:?}");
    assert!(bench.file("code").exists() && !bench.file("part").exists());
    let fetched = std::fs::read_dir(bench.folder.path().join("modules")).unwrap();
    assert_eq!(fetched.count(), 0);
    // It is there for the next agent.
    let (_, outcomes) = bench.fetch(&[], 1);
    assert!(outcomes[0].is_ok(), "{outcomes:?}");
}

#[test]
fn a_fetch_goes_on_though_somebody_in_between_does_not_know_ranges() {
    let bench = Bench::new();
    let cut = bench.packed.len() - 100;
    let answers = [Answer::Cut(cut), Answer::Good, Answer::Whole];
    let (offsets, outcomes) = bench.fetch(&answers, 2);
    assert!(outcomes[1].is_ok(), "{outcomes:?}");
    assert!(offsets[2] > 0);
}

#[test]
fn what_is_not_the_code_is_neither_run_nor_gone_on_with() {
    let bench = Bench::new();
    let middle = bench.packed.len() / 2;
    let (_, outcomes) = bench.fetch(&[Answer::Wrong(middle), Answer::Wrong(20), Answer::Good], 3);
    for outcome in &outcomes[..2] {
        not_yet(outcome);
    }
    assert!(outcomes[2].is_ok(), "{outcomes:?}");
}

#[test]
fn a_part_that_the_disk_has_spoilt_is_noticed_and_fetched_anew() {
    let bench = Bench::new();
    let cut = Answer::Cut(bench.packed.len() / 2);
    bench.fetch(&[cut], 1);
    let mut part = std::fs::read(bench.file("part")).unwrap();
    part[100] ^= 1;
    std::fs::write(bench.file("part"), part).unwrap();
    let (offsets, outcomes) = bench.fetch(&[Answer::Good, Answer::Good, Answer::Good], 2);
    let why = not_yet(&outcomes[0]);
    assert!(why.contains("changed"), "{why}");
    assert!(outcomes[1].is_ok(), "{outcomes:?}");
    assert!(offsets[1] > 0 && offsets[2] == 0, "{offsets:?}");
}

#[test]
fn code_of_a_module_that_no_trusted_publisher_has_signed_is_refused_before_it_is_unpacked() {
    let bench = Bench::new();
    let stranger = SecretKey::from_seed([9; 32]).public();
    let (_, outcomes) = bench.fetch_for(stranger, &[Answer::Good], 1);
    assert!(
        matches!(&outcomes[0], Err(PrepareError::Refused(why)) if why.contains("no trusted publisher")),
        "{outcomes:?}"
    );
    assert!(!bench.file("part").exists() && !bench.file("code").exists());
    // Nor is it run when it is there, because its publisher was trusted before.
    let (_, outcomes) = bench.fetch(&[Answer::Good], 1);
    assert!(outcomes[0].is_ok(), "{outcomes:?}");
    let (_, outcomes) = bench.fetch_for(stranger, &[], 1);
    assert!(
        matches!(&outcomes[0], Err(PrepareError::Refused(_))),
        "{outcomes:?}"
    );
}
