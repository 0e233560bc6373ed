//! A stream into a file of a tree with a quota: the stream of wasmtime-wasi, with every write
//! charged first. A write that finds no room waits for a look at the tree, as a write to a slow
//! disk does; when there is no room even then, it fails and the stream is closed.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};

use super::account::{Account, QuotaExceeded, UnderWay};
use super::admission::known_size;
use super::ledger::Charge;
use super::thread::FileThread;

/// Where a stream writes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Position {
    /// From here on.
    At(u64),
    /// At the end of the file, wherever that is.
    End,
}

/// See the head of this file.
pub(super) struct MeteredStream {
    inner: DynOutputStream,
    file: Arc<File>,
    position: Position,
    account: Arc<Account>,
    state: State,
}

enum State {
    Ready,
    /// Written, perhaps not yet by the disk.
    Writing(#[expect(dead_code, reason = "ends the operation when it is dropped")] UnderWay),
    /// To be written when there is room.
    Held(Bytes),
    /// There was no room; to be told once.
    Failed,
    Closed,
}

impl MeteredStream {
    /// Charges what goes into `file` by way of `inner`.
    pub(super) fn new(
        inner: DynOutputStream,
        file: Arc<File>,
        position: Position,
        account: Arc<Account>,
    ) -> Self {
        Self {
            inner,
            file,
            position,
            account,
            state: State::Ready,
        }
    }

    /// What writing so many bytes now may add to the tree.
    fn charge(&self, bytes: usize) -> std::io::Result<Charge> {
        let bytes = bytes as u64;
        let size = known_size(&self.file)?;
        Ok(match self.position {
            Position::At(position) => Charge::up_to(size, position.saturating_add(bytes)),
            Position::End => Charge::append(size, bytes),
        })
    }

    fn advance(&mut self, bytes: usize) {
        if let Position::At(position) = &mut self.position {
            *position = position.saturating_add(bytes as u64);
        }
    }

    /// Tells of a failure once; then the stream is closed.
    fn check(&mut self) -> StreamResult<()> {
        match self.state {
            State::Failed => {
                self.state = State::Closed;
                Err(full())
            }
            State::Closed => Err(StreamError::Closed),
            State::Ready | State::Writing(_) | State::Held(_) => Ok(()),
        }
    }

    /// Writes what was held back, when there is room for it now.
    async fn write_held(&mut self) {
        let State::Held(bytes) = &self.state else {
            return;
        };
        let bytes = bytes.clone();
        let under_way = match self.charge(bytes.len()) {
            Ok(charge) => self.account.charge(charge).await.ok(),
            Err(_) => None,
        };
        let Some(under_way) = under_way else {
            self.state = State::Failed;
            return;
        };
        let length = bytes.len();
        self.state = match self.inner.write(bytes) {
            Ok(()) => State::Writing(under_way),
            Err(_) => State::Failed,
        };
        self.advance(length);
    }
}

fn full() -> StreamError {
    StreamError::LastOperationFailed(wasmtime::Error::new(QuotaExceeded))
}

fn failed(error: std::io::Error) -> StreamError {
    StreamError::LastOperationFailed(error.into())
}

#[wasmtime_wasi::async_trait]
impl Pollable for MeteredStream {
    async fn ready(&mut self) {
        self.write_held().await;
        self.inner.ready().await;
        if matches!(self.state, State::Writing(_)) {
            self.state = State::Ready;
        }
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for MeteredStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.check()?;
        if !matches!(self.state, State::Ready) {
            return Err(StreamError::trap(
                "write not permitted: check_write not called first",
            ));
        }
        let charge = self.charge(bytes.len()).map_err(failed)?;
        let length = bytes.len();
        match self.account.try_charge(charge) {
            Some(under_way) => {
                self.inner.write(bytes)?;
                self.state = State::Writing(under_way);
                self.advance(length);
            }
            None => self.state = State::Held(bytes),
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.check()?;
        self.inner.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.check()?;
        if matches!(self.state, State::Held(_)) {
            return Ok(0);
        }
        let permit = self.inner.check_write()?;
        if permit > 0 {
            self.state = State::Ready;
        }
        Ok(permit)
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.ready().await;
        self.check()?;
        let length = bytes.len();
        let charge = self.charge(length).map_err(failed)?;
        let Ok(under_way) = self.account.charge(charge).await else {
            self.state = State::Closed;
            return Err(full());
        };
        let outcome = self.inner.blocking_write_and_flush(bytes).await;
        drop(under_way);
        match outcome {
            Ok(()) => self.advance(length),
            // Some of it may have been written.
            Err(_) => self.account.freed(),
        }
        outcome
    }

    async fn cancel(&mut self) {
        self.inner.cancel().await;
        self.state = State::Closed;
    }
}

/// A stream of wasmtime-wasi whose reads and writes block on the microservice's thread for files.
pub(super) struct OnThread<S> {
    inner: S,
    thread: Arc<FileThread>,
}

impl<S> OnThread<S> {
    pub(super) fn new(inner: S, thread: Arc<FileThread>) -> Self {
        Self { inner, thread }
    }
}

#[wasmtime_wasi::async_trait]
impl<S: Pollable> Pollable for OnThread<S> {
    async fn ready(&mut self) {
        self.thread.run("stream", "", self.inner.ready()).await;
    }
}

#[wasmtime_wasi::async_trait]
impl InputStream for OnThread<DynInputStream> {
    fn read(&mut self, bytes: usize) -> StreamResult<Bytes> {
        self.thread.within(|| self.inner.read(bytes))
    }

    async fn blocking_read(&mut self, bytes: usize) -> StreamResult<Bytes> {
        let read = self.inner.blocking_read(bytes);
        self.thread.run("read", "", read).await
    }

    async fn cancel(&mut self) {
        self.thread.run("read", "", self.inner.cancel()).await;
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for OnThread<DynOutputStream> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.thread.within(|| self.inner.write(bytes))
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.thread.within(|| self.inner.flush())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.inner.check_write()
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        let written = self.inner.blocking_write_and_flush(bytes);
        self.thread.run("write", "", written).await
    }

    async fn cancel(&mut self) {
        self.thread.run("write", "", self.inner.cancel()).await;
    }
}
