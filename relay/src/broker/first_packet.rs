//! Looks at the first packet of a connection before mqtt5 gets it: it must be a CONNECT, and small.
//! mqtt5 has one limit for all packets, and reads as much as it says of a stranger's first one.
//! Nothing is taken out of the connection: mqtt5 reads the same bytes.

use std::io::{self, BufRead as _};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// The largest CONNECT: a proof, a will and their topics take less than 2 KiB.
pub(super) const CONNECT_BYTES_MAX: usize = 8 * 1024;
/// The type and flags of a CONNECT (MQTT 5 section 3.1.1).
const CONNECT: u8 = 0x10;
/// The fixed header: the type, and the length in at most four bytes (section 2.1.4).
const HEADER_BYTES_MAX: usize = 5;
/// Until a plain connection is looked at again that has sent a part of the header: the bytes stay
/// where they are, so the system would wake us at once. Loopback only.
const PEEK_INTERVAL: Duration = Duration::from_millis(20);

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstPacket {
    /// More bytes are needed to say.
    Incomplete,
    /// A CONNECT that may be read.
    Connect,
    /// Another packet, or none of MQTT.
    NotConnect,
    /// A CONNECT of so many bytes, which is too large.
    TooLarge(usize),
}

/// Judges the first bytes of a connection.
pub(super) fn judge(bytes: &[u8]) -> FirstPacket {
    let Some((first, rest)) = bytes.split_first() else {
        return FirstPacket::Incomplete;
    };
    if *first != CONNECT {
        return FirstPacket::NotConnect;
    }
    let mut length = 0;
    for (index, byte) in rest.iter().take(HEADER_BYTES_MAX - 1).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let packet = 2 + index + length;
            return match packet > CONNECT_BYTES_MAX {
                true => FirstPacket::TooLarge(packet),
                false => FirstPacket::Connect,
            };
        }
    }
    match rest.len() >= HEADER_BYTES_MAX - 1 {
        true => FirstPacket::NotConnect,
        false => FirstPacket::Incomplete,
    }
}

/// Waits for the first packet of a plain connection.
///
/// # Errors
/// When the connection ends first.
pub(super) async fn of_plain(stream: &TcpStream) -> io::Result<FirstPacket> {
    let mut header = [0; HEADER_BYTES_MAX];
    loop {
        let count = stream.peek(&mut header).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match judge(&header[..count]) {
            FirstPacket::Incomplete => tokio::time::sleep(PEEK_INTERVAL).await,
            found => return Ok(found),
        }
    }
}

/// Waits for the first packet of an encrypted connection, whose handshake is complete.
///
/// # Errors
/// When the connection ends first or its encryption fails.
pub(super) async fn of_encrypted(stream: &mut TlsStream<TcpStream>) -> io::Result<FirstPacket> {
    let (socket, session) = stream.get_mut();
    loop {
        match session.reader().fill_buf() {
            Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => match judge(bytes) {
                FirstPacket::Incomplete => {}
                found => return Ok(found),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        socket.readable().await?;
        match session.read_tls(&mut TryRead(socket)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {
                session.process_new_packets().map_err(io::Error::other)?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// A socket as rustls reads it: what is there now.
struct TryRead<'a>(&'a TcpStream);

impl io::Read for TryRead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_connect_is_told_by_its_first_bytes() {
        let cases: [(&[u8], FirstPacket); 11] = [
            (&[], FirstPacket::Incomplete),
            (&[0x10], FirstPacket::Incomplete),
            (&[0x10, 0x80, 0x80, 0x80], FirstPacket::Incomplete),
            (&[0x10, 0x20], FirstPacket::Connect),
            (&[0x10, 0x00], FirstPacket::Connect),
            // 3 bytes of header and 8,189 behind it: 8 KiB; and one more.
            (&[0x10, 0xfd, 0x3f], FirstPacket::Connect),
            (&[0x10, 0xfe, 0x3f], FirstPacket::TooLarge(8_193)),
            (
                &[0x10, 0xff, 0xff, 0xff, 0x7f],
                FirstPacket::TooLarge(268_435_460),
            ),
            (&[0x10, 0xff, 0xff, 0xff, 0xff], FirstPacket::NotConnect),
            (b"GET / HTTP/1.1", FirstPacket::NotConnect),
            (&[0x30], FirstPacket::NotConnect),
        ];
        for (bytes, expected) in cases {
            assert_eq!(judge(bytes), expected, "{bytes:x?}");
        }
    }

    proptest! {
        /// A longer look never changes the judgement of a shorter one.
        #[test]
        fn more_bytes_never_change_a_judgement(bytes in prop::collection::vec(any::<u8>(), 0..12), connect in any::<bool>()) {
            let mut bytes = bytes;
            if connect && !bytes.is_empty() {
                bytes[0] = CONNECT;
            }
            let mut judged = FirstPacket::Incomplete;
            for count in 0..=bytes.len() {
                let next = judge(&bytes[..count]);
                if judged != FirstPacket::Incomplete {
                    prop_assert_eq!(next, judged);
                }
                judged = next;
            }
            prop_assert!(bytes.len() < HEADER_BYTES_MAX || judged != FirstPacket::Incomplete);
        }
    }
}
