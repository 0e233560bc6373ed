//! The agent with a real relay on loopback and real guests; the test is the site.

#![allow(unreachable_pub, reason = "modules of one test binary")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod site;
mod node;
mod driver;
mod mosquitto;

mod running;
mod crossing;
mod durable;
mod copied;
mod crashing;
mod damaging;
mod clocks;
mod topics;
mod refusing;
mod rotating;
mod policing;
mod compiling;
mod filing;
mod forging;
mod failing;
mod fetching;
mod recovering;
mod storing;
mod asking;
mod offline;

mod batches;
mod requests;
mod kept_timers;
mod facts;
mod config_versions;
mod levels;
mod stalling;
mod stopping;
mod supervised;
mod hibernating;
mod lives;
mod adjusting;
