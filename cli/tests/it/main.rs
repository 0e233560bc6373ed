//! The program `haar` as people and scripts meet it: command lines in, text and exit codes out.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod haar;
mod modules;
#[allow(
    dead_code,
    reason = "shared with the tests of the controller; each uses a part"
)]
mod program;

mod build;
mod command_line;
mod dead_letters;
mod fingers;
mod keys;
mod manifests;
mod naming;
mod new;
mod reach;
mod rotation;
mod signing;
mod site;
mod system;
mod up;
mod upload;
