//! Walks over the words of a command line: which command they have come to, and what each word is. For
//! completion, and for words that are rewritten before the line is parsed.

use clap::{Arg, Command};

use crate::kinds::{WITH_KIND, known};

/// How far the words of a line have come.
pub(crate) struct Place<'c> {
    pub(crate) command: &'c Command,
    /// The commands, such as `describe` and `node`.
    pub(crate) path: Vec<&'c str>,
    pub(crate) positionals: Vec<&'c str>,
    /// The option whose value comes next.
    pub(crate) option: Option<&'c Arg>,
    /// Behind `--`.
    pub(crate) is_escaped: bool,
}

impl<'c> Place<'c> {
    /// Before the first word behind the program's name. `root` must have been built, because options of
    /// every command are known to commands only then.
    pub(crate) fn begin(root: &'c Command) -> Self {
        Self {
            command: root,
            path: Vec::new(),
            positionals: Vec::new(),
            option: None,
            is_escaped: false,
        }
    }

    /// True where a kind of things comes next.
    pub(crate) fn wants_kind(&self) -> bool {
        matches!(self.path.as_slice(), [command] if WITH_KIND.contains(command))
            && self.positionals.is_empty()
    }

    /// Returns true when `word` is neither an option nor an option's value, so that it may be rewritten.
    pub(crate) fn is_plain(&self, word: &str) -> bool {
        self.option.is_none() && !self.is_escaped && !is_option(word)
    }

    /// Goes on behind a word.
    pub(crate) fn pass(&mut self, word: &'c str) {
        let word = match self.path.first() {
            Some(command) if self.wants_kind() => known(command, word),
            _ => word,
        };
        if self.option.take().is_some() {
            return;
        }
        if !self.is_escaped && word == "--" {
            self.is_escaped = true;
        } else if !self.is_escaped && is_option(word) {
            self.option = self.waiting(word);
        } else if self.positionals.is_empty()
            && let Some(command) = self.command.find_subcommand(word)
        {
            self.command = command;
            self.path.push(command.get_name());
        } else {
            self.positionals.push(word);
        }
    }

    /// The option in `word` whose value is the next word.
    fn waiting(&self, word: &str) -> Option<&'c Arg> {
        if word.starts_with("--") {
            return self.named(word).filter(|option| takes_value(option));
        }
        // Behind the first short option that takes a value, its value follows.
        let mut letters = word.chars().skip(1);
        let of = |letter: char| {
            let is_it = |option: &&Arg| option.get_short() == Some(letter);
            self.command.get_arguments().find(is_it)
        };
        let option = letters.find_map(|letter| of(letter).filter(|option| takes_value(option)))?;
        letters.next().is_none().then_some(option)
    }

    /// The option that is called so, with its dashes.
    pub(crate) fn named(&self, long: &str) -> Option<&'c Arg> {
        let name = long.strip_prefix("--")?;
        self.command
            .get_arguments()
            .find(|option| option.get_long() == Some(name))
    }
}

fn is_option(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-')
}

fn takes_value(option: &Arg) -> bool {
    option.get_action().takes_values()
}
