//! Running other programs, and saying so.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Writes to standard error, where cargo writes too.
pub(crate) fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// One program to run in the workspace's root.
pub(crate) struct Step {
    command: Command,
}

impl Step {
    /// The cargo that runs us.
    pub(crate) fn cargo(args: &[&str]) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Self::program(&cargo, args)
    }

    pub(crate) fn program(program: impl AsRef<OsStr>, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        // `crates/xtask`, two levels below the root.
        command.args(args).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let path = std::env::var_os("PATH").unwrap_or_default();
        if let Ok(path) = std::env::join_paths(std::env::split_paths(&path).chain([crate::install::tools()]))
        {
            command.env("PATH", path);
        }
        Self { command }
    }

    pub(crate) fn args(mut self, args: &[impl AsRef<OsStr>]) -> Self {
        self.command.args(args);
        self
    }

    /// Runs elsewhere than in the workspace's root.
    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Shows the command, runs it and waits for its end.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let line = self.line();
        say(&format!("$ {line}\n"));
        let status = self.command.status().map_err(|cause| format!("`{line}` cannot be started: {cause}"))?;
        if status.success() { Ok(()) } else { Err(format!("`{line}` failed: {status}")) }
    }

    /// Shows the command and becomes it, so that Ctrl-C reaches nobody else. Returns only if that failed.
    pub(crate) fn replace(mut self) -> Result<(), String> {
        let line = self.line();
        say(&format!("$ {line}\n"));
        Err(format!("`{line}` cannot be started: {}", self.command.exec()))
    }

    fn line(&self) -> String {
        let mut words = vec![self.command.get_program().to_string_lossy().into_owned()];
        if let Some(name) = words[0].rsplit('/').next() {
            words[0] = name.to_owned();
        }
        words.extend(self.command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
        words.join(" ")
    }
}
