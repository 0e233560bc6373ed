//! How modules are checked, compiled, bound to a target and loaded. One engine configuration for
//! whoever compiles and whoever loads. Used by the agent, the controller and the CLI.

pub mod inspect;
mod bounds;

pub mod configuration;
pub mod compiler;

pub mod artifact;
pub mod load;
