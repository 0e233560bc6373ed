//! Has a broker forget the session for devices that it keeps, when no route needs it any more.

use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event};
use tokio::time::{Duration, Instant, sleep, timeout};

use super::driver::Driver;
use super::former::Phase;
use crate::backoff;
use crate::driver::random;

/// One attempt.
const FORGET_TIMEOUT: Duration = Duration::from_secs(20);

impl Driver {
    /// Begins a session that the broker forgets when it ends, in place of the one that it keeps. Tries
    /// until the broker has forgotten that one by itself.
    pub(super) async fn forget(self) {
        let expiry_s = self.wanted.borrow().expiry_s;
        let expired = Instant::now() + Duration::from_secs(expiry_s.into());
        let mut failures = 0;
        loop {
            let forgotten = async {
                let is_former = self.has_former || self.phase != Phase::Own;
                let former = is_former && self.forget_one(true).await;
                // One of the two is refused where the broker knows other users.
                self.forget_one(false).await || former
            };
            let forgotten = tokio::select! {
                forgotten = forgotten => forgotten,
                () = self.stop.cancelled() => return,
            };
            if forgotten || Instant::now() >= expired {
                return;
            }
            failures += 1;
            tokio::select! {
                () = sleep(backoff::delay(failures, random())) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// One attempt, for the present session or that of agents before. False when it failed.
    pub(super) async fn forget_one(&self, is_former: bool) -> bool {
        let forgotten = timeout(FORGET_TIMEOUT, self.end_session(is_former));
        forgotten.await.unwrap_or(false)
    }

    async fn end_session(&self, is_former: bool) -> bool {
        let Ok(mut mqtt) = self.mqtt(is_former) else {
            return false;
        };
        mqtt.set_clean_start(true);
        mqtt.set_session_expiry_interval(Some(0));
        let (client, mut event_loop) = AsyncClient::new(mqtt, 1);
        let mut is_forgotten = false;
        loop {
            match event_loop.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    is_forgotten = true;
                    drop(client.try_disconnect());
                }
                Ok(_) => {}
                Err(_) => return is_forgotten,
            }
        }
    }
}
