//! The kinds of things that a site has: the words that people use for them, where the API lists them, and
//! what one of them is called. For every command that takes a kind, and for completion.

use std::ffi::OsString;

use clap::ValueEnum;
use serde_json::Value;

use crate::place::Place;

/// Commands that take KIND NAME, and KIND/NAME as well.
pub(crate) const WITH_KIND: [&str; 3] = ["get", "describe", "delete"];
/// The fewest digits by which a digest is named.
pub(crate) const DIGITS_MIN: usize = 6;

/// What a site has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Devices that run an agent (no)
    #[value(aliases = ["node", "no"])]
    Nodes,
    /// Pushed WebAssembly components (mod)
    #[value(aliases = ["module", "mod"])]
    Modules,
    /// What was applied (app)
    #[value(aliases = ["application", "app", "apps"])]
    Applications,
    /// What runs, one line for each however many instances it has (ms)
    #[value(aliases = ["microservice", "ms"])]
    Microservices,
    /// Instances of microservices: what should run where, and what does (in)
    #[value(aliases = ["instance", "in"])]
    Instances,
    /// Ways of messages, with their counters (rt)
    #[value(aliases = ["route", "rt"])]
    Routes,
    /// Keys whose modules run (pub)
    #[value(aliases = ["publisher", "pub"])]
    Publishers,
    /// Brokers between the site and its nodes (rl)
    #[value(aliases = ["relay", "rl"])]
    Relays,
    /// What happened (ev)
    #[value(aliases = ["event", "ev"])]
    Events,
}

impl Kind {
    /// The kind that `word` stands for: its plural, its singular or its short form.
    pub(crate) fn of(word: &str) -> Option<Self> {
        Self::from_str(word, false).ok()
    }

    /// One of them, as people and `-o name` call it.
    pub(crate) fn singular(self) -> &'static str {
        self.plural().trim_end_matches('s')
    }

    /// Where the API lists them.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Kind::Instances => "microservices",
            kind => kind.plural(),
        }
    }

    /// All of them, as people call them.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Kind::Nodes => "nodes",
            Kind::Modules => "modules",
            Kind::Applications => "applications",
            Kind::Microservices => "microservices",
            Kind::Instances => "instances",
            Kind::Routes => "routes",
            Kind::Publishers => "publishers",
            Kind::Relays => "relays",
            Kind::Events => "events",
        }
    }

    /// What an item of the API's list is called, the name that means it alone first.
    pub(crate) fn names(self, item: &Value) -> Vec<String> {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        match self {
            Kind::Nodes | Kind::Applications | Kind::Publishers | Kind::Relays => {
                vec![text("name")]
            }
            Kind::Modules => vec![
                format!("{}@{}", text("name"), text("version")),
                text("name"),
                text("digest"),
            ],
            Kind::Microservices | Kind::Instances => vec![
                format!("{}/{}", text("application"), text("microservice")),
                text("microservice"),
            ],
            Kind::Routes => vec![
                text("id"),
                format!("{}/{}", text("application"), text("from")),
                text("from"),
            ],
            Kind::Events => vec![item["id"].to_string()],
        }
    }

    /// True when `name` is what an item of the API's list is called.
    pub(crate) fn is_called(self, item: &Value, name: &str) -> bool {
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let is_digest = self == Kind::Modules && digits.len() >= DIGITS_MIN;
        let begins = |digest: &str| digest.trim_start_matches("sha256:").starts_with(digits);
        self.names(item).iter().any(|one| one == name)
            || (is_digest && item["digest"].as_str().is_some_and(begins))
    }
}

