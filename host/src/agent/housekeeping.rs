//! What is done beside the control loop for the data of microservices: what passed their ports is
//! stored, and what belongs to nobody any more is deleted.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use haar_protocol::assignment::{Assignment, MicroserviceName};
use tokio::sync::watch;

use crate::bus::Bus;
use crate::bus::history::{HistoryPort, Recorder, Wakes};
use crate::bus::log::Bases;
use crate::bus::message::take_count;
use crate::bus::registry;
use crate::runtime::surroundings::Surroundings;
use crate::store::Store;

/// What passes ports is stored no more often than this, unless there is much of it.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Messages that are handled in this time are noted in one go. After a power cut they come again.
const BASES_PAUSE: Duration = Duration::from_millis(100);
/// How often owners are looked at when nothing changes.
const LOOK_PAUSE: Duration = Duration::from_secs(3_600);

/// Whose data is kept: of an assignment in force.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    owners: Vec<MicroserviceName>,
    histories: Vec<HistoryPort>,
}

impl Kept {
    /// As the assignment has it.
    pub(super) fn of(assignment: &Assignment) -> Self {
        let microservices = &assignment.microservices;
        Self {
            owners: microservices.iter().map(|one| one.name.clone()).collect(),
            histories: microservices
                .iter()
                .flat_map(|one| registry::histories(one).map(|(port, ..)| port))
                .collect(),
        }
    }
}

/// Stores what passes ports, for ever.
pub(super) async fn store_histories(bus: Arc<Bus>, store: Store, wakes: Arc<Wakes>) {
    // Also those that a change of the assignment has replaced, until they are empty.
    let mut recorders = Vec::new();
    loop {
        wakes.arrived.notified().await;
        let _ = tokio::time::timeout(STORE_PAUSE, wakes.urgent.notified()).await; // either will do
        let current = bus.recorders();
        recorders.extend(
            current
                .iter()
                .filter(|one| !recorders.iter().any(|known| Arc::ptr_eq(known, one)))
                .cloned()
                .collect::<Vec<_>>(),
        );
        store_waiting(&store, &recorders).await;
        recorders = current;
    }
}

/// Stores what waits in these recorders.
pub(super) async fn store_waiting(store: &Store, recorders: &[Arc<Recorder>]) {
    for recorder in recorders {
        let dropped = take_count(&recorder.dropped);
        if dropped > 0 {
            let HistoryPort { owner, port, .. } = &recorder.port;
            tracing::warn!("{owner}: {dropped} messages of `{port}` are missing in its history");
        }
    }
    let waiting: Vec<_> = recorders
        .iter()
        .filter(|recorder| recorder.has_work())
        .cloned()
        .collect();
    if waiting.is_empty() {
        return;
    }
    if let Err(error) = store.remember(waiting).await
        && !store.is_known_to_fail()
    {
        tracing::error!("histories can't be stored: {error:#}");
    }
}

/// Stores how far the consumers of logs are, for ever.
pub(super) async fn store_bases(bases: Arc<Bases>, store: Store) {
    loop {
        bases.arrived().await;
        let _ = tokio::time::timeout(BASES_PAUSE, bases.many()).await; // either will do
        if let Err(error) = bases.store(&store).await {
            if !store.is_known_to_fail() {
                tracing::error!("how far messages were delivered can't be stored: {error:#}");
            }
            tokio::time::sleep(STORE_PAUSE).await;
        }
    }
}

/// Deletes what belongs to nobody any more, for ever.
pub(super) async fn delete_unowned(
    surroundings: Arc<Surroundings>,
    mut kept: watch::Receiver<Option<Kept>>,
) {
    loop {
        let now_kept = kept.borrow_and_update().clone();
        if let Some(now_kept) = now_kept
            && let Err(error) = look(&surroundings, now_kept, &kept).await
            && !surroundings.store.is_known_to_fail()
        {
            tracing::error!("data that nobody owns can't be deleted: {error:#}");
        }
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_PAUSE, kept.changed()).await {
            return; // the control loop is gone
        }
    }
}

/// The prefix of directories that wait for their deletion. No application's name begins with it.
const ASIDE: &str = ".ended.";

/// Renames the private directories of microservices, so that nothing finds them any more. The next look
/// deletes them.
pub(super) fn set_aside(
    surroundings: &Surroundings,
    names: &[MicroserviceName],
) -> std::io::Result<()> {
    for name in names {
        let directory = surroundings.private_directory(name);
        let mut number = 0;
        let aside = loop {
            let called = format!("{ASIDE}{}.{}.{number}", name.application, name.microservice);
            let aside = surroundings.private_directories.join(called);
            match aside.exists() {
                true => number += 1,
                false => break aside,
            }
        };
        match std::fs::rename(&directory, aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Deletes what was set aside, in this run of the agent or in an earlier one.
fn delete_set_aside(private: &Path) {
    let entries = std::fs::read_dir(private).into_iter().flatten();
    for entry in entries.flatten() {
        let is_aside = entry.file_name().to_string_lossy().starts_with(ASIDE);
        if is_aside && let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::error!("can't remove {}: {error}", entry.path().display());
        }
    }
}

async fn look(
    surroundings: &Surroundings,
    now_kept: Kept,
    latest: &watch::Receiver<Option<Kept>>,
) -> anyhow::Result<()> {
    let Kept { owners, histories } = now_kept;
    let store = &surroundings.store;
    store.follow_histories(owners.clone(), histories).await?;
    if let Err(error) = store.remove_old_copy().await
        && !store.is_known_to_fail()
    {
        tracing::warn!("the old copy of the database stays: {error:#}");
    }
    let private = surroundings.private_directories.clone();
    tokio::task::spawn_blocking(move || delete_set_aside(&private)).await?;
    for name in store.follow_owners(owners).await? {
        tracing::info!(microservice = %name, "its data is deleted: it has been gone for a day");
        let is_back = |kept: &Kept| kept.owners.contains(&name);
        if latest.borrow().as_ref().is_some_and(is_back) {
            continue;
        }
        let directory = surroundings.private_directory(&name);
        tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::error!("can't remove {}: {error}", directory.display());
            }
            _ => {}
        })
        .await?;
    }
    Ok(())
}
