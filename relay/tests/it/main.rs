//! What the relay and its sessions promise, tried with real parts on loopback over TLS: the embedded
//! broker, sessions of ours, and hostile clients made of rumqttc or of bytes.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod clients;
mod receiver;
mod scripted;
mod support;

mod broker;
mod devices;
mod former;
mod floods;
mod hostile;
mod identity;
mod refusals;
mod revocation;
mod rights;
mod session;
mod slow;
mod wills;
