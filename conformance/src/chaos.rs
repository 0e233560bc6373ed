//! A relay's bad network: a TCP proxy on a loopback port, between agents and a relay, that does on
//! demand what networks do. It knows nothing of what it carries. Ends with this value.
//!
//! | what | what both ends see |
//! | --- | --- |
//! | `cut(Cut::Reset)` | the connection ends at once (RST); what was on its way is lost |
//! | `cut(Cut::Finish)` | the connection ends as if the other end closed it (FIN) |
//! | `deafen` | nothing: bytes are taken, and lost, until somebody notices (a half-open connection) |
//! | `delay`, `throttle` | every byte comes, later, or slowly |
//!
//! Cuts and deafness are of the connections that are there; new ones are good.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Bytes that are carried at a time.
const CHUNK_BYTES: usize = 16 << 10;
/// Chunks that may be on their way, each direction.
const CHUNKS_MAX: usize = 256;

/// How a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// With RST.
    Reset,
    /// With FIN.
    Finish,
}

/// What the network is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Weather {
    delay: Duration,
    bytes_per_second: Option<u32>,
    /// Connections of this number and before are cut so.
    cut: Option<(u64, Cut)>,
    /// Connections of this number and before are deaf.
    deaf_upto: u64,
}

/// What was carried.
#[derive(Debug, Default)]
struct Carried {
    connections: AtomicU64,
    swallowed_bytes: AtomicU64,
}

/// A running proxy.
pub(crate) struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    carried: Arc<Carried>,
    /// It runs as long as this is open.
    running: Option<watch::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Proxy {
    /// Carries what comes to a port of its own to `relay`.
    pub(crate) fn start(relay: SocketAddr) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("can't start a proxy")?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let (weather, looking) = watch::channel(Weather::default());
        let (running, mut ended) = watch::channel(());
        let carried = Arc::<Carried>::default();
        let counting = Arc::clone(&carried);
        let thread = std::thread::Builder::new()
            .name("chaos".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(&listener, relay, &looking, &counting) => {}
                        _ = ended.changed() => {}
                    }
                });
            })?;
        Ok(Self {
            address,
            weather,
            carried,
            running: Some(running),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that were taken and lost.
    pub(crate) fn swallowed_bytes(&self) -> u64 {
        self.carried.swallowed_bytes.load(Ordering::Relaxed)
    }

    /// Connections that were made through it.
    pub(crate) fn connections(&self) -> u64 {
        self.carried.connections.load(Ordering::Relaxed)
    }

    /// Cuts the connections that are there.
    pub(crate) fn cut(&self, cut: Cut) {
        let last = self.connections();
        self.weather
            .send_modify(|weather| weather.cut = Some((last, cut)));
    }

    /// Takes what comes on the connections that are there, and carries nothing.
    pub(crate) fn deafen(&self) {
        let last = self.connections();
        self.weather.send_modify(|weather| weather.deaf_upto = last);
    }

    /// Carries everything so much later from now on.
    pub(crate) fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Carries so many bytes in a second at most, each direction of a connection; or as many as come.
    pub(crate) fn throttle(&self, bytes_per_second: Option<u32>) {
        self.weather
            .send_modify(|weather| weather.bytes_per_second = bytes_per_second);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic has been printed
        }
    }
}

async fn accept(
    listener: &TcpListener,
    relay: SocketAddr,
    weather: &watch::Receiver<Weather>,
    carried: &Arc<Carried>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue; // it was gone before it was here
        };
        let number = carried.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let link = Link {
            number,
            weather: weather.clone(),
            carried: Arc::clone(carried),
        };
        connections.spawn(link.serve(client, relay));
        while connections.try_join_next().is_some() {}
    }
}

/// One connection through the proxy.
struct Link {
    number: u64,
    weather: watch::Receiver<Weather>,
    carried: Arc<Carried>,
}

impl Link {
    async fn serve(self, mut client: TcpStream, relay: SocketAddr) {
        let Ok(mut relay) = TcpStream::connect(relay).await else {
            return; // the client sees that nobody is there
        };
        let _ = client.set_nodelay(true);
        let _ = relay.set_nodelay(true);
        let cut = {
            let (client_reads, client_writes) = client.split();
            let (relay_reads, relay_writes) = relay.split();
            tokio::select! {
                () = self.carry(client_reads, relay_writes) => Cut::Finish,
                () = self.carry(relay_reads, client_writes) => Cut::Finish,
                cut = self.cut() => cut,
            }
        };
        if cut == Cut::Reset {
            // Closing sends RST then.
            let _ = client.set_zero_linger();
            let _ = relay.set_zero_linger();
        }
    }

    async fn cut(&self) -> Cut {
        let mut weather = self.weather.clone();
        let is_cut = |weather: &Weather| weather.cut.is_some_and(|(upto, _)| self.number <= upto);
        match weather.wait_for(is_cut).await {
            Ok(weather) => weather.cut.map_or(Cut::Finish, |(_, cut)| cut),
            Err(_) => Cut::Finish, // the proxy ends
        }
    }

    /// Carries one direction until it ends.
    async fn carry(&self, from: ReadHalf<'_>, to: WriteHalf<'_>) {
        let (queue, queued) = mpsc::channel(CHUNKS_MAX);
        tokio::join!(self.take(from, queue), self.give(queued, to));
        if self.is_deaf() {
            std::future::pending::<()>().await; // nobody is told of the end either
        }
    }

    async fn take(&self, mut from: ReadHalf<'_>, queue: mpsc::Sender<(Instant, Vec<u8>)>) {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let Ok(length @ 1..) = from.read(&mut chunk).await else {
                return;
            };
            chunk.truncate(length);
            let due = Instant::now() + self.weather.borrow().delay;
            if queue.send((due, chunk)).await.is_err() {
                return;
            }
        }
    }

    async fn give(&self, mut queue: mpsc::Receiver<(Instant, Vec<u8>)>, mut to: WriteHalf<'_>) {
        while let Some((due, chunk)) = queue.recv().await {
            tokio::time::sleep_until(due).await;
            let bytes = chunk.len() as u64;
            if self.is_deaf() {
                let swallowed = &self.carried.swallowed_bytes;
                swallowed.fetch_add(bytes, Ordering::Relaxed);
                continue;
            }
            let rate = self.weather.borrow().bytes_per_second;
            if let Some(rate) = rate {
                tokio::time::sleep(Duration::from_secs(bytes) / rate.max(1)).await;
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    }

    fn is_deaf(&self) -> bool {
        self.number <= self.weather.borrow().deaf_upto
    }
}

#[cfg(test)]
mod tests;
