//! Everything that Haar's processes exchange, and nothing else: ids, keys and signatures, the
//! manifest, the assignment, the status, messages, topics, proofs, tokens and REST bodies.
//!
//! Used by every other crate but the guest's. It never does input or output and never reads a
//! clock: time and randomness are arguments. A value of one of these types is valid; text and
//! bytes from outside are parsed here, once.

pub mod ids;
pub mod keys;
pub mod secret;
pub mod module;
pub mod signed;

pub mod number;
pub mod quantity;
pub mod limits;
pub mod grants;
pub mod exports;
pub mod demand;
pub mod manifest;

pub mod mqtt;
pub mod relay;
pub mod assignment;
pub mod status;
pub mod frame;
pub mod log;
pub mod dead_letters;
pub mod request;

pub mod topics;
pub mod proof;
pub mod token;
pub mod text;
pub mod context;
pub mod rest;
