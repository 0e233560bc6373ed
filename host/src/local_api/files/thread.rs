//! The thread of one microservice for everything that may wait for a disk, a file server or a quota's
//! walk. Each microservice has one of its own, so that none waits for the files of another: a hang
//! holds this thread and nothing else. It is started with the first operation and ends when it is idle.
//!
//! wasmtime-wasi hands what blocks to the runtime in whose context it is polled: here to a runtime that
//! has no tasks and one blocking thread. Where the system gives no thread, tokio panics; what is handed over
//! here is answered with an error.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use haar_protocol::text;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Bytes of the thread's stack: what runs there does not recurse.
const STACK_BYTES: usize = 256 << 10;
/// An operation that was given up and still goes on is taken for hanging after this time.
const HANGS_AFTER: Duration = Duration::from_secs(1);
/// Characters of a path that are shown.
const PATH_BYTES_MAX: usize = 200;

/// See the head of this file. One for each microservice, over all its instances.
pub struct FileThread {
    runtime: OnceLock<Runtime>,
    stack_bytes: usize,
    /// How many threads there are: one or none.
    threads: Arc<AtomicUsize>,
    /// Taken for a moment, by the instance's task and by the control loop.
    current: Mutex<Current>,
    freed: Notify,
}

#[derive(Default)]
struct Current {
    /// Operations so far.
    count: u64,
    operation: Option<Operation>,
}

/// What the thread does.
struct Operation {
    number: u64,
    what: &'static str,
    path: String,
    since: Instant,
}

impl Default for FileThread {
    fn default() -> Self {
        Self::with_stack(STACK_BYTES)
    }
}

impl fmt::Debug for FileThread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FileThread").finish_non_exhaustive()
    }
}

impl FileThread {
    fn with_stack(stack_bytes: usize) -> Self {
        Self {
            runtime: OnceLock::new(),
            stack_bytes,
            threads: Arc::default(),
            current: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// Polls an operation of wasmtime-wasi so that what blocks in it does so on this thread. `what` and
    /// `path` name it for people.
    pub async fn run<F: Future>(
        self: &Arc<Self>,
        what: &'static str,
        path: &str,
        f: F,
    ) -> F::Output {
        let handle = self.handle();
        let under_way = self.begin(what, path);
        let mut operation = pin!(f);
        let outcome = poll_fn(|context| {
            let _entered = handle.enter();
            operation.as_mut().poll(context)
        })
        .await;
        under_way.end();
        outcome
    }

    /// Runs what blocks on this thread.
    ///
    /// # Errors
    /// Those of `f`; also when there can be no thread.
    pub async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        path: &str,
        f: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let under_way = self.begin(what, path);
        let outcome = match self.spawn(f) {
            Ok(handed_over) => handed_over.await.map_err(io::Error::other).flatten(),
            Err(error) => Err(error),
        };
        under_way.end();
        outcome
    }

    /// Runs what blocks on this thread, and waits for nothing.
    ///
    /// # Errors
    /// When there can be no thread: then it is dropped.
    pub fn begin_call(&self, f: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.spawn(f).map(drop)
    }

    fn spawn<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let handle = self.handle();
        if self.threads.load(Ordering::Relaxed) == 0 {
            // One that does nothing says whether there can be one, and why not.
            let probe = std::thread::Builder::new().stack_size(self.stack_bytes);
            probe.spawn(|| {})?;
        }
        // It may have taken the last one.
        catch_unwind(AssertUnwindSafe(|| handle.spawn_blocking(f)))
            .map_err(|_| io::Error::other("the system gives no thread"))
    }

    /// Calls what may hand something to this thread and does not wait itself.
    pub fn within<T>(&self, f: impl FnOnce() -> T) -> T {
        let _entered = self.handle().enter();
        f()
    }

    /// True when there was anything to wait for.
    pub fn is_in_use(&self) -> bool {
        self.runtime.get().is_some()
    }

    /// The operation that was begun and has not ended, for people: `` `open` of `a/b` for 7 s ``.
    pub fn unfinished(&self) -> Option<String> {
        self.current().operation.as_ref().map(|operation| {
            let (what, seconds) = (operation.what, operation.since.elapsed().as_secs());
            match operation.path.is_empty() {
                true => format!("`{what}`, for {seconds} s"),
                false => format!("`{what}` of `{}`, for {seconds} s", operation.path),
            }
        })
    }

    /// True when the operation that has not ended takes so long that nobody should wait for it.
    pub fn hangs(&self) -> bool {
        let current = self.current();
        let operation = current.operation.as_ref();
        operation.is_some_and(|one| one.since.elapsed() >= HANGS_AFTER)
    }

