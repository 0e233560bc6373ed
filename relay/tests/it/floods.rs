//! Many connections of nobody known: they can't keep nodes out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use haar_relay::BrokerLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::hostile::{connect_packet, dial};
use crate::support::{Site, soon};

/// Sixteen places, four for one address.
fn narrow() -> BrokerLimits {
    BrokerLimits {
        strangers_max: 16,
        strangers_per_address_max: 4,
        ..BrokerLimits::default()
    }
}

/// A connection from 127.0.0.`host`.
async fn connect_from(host: u8, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, host], 0)))?;
    socket.connect(to).await
}

/// Fills every place with connections from many addresses, each of which has sent `bytes`.
async fn fill(site: &Site, bytes: &[u8]) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for number in 0..64 {
        let mut stream = connect_from(2 + number / 4, site.broker.address())
            .await
            .unwrap();
        // One that has lost its place may be closed already.
        stream.write_all(bytes).await.ok();
        crowd.push(stream);
    }
    crowd
}

/// Waits until the relay has closed all of them but `left`.
async fn closed_but(crowd: Vec<TcpStream>, left: usize) {
    let mut reads = JoinSet::new();
    let closed = crowd.len() - left;
    for mut stream in crowd {
        reads.spawn(async move { stream.read_to_end(&mut Vec::new()).await.ok() });
    }
    for number in 0..closed {
        soon(
            &format!("{number} of {closed} are closed"),
            reads.join_next(),
        )
        .await;
    }
}

#[tokio::test]
async fn silent_connections_on_every_place_keep_no_node_out() {
    let site = Site::start_with(narrow()).await;
    let crowd = fill(&site, b"").await;
    let node = site.connect_node(&site.one).await;
    assert!(node.session.is_connected());
    closed_but(crowd, 15).await;
}

#[tokio::test]
async fn connections_that_send_a_byte_now_and_then_keep_no_node_out() {
    let site = Site::start_with(narrow()).await;
    // The first bytes of a TLS greeting that never becomes whole.
    let crowd = fill(&site, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03").await;
    site.connect_node(&site.one).await;
    closed_but(crowd, 15).await;
}

#[tokio::test]
async fn encrypted_connections_without_a_proof_keep_no_node_out() {
    let site = Site::start_with(narrow()).await;
    let mut crowd = Vec::new();
    for _ in 0..8 {
        crowd.push(dial(&site).await);
    }
    // They come from the address of the node: the oldest of them give way.
    site.connect_node(&site.one).await;
    site.connect_site().await;
}

#[tokio::test]
async fn connections_that_are_renewed_without_end_keep_no_node_out() {
    let site = Site::start_with(narrow()).await;
    let (address, opened) = (site.broker.address(), Arc::new(AtomicUsize::new(0)));
    let mut crowd = JoinSet::new();
    for number in 0..64u8 {
        let opened = Arc::clone(&opened);
        crowd.spawn(async move {
            loop {
                // Refused ones, too, are tried again.
                if let Ok(mut stream) = connect_from(2 + number / 4, address).await {
                    opened.fetch_add(1, Ordering::Relaxed);
                    stream.read_to_end(&mut Vec::new()).await.ok();
                }
            }
        });
    }
    let flood = async {
        while opened.load(Ordering::Relaxed) < 500 {
            tokio::task::yield_now().await;
        }
    };
    soon("500 connections", flood).await;
    for _ in 0..5 {
        let node = site.connect_node(&site.one).await;
        node.session.finish(None).await.unwrap();
    }
    crowd.shutdown().await;
}

#[tokio::test]
async fn a_crowd_from_one_address_pushes_out_its_own_and_admitted_clients_do_not_count() {
    let limits = BrokerLimits {
        strangers_per_address_max: 2,
        ..BrokerLimits::default()
    };
    let site = Site::start_with(limits).await;
    let mut node = site.connect_node(&site.one).await;
    let other = site.connect_node(&site.two).await;
    let _controller = site.connect_site().await;
    let mut first = dial(&site).await;
    let _second = dial(&site).await;
    let _third = dial(&site).await;
    let read = soon("the relay closes the oldest", first.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert!(node.events.try_recv().is_err() && other.session.is_connected());
}

#[tokio::test]
async fn a_first_packet_that_is_large_or_no_connect_is_not_read() {
    let site = Site::start().await;
    // What would follow the header is never sent: the relay closes for what the header says.
    for header in [&[0x10, 0x81, 0x80, 0x40][..], &[0x10, 0xff, 0x40], b"GET /"] {
        let mut stream = dial(&site).await;
        stream.write_all(header).await.unwrap();
        let read = soon("the relay closes", stream.read(&mut [0; 1])).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{header:x?}: {read:?}");
    }
}

#[tokio::test]
async fn a_connect_in_two_parts_is_read() {
    let site = Site::start().await;
    let mut stream = dial(&site).await;
    let packet = connect_packet(&site);
    stream.write_all(&packet[..20]).await.unwrap();
    stream.flush().await.unwrap();
    stream.write_all(&packet[20..]).await.unwrap();
    let mut answer = [0; 4];
    soon("CONNACK", stream.read_exact(&mut answer))
        .await
        .unwrap();
    assert_eq!((answer[0], answer[3]), (0x20, 0), "accepted");
}

#[tokio::test]
async fn a_plain_connect_byte_by_byte_is_read_and_a_large_one_is_not() {
    let site = Site::start().await;
    let mut options = site.broker_options();
    (options.tls, options.listen) = (None, "127.0.0.1:0".parse().unwrap());
    let plain = haar_relay::Broker::start(options).await.unwrap();
    let mut stream = TcpStream::connect(plain.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in connect_packet(&site) {
        stream.write_all(&[byte]).await.unwrap();
    }
    let mut answer = [0; 4];
    soon("CONNACK", stream.read_exact(&mut answer))
        .await
        .unwrap();
    assert_eq!((answer[0], answer[3]), (0x20, 0), "accepted");
    let mut large = TcpStream::connect(plain.address()).await.unwrap();
    large.write_all(&[0x10, 0xff, 0x7f]).await.unwrap();
    let read = soon("the relay closes", large.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn nobody_chooses_how_long_the_relay_waits_for_them() {
    let site = Site::start().await;
    let mut stream = dial(&site).await;
    // It asks for 65,535 seconds.
    stream.write_all(&connect_packet(&site)).await.unwrap();
    let mut answer = [0; 256];
    let count = soon("CONNACK", stream.read(&mut answer)).await.unwrap();
    let server_keep_alive = [0x13, 0, 20];
    assert!(
        answer[..count]
            .windows(3)
            .any(|part| part == server_keep_alive),
        "{:x?}",
        &answer[..count]
    );
}
