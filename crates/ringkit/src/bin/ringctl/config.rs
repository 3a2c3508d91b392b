//! `ringctl config check`.

use std::fmt::Write as _;

use crate::args::{Command, Flag, Parsed};
use crate::{Failure, NOT_OK, OK, complain, print};

pub(crate) const COMMAND: Command = Command {
    name: "config check",
    positional: &["FILE"],
    about: "Reports everything that is wrong or odd in a configuration file, at once.",
    flags: &[Flag {
        name: "expand-env",
        value: "",
        help: "replace ${NAME} in the file from the environment first",
    }],
    notes: "Only the file counts: RINGKIT_ variables are not looked at. Exit status: 0 without problems (warnings are none), 1 with, 2 for a wrong command line.",
    run,
};

fn run(args: &Parsed) -> Result<u8, Failure> {
    let file = args.positional.first().map(String::as_str).unwrap_or_default();
    let mut flags = vec![format!("-config.file={file}")];
    if args.has("expand-env") {
        flags.push("-config.expand-env=true".to_owned());
    }
    // What is not Unicode cannot be meant by a name in the file.
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !name.starts_with("RINGKIT_"));
    let (problems, warnings) = match ringkit_config::load(flags, env) {
        Ok(loaded) => (Vec::new(), loaded.warnings),
        Err(error) => (error.problems, error.warnings),
    };
    let mut text = String::new();
    for warning in &warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    for problem in &problems {
        let _ = writeln!(text, "error: {problem}");
    }
    complain(&text);
    let warnings = count(warnings.len(), "warning");
    if problems.is_empty() {
        print(&format!("{file}: fine, {warnings}\n"));
        Ok(OK)
    } else {
        print(&format!("{file}: {}, {warnings}\n", count(problems.len(), "problem")));
        Ok(NOT_OK)
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
