//! Runs the program in a directory of its own, with an environment of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::program::{COMMAND, output_within};

/// What the program did.
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A directory to work in, that is also the home directory.
pub(crate) struct Workplace {
    folder: tempfile::TempDir,
}

impl Workplace {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The program, to be given arguments.
    pub(crate) fn command(&self) -> Command {
        self.at_home(Command::new(env!("CARGO_BIN_EXE_haar")))
    }

    /// The same under an umask.
    pub(crate) fn command_under(&self, umask: &str) -> Command {
        let mut command = Command::new("sh");
        let script = "umask \"$0\" && exec \"$@\"";
        command.args(["-c", script, umask, env!("CARGO_BIN_EXE_haar")]);
        self.at_home(command)
    }

    fn at_home(&self, mut command: Command) -> Command {
        command
            .current_dir(self.folder.path())
            .env_remove("HAAR_CONTEXT")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("CARGO_TARGET_DIR") // shared, projects of one name would be taken for each other
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs `haar` with the words of `line`, in a home directory that is empty.
    pub(crate) fn haar(&self, line: &str) -> Output {
        let mut command = self.command();
        command
            .env("HOME", self.folder.path())
            .args(line.split_whitespace());
        self.output(command)
    }

    pub(crate) fn output(&self, command: Command) -> Output {
        self.output_within(command, COMMAND)
    }

    pub(crate) fn output_within(&self, mut command: Command, limit: Duration) -> Output {
        let output = output_within(&mut command, limit);
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: self.tidy(&output.stdout),
            stderr: self.tidy(&output.stderr),
        }
    }

    /// Text without what differs from run to run.
    fn tidy(&self, text: &[u8]) -> String {
        let text = String::from_utf8(text.to_vec()).unwrap();
        let canonical = self.folder.path().canonicalize().unwrap();
        text.replace(canonical.to_str().unwrap(), "DIR")
            .replace(self.folder.path().to_str().unwrap(), "DIR")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Output {
    /// The output of a command that must have worked.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(
            self.code, 0,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    /// Everything, for a snapshot.
    pub(crate) fn all(&self) -> String {
        format!(
            "exit code: {}\n--- stdout\n{}--- stderr\n{}",
            self.code, self.stdout, self.stderr
        )
    }

    /// What programs read on stdout.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}