/// A command line with each form of a kind as its command knows it: `KIND/NAME` is `KIND NAME`, and
/// `describe` and `delete` have a command for the singular. Further names may repeat the kind.
pub(crate) fn apart(line: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let words: Vec<OsString> = line.into_iter().collect();
    if !words
        .iter()
        .any(|word| WITH_KIND.iter().any(|one| word == one))
    {
        return words;
    }
    let mut root = <crate::commands::Arguments as clap::CommandFactory>::command();
    root.build();
    let mut place = Place::begin(&root);
    let mut apart: Vec<OsString> = words.iter().take(1).cloned().collect();
    // The kind, when it came with a name.
    let mut kind = None;
    for whole in words.iter().skip(1) {
        let word = whole.to_str().unwrap_or_default();
        let (begin, name) = match word.split_once('/') {
            Some((begin, name)) => (begin, Some(name)),
            None => (word, None),
        };
        let this = Kind::of(begin).filter(|_| place.is_plain(word));
        match (this, name) {
            (Some(_), name) if place.wants_kind() => {
                let begin = known(place.path[0], begin);
                kind = name.and(this);
                for word in std::iter::once(begin).chain(name) {
                    place.pass(word);
                    apart.push(word.into());
                }
            }
            (Some(_), Some(name)) if this == kind => {
                place.pass(name);
                apart.push(name.into());
            }
            _ => {
                place.pass(word);
                apart.push(whole.clone());
            }
        }
    }
    apart
}

/// The word by which a command knows a kind.
pub(crate) fn known<'w>(command: &str, word: &'w str) -> &'w str {
    match Kind::of(word) {
        Some(kind) if command != "get" => kind.singular(),
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kind_before_a_slash_is_a_word_of_its_own() {
        let apart = |line: &str| -> String {
            let words = super::apart(line.split(' ').map(OsString::from));
            let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
            words.join(" ")
        };
        for (line, expected) in [
            ("haar get node/edge", "haar get node edge"),
            ("haar get no/a node/b -o json", "haar get no a b -o json"),
            (
                "haar --context x/y get -o name ms/plant/echo",
                "haar --context x/y get -o name ms plant/echo",
            ),
            ("haar describe app/plant", "haar describe application plant"),
            ("haar delete pubs acme", "haar delete pubs acme"),
            ("haar delete publishers acme", "haar delete publisher acme"),
            // An application may be called like a kind.
            ("haar get ms app/echo", "haar get ms app/echo"),
            ("haar get nothing/edge", "haar get nothing/edge"),
            ("haar logs node/edge", "haar logs node/edge"),
            // A value of an option is no word of the command.
            (
                "haar get --context node/site.toml nodes",
                "haar get --context node/site.toml nodes",
            ),
            (
                "haar delete node/edge --context node/b.toml -y",
                "haar delete node edge --context node/b.toml -y",
            ),
            ("haar get -l no/de no/a", "haar get -l no/de no a"),
            ("haar get node/a -- node/b", "haar get node a -- node/b"),
            (
                "haar complete -- get node/edge",
                "haar complete -- get node/edge",
            ),
            ("haar", "haar"),
        ] {
            assert_eq!(apart(line), expected);
        }
    }

    #[test]
    fn things_are_called_by_their_names_and_modules_by_their_digests() {
        let module = json!({ "name": "echo", "version": "0.1.0", "digest": format!("sha256:{}", "ab".repeat(32)) });
        for name in ["echo", "echo@0.1.0", "ababab", "sha256:ababab"] {
            assert!(Kind::Modules.is_called(&module, name), "{name}");
        }
        for name in ["ech", "echo@0.1", "ababa", "sha256:", ""] {
            assert!(!Kind::Modules.is_called(&module, name), "{name}");
        }
        let instance = json!({ "application": "plant", "microservice": "echo" });
        assert!(Kind::Microservices.is_called(&instance, "plant/echo"));
        assert!(Kind::Microservices.is_called(&instance, "echo"));
        assert!(!Kind::Microservices.is_called(&instance, "plant"));
        let route = json!({ "id": "0123456789abcdef", "application": "plant", "from": "echo.out", "to": "sink.in" });
        for name in ["0123456789abcdef", "plant/echo.out", "echo.out"] {
            assert!(Kind::Routes.is_called(&route, name), "{name}");
        }
    }
}
