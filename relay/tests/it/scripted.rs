//! A broker that says whatever a test wants, in plaintext on loopback: one connection at a time, packet
//! by packet.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use haar_relay::{Credentials, Endpoint, Identity};
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, Connect, ConnectReturnCode, Disconnect, DisconnectReasonCode,
    Packet, PingResp, Publish, SubAck, Subscribe, SubscribeReasonCode, UnsubAck, UnsubAckReason,
};
use rumqttc::v5::mqttbytes::{Error, QoS};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::soon;

/// Bytes of a packet, at most.
const PACKET_BYTES: u32 = 2 << 20;

/// Waits for clients.
pub(crate) struct Scripted {
    listener: TcpListener,
}

impl Scripted {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        let address: SocketAddr = self.listener.local_addr().unwrap();
        Endpoint::parse(&format!("mqtt://{address}"), None).unwrap()
    }

    pub(crate) fn identity() -> Identity {
        Self::identity_of("one")
    }

    pub(crate) fn identity_of(client_id: &str) -> Identity {
        Identity {
            client_id: client_id.to_owned(),
            credentials: Credentials::Anonymous,
        }
    }

    /// The next client, greeted, with one subscription that is granted.
    pub(crate) async fn subscriber(&self, session_present: bool) -> Connection {
        let (_, mut connection) = self.client().await;
        connection.greet(session_present, None).await;
        connection.subscribed().await;
        connection
    }

    /// The next client and what it says of itself, not greeted yet.
    pub(crate) async fn client(&self) -> (Connect, Connection) {
        let (stream, _) = soon("a client", self.listener.accept()).await.unwrap();
        let mut connection = Connection {
            stream,
            read: BytesMut::new(),
        };
        match connection.packet().await {
            Packet::Connect(connect, ..) => (connect, connection),
            other => panic!("no CONNECT: {other:?}"),
        }
    }
}

/// One client.
pub(crate) struct Connection {
    stream: TcpStream,
    read: BytesMut,
}

impl Connection {
    pub(crate) async fn greet(
        &mut self,
        session_present: bool,
        properties: Option<ConnAckProperties>,
    ) {
        let answer = ConnAck {
            session_present,
            code: ConnectReturnCode::Success,
            properties,
        };
        self.send(&[Packet::ConnAck(answer)]).await;
    }

    /// Refuses the client, and ends the connection.
    pub(crate) async fn refuse(mut self) {
        let answer = ConnAck {
            session_present: false,
            code: ConnectReturnCode::NotAuthorized,
            properties: None,
        };
        self.send(&[Packet::ConnAck(answer)]).await;
    }

    /// The next packet. Pings are answered in passing.
    pub(crate) async fn packet(&mut self) -> Packet {
        loop {
            match Packet::read(&mut self.read, Some(PACKET_BYTES)) {
                Ok(Packet::PingReq(_)) => self.send(&[Packet::PingResp(PingResp)]).await,
                Ok(packet) => return packet,
                // Only DISCONNECT has neither a header nor properties.
                Err(Error::PayloadRequired) => {
                    let reason = DisconnectReasonCode::NormalDisconnection;
                    return Packet::Disconnect(Disconnect::new(reason));
                }
                Err(Error::InsufficientBytes(_)) => {
                    let read = self.stream.read_buf(&mut self.read);
                    let read = soon("a packet", read).await.unwrap();
                    assert!(read > 0, "the client closed the connection");
                }
                Err(error) => panic!("not a packet: {error}"),
            }
        }
    }

    /// Grants the subscription that comes next.
    pub(crate) async fn subscribed(&mut self) -> Subscribe {
        let Packet::Subscribe(subscribe) = self.packet().await else {
            panic!("no SUBSCRIBE");
        };
        let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
        let answer = SubAck {
            pkid: subscribe.pkid,
            return_codes: vec![granted; subscribe.filters.len()],
            properties: None,
        };
        self.send(&[Packet::SubAck(answer)]).await;
        subscribe
    }

    /// Withdraws the subscription of which the next packet says so.
    pub(crate) async fn unsubscribed(&mut self) {
        let Packet::Unsubscribe(unsubscribe) = self.packet().await else {
            panic!("no UNSUBSCRIBE");
        };
        let answer = UnsubAck {
            pkid: unsubscribe.pkid,
            reasons: vec![UnsubAckReason::Success; unsubscribe.filters.len()],
            properties: None,
        };
        self.send(&[Packet::UnsubAck(answer)]).await;
    }

    /// The client says goodbye next.
    pub(crate) async fn left(mut self) {
        let last = self.packet().await;
        assert!(matches!(last, Packet::Disconnect(_)), "{last:?}");
    }

    /// The packet id of the next packet, which acknowledges a message.
    pub(crate) async fn acknowledged(&mut self) -> u16 {
        match self.packet().await {
            Packet::PubAck(answer) => answer.pkid,
            other => panic!("no PUBACK: {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, packets: &[Packet]) {
        let mut bytes = BytesMut::new();
        for packet in packets {
            packet.write(&mut bytes, Some(PACKET_BYTES)).unwrap();
        }
        let written = self.stream.write_all(&bytes);
        soon("the client reads", written).await.unwrap();
    }
}

/// A message; `packet_id` 0 is QoS 0.
pub(crate) fn publish(topic: &str, packet_id: u16, payload: impl Into<Bytes>) -> Packet {
    let quality = match packet_id {
        0 => QoS::AtMostOnce,
        _ => QoS::AtLeastOnce,
    };
    let mut publish = Publish::new(topic, quality, payload, None);
    publish.pkid = packet_id;
    Packet::Publish(publish)
}
