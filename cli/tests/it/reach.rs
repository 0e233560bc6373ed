//! Contexts, and sites that can't be reached.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;

use crate::haar::Workplace;
use crate::program::join_within;

/// Any certificate will do where nothing gets as far as checking it: this one is of a CA that
/// signs nothing.
const CA: &str = include_str!("ca.pem");

fn context(workplace: &Workplace, url: &str) -> PathBuf {
    workplace.write(
        "context.toml",
        format!("site = \"s{}\"\nname = \"plant\"\nurl = \"{url}\"\ntoken = \"secret-token\"\nca_pem = '''\n{CA}'''\n", "a".repeat(26)),
    )
}

/// A port where nothing listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[test]
fn a_missing_or_wrong_context_is_told() {
    let workplace = Workplace::new();
    insta::assert_snapshot!(workplace.haar("get nodes").all());
    insta::assert_snapshot!(workplace.haar("get nodes --output json").all());
    workplace.write("wrong.toml", "site = 1\n");
    insta::assert_snapshot!(workplace.haar("get nodes --context wrong.toml").all());
    context(&workplace, "http://192.0.2.7:7420");
    insta::assert_snapshot!(workplace.haar("get nodes --context context.toml").all());
}

#[test]
fn the_context_is_found_by_flag_then_environment_then_home() {
    let workplace = Workplace::new();
    let of = |name: &str| workplace.write(name, format!("{name} is not TOML"));
    of(".config/haar/context.toml");
    let file = of("by-environment.toml");
    of("by-flag.toml");
    assert!(
        workplace
            .haar("get nodes")
            .stderr
            .contains(".config/haar/context.toml:")
    );
    let mut command = workplace.command();
    command
        .env("HOME", workplace.folder())
        .env("HAAR_CONTEXT", &file)
        .args(["get", "nodes"]);
    assert!(
        workplace
            .output(command)
            .stderr
            .contains("by-environment.toml:")
    );
    let mut command = workplace.command();
    command
        .env("HAAR_CONTEXT", &file)
        .args(["get", "nodes", "--context", "by-flag.toml"]);
    assert!(workplace.output(command).stderr.contains("by-flag.toml:"));
}

#[test]
fn nothing_that_listens_is_told() {
    let workplace = Workplace::new();
    let port = free_port();
    context(&workplace, &format!("https://127.0.0.1:{port}"));
    let refused = workplace.haar("get nodes --context context.toml");
    assert!(!refused.all().contains("secret-token"));
    insta::assert_snapshot!(refused.all().replace(&port.to_string(), "PORT"));
}

#[test]
fn something_else_that_listens_is_told() {
    let workplace = Workplace::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 16];
        let _ = stream.read(&mut request);
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
    });
    context(&workplace, &format!("https://127.0.0.1:{port}"));
    let refused = workplace.haar("get nodes --context context.toml");
    join_within("`haar` connects and is answered", server);
    assert_eq!(refused.code, 5);
    assert!(
        refused.stderr.contains("does not speak TLS"),
        "{}",
        refused.stderr
    );
}
