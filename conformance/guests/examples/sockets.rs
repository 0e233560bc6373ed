//! Tries everything that needs `wasi:sockets`, which is linked and denied. The body of a message is two
//! addresses with ports: where it connects to, and where it sends a datagram. Logs how much was denied,
//! and each attempt that was not.

use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};

use haar_guest::{Message, Microservice, Rejection, log};

#[derive(Default)]
struct Sockets;

impl Microservice for Sockets {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let (tcp, udp) = message
            .text()?
            .split_once(' ')
            .ok_or_else(|| Rejection::discard("two addresses, please"))?;
        let attempts = [
            ("connect", TcpStream::connect(tcp).map(drop)),
            ("connect by IPv6", TcpStream::connect("[::1]:80").map(drop)),
            ("listen", TcpListener::bind("0.0.0.0:0").map(drop)),
            ("listen by IPv6", TcpListener::bind("[::]:0").map(drop)),
            ("send", send("0.0.0.0:0", udp)),
            ("send by IPv6", send("[::]:0", "[::1]:80")),
        ];
        let mut denied = 0;
        for (what, outcome) in attempts {
            match outcome {
                Ok(()) => log::error!("{what}: done, without a grant"),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => denied += 1,
                Err(error) => log::error!("{what}: not denied but {error}"),
            }
        }
        // The C library has no word for a look-up that is denied.
        match ("localhost", 80).to_socket_addrs() {
            Ok(_) => log::error!("a name was looked up, without a grant"),
            Err(_) => denied += 1,
        }
        log::info!("{denied} of 7 denied");
        Ok(())
    }
}

fn send(from: &str, to: &str) -> io::Result<()> {
    UdpSocket::bind(from)?.send_to(b"a datagram", to).map(drop)
}

haar_guest::export!(Sockets);
