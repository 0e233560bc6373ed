//! What a command can end with: an exit code that scripts branch on, a stable code for programs,
//! and a message with a hint for people. Every command returns [`CommandError`]; `main` reports
//! it once. Errors of the site's API pass through unchanged.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use haar_protocol::manifest::meant;
use haar_protocol::rest::ErrorBody;

use crate::output::{self, Format};

/// What every command returns.
pub(crate) type Result<T> = std::result::Result<T, CommandError>;

/// How `haar` ends. The numbers are part of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done. (What `main` returns when there is no error.)
    #[allow(
        dead_code,
        reason = "documents the whole set of exit codes; success is never an error"
    )]
    Success = 0,
    /// Something failed that has no code of its own.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Refused by a check or by the site, or because something would stop or be lost; nothing was
    /// changed, unless the message says that it stays applied.
    Refused = 3,
    /// What was named does not exist.
    NotFound = 4,
    /// The site can't be reached.
    Unreachable = 5,
    /// The site does not allow it.
    NotAllowed = 6,
    /// A broker does less than Haar asks for.
    Short = 7,
    /// Ctrl-C, or asked to end by a signal.
    Interrupted = 130,
}

/// The same for people; the end of `haar --help`.
pub(crate) const EXIT_CODES_HELP: &str = "\
Exit codes:
    0  done
    1  failed
    2  wrong usage
    3  refused by a check or by the site, or something would stop or be lost
    4  not found
    5  can't reach the site
    6  not allowed
    7  a broker falls short (haar relay check)
  130  interrupted";

/// Why a command did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandError {
    /// What the process ends with.
    pub(crate) exit: Exit,
    /// For programs: stable, in snake case.
    pub(crate) code: Cow<'static, str>,
    /// What failed, and which one.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) hint: Option<String>,
}

impl CommandError {
    pub(crate) fn new(exit: Exit, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            exit,
            code: code.into(),
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn failure(message: impl Into<String>) -> Self {
        Self::new(Exit::Failure, "failure", message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    pub(crate) fn refused(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, code, message)
    }

    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, code, message)
    }

    /// There is no `what` of this name: in the words in which the site says so.
    pub(crate) fn unknown<'n>(
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'n str>,
    ) -> Self {
        let message = format!("there is no {what} `{name}`");
        let hint = meant(name, known);
        Self {
            code: format!("unknown_{what}").into(),
            ..Self::not_found("", message)
        }
        .hinted(hint.unwrap_or_else(|| format!("see them with `haar get {what}s`")))
    }

    pub(crate) fn unreachable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, code, message)
    }

    pub(crate) fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted", "interrupted")
    }

    pub(crate) fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An answer of the site's API that is not a success.
    pub(crate) fn from_site(status: u16, body: ErrorBody) -> Self {
        let exit = match status {
            401 | 403 => Exit::NotAllowed,
            404 => Exit::NotFound,
            502 | 504 => Exit::Unreachable, // what stands in between could not reach the site
            400..=499 => Exit::Refused,
            _ => Exit::Failure,
        };
        Self {
            exit,
            code: body.code.into(),
            message: body.message,
            hint: body.hint,
        }
    }

    /// Tells it on stderr.
    pub(crate) fn report(&self, format: Format) {
        let mut stderr = io::stderr().lock();
        // There is nobody left to tell when stderr is closed.
        let _ = match format {
            Format::Json => writeln!(stderr, "{}", self.to_json()),
            _ => self.write_for_people(&mut stderr),
        };
    }

    fn write_for_people(&self, stderr: &mut impl io::Write) -> io::Result<()> {
        if self.exit == Exit::Interrupted && io::stderr().is_terminal() {
            writeln!(stderr)?; // behind `^C`, and whatever cargo was about to say
        }
        let error = console::style("Error:").for_stderr().red().bold();
        writeln!(stderr, "{error} {}", printable_lines(&self.message))?;
        if let Some(hint) = &self.hint {
            let label = console::style("Hint:").for_stderr().cyan();
            writeln!(stderr, "{label} {}", printable_lines(hint))?;
        }
        Ok(())
    }

    fn to_json(&self) -> String {
        let body = output::WithWarnings::of(ErrorBody {
            code: self.code.clone().into_owned(),
            message: self.message.clone(),
            hint: self.hint.clone(),
        });
        serde_json::to_string(&body).expect("texts always serialise")
    }
}

/// Words from a site, a file or a child do not move anybody's cursor.
fn printable_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(output::printable).collect();
    lines.join("\n")
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Turns an error of the operating system about a file into one for people.
pub(crate) fn about_file<'a>(
    action: &'a str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> CommandError + 'a {
    move |error| {
        let message = format!("can't {action} {}: {}", path.display(), reason(&error));
        match error.kind() {
            io::ErrorKind::NotFound => CommandError::not_found("file_not_found", message),
            io::ErrorKind::PermissionDenied => {
                CommandError::new(Exit::Failure, "file_not_permitted", message)
            }
            _ => CommandError::failure(message),
        }
    }
}

/// What the operating system says, without its error numbers.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::IsADirectory => "it is a directory".into(),
        io::ErrorKind::AddrInUse => "the address is in use".into(),
        io::ErrorKind::StorageFull => "no space left on the device".into(),
        _ => error.to_string(),
    }
}
