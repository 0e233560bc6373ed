//! What the crate promises to people and peers, as tests: forms that are written down as golden
//! files, parsers that survive anything, and signatures that hold. Golden files are written anew by
//! `UPDATE_GOLDEN=1 cargo test -p haar-protocol --all-features`; read the difference before you commit it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod fixtures;
mod fitting;
mod golden;

mod names;
mod manifests;
mod gallery;
mod grants;
mod documents;
mod newer;
mod frames;
mod topics;
mod identities;
mod requests;
mod rest;
mod modules;
mod versions;
mod interoperability;
#[cfg(feature = "schema")]
mod schema;
