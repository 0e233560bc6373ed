//! Renews the certificates of relays that nodes run, once a day.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::change;
use crate::db::Database;
use crate::site::Site;

const INTERVAL: Duration = Duration::from_secs(86_400);

/// Runs until `stop`; begins at once.
pub(super) async fn run(site: Arc<Site>, database: Database, stop: CancellationToken) {
    let mut days = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = days.tick() => {}
        }
        let site = Arc::clone(&site);
        let renewed = database.write(move |write| change::renew_certificates(write, &site));
        if let Err(failure) = renewed.await {
            tracing::error!(%failure, "certificates of relays could not be renewed");
        }
    }
}
