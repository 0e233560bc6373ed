//! What a restart keeps, and what it refuses to start with.

use haar_controller::controller::Controller;

use crate::support::device::Device;
use crate::support::modules::{content_path, recipe};
use crate::support::site::{TestSite, arguments};
use crate::support::wait::TestRuntime;

const APPLICATION: &str = "api_version: haar/v1\nkind: Application\nname: app\nmicroservices:\n- {name: one, module: sampler@1.0.0, place: {node: gw}}\n";

#[test]
fn a_restart_keeps_everything_and_tells_the_nodes_again() {
    let site = TestSite::with_publisher();
    let file = site.push(&recipe("sampler", "1.0.0"));
    let device = Device::join(&site, 1, "gw", &[]);
    site.apply("app", APPLICATION);
    let (before, _) = device
        .connect(&site)
        .assignment(|assignment| assignment.microservices.len() == 1);
    let (id, token) = (site.id(), site.context.token.clone());
    let mut site = site;
    site.stop();
    // What the relay of release 0.1 left: it is removed, and the relay comes back empty.
    let relay = site.directory.path().join("relay/retained");
    std::fs::create_dir_all(&relay).unwrap();
    std::fs::write(relay.join("one.json"), "{}").unwrap();
    std::fs::write(
        site.directory.path().join("modules/stray.wasm"),
        b"left by a crash",
    )
    .unwrap();
    let site = site.restart();
    assert_eq!((site.id(), site.context.token.clone()), (id, token));
    assert_eq!(site.client.get(&content_path(&file)).bytes, file);
    let (after, _) = device.connect(&site).assignment(|_| true);
    assert_eq!(after, before);
    assert!(!site.apply("app", APPLICATION).changed);
    assert!(!site.directory.path().join("modules/stray.wasm").exists());
    assert!(!site.directory.path().join("relay").exists());
}

fn start(
    directory: &std::path::Path,
    change: impl FnOnce(&mut haar_controller::cli::RunArguments),
) -> Result<Controller, String> {
    let runtime = TestRuntime::new();
    let mut arguments = arguments(directory);
    change(&mut arguments);
    let result = runtime
        .finish("it starts or not", Controller::start(&arguments))
        .map_err(|error| format!("{error:#}"));
    if let Ok(controller) = result {
        runtime.finish("it stops", controller.stop());
        return Err("it started".into());
    }
    result
}

fn refusal(directory: &std::path::Path) -> String {
    start(directory, |_| {}).err().unwrap()
}

#[test]
fn a_directory_serves_one_controller_at_a_time() {
    let site = TestSite::start();
    let text = refusal(site.directory.path());
    assert!(
        text.contains("in use by another controller") && text.contains("--data"),
        "{text}"
    );
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let text = start(directory.path(), |arguments| {
        arguments.listen = Some(address)
    })
    .err()
    .unwrap();
    assert!(
        text.contains(&address.to_string()) && text.contains("--listen"),
        "{text}"
    );
    let text = start(directory.path(), |arguments| {
        arguments.relay_listen = Some(address)
    })
    .err()
    .unwrap();
    assert!(
        text.contains(&address.to_string()) && text.contains("--relay-listen"),
        "{text}"
    );
}

#[test]
fn a_directory_of_something_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("node.key"), "x").unwrap();
    assert!(refusal(directory.path()).contains("data directory of an agent"));
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("photo.jpg"), "x").unwrap();
    let text = refusal(directory.path());
    assert!(
        text.contains("photo.jpg") && text.contains("empty directory"),
        "{text}"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(refusal(file.path()).contains("is a file"));
}

/// The directory of a site that has run and stopped.
fn stopped_site() -> TestSite {
    let mut site = TestSite::start();
    site.stop();
    site
}