    /// Waits until no operation of an earlier instance goes on.
    pub async fn until_free(&self) {
        loop {
            let freed = self.freed.notified();
            if self.current().operation.is_none() {
                return;
            }
            freed.await;
        }
    }

    fn begin(self: &Arc<Self>, what: &'static str, path: &str) -> UnderWay {
        let mut current = self.current();
        current.count += 1;
        let number = current.count;
        current.operation = Some(Operation {
            number,
            what,
            path: text::line(path, PATH_BYTES_MAX),
            since: Instant::now(),
        });
        drop(current);
        UnderWay {
            thread: Arc::clone(self),
            number,
            has_ended: false,
        }
    }

    fn end(&self, number: u64) {
        let is_it = |operation: &mut Operation| operation.number == number;
        if self.current().operation.take_if(is_it).is_some() {
            self.freed.notify_waiters();
        }
    }

    fn handle(&self) -> &Handle {
        let runtime = self.runtime.get_or_init(|| {
            let (started, ended) = (Arc::clone(&self.threads), Arc::clone(&self.threads));
            Builder::new_current_thread()
                .max_blocking_threads(1)
                .thread_stack_size(self.stack_bytes)
                .thread_name("haar-files")
                .on_thread_start(move || {
                    started.fetch_add(1, Ordering::Relaxed);
                })
                .on_thread_stop(move || {
                    ended.fetch_sub(1, Ordering::Relaxed);
                })
                .build()
                .expect("a runtime without drivers asks the system for nothing")
        });
        runtime.handle()
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FileThread {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // a thread that hangs is not waited for
        }
    }
}

/// An operation that somebody waits for. When it is given up, it may go on: it ends when the thread
/// takes what comes behind it.
struct UnderWay {
    thread: Arc<FileThread>,
    number: u64,
    has_ended: bool,
}

impl UnderWay {
    fn end(mut self) {
        self.has_ended = true;
        self.thread.end(self.number);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.has_ended {
            let (behind, number) = (Arc::downgrade(&self.thread), self.number);
            let behind = move || {
                if let Some(thread) = behind.upgrade() {
                    thread.end(number);
                }
            };
            if self.thread.begin_call(behind).is_err() {
                self.thread.end(number); // there is no thread that could be at it
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[tokio::test]
    async fn what_hangs_holds_its_own_thread_and_is_named_until_it_ends() {
        let (one, other) = (Arc::<FileThread>::default(), Arc::<FileThread>::default());
        let (release, released) = sync_channel::<()>(0);
        let hanging = one.call("read", "a/b", move || {
            released.recv().map_err(io::Error::other)
        });
        tokio::select! {
            biased;
            _ = hanging => unreachable!("it hangs"),
            () = tokio::task::yield_now() => {} // given up
        }
        assert!(
            one.unfinished()
                .unwrap()
                .starts_with("`read` of `a/b`, for ")
        );
        assert_eq!(other.call("open", "c", || Ok(7)).await.unwrap(), 7);
        assert_eq!(other.unfinished(), None);
        release.send(()).unwrap();
        one.until_free().await;
        assert_eq!(one.unfinished(), None);
    }

    #[tokio::test]
    async fn a_microservice_that_goes_waits_for_no_thread() {
        let thread = Arc::<FileThread>::default();
        let (held, ended) = sync_channel::<()>(0);
        let begun = thread.begin_call(move || {
            let _ = ended.recv(); // until the test has ended
        });
        begun.unwrap();
        drop(thread);
        drop(held);
    }

    #[tokio::test]
    async fn where_the_system_gives_no_thread_there_is_an_error_and_nothing_hangs() {
        // No system has room for its stack.
        let thread = Arc::new(FileThread::with_stack(1 << (usize::BITS - 16)));
        for _ in 0..2 {
            let called = thread.call("open", "a", || Ok(7)).await;
            assert!(called.is_err(), "{called:?}");
            assert!(thread.begin_call(|| {}).is_err());
        }
        assert_eq!(thread.unfinished(), None);
        drop(thread.begin("read", "b")); // given up
        thread.until_free().await;
    }

    #[tokio::test]
    async fn what_is_polled_within_it_blocks_on_its_thread() {
        let thread = Arc::<FileThread>::default();
        let name = || std::thread::current().name().map(str::to_owned);
        let blocking = async move { tokio::task::spawn_blocking(name).await.unwrap() };
        let ran_on = thread.run("read", "", blocking).await;
        assert_eq!(ran_on.as_deref(), Some("haar-files"));
    }
}
