//! `haar demo`: a fleet of three nodes on this machine that runs the fleet-telemetry example, from
//! source to a live table, with nothing left behind. Every step is what a person would do by hand:
//! build, start a site, enrol, sign, trust, push, apply, watch.

mod graph;
mod screen;
mod spike;
mod stage;
mod summary;
mod watch;
mod words;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::Options;
use crate::error::{CommandError, Exit, Result};
use crate::terminal::{Event, Screen};
use crate::{files, interrupt, output};
use screen::Look;
use spike::Spike;
use stage::Stage;
use watch::{View, Watch};

const REFRESH: Duration = Duration::from_secs(1);
/// How often a line is written where there is no terminal to draw on.
const LINE_PERIOD: Duration = Duration::from_secs(5);

/// Build, sign and run the example fleet on this machine, and watch it
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// End by itself after so many seconds of watching
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Keep everything in this directory instead of a temporary one
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Directory of the example [default: examples/fleet-telemetry, here or above]
    #[arg(long, value_name = "DIR")]
    app: Option<PathBuf>,
}

/// Where the processes of the demo keep their data.
enum Workplace {
    /// Goes away with the demo.
    Temporary(tempfile::TempDir),
    /// Stays.
    Kept(PathBuf),
}

/// Runs `haar demo`.
pub(crate) fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    interrupt::hold();
    let example = find_example(arguments.app.as_deref())?;
    let workplace = Workplace::new(arguments.keep.as_deref())?;
    let result = perform(arguments, options, &example, workplace.path());
    workplace.leave()?;
    result
}

fn perform(arguments: &Arguments, options: &Options, example: &Path, folder: &Path) -> Result<()> {
    let mut stage = Stage::set(example, folder, options.progress())?;
    let mut watch = Watch::begin(stage.client(), &stage.manifest.name, stage.agent_ids())?;
    let watched = watch_for(arguments, options, &mut stage, &mut watch);
    // The last look is taken before anything stops.
    let last = watched.and_then(|interrupted| Ok((interrupted, watch.look()?)));
    watch.ask_to_stop();
    let stopping = options
        .progress()
        .step("Stopping: agents first, then the controller");
    let killed = stage.stop();
    watch.end();
    match killed.as_slice() {
        [] => stopping.done("Stopped in order"),
        killed => output::warning(format!(
            "had to kill {}: it did not end in time",
            killed.join(" and ")
        )),
    }
    let (interrupted, view) = last?;
    summary::tell(&view, options)?;
    if interrupted && arguments.seconds.is_some() {
        return Err(CommandError::interrupted());
    }
    if !killed.is_empty() {
        return Err(CommandError::failure("not every process ended in order"));
    }
    summary::check(&view)
}

/// Shows the fleet until it is time; true when somebody asked to end before.
fn watch_for(
    arguments: &Arguments,
    options: &Options,
    stage: &mut Stage,
    watch: &mut Watch,
) -> Result<bool> {
    let end = arguments
        .seconds
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let screen = match options.is_json() {
        true => None,
        false => Screen::take()?,
    };
    let ended = match screen {
        Some(screen) => draw(screen, end, stage, watch),
        None => write_lines(end, options, stage, watch),
    };
    match ended {
        Err(error) if error.exit == Exit::Interrupted => Ok(true),
        other => other.map(|()| false),
    }
}

/// Draws a page every second until it is time, or somebody wants to quit.
fn draw(
    mut screen: Screen,
    end: Option<Instant>,
    stage: &mut Stage,
    watch: &mut Watch,
) -> Result<()> {
    let look = Look::here();
    let mut spike = Spike::new(stage.manifest.clone());
    let show = |screen: &mut Screen, spike: &Spike, view: &View| {
        let has_keys = screen.has_keys();
        screen.draw(|size| screen::page(view, spike.shown(view), size, look, has_keys))
    };
    loop {
        stage.check()?;
        let view = watch.look()?;
        spike.make(stage.client(), &view)?;
        show(&mut screen, &spike, &view)?;
        let next = Instant::now() + until_next(end);
        loop {
            match screen.wait(next.saturating_duration_since(Instant::now()))? {
                Event::Key('q' | 'Q') => return Ok(()),
                Event::Key('s' | 'S') => {
                    spike.want();
                    spike.make(stage.client(), &view)?;
                }
                Event::Key(_) | Event::Resized => {}
                Event::Time => break,
            }
            show(&mut screen, &spike, &view)?;
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            return Ok(());
        }
    }
}

/// Writes a line now and then until it is time.
fn write_lines(
    end: Option<Instant>,
    options: &Options,
    stage: &mut Stage,
    watch: &mut Watch,
) -> Result<()> {
    let mut next_line = Instant::now();
    loop {
        stage.check()?;
        let view = watch.look()?;
        if Instant::now() >= next_line && !options.quiet {
            output::note(screen::line(&view));
            next_line += LINE_PERIOD;
        }
        interrupt::sleep(until_next(end))?;
        if end.is_some_and(|end| Instant::now() >= end) {
            return Ok(());
        }
    }
}

/// How long the next look may wait.
fn until_next(end: Option<Instant>) -> Duration {
    end.map_or(REFRESH, |end| {
        end.saturating_duration_since(Instant::now()).min(REFRESH)
    })
}

/// The example's directory: as given, else here or above, else where this binary was built.
fn find_example(given: Option<&Path>) -> Result<PathBuf> {
    const EXAMPLE: &str = "examples/fleet-telemetry";
    let is_example = |folder: &Path| folder.join("application.yaml").is_file();
    if let Some(folder) = given {
        return if is_example(folder) {
            Ok(folder.to_owned())
        } else {
            Err(CommandError::not_found(
                "no_example",
                format!("there is no application.yaml in {}", folder.display()),
            ))
        };
    }
    let here = std::env::current_dir().unwrap_or_default();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    here.ancestors()
        .chain(repository)
        .map(|folder| folder.join(EXAMPLE))
        .find(|folder| is_example(folder))
        .ok_or_else(|| {
            CommandError::not_found("no_example", format!("{EXAMPLE} is neither here nor above"))
                .hinted("Run it in a checkout of Haar, or give the directory with --app.")
        })
}

impl Workplace {
    fn new(keep: Option<&Path>) -> Result<Self> {
        let failed = |error: std::io::Error| {
            CommandError::failure(format!(
                "can't make a directory for the demo: {}",
                crate::error::reason(&error)
            ))
        };
        let Some(folder) = keep else {
            return tempfile::Builder::new()
                .prefix("haar-demo-")
                .tempdir()
                .map(Workplace::Temporary)
                .map_err(failed);
        };
        files::make_private_folder(folder).map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        if std::fs::read_dir(&folder).map_err(failed)?.next().is_some() {
            return Err(CommandError::refused(
                "not_empty",
                format!("{} is not empty", folder.display()),
            )
            .hinted("The demo begins with a new site: give --keep a new directory."));
        }
        Ok(Workplace::Kept(folder))
    }

    fn path(&self) -> &Path {
        match self {
            Workplace::Temporary(folder) => folder.path(),
            Workplace::Kept(folder) => folder,
        }
    }

    fn leave(self) -> Result<()> {
        match self {
            Workplace::Temporary(folder) => {
                let path = folder.path().to_owned();
                folder
                    .close()
                    .map_err(crate::error::about_file("remove", &path))
            }
            Workplace::Kept(folder) => {
                output::note(format!("Everything is kept in {}.", folder.display()));
                Ok(())
            }
        }
    }
}
