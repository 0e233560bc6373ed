//! `haar-conformance soak`: very many messages over durable routes of real processes, while
//! connections, processes and disks fail; and at the end an account of every single message.

pub(crate) mod journals;
pub(crate) mod account;
mod plan;
mod disk;
mod fleet;
mod report;

use std::time::{Duration, Instant};

use account::Account;
use fleet::{Fleet, Ledger};
use plan::Fault;
use report::Report;

use crate::interrupt;
use crate::programs::{Choice, Programs};
use crate::report::Format;
use crate::run::in_folder;

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(5);
/// When everything has come, nothing happens for so long.
const QUIET: Duration = Duration::from_secs(2);

/// Send very many messages over durable routes while everything fails
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many messages cross from one node to the other, at least
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    messages: u64,
    /// How many faults, spread over the messages
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    faults: usize,
    /// Which faults, in which order [default: one by chance, which is printed]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Leave the nodes' data on the disk where temporary directories are, and fill none
    #[arg(long)]
    no_small_disks: bool,
    #[command(flatten)]
    programs: Choice,
    /// Keep data, journals and logs in this directory, which must be empty or not there
    #[arg(long, value_name = "DIR")]
    keep: Option<std::path::PathBuf>,
    /// How to write the outcome: `table` for people, `json` for programs
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    /// This process may mount already: see `disk`
    #[arg(long, hide = true)]
    in_namespace: bool,
}

/// Runs `soak`. False when something was lost, repeated, or out of order.
pub(crate) fn soak(arguments: &Arguments) -> anyhow::Result<bool> {
    if !arguments.in_namespace && !arguments.no_small_disks {
        disk::enter_namespace()?;
        eprintln!("no disk can be filled here: this needs `unshare` and the right to mount");
    }
    let programs = Programs::of(&arguments.programs)?;
    interrupt::listen()?;
    let seed = arguments.seed.unwrap_or_else(by_chance);
    eprintln!("seed {seed}");
    let report = in_folder(arguments.keep.as_deref(), |folder| {
        let disks = arguments.in_namespace && !arguments.no_small_disks;
        let faults = plan::faults(seed, arguments.faults, disks);
        let mut fleet = Fleet::start(programs, folder, disks)?;
        let mut run = Run {
            fleet: &mut fleet,
            messages: arguments.messages,
            began: Instant::now(),
            told: Instant::now(),
            injected: Vec::new(),
        };
        let ledger = run.run(&faults)?;
        Ok(run.report(seed, ledger))
    })?;
    match arguments.output {
        Format::Table => println!("{}", report.table()),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report.json())?),
    }
    Ok(report.violations().is_empty())
}

fn by_chance() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |time| u64::from(time.subsec_nanos()))
}

struct Run<'f> {
    fleet: &'f mut Fleet,
    messages: u64,
    began: Instant,
    told: Instant,
    injected: Vec<Fault>,
}

impl Run<'_> {
    fn run(&mut self, faults: &[Fault]) -> anyhow::Result<Ledger> {
        let parts = faults.len() as u64 + 1;
        for (fault, part) in faults.iter().zip(1..) {
            // Messages flow before each fault, but for those that follow at once.
            let flow = self.messages / parts / 4;
            let from = match fault.follows_at_once {
                true => 0,
                false => (self.fleet.handled() + flow).max(self.messages * part / parts),
            };
            while self.fleet.handled() < from {
                self.wait("")?;
            }
            self.tell(fault.name());
            self.fleet.inject(fault)?;
            self.injected.push(*fault);
        }
        // What was handled twice counts once.
        let repeats = |account: &Account| account.repeats + account.rejected;
        let crossing = self.fleet.account()?.into_iter().take(2);
        let repeats: u64 = crossing.map(|(_, account)| repeats(&account)).sum();
        while self.fleet.handled() < self.messages + repeats {
            self.wait("")?;
        }
        self.fleet.stop_publishers()?;
        self.finish()
    }

    /// Waits until everything has come, or nothing comes any more.
    fn finish(&mut self) -> anyhow::Result<Ledger> {
        let (mut bytes, mut since) = (self.fleet.journal_bytes(), Instant::now());
        loop {
            let ended = self.wait("the rest").err();
            interrupt::check()?;
            if bytes != self.fleet.journal_bytes() {
                (bytes, since) = (self.fleet.journal_bytes(), Instant::now());
            }
            if ended.is_none() && since.elapsed() < QUIET {
                continue;
            }
            let ledger = self.fleet.account()?;
            let is_complete = ledger.iter().all(|(_, account)| account.lost == 0);
            if let Some(error) = ended {
                eprintln!("{error:#}");
                return Ok(ledger); // what is not there by now is lost
            }
            if is_complete {
                return Ok(ledger);
            }
        }
    }

    fn wait(&mut self, what: &str) -> anyhow::Result<()> {
        self.fleet.check()?;
        if self.told.elapsed() >= PROGRESS {
            self.tell(what);
        }
        interrupt::pause()
    }

    fn tell(&mut self, what: &str) {
        self.told = Instant::now();
        eprintln!(
            "{:>6.1} s  {:>9} of {} messages  {:>3} faults  {what}",
            self.began.elapsed().as_secs_f64(),
            self.fleet.handled(),
            self.messages,
            self.injected.len(),
        );
    }

    fn report(&self, seed: u64, ledger: Ledger) -> Report {
        Report {
            seed,
            time: self.began.elapsed().saturating_sub(QUIET),
            injected: self.injected.clone(),
            swallowed_bytes: self.fleet.swallowed_bytes(),
            ledger,
        }
    }
}
