//! Uploads over connections that are cut. The server here speaks just enough of the API, and cuts
//! where it is told to; the real controller does not cut on demand.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use haar_protocol::ids::Digest;
use serde_json::json;

use crate::haar::{Output, Workplace};
use crate::modules;
use crate::program::join_within;

const PART_BYTES: usize = 1 << 20;

/// What arrived, and what is still to go wrong.
struct Server {
    digest: Digest,
    total: usize,
    arrived: Vec<u8>,
    parts: usize,
    /// Which parts (counted from 1) are cut in their middle.
    cuts: Vec<usize>,
}

struct Request {
    line: String,
    range: Option<(usize, usize)>,
    body: Vec<u8>,
}

impl Server {
    fn serve(&mut self, listener: &TcpListener) {
        // The program's connections come one after the other; the last one asks to end.
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            if self.serve_connection(&stream).is_none() {
                return;
            }
        }
    }

    /// Answers until the connection ends. None when the server shall end.
    fn serve_connection(&mut self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return Some(());
                }
                let line = line.trim_end().to_owned();
                if line.is_empty() {
                    break;
                }
                head.push(line);
            }
            if head[0].starts_with("END") {
                return None;
            }
            let header = |name: &str| {
                head.iter()
                    .find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned))
            };
            let length: usize =
                header("content-length: ").map_or(0, |value| value.parse().unwrap());
            let is_part = head[0].starts_with("PUT");
            self.parts += usize::from(is_part);
            let is_cut = is_part && self.cuts.contains(&self.parts);
            let mut body = vec![0; if is_cut { length / 2 } else { length }];
            reader.read_exact(&mut body).unwrap();
            let range = header("content-range: bytes ").map(|range| {
                let (range, total) = range.split_once('/').unwrap();
                assert_eq!(total.parse::<usize>().unwrap(), self.total);
                let (first, last) = range.split_once('-').unwrap();
                (first.parse().unwrap(), last.parse::<usize>().unwrap())
            });
            let (status, answer) = self.answer(Request {
                line: head[0].clone(),
                range,
                body,
            });
            if is_cut {
                return Some(()); // what arrived is kept, the answer is not sent
            }
            let mut stream = stream;
            write!(stream, "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).unwrap();
        }
    }

    fn answer(&mut self, request: Request) -> (&'static str, String) {
        let complete = self.arrived.len() == self.total;
        let state = |offset: usize| json!({"offset": offset, "complete": complete}).to_string();
        let module = || {
            json!({
                "digest": self.digest, "name": "large", "version": "1.0.0", "bytes": self.total, "publishers": ["acme"],
                "imports": [], "exports": [], "pushed_ms": 1
            })
            .to_string()
        };
        let path = format!(" /api/v1/modules/{}", self.digest);
        match request.line.strip_suffix(" HTTP/1.1").unwrap() {
            line if line == format!("GET{path}") && complete => ("200 OK", module()),
            line if line == format!("GET{path}") => (
                "404 Not Found",
                r#"{"code":"unknown_module","message":"no","hint":null}"#.into(),
            ),
            line if line == format!("GET{path}/upload") => ("200 OK", state(self.arrived.len())),
            line if line == format!("PUT{path}/content") => {
                let (first, _) = request.range.unwrap();
                assert_eq!(
                    first,
                    self.arrived.len(),
                    "a part begins where the last one ended"
                );
                self.arrived.extend(request.body);
                if self.arrived.len() == self.total {
                    ("201 Created", module())
                } else {
                    ("202 Accepted", state(self.arrived.len()))
                }
            }
            line => panic!("{line}"),
        }
    }
}

/// Pushes a module of four parts to a server that cuts; what the program said, and the server.
fn push(cuts: Vec<usize>, arrived_before: usize) -> (Output, Server) {
    let workplace = Workplace::new();
    workplace.haar("key new acme").ok();
    let file = workplace.write("large.wasm", modules::large(3 * PART_BYTES + 1000));
    workplace.haar("sign large.wasm --key acme.key").ok();
    let content = std::fs::read(file).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    workplace.write(
        "context.toml",
        format!(
            "site = \"s{}\"\nname = \"plant\"\nurl = \"http://{address}\"\ntoken = \"t\"\nca_pem = '''\n{}'''\n",
            "a".repeat(26),
            include_str!("ca.pem")
        ),
    );
    let mut server = Server {
        digest: Digest::of(&content),
        total: content.len(),
        arrived: content[..arrived_before].to_vec(),
        parts: 0,
        cuts,
    };
    let server = std::thread::spawn(move || {
        server.serve(&listener);
        server
    });
    let output = workplace.haar("push large.wasm --context context.toml");
    TcpStream::connect(address)
        .unwrap()
        .write_all(b"END\r\n\r\n")
        .unwrap();
    let server = join_within("the server ends", server);
    if output.code == 0 {
        assert_eq!(server.arrived, content);
    }
    (output, server)
}

#[test]
fn a_module_arrives_in_parts() {
    let (output, server) = push(vec![], 0);
    assert!(output.ok().stdout.starts_with("Pushed large@1.0.0 sha256:"));
    assert_eq!(server.parts, 4);
}

#[test]
fn a_cut_connection_costs_one_part() {
    let (output, server) = push(vec![2, 4], 0);
    assert!(output.ok().stderr.contains("trying again"));
    // Half of each cut part had arrived, so the parts shift and nothing is sent twice.
    assert_eq!(server.parts, 5);
}

#[test]
fn an_upload_goes_on_where_an_earlier_one_ended() {
    let (output, server) = push(vec![], 2 * PART_BYTES + 17);
    output.ok();
    assert_eq!(server.parts, 2);
}
