//! Haar's agent: runs the microservices of one node, and nothing that is not in its assignment.
//! The map is in ARCHITECTURE.md at the root of the repository.

pub mod cli;
pub mod config;
pub mod policy;
pub mod service_manager;

pub mod machine;
pub mod identity;
pub mod enrol;
pub mod controller;
pub mod modules;
pub mod store;

pub mod accept;
pub mod reconcile;
pub mod agent;

pub mod bus;
pub mod local_api;
pub mod runtime;
pub mod logs;
