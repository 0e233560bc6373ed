//! Starting other programs.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Runs a program whose words people see. An error when it fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("can't start {}", name(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", name(command));
    }
    Ok(())
}

/// Runs a program for what it writes on standard output.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("can't start {}", name(command)))?;
    if !output.status.success() {
        bail!("{} failed: {}", name(command), output.status);
    }
    let text = String::from_utf8(output.stdout);
    text.with_context(|| format!("{} wrote something that is no text", name(command)))
}

fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args().take(2));
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    format!("`{} …`", words.join(" "))
}
