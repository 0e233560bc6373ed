//! The agent with a real relay on loopback and real guests; the test is the site.

#![allow(unreachable_pub, reason = "modules of one test binary")]
mod site;
mod node;
mod driver;

mod running;
mod crossing;
mod refusing;
mod failing;
mod offline;
