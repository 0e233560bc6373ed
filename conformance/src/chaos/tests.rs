//! The proxy does what it says, seen from both ends.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::*;

/// Longer than anything here takes, and only waited for by what has failed.
const DEADLINE: Duration = Duration::from_secs(20);

/// A client and the relay that it reached through a proxy.
struct Ends {
    proxy: Proxy,
    listener: TcpListener,
    client: TcpStream,
    relay: TcpStream,
}

impl Ends {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).unwrap();
        let (client, relay) = connect(&proxy, &listener);
        Self {
            proxy,
            listener,
            client,
            relay,
        }
    }
}

fn connect(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.address()).unwrap();
    listener.set_nonblocking(true).unwrap();
    let end = std::time::Instant::now() + DEADLINE;
    let relay = loop {
        match listener.accept() {
            Ok((relay, _)) => break relay,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(std::time::Instant::now() < end, "nobody connected");
        std::thread::yield_now();
    };
    for end in [&client, &relay] {
        end.set_read_timeout(Some(DEADLINE)).unwrap();
        end.set_write_timeout(Some(DEADLINE)).unwrap();
    }
    (client, relay)
}

fn say(from: &mut TcpStream, to: &mut TcpStream, text: &[u8]) {
    from.write_all(text).unwrap();
    let mut heard = vec![0; text.len()];
    to.read_exact(&mut heard).unwrap();
    assert_eq!(heard, text);
}

#[test]
fn what_one_end_says_the_other_hears() {
    let mut ends = Ends::new();
    say(&mut ends.client, &mut ends.relay, b"hello");
    say(&mut ends.relay, &mut ends.client, b"good day");
    assert_eq!(
        (ends.proxy.connections(), ends.proxy.swallowed_bytes()),
        (1, 0)
    );
}

#[test]
fn a_reset_is_an_error_for_both_ends_and_a_finish_is_an_end() {
    let mut ends = Ends::new();
    say(&mut ends.client, &mut ends.relay, b"hello");
    ends.proxy.cut(Cut::Reset);
    for end in [&mut ends.client, &mut ends.relay] {
        let error = end.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let (mut client, mut relay) = connect(&ends.proxy, &ends.listener);
    say(&mut client, &mut relay, b"again");
    ends.proxy.cut(Cut::Finish);
    for end in [&mut client, &mut relay] {
        assert_eq!(end.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_deaf_connection_takes_everything_and_a_new_one_is_good() {
    let mut ends = Ends::new();
    say(&mut ends.client, &mut ends.relay, b"hello");
    ends.proxy.deafen();
    ends.client.write_all(b"is there anybody?").unwrap();
    let end = std::time::Instant::now() + DEADLINE;
    while ends.proxy.swallowed_bytes() < 17 {
        assert!(std::time::Instant::now() < end, "they were not taken");
        std::thread::yield_now();
    }
    ends.relay.set_nonblocking(true).unwrap();
    let error = ends.relay.read(&mut [0]).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::WouldBlock,
        "nothing came, not even an end"
    );
    let (mut client, mut relay) = connect(&ends.proxy, &ends.listener);
    say(&mut client, &mut relay, b"yes");
}

#[test]
fn late_and_slow_bytes_come_complete_and_in_order() {
    let mut ends = Ends::new();
    ends.proxy.delay(Duration::from_millis(20));
    ends.proxy.throttle(Some(1 << 20));
    let text: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    let Ends { client, relay, .. } = &mut ends;
    std::thread::scope(|scope| {
        scope.spawn(|| client.write_all(&text).unwrap());
        let mut heard = vec![0; text.len()];
        relay.read_exact(&mut heard).unwrap();
        assert_eq!(heard, text);
    });
}
