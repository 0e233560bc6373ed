//! Has a broker forget the session for devices that it keeps, when no route needs it any more.

use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event};
use tokio::time::{Duration, Instant, sleep, timeout};

use super::SESSION_EXPIRY_S;
use super::driver::Driver;
use crate::backoff;
use crate::driver::random;

/// One attempt.
const FORGET_TIMEOUT: Duration = Duration::from_secs(20);

impl Driver {
    /// Begins a session that the broker forgets when it ends, in place of the one that it keeps. Tries
    /// until the broker has forgotten that one by itself.
    pub(super) async fn forget(self) {
        let expired = Instant::now() + Duration::from_secs(SESSION_EXPIRY_S.into());
        let mut failures = 0;
        while Instant::now() < expired {
            let forgotten = timeout(FORGET_TIMEOUT, self.forget_once());
            let forgotten = tokio::select! {
                forgotten = forgotten => forgotten.unwrap_or(false),
                () = self.stop.cancelled() => return,
            };
            if forgotten {
                return;
            }
            failures += 1;
            tokio::select! {
                () = sleep(backoff::delay(failures, random())) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn forget_once(&self) -> bool {
        let Ok(mut mqtt) = self.mqtt() else {
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
