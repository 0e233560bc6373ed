//! The program itself: announcing, stopping, further people.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use haar_protocol::context::Context;
use haar_protocol::rest::Token;
use socket2::{Domain, Socket, Type};

use crate::support::http::Client;
use crate::support::program::{Program, output_within};
use crate::support::wait::DEADLINE;

fn program(directory: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haar-controller"));
    command
        .args(arguments)
        .arg("--data")
        .arg(directory)
        .env("HAAR_LOG", "warn")
        .stdin(Stdio::piped());
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

/// Closes its standard input; what it says on standard error until its end.
fn stopped(child: &mut Program) -> String {
    child.close_stdin();
    String::from_utf8(child.output_within(DEADLINE).stderr).unwrap()
}

#[test]
fn a_log_that_nobody_watches_has_no_colours() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = program(&directory.path().join("site"), &RUN);
    let mut child = Program::start(command.env("HAAR_LOG", "info"));
    child.announcement();
    let said = stopped(&mut child);
    assert!(said.contains("the controller is ready"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said}");
}

#[test]
fn it_announces_itself_and_stops_when_standard_input_closes() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("site");
    let mut child = Program::start(&mut program(&data, &RUN));
    let line = child.announcement();
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

    let further = output_within(&mut program(&data, &["access-token", "anna"]), DEADLINE);
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

    let second = output_within(&mut program(&data, &RUN), DEADLINE);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another controller"));

    child.close_stdin();
    assert!(child.output_within(DEADLINE).status.success());
}

#[test]
fn a_signal_stops_it_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Program::start(&mut program(directory.path(), &RUN));
    child.announcement();
    child.signal("-TERM");
    assert!(child.output_within(DEADLINE).status.success());
}

#[test]
fn a_token_for_a_person_needs_a_site() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = program(directory.path(), &["access-token", "anna"]);
    let output = output_within(&mut command, DEADLINE);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no site"));
}

/// Connections to `url` from some addresses, none of which says anything.
fn crowd(url: &str, count: u16) -> Vec<Socket> {
    let to: SocketAddr = url.rsplit('/').next().unwrap().parse().unwrap();
    let connect = |number: u16| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let host = u8::try_from(2 + number / 8).unwrap();
        let from = SocketAddr::from(([127, 0, 0, host], 0));
        socket.bind(&from.into()).unwrap();
        socket.connect(&to.into()).unwrap();
        socket
    };
    (0..count).map(connect).collect()
}

#[test]
fn a_crowd_of_connections_leaves_descriptors_for_the_database() {
    haar_relay::raise_descriptor_limit();
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 512 && exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_haar-controller"))
        .args(RUN)
        .arg("--data")
        .arg(directory.path().join("site"))
        .env("HAAR_LOG", "warn")
        .stdin(Stdio::piped());
    let mut child = Program::start(&mut command);
    let line = child.announcement();
    let context = std::fs::read_to_string(line["context"].as_str().unwrap()).unwrap();
    let context: Context = toml::from_str(&context).unwrap();
    let crowds = [
        crowd(&context.url, 700),
        crowd(line["relay"].as_str().unwrap(), 700),
    ];
    let bearer = format!("Bearer {}", context.token);
    let client = Client::new(&context.url, &context.ca_pem, Some(bearer));
    for _ in 0..5 {
        let token = client.post_json("/tokens", &serde_json::json!({}));
        let _: Token = token.ok();
    }
    drop(crowds);
    let said = stopped(&mut child);
    assert!(said.contains("LimitNOFILE"), "{said}");
    assert!(!said.contains("Too many open files"), "{said}");
}
