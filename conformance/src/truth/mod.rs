//! `haar-conformance truth`: a site goes through kills, stops, cuts, deletions, a full disk and a wrong
//! clock, and everything that it says of itself to programs is compared with what we did to it. Prints
//! the number of false words; 0 is the only good one.

mod claims;
mod checker;
mod disk;
mod trials;

use std::path::PathBuf;
use std::time::Instant;

use trials::Trials;

use crate::interrupt;
use crate::programs::{Choice, Programs};
use crate::run::in_folder;
use crate::site::Site;

/// Compare what a site says of itself with what is true
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fail when a trial can't be made, for want of a program or a right
    #[arg(long)]
    no_skips: bool,
    #[command(flatten)]
    programs: Choice,
    /// Keep data and logs of all processes in this directory, which must be empty or not there
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Runs `truth`. False when the site said something false, or a trial was skipped where none may be.
pub(crate) fn truth(arguments: &Arguments) -> anyhow::Result<bool> {
    let programs = Programs::of(&arguments.programs)?;
    interrupt::listen()?;
    let began = Instant::now();
    let (false_words, skipped) = in_folder(arguments.keep.as_deref(), |folder| {
        let mut site = Site::start(programs, folder)?;
        let mut trials = Trials::begin(&mut site)?;
        trials.all()?;
        println!("answers read: {}", trials.answers);
        Ok((trials.false_words.len(), trials.skipped.len()))
    })?;
    println!("time: {} s", began.elapsed().as_secs());
    println!("trials skipped: {skipped}");
    println!("false words: {false_words}");
    Ok(false_words == 0 && (skipped == 0 || !arguments.no_skips))
}
