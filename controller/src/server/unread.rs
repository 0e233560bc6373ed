//! What a request's answer has left of its body. Who is refused before all of it was read still
//! writes: were the connection closed then, the client would find it broken before it reads why.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

/// More than this is not read: the connection is closed after the answer.
const UNREAD_BYTES_MAX: u64 = 256 * 1024;
/// How long a client may take to send it.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(2);

/// A body that is lent to whoever answers the request.
pub(super) struct Lent {
    body: Option<Incoming>,
    rest: Rest,
}

/// Where the body is put when whoever answers is done with it.
#[derive(Clone, Default)]
pub(super) struct Rest(Arc<Mutex<Option<Incoming>>>);

/// Lends a body.
pub(super) fn lend(body: Incoming) -> (Lent, Rest) {
    let rest = Rest::default();
    let lent = Lent {
        body: Some(body),
        rest: rest.clone(),
    };
    (lent, rest)
}

impl Rest {
    /// Reads what is left, if it is not much.
    pub(super) async fn read(&self) {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(body) = body.filter(|body| !body.is_end_stream()) {
            let _ = tokio::time::timeout(UNREAD_TIMEOUT, discard(body)).await; // closed then
        }
    }
}

async fn discard(mut body: Incoming) {
    let mut bytes = 0;
    while bytes + body.size_hint().lower() <= UNREAD_BYTES_MAX {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        match frame.await {
            Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) | None => return,
        }
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut rest = self.rest.0.lock().unwrap_or_else(PoisonError::into_inner);
        *rest = self.body.take();
    }
}
