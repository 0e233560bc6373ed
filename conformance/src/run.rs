//! `haar-conformance run`: one site, one case after the other, and what came of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;

use crate::attack::Measuring;
use crate::case::{Case, Node, Skipped};
use crate::cases::Set;
use crate::programs::{Choice, Programs};
use crate::report::{self, Format, Outcome, Verdict};
use crate::requirements::Requirement;
use crate::scene::Scene;
use crate::site::Site;
use crate::{cases, interrupt, junit};

/// Run the cases
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only cases with this text in their name or in the id of a requirement
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// A part of the cases
    #[arg(long, value_name = "SET", default_value = "all")]
    set: Set,
    /// Fail when a case can't be tried, for want of a toolchain
    #[arg(long)]
    no_skips: bool,
    #[command(flatten)]
    programs: Choice,
    /// Write the outcome as JUnit XML, too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Keep data and logs of all processes in this directory, which must be empty or not there
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// How to write the outcome: `table` for people, `json` for programs
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    /// How often neighbours are measured alone and under attack
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// How many messages of a neighbour are measured each time
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    samples: u32,
}

/// Runs `run`. False when a case failed, or was skipped where none may be.
pub(crate) fn run(arguments: &Arguments, _: &[Requirement]) -> anyhow::Result<bool> {
    let cases: Vec<&'static Case> = arguments
        .set
        .cases()
        .into_iter()
        .filter(|case| cases::matches(case, &arguments.filter))
        .collect();
    anyhow::ensure!(
        !cases.is_empty(),
        "no case of this set matches `{}`: see `haar-conformance list`",
        arguments.filter
    );
    let programs = Programs::of(&arguments.programs)?;
    interrupt::listen()?;
    let began = Instant::now();
    let outcomes = in_folder(arguments.keep.as_deref(), |folder| {
        let mut site = Site::start(programs, folder)?;
        let mut outcomes = Vec::new();
        for case in cases {
            interrupt::check()?;
            let outcome = one(&mut site, case, arguments);
            if arguments.output == Format::Table {
                println!("{}", report::line(&outcome));
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    })?;
    let time = began.elapsed();
    if let Some(file) = &arguments.junit {
        std::fs::write(file, junit::document(&outcomes, time))
            .with_context(|| format!("can't write {}", file.display()))?;
    }
    match arguments.output {
        Format::Table => println!("{}", report::summary(&outcomes, time)),
        Format::Json => println!(
            "{}",
            serde_json::to_string_pretty(&report::json(&outcomes, time))?
        ),
    }
    Ok(!outcomes.iter().any(|outcome| match outcome.verdict {
        Verdict::Ok => false,
        Verdict::Skipped(_) => arguments.no_skips,
        Verdict::Failed(_) => true,
    }))
}

/// Calls `work` with the directory of the run: a temporary one, or the one to keep.
pub(crate) fn in_folder<T>(
    keep: Option<&Path>,
    work: impl FnOnce(&Path) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let Some(kept) = keep else {
        let folder = tempfile::tempdir().context("can't make a temporary directory")?;
        return work(folder.path());
    };
    std::fs::create_dir_all(kept).with_context(|| format!("can't make {}", kept.display()))?;
    let is_empty = std::fs::read_dir(kept)?.next().is_none();
    anyhow::ensure!(is_empty, "{} is not empty", kept.display());
    work(&kept.canonicalize()?)
}

/// Runs one case on its node. A panic is a failure of the case.
fn one(site: &mut Site, case: &'static Case, arguments: &Arguments) -> Outcome {
    let began = Instant::now();
    let mut outcome = Outcome {
        case,
        time: began.elapsed(),
        verdict: Verdict::Ok,
        diagnosis: String::new(),
        notes: Vec::new(),
        figures: Vec::new(),
    };
    if let Err(error) = act(site, case, arguments, &mut outcome) {
        outcome.verdict = match error.downcast_ref::<Skipped>() {
            Some(Skipped(why)) => Verdict::Skipped(why.clone()),
            None => Verdict::Failed(format!("{error:#}")),
        };
    }
    outcome.time = began.elapsed();
    outcome
}

fn act(
    site: &mut Site,
    case: &'static Case,
    arguments: &Arguments,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    site.ensure_controller()?;
    let agent = match case.node {
        Node::Shared(name) => site.take_shared(name)?,
        Node::Own { enrol, settings } => {
            let name = case.name.replace('_', "-");
            let name = name[..name.len().min(62)].trim_end_matches('-');
            site.new_agent(name, enrol, settings)?
        }
    };
    let measuring = Measuring {
        rounds: arguments.rounds,
        samples: arguments.samples,
    };
    let mut scene = Scene::new(site, agent, case.name, measuring);
    let result = catch_unwind(AssertUnwindSafe(|| {
        (case.run)(&mut scene)?;
        scene.check_agent()
    }))
    .unwrap_or_else(|panic| Err(anyhow::anyhow!("the case panicked: {}", said(&*panic))));
    outcome.notes = std::mem::take(&mut scene.notes);
    outcome.figures = std::mem::take(&mut scene.figures);
    // After a failure nobody knows what the agent does: the next case gets a fresh one.
    if result.is_err() {
        outcome.diagnosis = scene.diagnosis();
    }
    let shared = matches!(case.node, Node::Shared(_));
    let ended = scene.end(shared && result.is_ok());
    result?;
    if let (Some(agent), Node::Shared(name)) = (ended?, case.node) {
        site.give_back(name, agent);
    }
    Ok(())
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without words").to_owned()
}
