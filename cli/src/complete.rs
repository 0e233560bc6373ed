//! Completes a command line: which words may stand where the last one is being typed. Commands, options and
//! their values come from the command line's own description, names from the site. It never asks anybody
//! anything, is silent about what fails, and gives the site a second.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Arg, Command, CommandFactory as _, ValueHint};
use haar_protocol::rest::List;
use serde_json::Value;

use crate::client::Client;
use crate::commands::Arguments;
use crate::config::Options;
use crate::kinds::Kind;
use crate::output;
use crate::place::Place;

/// A person waits, for all questions together.
const TIME: Duration = Duration::from_secs(1);

/// What may stand there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// One of these words; any word when there is none.
    Words(Vec<Candidate>),
    /// The name of a file.
    Files,
}

/// A word, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) word: String,
    pub(crate) about: String,
}

/// Completes the last of `words`, which stand behind `haar`.
pub(crate) fn complete(words: &[String]) -> Found {
    let mut command = Arguments::command();
    command.build();
    let end = Instant::now() + TIME;
    find(&command, words, &|kind| {
        let left = end.saturating_duration_since(Instant::now());
        names(kind, words, left).unwrap_or_default()
    })
}

/// What the things of a kind are called in the site that `words` works in, when it says so within `time`.
fn names(kind: Kind, words: &[String], time: Duration) -> Option<Vec<String>> {
    if time.is_zero() {
        return None;
    }
    let context = words.iter().enumerate().find_map(|(index, word)| {
        let next = || words.get(index + 1).map(String::as_str);
        let file = match word.strip_prefix("--context")? {
            "" => next()?,
            rest => rest.strip_prefix('=')?,
        };
        Some(PathBuf::from(file))
    });
    let options = Options {
        context,
        quiet: true,
        ..Options::default()
    };
    let client = Client::within(time, &options).ok()?;
    let list: List<Value> = client.get(kind.path()).ok()?;
    let names = list
        .items
        .iter()
        .filter_map(|item| kind.names(item).into_iter().next());
    let mut names: Vec<String> = names.map(|name| output::printable(&name)).collect();
    names.sort();
    names.dedup();
    Some(names)
}

fn find(root: &Command, words: &[String], names: &dyn Fn(Kind) -> Vec<String>) -> Found {
    let Some((typed, before)) = words.split_last() else {
        return Found::Words(Vec::new());
    };
    let mut place = Place::begin(root);
    for word in before {
        place.pass(word);
    }
    if let Some(option) = place.option {
        return place.values(option, typed, names);
    }
    if !place.is_escaped && typed.starts_with('-') {
        let Some((long, value)) = typed.split_once('=') else {
            return Found::Words(place.options(typed));
        };
        return match place.named(long) {
            Some(option) => before_each(&format!("{long}="), place.values(option, value, names)),
            None => Found::Words(Vec::new()),
        };
    }
    // KIND/NAME is KIND NAME.
    if let Some((kind, name)) = typed.split_once('/')
        && place.wants_kind()
        && Kind::of(kind).is_some()
    {
        let mut apart = before.to_vec();
        apart.extend([kind.to_owned(), name.to_owned()]);
        return before_each(&format!("{kind}/"), find(root, &apart, names));
    }
    let mut found = place.subcommands(typed);
    if let Some(positional) = place.positional() {
        match place.values(positional, typed, names) {
            Found::Files => return Found::Files,
            Found::Words(values) => found.extend(values),
        }
    }
    Found::Words(found)
}

fn before_each(begin: &str, found: Found) -> Found {
    let Found::Words(candidates) = found else {
        return found;
    };
    let begun = |candidate: Candidate| Candidate {
        word: format!("{begin}{}", candidate.word),
        ..candidate
    };
    Found::Words(candidates.into_iter().map(begun).collect())
}

impl<'c> Place<'c> {
    fn options(&self, typed: &str) -> Vec<Candidate> {
        let shown = self
            .command
            .get_arguments()
            .filter(|option| !option.is_hide_set());
        let candidates = shown.filter_map(|option| {
            let word = format!("--{}", option.get_long()?);
            candidate(word, option.get_help().map(ToString::to_string), typed)
        });
        candidates.collect()
    }

    fn subcommands(&self, typed: &str) -> Vec<Candidate> {
        if !self.positionals.is_empty() {
            return Vec::new();
        }
        let shown = self
            .command
            .get_subcommands()
            .filter(|one| !one.is_hide_set());
        let candidates = shown.filter_map(|one| {
            let about = one.get_about().map(ToString::to_string);
            candidate(one.get_name().to_owned(), about, typed)
        });
        candidates.collect()
    }

