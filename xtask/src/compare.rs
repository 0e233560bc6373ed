//! `cargo xtask compare COMMIT`: rates of this tree against those of another commit, in turns in one
//! run, because machines are noisy. Both sides measure what this tree's benchmarks measure; the support
//! files of each commit stay, because they match its interfaces.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::command::{output, run};

/// Each benchmark, the parts of it that run, and the file that replaces the other commit's.
const BENCHES: [(&str, &[&str], &str); 3] = [
    ("links", &["own"], "host/benches/links/main.rs"),
    ("agent", &["local", "crossing"], "host/benches/agent.rs"),
    ("durable", &[], "host/benches/durable/main.rs"),
];
/// Variables that `cargo run` sets for this tree, and that a build of another tree must not inherit.
const OF_THIS_TREE: [&str; 3] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "LIBSQLITE3_FLAGS", // from .cargo/config.toml
];

/// Compare rates with another commit's, in turns
///
/// Builds both from nothing the first time, which takes most of an hour on two cores.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The commit to compare with
    commit: String,
    /// How often each is run
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    turns: u16,
    /// Only these benchmarks [default: links, agent and durable]
    #[arg(long = "bench", value_name = "NAME", value_delimiter = ',')]
    benches: Vec<String>,
}

/// The values of each figure, one per turn.
type Figures = BTreeMap<String, Vec<f64>>;

/// Does it.
pub(crate) fn compare(arguments: &Arguments) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = root.canonicalize().context("the repository is gone")?;
    let chosen: Vec<_> = BENCHES
        .into_iter()
        .filter(|(name, ..)| {
            arguments.benches.is_empty() || arguments.benches.iter().any(|wanted| wanted == name)
        })
        .collect();
    if chosen.is_empty() {
        bail!("there is no such benchmark: give --bench links, agent or durable");
    }
    let other = Worktree::of(&root, &arguments.commit)?;
    // One target folder per side: in a shared one cargo takes artefacts of one side for the other's.
    let folder = root.join("target/compare");
    let sides = [
        (root.as_path(), folder.join("this")),
        (other.path.as_path(), folder.join("other")),
    ];
    let mut programs = [Vec::new(), Vec::new()];
    for (name, _, file) in &chosen {
        programs[0].push(build(sides[0].0, &sides[0].1, name)?);
        programs[1].push(build_other(&root, &other, &sides[1].1, name, file)?);
    }
    let mut figures = [Figures::new(), Figures::new()];
    for turn in 0..usize::from(arguments.turns) {
        eprintln!("== turn {} of {}", turn + 1, arguments.turns);
        for (index, (_, words, _)) in chosen.iter().enumerate() {
            // The sides alternate, so that a machine that warms up favours neither.
            for side in [turn % 2, 1 - turn % 2] {
                let mut command = Command::new(&programs[side][index]);
                // As `cargo bench` starts them.
                command.current_dir(sides[side].0.join("host")).args(*words);
                for (name, figure) in output(&mut command)?.lines().filter_map(figure) {
                    figures[side].entry(name).or_default().push(figure);
                }
            }
        }
    }
    print(&figures, arguments.turns.into())
}

/// The other commit, checked out outside of this tree; inside of it, cargo would merge this tree's
/// configuration into the build. The worktree is removed when this value is dropped.
struct Worktree {
    root: PathBuf,
    path: PathBuf,
}

impl Worktree {
    fn of(root: &Path, commit: &str) -> anyhow::Result<Self> {
        let object = format!("{commit}^{{commit}}");
        let verify = [
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &object,
        ];
        output(git(root).args(verify)).with_context(|| {
            format!("there is no commit `{commit}` here: `git fetch` it, or see `git log`")
        })?;
        // One fixed path for each tree, so that cargo can reuse built dependencies.
        let name = root.to_string_lossy().replace('/', "-");
        let path = std::env::temp_dir().join(format!("haar-compare{name}"));
        let worktree = Self {
            root: root.to_owned(),
            path,
        };
        // An interrupted run may have left a worktree behind, in any state.
        worktree.remove()?;
        run(git(root)
            .args(["worktree", "add", "--quiet", "--force", "--detach"])
            .arg(&worktree.path)
            .arg(commit))
        .with_context(|| {
            format!(
                "can't check `{commit}` out to {}: is there room?",
                worktree.path.display()
            )
        })?;
        Ok(worktree)
    }