#[test]
fn damaged_and_missing_keys_are_named() {
    for name in ["site.key", "ca.key", "ca.pem"] {
        let site = stopped_site();
        let path = site.directory.path().join(name);
        std::fs::write(&path, "-----BEGIN NOTHING-----\n").unwrap();
        let text = refusal(site.directory.path());
        assert!(text.contains(name) && text.contains("backup"), "{text}");
        std::fs::remove_file(&path).unwrap();
        assert!(refusal(site.directory.path()).contains(name));
    }
}

#[test]
fn the_database_of_another_site_is_refused() {
    let (one, other) = (stopped_site(), stopped_site());
    std::fs::copy(
        one.directory.path().join("site.key"),
        other.directory.path().join("site.key"),
    )
    .unwrap();
    let text = refusal(other.directory.path());
    assert!(text.contains("different sites"), "{text}");
}

#[test]
fn a_damaged_database_is_named() {
    let site = stopped_site();
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(site.directory.path().join(format!("controller.db{end}")));
    }
    std::fs::write(
        site.directory.path().join("controller.db"),
        vec![b'x'; 10_000],
    )
    .unwrap();
    let text = refusal(site.directory.path());
    assert!(
        text.contains("controller.db") && text.contains("damaged"),
        "{text}"
    );
}

#[test]
fn a_database_that_is_gone_is_not_replaced_by_an_empty_one() {
    let site = stopped_site();
    let database = site.directory.path().join("controller.db");
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(site.directory.path().join(format!("controller.db{end}")));
    }
    std::fs::write(&database, b"").unwrap();
    let text = refusal(site.directory.path());
    assert!(text.contains("empty") && text.contains("backup"), "{text}");
    assert_eq!(std::fs::metadata(&database).unwrap().len(), 0);
    std::fs::remove_file(&database).unwrap();
    let text = refusal(site.directory.path());
    assert!(
        text.contains("missing") && text.contains("backup"),
        "{text}"
    );
    assert!(!database.exists());
}

#[test]
fn with_any_page_of_its_database_overwritten_a_controller_says_so_and_changes_nothing() {
    let site = stopped_site();
    let database = site.directory.path().join("controller.db");
    // A page that holds nothing any more may hold anything.
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection.execute_batch("VACUUM").unwrap();
    connection.close().unwrap();
    let sound = std::fs::read(&database).unwrap();
    let noise: Vec<u8> = (0..4_096_u64)
        .map(|byte| ((byte * 2_654_435_761) >> 9).to_le_bytes()[0])
        .collect();
    let pages = sound.len() / noise.len();
    assert!(pages > 20, "{pages}");
    for page in 0..pages {
        let mut bytes = sound.clone();
        bytes.splice(
            page * noise.len()..(page + 1) * noise.len(),
            noise.iter().copied(),
        );
        std::fs::write(&database, &bytes).unwrap();
        let text = refusal(site.directory.path());
        assert!(
            text.contains("controller.db") && text.contains("damaged") && text.contains("backup"),
            "page {page}: {text}"
        );
        assert!(std::fs::read(&database).unwrap() == bytes, "page {page}");
    }
}

#[test]
fn a_new_advertised_name_gets_a_new_certificate() {
    let site = stopped_site();
    let certificate = || std::fs::read_to_string(site.directory.path().join("server.pem")).unwrap();
    let before = certificate();
    assert_eq!(
        start(site.directory.path(), |_| {}).err().unwrap(),
        "it started"
    );
    assert_eq!(certificate(), before);
    let change = |arguments: &mut haar_controller::cli::RunArguments| {
        arguments.advertise = Some("gw.example".into())
    };
    assert_eq!(
        start(site.directory.path(), change).err().unwrap(),
        "it started"
    );
    assert_ne!(certificate(), before);
    let context = std::fs::read_to_string(site.directory.path().join("context.toml")).unwrap();
    assert!(context.contains("https://gw.example:"), "{context}");
}

#[cfg(unix)]
#[test]
fn secrets_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = stopped_site();
    for name in [
        "site.key",
        "ca.key",
        "server.key",
        "context.toml",
        "controller.db",
    ] {
        let mode = std::fs::metadata(site.directory.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
