//! Bytes that no client of ours sends: the relay drops the connection and serves the others.

use std::sync::Arc;

use bytes::BytesMut;
use haar_protocol::topics::Topic;
use rumqttc::v5::mqttbytes::v5::{Connect, Login, Packet};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Client, Site, client_config, message, soon};

/// A repeatable stream of numbers (xorshift32): failures must come again.
struct Numbers(u32);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    fn bytes(&mut self, count_max: u32) -> Vec<u8> {
        let count = self.next() % count_max + 1;
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// Sequences that break a rule of MQTT 5 each, or look as if they went on for ever.
fn malformed() -> Vec<Vec<u8>> {
    let mut huge_publish = vec![0x30, 0xff, 0xff, 0xff, 0x7f];
    huge_publish.extend([0x41; 4096]);
    vec![
        b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        vec![0x00, 0x00],
        vec![0xf0, 0x00],
        vec![0xff; 64],
        vec![0x10, 0xff, 0xff, 0xff, 0xff, 0x7f],
        vec![0x10, 0x00],
        vec![0x10, 0x04, 0x00, 0x04, b'M', b'Q'],
        vec![
            0x10, 0x0a, 0x00, 0x04, b'M', b'Q', b'T', b'T', 0x05, 0xff, 0x00, 0x0a,
        ],
        vec![
            0x10, 0x0c, 0x00, 0x04, b'M', b'Q', b'T', b'T', 0x05, 0x02, 0, 10, 0xff, 0xff,
        ],
        vec![
            0x10, 0x0d, 0x00, 0x04, b'M', b'Q', b'T', b'T', 0x63, 0x02, 0, 10, 0, 0, 0,
        ],
        vec![
            0x10, 0x0f, 0x00, 0x04, b'M', b'Q', b'T', b'T', 0x05, 0x02, 0, 10, 0, 0, 2, 0xc3, 0x28,
        ],
        vec![0x20, 0x03, 0x00, 0x00, 0x00],
        vec![0x30, 0x00],
        vec![0x30, 0x03, 0xff, 0xff, 0x00],
        vec![0x32, 0x05, 0x00, 0x01, b'a', 0x00, 0x00],
        vec![0x36, 0x06, 0x00, 0x01, b'a', 0x00, 0x01, 0x00],
        vec![0x30, 0x08, 0x00, 0x01, b'a', 0x04, 0x23, 0x00, 0x00, b'x'],
        vec![0x30, 0x07, 0x00, 0x00, 0x03, 0x23, 0xff, 0xff, b'x'],
        vec![0x30, 0x05, 0x00, 0x01, b'#', 0x00, b'x'],
        vec![0x30, 0x06, 0x00, 0x02, 0xc3, 0x28, 0x00, b'x'],
        vec![0x40, 0x02, 0x00, 0x00],
        vec![0x40, 0x02, 0xff, 0xff],
        vec![0x50, 0x02, 0x12, 0x34],
        vec![0x62, 0x02, 0x12, 0x34],
        vec![0x70, 0x02, 0x12, 0x34],
        vec![0x80, 0x02, 0x00, 0x01],
        vec![0x82, 0x03, 0x00, 0x01, 0x00],
        vec![0x82, 0x08, 0x00, 0x01, 0x00, 0x00, 0x02, b'a', b'b', 0xff],
        vec![0x82, 0x07, 0x00, 0x01, 0x02, 0x0b, 0x00, 0x00, 0x00],
        vec![0xa2, 0x02, 0x00, 0x00],
        vec![0xc0, 0x01, 0x00],
        vec![0xd0, 0x00],
        vec![0xe0, 0x02, 0x00, 0x05],
        vec![0xf0, 0x02, 0x18, 0x00],
        huge_publish,
    ]
}

pub(crate) async fn dial(site: &Site) -> TlsStream<TcpStream> {
    let connector = TlsConnector::from(Arc::new(client_config(&site.certificates.ca_pem)));
    let tcp = TcpStream::connect(site.broker.address()).await.unwrap();
    connector
        .connect(ServerName::try_from("localhost").unwrap(), tcp)
        .await
        .unwrap()
}

/// Sends `bytes` and the end of the stream, and waits until the relay closes.
async fn send_and_close(mut stream: TlsStream<TcpStream>, bytes: &[u8]) {
    // The relay may close before it has read everything: that is its right.
    let written = stream.write_all(bytes).await;
    if written.is_ok() {
        stream.shutdown().await.ok();
    }
    let mut answer = Vec::new();
    soon("the relay closes", stream.read_to_end(&mut answer))
        .await
        .ok();
}

/// A CONNECT of node two, who is an enrolled node gone bad.
pub(crate) fn connect_packet(site: &Site) -> Vec<u8> {
    let id = site.two.id.as_str();
    let connect = Connect {
        keep_alive: u16::MAX,
        client_id: id.into(),
        clean_start: true,
        properties: None,
    };
    let login = Login::new(id, site.proof(&site.two.key, id));
    let mut bytes = BytesMut::new();
    Packet::Connect(connect, None, Some(login))
        .write(&mut bytes, None)
        .unwrap();
    bytes.to_vec()
}

async fn check_service(site: &Site, node: &mut Client, controller: &mut Client, mark: &str) {
    let status = site.text(&Topic::Status(site.one.id.clone()));
    node.session.publish(message(&status, mark)).await.unwrap();
    controller.message_is(&status, mark).await;
    assert!(node.events.try_recv().is_err(), "the healthy node noticed");
}

#[tokio::test]
async fn malformed_packets_hurt_only_the_connection_that_they_come_on() {
    let site = Site::start().await;
    let mut node = site.connect_node(&site.one).await;
    let mut controller = site.connect_site().await;
    for (number, bytes) in malformed().into_iter().enumerate() {
        send_and_close(dial(&site).await, &bytes).await;
        let mut after_connect = connect_packet(&site);
        after_connect.extend(bytes);
        send_and_close(dial(&site).await, &after_connect).await;
        check_service(&site, &mut node, &mut controller, &format!("{number}")).await;
    }
}

#[tokio::test]
async fn random_bytes_hurt_only_the_connection_that_they_come_on() {
    let site = Site::start().await;
    let mut node = site.connect_node(&site.one).await;
    let mut controller = site.connect_site().await;
    let mut numbers = Numbers(0x9e37_79b9);
    for round in 0..10 {
        for _ in 0..10 {
            send_and_close(dial(&site).await, &numbers.bytes(300)).await;
            let mut after_connect = connect_packet(&site);
            after_connect.extend(numbers.bytes(300));
            send_and_close(dial(&site).await, &after_connect).await;
            // A valid CONNECT with a few bytes turned.
            let mut turned = connect_packet(&site);
            for _ in 0..=numbers.next() % 4 {
                let index = usize::try_from(numbers.next()).unwrap() % turned.len();
                turned[index] ^= 1 << (numbers.next() % 8);
            }
            send_and_close(dial(&site).await, &turned).await;
        }
        check_service(&site, &mut node, &mut controller, &format!("{round}")).await;
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_keeps_nobody_waiting() {
    let site = Site::start().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(site.broker.address()).await.unwrap());
    }
    let mut half_open = dial(&site).await;
    half_open.write_all(&[0x10]).await.unwrap();
    let mut node = site.connect_node(&site.one).await;
    let mut controller = site.connect_site().await;
    check_service(&site, &mut node, &mut controller, "mark").await;
}
