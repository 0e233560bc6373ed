//! The program itself: announcing, stopping, further people.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use haar_protocol::context::Context;

use crate::support::http::Client;

fn program(directory: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haar-controller"));
    command
        .args(arguments)
        .arg("--data")
        .arg(directory)
        .env("HAAR_LOG", "warn");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

const RUN: [&str; 7] = [
    "run",
    "--listen",
    "127.0.0.1:0",
    "--relay-listen",
    "127.0.0.1:0",
    "--announce",
    "--stop-on-stdin-close",
];

fn ready(child: &mut Child) -> serde_json::Value {
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    child.stdout = Some(out.into_inner());
    serde_json::from_str(&line).unwrap_or_else(|_| {
        let mut errors = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut errors)
            .unwrap();
        panic!("`{line}` {errors}")
    })
}

#[test]
fn a_log_that_nobody_watches_has_no_colours() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = program(&directory.path().join("site"), &RUN)
        .env("HAAR_LOG", "info")
        .spawn()
        .unwrap();
    ready(&mut child);
    drop(child.stdin.take());
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(said.contains("the controller is ready"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said}");
}

#[test]
fn it_announces_itself_and_stops_when_standard_input_closes() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("site");
    let mut child = program(&data, &RUN).spawn().unwrap();
    let line = ready(&mut child);
    assert_eq!(line["event"], "ready");
    assert!(
        line["relay"]
            .as_str()
            .unwrap()
            .starts_with("mqtts://127.0.0.1:")
    );
    let context: Context =
        toml::from_str(&std::fs::read_to_string(line["context"].as_str().unwrap()).unwrap())
            .unwrap();
    assert_eq!(
        (context.url.as_str(), context.site.as_str()),
        (
            line["url"].as_str().unwrap(),
            line["site"].as_str().unwrap()
        )
    );

    let further = program(&data, &["access-token", "anna"]).output().unwrap();
    assert!(
        further.status.success(),
        "{}",
        String::from_utf8_lossy(&further.stderr)
    );
    let anna: Context = toml::from_str(std::str::from_utf8(&further.stdout).unwrap()).unwrap();
    assert_ne!(anna.token, context.token);
    for person in [&anna, &context] {
        let client = Client::new(
            &person.url,
            &person.ca_pem,
            Some(format!("Bearer {}", person.token)),
        );
        assert_eq!(client.get("/nodes").status, 200);
    }

    let second = program(&data, &RUN).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another controller"));

    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_signal_stops_it_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = program(directory.path(), &RUN).spawn().unwrap();
    ready(&mut child);
    let killed = Command::new("kill")
        .arg("-TERM")
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert!(killed.success());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_token_for_a_person_needs_a_site() {
    let directory = tempfile::tempdir().unwrap();
    let output = program(directory.path(), &["access-token", "anna"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no site"));
}
