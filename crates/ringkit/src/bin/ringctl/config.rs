//! `ringctl config check`.

mod against;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use ringkit_config::{Config, RuntimeConfig, RuntimeFile};

use crate::args::{Command, Flag, Parsed};
use crate::{Failure, NOT_OK, OK, complain, print};

pub(crate) const COMMAND: Command = Command {
    name: "config check",
    positional: &["FILE"],
    about: "Reports everything that is wrong or odd in a configuration file, at once, or what it would change.",
    flags: &[
        Flag {
            name: "expand-env",
            value: "",
            help: "replace ${NAME} in the file from the environment first",
        },
        Flag {
            name: "against",
            value: "URL",
            help: "a process, such as http://localhost:9009: tell what it would\nhave to do to run with this file",
        },
        Flag {
            name: "flag",
            value: "FLAG",
            help: "a flag that the process is started with besides, such as\n-target=ingester; may be repeated",
        },
    ],
    notes: "\
Only the file counts, with the files that its `runtime_config.file` names, and what --flag adds; RINGKIT_ variables are not
looked at. Exit status: 0 without problems (warnings are none), 1 with, 2 for a wrong command line.

With --against, the file is compared with what the process shows on /config. Keys either are applied without a restart, or
need one; the main configuration is read once, at the start, so that now all of its keys need one. Exit status then: 0 if
there is nothing to do, 1 if a restart is needed, 2 if the process would refuse to start (or the command line is wrong), 3
if the process cannot be asked.",
    run,
};

/// What is said about the files, a line each.
#[derive(Default)]
struct Found {
    warnings: Vec<String>,
    problems: Vec<String>,
}

fn run(args: &Parsed) -> Result<u8, Failure> {
    let file = args.positional.first().map(String::as_str).unwrap_or_default();
    let mut flags = vec![format!("-config.file={file}")];
    if args.has("expand-env") {
        flags.push("-config.expand-env=true".to_owned());
    }
    flags.extend(args.all("flag"));
    // What is not Unicode cannot be meant by a name in the file.
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !name.starts_with("RINGKIT_"));
    let mut found = Found::default();
    let loaded = match ringkit_config::load(flags, env) {
        Ok(loaded) => {
            found.warnings = loaded.warnings.iter().map(ToString::to_string).collect();
            check_runtime(&loaded.config, &mut found);
            Some(loaded)
        }
        Err(error) => {
            found.warnings = error.warnings.iter().map(ToString::to_string).collect();
            found.problems = error.problems.iter().map(ToString::to_string).collect();
            None
        }
    };
    let mut text = String::new();
    for warning in &found.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    for problem in &found.problems {
        let _ = writeln!(text, "error: {problem}");
    }
    complain(&text);
    let warnings = count(found.warnings.len(), "warning");
    match (loaded, args.text("against")) {
        (Some(loaded), url) if found.problems.is_empty() => {
            print(&format!("{file}: fine, {warnings}\n"));
            url.map_or(Ok(OK), |url| against::run(file, &loaded, url))
        }
        (_, against) => {
            print(&format!("{file}: {}, {warnings}\n", count(found.problems.len(), "problem")));
            if against.is_none() {
                return Ok(NOT_OK);
            }
            print("refused: a process would not start with it\n");
            Ok(against::REFUSED)
        }
    }
}

/// What the files of the runtime configuration are told, as far as they are here: a process loads them at its start, too.
fn check_runtime(config: &Config, found: &mut Found) {
    let mut files = Vec::new();
    for path in config.runtime_config.paths() {
        match read(&path) {
            Ok(bytes) => files.push((path.display().to_string(), bytes)),
            Err(error) => found.warnings.push(format!(
                "runtime_config.file: {}: cannot read this file here, so that it is not checked: {error}",
                path.display()
            )),
        }
    }
    let files: Vec<_> = files.iter().map(|(name, bytes)| RuntimeFile { name, bytes }).collect();
    match RuntimeConfig::new(config).read(&files) {
        Ok((_, warnings)) => found.warnings.extend(warnings.iter().map(ToString::to_string)),
        Err(error) => {
            found.warnings.extend(error.warnings.iter().map(ToString::to_string));
            found.problems.extend(error.problems.iter().map(ToString::to_string));
        }
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(RuntimeConfig::MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
