//! Waiting, with a deadline.

use std::net::TcpStream;
use std::ops::Deref;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

pub(crate) use super::program::DEADLINE;

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Tries until `attempt` gives a value.
pub(crate) fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited too long: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// A connection on which no read and no write waits for ever.
pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// A runtime whose end is waited for, but not for ever: what blocks then is left behind.
pub(crate) struct TestRuntime(Option<Runtime>);

impl TestRuntime {
    pub(crate) fn new() -> Self {
        let mut builder = Builder::new_multi_thread();
        Self(Some(
            builder.worker_threads(2).enable_all().build().unwrap(),
        ))
    }

    /// What a future gives, if it does so in time.
    pub(crate) fn within<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.block_on(async { tokio::time::timeout(DEADLINE, future).await.ok() })
    }

    /// What a future gives; it must do so in time.
    #[track_caller]
    pub(crate) fn finish<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let Some(value) = self.within(future) else {
            panic!("waited too long: {what}");
        };
        value
    }
}

impl Deref for TestRuntime {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().unwrap()
    }
}

impl Drop for TestRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(DEADLINE);
        }
    }
}
