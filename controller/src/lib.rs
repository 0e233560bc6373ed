//! Haar's controller: the REST API, the database, the module store, placement and assignments, and
//! the embedded relay. The bin `haar-controller` and the role `haar controller` call [`cli::run`];
//! nobody else depends on this crate, and it never depends on the agent.
//!
//! ```text
//! api ──► change ──► plan (pure)        api: REST; change: what a request does to the site
//!  │        │                           plan: where instances run, what each node is told
//!  └────────┴──► db (one thread) ──snapshots──► relay_link, followers
//! relay_link ──► intake (pure) ──► db   intake: what nodes report
//! ```

pub mod cli;

mod bucket;
mod clock;
mod config;
mod descriptors;
mod failure;

mod site;
mod db;
mod module_store;
mod compilation;

mod plan;
mod change;
mod intake;
mod health;
mod overview;
mod losses;
mod differences;

mod api;
mod relay_link;
mod relay_view;
mod route_view;
mod server;

pub mod controller;
