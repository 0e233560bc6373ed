//! Publishers at QoS 1 that each wait for the broker's acknowledgement before the next message, as
//! publishers on durable routes do. As little of MQTT 3.1.1 as that takes, on blocking sockets.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::broker::Mosquitto;

/// What each message took from all of them, in order.
pub fn publish(broker: &Mosquitto, publishers: u64, size: usize, time: Duration) -> Vec<Duration> {
    // Somebody for whom the broker keeps what is published.
    broker.keep_session("waiting");
    let end = Instant::now() + time;
    let mut took: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..publishers)
            .map(|index| scope.spawn(move || one(broker, index, size, end)))
            .collect();
        let each = threads.into_iter().map(|thread| thread.join().unwrap());
        each.flatten().collect()
    });
    took.sort_unstable();
    took
}

fn one(broker: &Mosquitto, index: u64, size: usize, end: Instant) -> Vec<Duration> {
    let mut connection = TcpStream::connect(broker.address()).unwrap();
    connection.set_nodelay(true).unwrap();
    let name = format!("waiting-{index}");
    // Version 4, a clean session, no keep-alive.
    let connect = [text("MQTT"), vec![4, 2, 0, 0], text(&name)].concat();
    connection.write_all(&packet(0x10, &connect)).unwrap();
    let mut answer = [0; 4];
    connection.read_exact(&mut answer).unwrap();
    assert_eq!(answer[0], 0x20, "the broker does not let it in");
    let content = [text("bench/waiting"), vec![0, 1], vec![b'x'; size]].concat();
    let publish = packet(0x32, &content);
    let mut took = Vec::new();
    while Instant::now() < end {
        let began = Instant::now();
        connection.write_all(&publish).unwrap();
        connection.read_exact(&mut answer).unwrap();
        assert_eq!(answer[0], 0x40, "no acknowledgement");
        took.push(began.elapsed());
    }
    took
}

/// A text with its length, as MQTT has it.
fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

/// A packet: its first byte, the length in groups of seven bits, the content.
fn packet(first: u8, content: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = content.len();
    while left > 127 {
        packet.push((left % 128) as u8 | 0x80);
        left /= 128;
    }
    packet.push(left as u8);
    packet.extend_from_slice(content);
    packet
}
