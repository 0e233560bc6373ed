//! `cargo xtask compare COMMIT`: rates of this tree against those of another commit, in turns in one
//! run, because machines are noisy. The benchmarks are those of this tree for both, as far as the
//! other commit can build them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::command::{output, run};

/// Benchmarks and what of them is run, and the files that take the place of the other commit's.
const BENCHES: [(&str, &[&str], &str); 3] = [
    ("links", &["own"], "host/benches/links"),
    ("agent", &["local", "crossing"], "host/benches/agent.rs"),
    ("durable", &[], "host/benches/durable"),
];

/// Compare rates with another commit's, in turns
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The commit to compare with
    commit: String,
    /// How often each is run
    #[arg(long, default_value_t = 10)]
    turns: usize,
    /// Only these benchmarks [default: links, agent and durable]
    #[arg(long = "bench", value_name = "NAME", value_delimiter = ',')]
    benches: Vec<String>,
}

/// What each figure was, turn by turn.
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
        bail!("no such benchmark: there are links, agent and durable");
    }
    let folder = root.join("target/compare");
    let other = folder.join("worktree");
    check_out(&root, &other, &arguments.commit)?;
    for (_, _, files) in &chosen {
        replace(&root.join(files), &other.join(files))?;
    }
    let mut programs = Vec::new();
    for tree in [&root, &other] {
        let built: Vec<PathBuf> = chosen
            .iter()
            .map(|(name, ..)| build(tree, &folder.join("build"), name))
            .collect::<anyhow::Result<_>>()?;
        programs.push(built);
    }
    let mut figures = [Figures::new(), Figures::new()];
    for turn in 0..arguments.turns {
        eprintln!("== turn {} of {}", turn + 1, arguments.turns);
        for (index, (_, words, _)) in chosen.iter().enumerate() {
            // Who goes first changes, so that a machine that warms up favours neither.
            for side in [turn % 2, 1 - turn % 2] {
                let mut command = Command::new(&programs[side][index]);
                let said = output(command.current_dir(&root).args(*words))?;
                for (name, figure) in said.lines().filter_map(figure) {
                    figures[side].entry(name).or_default().push(figure);
                }
            }
        }
    }
    print(&figures, arguments.turns);
    Ok(())
}

/// Puts the commit into a worktree of its own, or moves the one that is there.
fn check_out(root: &Path, other: &Path, commit: &str) -> anyhow::Result<()> {
    let git = |folder: &Path| {
        let mut command = Command::new("git");
        command.arg("-C").arg(folder);
        command
    };
    if other.join(".git").exists() {
        return run(git(other).args(["checkout", "--quiet", "--force", "--detach", commit]));
    }
    run(git(root)
        .args(["worktree", "add", "--quiet", "--detach"])
        .arg(other)
        .arg(commit))
}

/// Puts a file or folder in the place of another.
fn replace(from: &Path, to: &Path) -> anyhow::Result<()> {
    let parent = to.parent().context("a file without a folder")?;
    run(Command::new("cp").arg("--recursive").arg(from).arg(parent))
}

/// Builds one benchmark. Returns its program, under a name that another build leaves alone.
fn build(tree: &Path, target: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let said = output(
        Command::new("cargo")
            .current_dir(tree)
            .env("CARGO_TARGET_DIR", target)
            .args(["bench", "--no-run", "--message-format=json"])
            .args(["-p", "haar", "-p", "haar-host", "--bench", name]),
    )?;
    let program = said
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.with_context(|| format!("cargo named no program of the benchmark {name}"))
}

/// The figure of a line such as `local: 64 B: 590000 messages/s (…)`, with what stands before it.
fn figure(line: &str) -> Option<(String, f64)> {
    let (before, _) = line.split_once(" messages/s")?;
    let (name, figure) = before.rsplit_once(' ')?;
    let words: Vec<_> = name.split_whitespace().collect();
    Some((words.join(" "), figure.parse().ok()?))
}

/// A table of what was measured in each turn on both sides.
fn print(figures: &[Figures; 2], turns: usize) {
    println!(
        "ratio of medians; median, least and largest ratio of a turn; messages/s of this tree and the other"
    );
    for (name, ours) in &figures[0] {
        let theirs = figures[1].get(name).map_or(&[][..], Vec::as_slice);
        if ours.len() != turns || theirs.len() != turns {
            continue; // a line that says another thing each time
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
    }
}

/// The least, the median and the largest.
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
