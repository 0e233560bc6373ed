//! Standard output and error of an instance: bytes become log lines.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use haar_protocol::log::{Level, Stream};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::logging::Logger;

/// Bytes of an unfinished line that are kept; a longer line is broken here.
const LINE_BYTES_MAX: usize = 4_096;
/// Bytes that a guest may write at a time.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// One of the two streams. Clones write to the same line.
#[derive(Clone)]
pub struct LogStream {
    logger: Logger,
    stream: Stream,
    /// Bytes of the line that has not ended. Only the instance's own calls take it.
    line: Arc<Mutex<Vec<u8>>>,
}

impl LogStream {
    /// Lines of level info.
    pub fn stdout(logger: Logger) -> Self {
        Self {
            logger,
            stream: Stream::Stdout,
            line: Arc::default(),
        }
    }

    /// Lines of level warn.
    pub fn stderr(logger: Logger) -> Self {
        Self {
            logger,
            stream: Stream::Stderr,
            line: Arc::default(),
        }
    }

    fn append(&self, bytes: &[u8]) {
        let mut line = self
            .line
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for byte in bytes {
            if *byte == b'\n' || line.len() >= LINE_BYTES_MAX {
                self.end(&mut line);
            }
            if *byte != b'\n' {
                line.push(*byte);
            }
        }
    }

    fn end(&self, line: &mut Vec<u8>) {
        let level = if self.stream == Stream::Stderr {
            Level::Warn
        } else {
            Level::Info
        };
        self.logger
            .write(level, self.stream, "", &String::from_utf8_lossy(line));
        line.clear();
    }
}

/// The guest ends, or hibernates, in the middle of a line.
impl Drop for LogStream {
    fn drop(&mut self) {
        let Some(line) = Arc::get_mut(&mut self.line) else {
            return; // another clone writes to it
        };
        let line = line
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut line = std::mem::take(line);
        if !line.is_empty() {
            self.end(&mut line);
        }
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.append(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl AsyncWrite for LogStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.append(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
