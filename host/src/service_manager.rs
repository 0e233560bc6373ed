//! What the agent tells the service manager that started it: that it runs, that its control loop
//! goes round, that it ends. Datagrams of `KEY=value` to a socket, as sd_notify(3) has them; so
//! little of it that a library would be the larger part. Whoever started it without such a socket
//! hears nothing, and nothing else is different.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Supervision;

/// How long telling that it runs may take: while a machine boots, the queue of its service manager
/// may be full.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// A disk that has not answered for this long is reported.
pub const DISK_IS_SLOW: Duration = Duration::from_secs(10);

/// For this long the service manager hears that a control loop which waits for a disk is alive. Cards and
/// disks that fail answer after a minute or two, or never.
const DISK_PATIENCE: Duration = Duration::from_secs(300);

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Watchdog>,
}

/// When the control loop tells that it goes round.
#[derive(Debug)]
struct Watchdog {
    /// The service manager gives the agent up when it has heard nothing for so long.
    interval: Duration,
    /// When the loop tells it in passing.
    told_from: Instant,
    /// When the loop is woken to tell it.
    wake: Instant,
}

impl Watchdog {
    fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            told_from: now,
            wake: now,
        }
    }

    /// It was told, or could not be told and is to be tried again soon.
    ///
    /// A loop that turns anyhow tells it a little early: then it is never woken for this alone.
    fn turned(&mut self, now: Instant, told: bool) {
        let (early, late) = if told { (3, 2) } else { (10, 10) };
        self.told_from = now + self.interval / early;
        self.wake = now + self.interval / late;
    }
}

impl ServiceManager {
    /// The one that the environment names.
    ///
    /// # Errors
    /// When its socket can't be used: it would give the agent up, so the agent does not begin.
    pub fn new(supervision: &Supervision) -> io::Result<Self> {
        let Some(name) = &supervision.socket else {
            return Ok(Self::default());
        };
        let address = address(name)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        let watchdog = supervision
            .watchdog
            .map(|interval| Watchdog::new(interval, Instant::now()));
        Ok(Self {
            socket: Some((socket, address)),
            watchdog,
        })
    }

    /// The agent runs: its last assignment is in force.
    pub fn ready(&self) {
        self.tell("READY=1");
        // From now on nothing waits for it: this is the thread of sockets and timers.
        if let Some((socket, _)) = &self.socket
            && let Err(error) = socket.set_nonblocking(true)
        {
            tracing::warn!("telling the service manager may take time: {error}");
        }
    }

    /// The agent ends, in order.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// The control loop went round once more.
    pub fn turned(&mut self, now: Instant) {
        let due = self.watchdog.as_ref().map(|watchdog| watchdog.told_from);
        if due.is_none_or(|due| now < due) {
            return;
        }
        let told = self.tell("WATCHDOG=1");
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.turned(now, told);
        }
    }

    /// Runs a turn of the control loop that may wait for the disk, and for nothing else. A turn that waits
    /// yields its thread, so the service manager goes on hearing of it, for [`DISK_PATIENCE`] at most; it
    /// hears nothing of a loop that blocks its thread.
    pub async fn wait_for_disk(&mut self, mut turn: Pin<&mut dyn Future<Output = ()>>) {
        let began = Instant::now();
        let (patient_until, mut complain) = (began + DISK_PATIENCE, began + DISK_IS_SLOW);
        let mut now = began;
        loop {
            let wake = self.wake_of_wait(now, patient_until, complain);
            tokio::select! {
                biased;
                () = &mut turn => break,
                () = tokio::time::sleep_until(wake) => {}
            }
            now = Instant::now();
            let waited = now - began;
            if now < patient_until {
                self.turned(now);
            }
            if now >= complain {
                tracing::warn!(
                    "the disk has not answered for {} s: the agent waits",
                    waited.as_secs()
                );
                complain = now + waited;
            }
        }
        let waited = began.elapsed();
        if waited >= DISK_IS_SLOW {
            tracing::warn!("the disk has answered after {} s", waited.as_secs());
        }
    }

    /// When a turn that waits is looked at next. Without patience nothing is told any more, so a time at
    /// which that was due must not wake it: it would be due for ever.
    fn wake_of_wait(&self, now: Instant, patient_until: Instant, complain: Instant) -> Instant {
        let wake = self.wake().filter(|_| now < patient_until);
        wake.map_or(complain, |wake| wake.min(complain))
    }

    /// When the control loop must go round at the latest.
    pub fn wake(&self) -> Option<Instant> {
        self.watchdog.as_ref().map(|watchdog| watchdog.wake)
    }

    /// True when it was told, or there is nobody to tell.
    fn tell(&self, state: &str) -> bool {
        let Some((socket, address)) = &self.socket else {
            return true;
        };
        match socket.send_to_addr(state.as_bytes(), address) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!("the service manager did not hear {state}: {error}");
                false
            }
        }
    }
}