    /// The argument that is next.
    fn positional(&self) -> Option<&'c Arg> {
        let all: Vec<&Arg> = self.command.get_positionals().collect();
        let many = |arg: &&&Arg| {
            arg.get_num_args()
                .is_some_and(|range| range.max_values() > 1)
        };
        let next = all.get(self.positionals.len());
        next.or_else(|| all.last().filter(many)).copied()
    }

    /// What may be given for an argument or an option.
    fn values(&self, arg: &Arg, typed: &str, names: &dyn Fn(Kind) -> Vec<String>) -> Found {
        if arg.get_value_hint() == ValueHint::AnyPath {
            return Found::Files;
        }
        let possible = arg.get_possible_values();
        if !possible.is_empty() {
            let shown = possible.iter().filter(|one| !one.is_hide_set());
            let candidates = shown.filter_map(|one| {
                let about = one.get_help().map(ToString::to_string);
                candidate(one.get_name().to_owned(), about, typed)
            });
            return Found::Words(candidates.collect());
        }
        let mut candidates = Vec::new();
        for kind in self.kinds(arg) {
            let alone = !arg.is_positional() && kind == Kind::Microservices;
            for name in names(kind) {
                let name = match name.split_once('/') {
                    Some((_, microservice)) if alone => microservice.to_owned(),
                    _ => name,
                };
                candidates.extend(candidate(name, None, typed));
            }
        }
        candidates.dedup();
        Found::Words(candidates)
    }

    /// The kinds of things whose names are values of an argument. An option is called like its kind; for an
    /// argument one of the commands before it is.
    fn kinds(&self, arg: &Arg) -> Vec<Kind> {
        if !arg.is_positional() {
            return Kind::of(arg.get_id().as_str()).into_iter().collect();
        }
        match self.path.as_slice() {
            ["logs"] => vec![Kind::Applications, Kind::Microservices],
            ["get"] => self
                .positionals
                .first()
                .and_then(|word| Kind::of(word))
                .into_iter()
                .collect(),
            path => path
                .iter()
                .find_map(|word| Kind::of(word))
                .into_iter()
                .collect(),
        }
    }
}

/// A word that begins as it is typed, and the first line of what it is.
fn candidate(word: String, about: Option<String>, typed: &str) -> Option<Candidate> {
    let about = about.unwrap_or_default();
    let about = about.lines().next().unwrap_or_default().to_owned();
    word.starts_with(typed).then_some(Candidate { word, about })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that a line may end with; `*` stands for files.
    fn words(line: &str) -> String {
        let mut command = Arguments::command();
        command.build();
        let names = |kind| {
            let names: &[&str] = match kind {
                Kind::Nodes => &["edge-1", "edge-2", "node"],
                Kind::Applications => &["node", "plant"],
                Kind::Microservices => &["plant/echo", "plant/sink"],
                Kind::Modules => &["echo@0.1.0"],
                Kind::Relays => &["embedded"],
                _ => &[],
            };
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let line: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match find(&command, &line, &names) {
            Found::Files => "*".into(),
            Found::Words(found) => {
                let words: Vec<String> = found.into_iter().map(|one| one.word).collect();
                words.join(" ")
            }
        }
    }

    #[test]
    fn names_of_what_the_site_has_are_completed_where_they_are_wanted() {
        for (line, expected) in [
            ("get nodes ", "edge-1 edge-2 node"),
            ("get node edge", "edge-1 edge-2"),
            ("get nodes edge-1 edge-", "edge-1 edge-2"),
            ("get no/edge-2", "no/edge-2"),
            ("get -o wide ms plant/e", "plant/echo"),
            ("get ms/plant/e", "ms/plant/echo"),
            ("get microservices --application p", "plant"),
            ("get microservices --application=p", "--application=plant"),
            ("describe node e", "edge-1 edge-2"),
            ("describe app/p", "app/plant"),
            ("describe no edge-2", "edge-2"),
            ("describe module e", "echo@0.1.0"),
            ("delete relay ", "embedded"),
            ("node rotate-key edge-1", "edge-1"),
            ("relay check em", "embedded"),
            ("logs pl", "plant plant/echo plant/sink"),
            ("logs plant --node edge-2", "edge-2"),
            (
                "dead-letters list --application plant --microservice s",
                "sink",
            ),
            ("--context x get nodes edge-2", "edge-2"),
            // No name of the site.
            ("new ", ""),
        ] {
            assert_eq!(words(line), expected, "{line}");
        }
    }

    #[test]
    fn commands_options_values_and_files_are_completed() {
        for (line, expected) in [
            ("des", "describe"),
            ("describe mod", "module"),
            ("compl", "completions"),
            ("get mic", "microservices"),
            ("get nodes --wa", "--watch"),
            ("get nodes -o j", "json"),
            ("get nodes -oj", ""),
            ("get nodes --output=y", "--output=yaml"),
            ("get --color n", "never"),
            ("push ", "*"),
            ("apply -f ", "*"),
            ("--context ", "*"),
            ("apply -y ", "*"),
            ("publisher trust acme ", "*"),
            ("key new ", "*"),
            ("nonsense ", ""),
        ] {
            assert_eq!(words(line), expected, "{line}");
        }
        assert!(words("").starts_with("new build "), "{}", words(""));
    }
}
