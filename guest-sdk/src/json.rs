//! JSON bodies, behind the feature `json`: [`publish`] for the way out, [`Message::json`] for the
//! way in.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::{Message, Rejection};
use crate::publish::PublishError;

/// Publishes `value` as compact JSON, without headers. See [`publish`](crate::publish).
///
/// # Panics
/// When `value` has no JSON form, such as a map whose keys are not texts: a mistake in its type.
pub fn publish<T: Serialize + ?Sized>(outlet: &str, value: &T) -> Result<u64, PublishError> {
    crate::publish(outlet, text(value), &[])
}

/// `value` as compact JSON.
///
/// # Panics
/// As [`publish`].
pub fn text<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("the type of the value has a JSON form")
}

impl Message {
    /// The body read as JSON. A body that is not a `T` gives a rejection that discards the message
    /// and says where it is wrong, so that `?` does the right thing in a handler.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Rejection> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Rejection::discard(format!(
                "the body is not the JSON that was expected: {error}"
            ))
        })
    }
}