/// The address of a socket: a path, or a name in the abstract namespace after an `@` (unix(7)).
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "NOTIFY_SOCKET is neither a path nor an abstract name",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);

    fn manager(name: &str) -> ServiceManager {
        ServiceManager::new(&Supervision {
            socket: Some(name.into()),
            watchdog: Some(INTERVAL),
        })
        .unwrap()
    }

    fn heard(socket: &UnixDatagram) -> Option<String> {
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 64];
        let count = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..count].to_vec()).unwrap())
    }

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let of_path = UnixDatagram::bind(&path).unwrap();
        manager(path.to_str().unwrap()).ready();
        assert_eq!(heard(&of_path).unwrap(), "READY=1");

        let name = format!("haar-test-{}", std::process::id());
        let abstract_one = SocketAddr::from_abstract_name(&name).unwrap();
        let of_name = UnixDatagram::bind_addr(&abstract_one).unwrap();
        manager(&format!("@{name}")).stopping();
        assert_eq!(heard(&of_name).unwrap(), "STOPPING=1");

        for wrong in ["", "notify", "vsock:2:1234"] {
            assert!(address(OsStr::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_loop_that_turns_often_tells_its_watchdog_in_passing_and_is_never_woken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut manager = manager(path.to_str().unwrap());
        let began = Instant::now();
        let mut told = 0;
        for second in 0..600 {
            let now = began + Duration::from_secs(second);
            assert!(second == 0 || manager.wake().unwrap() > now);
            manager.turned(now);
            told += usize::from(heard(&socket).is_some_and(|state| state == "WATCHDOG=1"));
        }
        assert_eq!(told, 30);
        let last = began + Duration::from_secs(580);
        assert_eq!(manager.wake().unwrap(), last + INTERVAL / 2);
    }

    #[test]
    fn a_watchdog_that_could_not_be_told_is_told_again_long_before_its_time_is_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let mut manager = manager(path.to_str().unwrap());
        let now = Instant::now();
        manager.turned(now); // nobody listens yet
        assert_eq!(manager.wake().unwrap(), now + INTERVAL / 10);
        let socket = UnixDatagram::bind(&path).unwrap();
        manager.turned(now + INTERVAL / 10);
        assert_eq!(heard(&socket).unwrap(), "WATCHDOG=1");
    }

    #[tokio::test]
    async fn a_turn_that_never_waits_tells_nothing_and_one_that_blocks_its_thread_neither() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut manager = manager(path.to_str().unwrap());
        manager.watchdog = Some(Watchdog::new(Duration::from_millis(20), Instant::now()));
        manager.wait_for_disk(pin!(async {})).await;
        let hang = async {
            let began = std::time::Instant::now();
            while began.elapsed() < Duration::from_millis(100) {
                std::hint::spin_loop();
            }
        };
        manager.wait_for_disk(pin!(hang)).await;
        assert_eq!(heard(&socket), None);
    }

    #[tokio::test]
    async fn a_wait_without_patience_is_not_woken_by_what_was_due_before() {
        let folder = tempfile::tempdir().unwrap();
        let mut manager = manager(folder.path().join("notify").to_str().unwrap());
        let began = Instant::now();
        manager.turned(began);
        let due = manager.wake().unwrap();
        let (patient_until, complain) = (due + INTERVAL, due + 3 * INTERVAL);
        let wake = |now| manager.wake_of_wait(now, patient_until, complain);
        assert_eq!(wake(began), due);
        // Such as after the system was suspended.
        assert_eq!(wake(due + 2 * INTERVAL), complain);
    }

    #[test]
    fn without_a_service_manager_nobody_is_told_and_nobody_is_woken() {
        let mut nobody = ServiceManager::new(&Supervision::default()).unwrap();
        nobody.ready();
        nobody.turned(Instant::now());
        nobody.stopping();
        assert!(nobody.wake().is_none());
    }
}
