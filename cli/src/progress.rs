//! What people see while they wait: a spinner or a bar on a terminal, a line otherwise, always on
//! stderr, nothing with `--quiet`. Each step ends with a line that says how long it took.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// Whether and how progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Spinners and bars.
    Terminal,
    /// Lines.
    Lines,
    /// Nothing.
    Quiet,
}

/// Something that takes a while. Dropping it without `done` leaves no line behind.
pub(crate) struct Step {
    progress: Progress,
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        if quiet {
            Progress::Quiet
        } else if std::io::stderr().is_terminal() {
            Progress::Terminal
        } else {
            Progress::Lines
        }
    }

    /// Begins a step of unknown length: `doing` is shown with a spinner.
    pub(crate) fn step(self, doing: impl Into<String>) -> Step {
        let doing = doing.into();
        let style =
            ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("a valid template");
        let bar = self.begin(&doing, || ProgressBar::no_length().with_style(style));
        Step {
            progress: self,
            bar,
            started: Instant::now(),
        }
    }

    /// Begins a step of so many bytes, of which `done` are done already.
    pub(crate) fn bytes(self, doing: impl Into<String>, total: u64, done: u64) -> Step {
        let doing = doing.into();
        let style = ProgressStyle::with_template(
            "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}",
        )
        .expect("a valid template")
        .progress_chars("=> ");
        let bar = self.begin(&doing, || {
            ProgressBar::new(total)
                .with_style(style)
                .with_position(done)
        });
        Step {
            progress: self,
            bar,
            started: Instant::now(),
        }
    }

    fn begin(self, doing: &str, bar: impl FnOnce() -> ProgressBar) -> Option<ProgressBar> {
        match self {
            Progress::Quiet => None,
            Progress::Lines => {
                output::note(format!("{doing} ..."));
                None
            }
            Progress::Terminal => {
                let bar = bar().with_message(doing.to_owned());
                bar.set_draw_target(ProgressDrawTarget::stderr());
                bar.enable_steady_tick(Duration::from_millis(100));
                Some(bar)
            }
        }
    }

    /// A line of its own, such as what a person must know before a step.
    pub(crate) fn say(self, text: impl AsRef<str>) {
        if self != Progress::Quiet {
            output::note(text);
        }
    }
}

impl Step {
    /// Changes what is shown; without a terminal, as another line.
    pub(crate) fn now(&self, doing: impl Into<String>) {
        let doing = doing.into();
        match (&self.bar, self.progress) {
            (Some(bar), _) => bar.set_message(doing),
            (None, Progress::Lines) => output::note(format!("{doing} ...")),
            (None, _) => {}
        }
    }

    /// How many bytes are done.
    pub(crate) fn position(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }

    /// Ends the step with what was achieved.
    pub(crate) fn done(self, done: impl AsRef<str>) {
        self.clear();
        if self.progress != Progress::Quiet {
            output::note(format!(
                "{} ({:.1} s)",
                done.as_ref(),
                self.started.elapsed().as_secs_f64()
            ));
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.clear();
    }
}
