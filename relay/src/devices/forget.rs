//! Has a broker forget the session for devices that it keeps, when no route needs it any more.

use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event};
use tokio::time::{Duration, Instant, sleep, timeout};

use super::driver::{Driver, device_mqtt};
use super::former::Phase;
use crate::backoff;
use crate::driver::random;
use crate::endpoint::Endpoint;
use crate::reason::DisconnectReason;
use crate::session::Identity;

/// One attempt.
const FORGET_TIMEOUT: Duration = Duration::from_secs(20);

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The broker has forgotten the session.
    Forgotten,
    /// It does not accept the identity: where it knows other users, there is no such session.
    Refused,
    /// The session may still be there.
    Failed,
}

impl Driver {
    /// Begins a session that the broker forgets when it ends, in place of the one that it keeps, and
    /// in place of that of agents before where there may be one. Tries until the broker has forgotten
    /// them by itself.
    pub(super) async fn forget(self) {
        let expiry_s = self.wanted.borrow().expiry_s;
        let expired = Instant::now() + Duration::from_secs(expiry_s.into());
        let mut left = vec![false];
        if self.phase != Phase::Own {
            left.insert(0, true);
        }
        let (mut failures, mut is_one_forgotten) = (0, false);
        loop {
            let mut kept = Vec::new();
            let mut is_refused = true;
            for is_former in left {
                let attempt = tokio::select! {
                    attempt = self.forget_one(is_former) => attempt,
                    () = self.stop.cancelled() => return,
                };
                is_refused &= attempt != Attempt::Failed;
                match attempt {
                    Attempt::Forgotten => is_one_forgotten = true,
                    Attempt::Refused | Attempt::Failed => kept.push(is_former),
                }
            }
            left = kept;
            // One of the two is refused where the broker knows other users; not both.
            if (is_one_forgotten && is_refused) || Instant::now() >= expired {
                return;
            }
            failures += 1;
            tokio::select! {
                () = sleep(backoff::delay(failures, random())) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// One attempt, for the present session or that of agents before.
    pub(super) async fn forget_one(&self, is_former: bool) -> Attempt {
        let (endpoint, identity) = (&self.options.endpoint, self.identity(is_former));
        match end_session(endpoint, identity).await {
            Ok(()) => Attempt::Forgotten,
            Err(DisconnectReason::Refused(_)) => Attempt::Refused,
            Err(_) => Attempt::Failed,
        }
    }
}

/// Has a broker end the session of a client id, with what waits in it: begins one in its place that
/// ends with its connection. One attempt.
///
/// # Errors
/// Why the broker did not accept the connection.
pub async fn end_session(endpoint: &Endpoint, identity: &Identity) -> Result<(), DisconnectReason> {
    let mut mqtt = device_mqtt(endpoint, identity)?;
    mqtt.set_clean_start(true);
    mqtt.set_session_expiry_interval(Some(0));
    let (client, mut event_loop) = AsyncClient::new(mqtt, 1);
    let ended = async {
        let mut is_accepted = false;
        loop {
            match event_loop.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    is_accepted = true;
                    drop(client.try_disconnect());
                }
                Ok(_) => {}
                Err(_) if is_accepted => return Ok(()),
                Err(error) => return Err(DisconnectReason::from(error).without_answer()),
            }
        }
    };
    let ended = timeout(FORGET_TIMEOUT, ended).await;
    ended.unwrap_or(Err(DisconnectReason::Unanswered))
}
