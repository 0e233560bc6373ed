//! The link between two nodes: the seal around everything that they say to each other, and for durable
//! routes what to send, what to take, and when to send again. Messages of live routes pass as they
//! come, each once. Deciders without I/O and without a clock: they are told what happened and when,
//! and say what to do. The agent reads and writes its log and its relay as they say; a simulator does
//! it in tests, with every loss and crash that a seed brings.
//!
//! ```text
//! log ─ stored ─► Sender ─ wants ─► read ─► frame ─► Session::seal ─► relay (loses, repeats, reorders, delays, reads)
//!                   ▲                                                    │
//!                   └─── acknowledgements ◄── Receiver ◄── Session::open ◄┘
//!                                                │ take: store, and only then acknowledge
//!                                                ▼
//!                                             inbox on the disk
//! ```
//!
//! A *stream* is one route from one node to another. Its positions are the sequences of the outlet,
//! which ascend and may have gaps where messages expired or were dropped by policy; what different
//! starts of the sending agent published are different *runs* ([`runs`]). Reliability is
//! per stream: one whose receiver is full holds up no other.

pub mod frame;
pub mod link;
pub mod paths;
pub mod runs;
pub mod receiver;
pub mod sender;
pub mod session;
mod window;
