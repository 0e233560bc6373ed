//! Where a command finds what it was not told on its command line: the environment and the
//! context file. The only place that reads the environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use haar_protocol::context::Context;

use crate::error::{CommandError, Exit, Result};
use crate::files;
use crate::output::{Color, Format};
use crate::progress::Progress;

/// Options of every command.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Options {
    /// How to write results: `table` or `wide` for people, `json` (errors, too) or `yaml` for programs, `name` for what `get` lists
    #[arg(
        long,
        short,
        global = true,
        value_name = "FORMAT",
        default_value = "table",
        hide_possible_values = true,
        help_heading = "Options of every command"
    )]
    pub(crate) output: Format,

    /// File that says how to reach the site [default: $HAAR_CONTEXT, else ~/.config/haar/context.toml]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Options of every command"
    )]
    pub(crate) context: Option<PathBuf>,

    /// When to use colours: `auto`, `always` or `never`
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        help_heading = "Options of every command"
    )]
    pub(crate) color: Color,

    /// Show no progress
    #[arg(long, short, global = true, help_heading = "Options of every command")]
    pub(crate) quiet: bool,
}

impl Options {
    /// How progress is shown.
    pub(crate) fn progress(&self) -> Progress {
        Progress::new(self.quiet)
    }

    /// True when results are documents for programs: JSON, or the same as YAML.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.output, Format::Json | Format::Yaml)
    }

    /// True when tables have all their columns.
    pub(crate) fn is_wide(&self) -> bool {
        self.output == Format::Wide
    }

    /// The context that the command works in, and the file it came from.
    pub(crate) fn load_context(&self) -> Result<(Context, PathBuf)> {
        let file = self.context_file()?;
        let context = read_context(&file).map_err(|error| match error.exit {
            Exit::NotFound => CommandError::not_found("no_context", format!("there is no context file {}", file.display())).hinted(
                "Start a site on this machine with `haar up`, or copy the context file of your site there; \
                 another place is given with --context or HAAR_CONTEXT.",
            ),
            _ => error,
        })?;
        Ok((context, file))
    }

    fn context_file(&self) -> Result<PathBuf> {
        match (&self.context, variable("HAAR_CONTEXT")) {
            (Some(file), _) => Ok(file.clone()),
            (None, Some(file)) => Ok(file.into()),
            (None, None) => default_context_file(),
        }
    }
}

/// Reads a context file.
pub(crate) fn read_context(file: &Path) -> Result<Context> {
    let text = files::read_text(file)?;
    toml::from_str(&text).map_err(|error| {
        CommandError::refused(
            "bad_context",
            format!("{}: {}", file.display(), error.to_string().trim_end()),
        )
        .hinted("Copy the context file again from the machine that runs the controller.")
    })
}

/// `~/.config/haar/context.toml`, or where `XDG_CONFIG_HOME` points.
pub(crate) fn default_context_file() -> Result<PathBuf> {
    let folder = match (
        variable("XDG_CONFIG_HOME").map(PathBuf::from),
        std::env::home_dir(),
    ) {
        (Some(folder), _) if folder.is_absolute() => folder,
        (_, Some(home)) => home.join(".config"),
        (_, None) => {
            let message = "there is no home directory to keep the context file in";
            return Err(CommandError::not_found("no_home", message)
                .hinted("Give the file with --context or HAAR_CONTEXT."));
        }
    };
    Ok(folder.join("haar").join("context.toml"))
}

/// The cargo to build with: the one that runs us, when one does.
pub(crate) fn cargo() -> OsString {
    variable("CARGO").unwrap_or_else(|| "cargo".into())
}

/// True when the locale writes UTF-8: the first of the variables that is set decides (POSIX,
/// "Internationalization Variables").
pub(crate) fn is_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(variable)
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// True when the terminal is not known to move its cursor.
pub(crate) fn is_dumb_terminal() -> bool {
    variable("TERM").is_none_or(|name| name == "dumb")
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
