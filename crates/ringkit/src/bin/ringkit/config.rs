//! `ringkit config`: what a process would run with, and what it understands.

use std::io::Write as _;
use std::process::ExitCode;

pub(crate) fn main(mut args: impl Iterator<Item = String>) -> ExitCode {
    let text = match args.next().as_deref() {
        Some("schema") => match serde_json::to_string_pretty(&ringkit_config::json_schema()) {
            Ok(schema) => schema + "\n",
            Err(error) => return fail(&format!("the schema cannot be written: {error}"), 1),
        },
        Some("reference") => ringkit_config::reference_yaml(),
        Some("show") => match show(args) {
            Ok(text) => text,
            Err(problems) => return fail(&problems, 1),
        },
        Some(other) => {
            return fail(&format!("unknown subcommand `config {other}`: try show, schema or reference"), 2);
        }
        None => return fail("`config` needs a subcommand: show, schema or reference", 2),
    };
    // A reader that has seen enough may close the pipe.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn show(args: impl Iterator<Item = String>) -> Result<String, String> {
    let (mut origins, mut diff) = (false, false);
    let flags: Vec<String> = args
        .filter(|arg| match arg.as_str() {
            "--origins" => {
                origins = true;
                false
            }
            "--diff" => {
                diff = true;
                false
            }
            _ => true,
        })
        .collect();
    let loaded = ringkit_config::load(flags, std::env::vars()).map_err(|error| error.to_string())?;
    for warning in &loaded.warnings {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    Ok(match (origins, diff) {
        (true, _) => loaded.origins_yaml(),
        (false, true) => loaded.config.diff_yaml(),
        (false, false) => loaded.config.to_yaml(),
    })
}

fn fail(problem: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "ringkit: {problem}");
    ExitCode::from(code)
}