    fn remove(&self) -> anyhow::Result<()> {
        if self.path.exists() {
            std::fs::remove_dir_all(&self.path).with_context(|| {
                format!(
                    "can't remove {}, which an earlier run has left: remove it",
                    self.path.display()
                )
            })?;
        }
        run(git(&self.root).args(["worktree", "prune"]))
    }
}

impl Drop for Worktree {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("warning: {error:#}");
        }
    }
}

fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder);
    command
}

/// Builds a benchmark of the other commit: with what this tree measures, or, where that does not compile
/// there, with what the commit itself measures under the same names.
fn build_other(
    root: &Path,
    other: &Worktree,
    target: &Path,
    name: &str,
    file: &str,
) -> anyhow::Result<PathBuf> {
    let theirs = other.path.join(file);
    let kept = std::fs::read(&theirs).ok();
    let folder = theirs.parent().context("a file without a folder")?;
    std::fs::create_dir_all(folder)?;
    std::fs::copy(root.join(file), &theirs)
        .with_context(|| format!("can't put {file} into {}", other.path.display()))?;
    let why = match build(&other.path, target, name) {
        Ok(program) => return Ok(program),
        Err(why) => why,
    };
    let missing = || {
        format!(
            "the other commit has no benchmark `{name}` that compiles: name others with --bench"
        )
    };
    let kept = kept.ok_or(why).with_context(missing)?;
    eprintln!(
        "note: {file} of this tree does not compile with the other commit: its own is taken, and only \
         what both call the same is compared"
    );
    std::fs::write(&theirs, kept)?;
    build(&other.path, target, name).with_context(missing)
}

/// Builds one benchmark. Returns its program.
fn build(tree: &Path, target: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    for variable in OF_THIS_TREE {
        cargo.env_remove(variable);
    }
    let said = output(
        cargo
            .current_dir(tree)
            .env("CARGO_TARGET_DIR", target)
            .args([
                "bench",
                "--no-run",
                "--message-format=json-render-diagnostics",
            ])
            // Both, because features differ otherwise.
            .args(["-p", "haar", "-p", "haar-host", "--bench", name]),
    )?;
    let program = said
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.with_context(|| format!("cargo named no program of the benchmark {name}"))
}

/// The figure of a line such as `local: 64 B: 590000 messages/s (…)`, with the text before it.
fn figure(line: &str) -> Option<(String, f64)> {
    let (before, _) = line.split_once(" messages/s")?;
    let (name, figure) = before.rsplit_once(' ')?;
    let words: Vec<_> = name.split_whitespace().collect();
    Some((words.join(" "), figure.parse().ok()?))
}

/// Prints a table that compares the turns of both sides.
fn print(figures: &[Figures; 2], turns: usize) -> anyhow::Result<()> {
    let mut rows = 0;
    println!(
        "ratio of medians; median, least and largest ratio of a turn; messages/s of this tree and the other"
    );
    for (name, ours) in &figures[0] {
        let theirs = figures[1].get(name).map_or(&[][..], Vec::as_slice);
        if ours.len() != turns || theirs.len() != turns {
            continue; // a line whose text changes from turn to turn
        }
        let ratios: Vec<f64> = ours
            .iter()
            .zip(theirs)
            .map(|(one, two)| one / two)
            .collect();
        let (low, middle, high) = spread(&ratios);
        let (ours, theirs) = (spread(ours).1, spread(theirs).1);
        println!(
            "  {:.3}; {middle:.3}, {low:.3} to {high:.3}; {ours:>8.0}, {theirs:>8.0}  {}",
            ours / theirs,
            name.trim_end_matches(':'),
        );
        rows += 1;
    }
    ensure!(
        rows > 0,
        "nothing was measured under the same name on both sides: compare with a later commit"
    );
    Ok(())
}

/// The minimum, the median and the maximum.
fn spread(figures: &[f64]) -> (f64, f64, f64) {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    };
    (sorted[0], median, sorted[sorted.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_the_figure_before_its_unit_and_the_words_before_that() {
        let line = "   1 publishers,    64 B:     3200 messages/s,   0.5 times the syncs";
        assert_eq!(
            figure(line),
            Some(("1 publishers, 64 B:".to_owned(), 3200.0))
        );
        assert_eq!(figure("memory: 31 KiB"), None);
        assert_eq!(figure("several messages/s"), None);
    }

    #[test]
    fn the_middle_of_an_even_number_lies_between_two() {
        assert_eq!(spread(&[4.0, 1.0, 2.0, 8.0]), (1.0, 3.0, 8.0));
        assert_eq!(spread(&[4.0, 1.0, 2.0]), (1.0, 2.0, 4.0));
    }
}
