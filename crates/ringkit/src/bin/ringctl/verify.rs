//! `ringctl verify`.

use std::path::Path;

use ringkit_loadgen::verify::ReadBy;
use ringkit_loadgen::{Error, Ledger, VerifyOptions, verify};

use crate::args::{BadFlag, Command, Flag, Parsed};
use crate::{Failure, NOT_OK, OK, block_on, print};

pub(crate) const COMMAND: Command = Command {
    name: "verify",
    positional: &[],
    about: "Reads back what a ledger says was acknowledged and compares it bit by bit.",
    flags: &[
        Flag { name: "url", value: "URL", help: "server, such as http://localhost:9009" },
        Flag { name: "ledger", value: "FILE", help: "what `ringctl load --ledger FILE` wrote" },
        Flag { name: "tenant", value: "ID", help: "X-Scope-OrgID [none]" },
        Flag { name: "samples", value: "", help: "read /api/v1/samples (JSON lines) instead of remote read" },
        Flag { name: "concurrency", value: "N", help: "queries in flight at most [4]" },
        Flag { name: "timeout", value: "TIME", help: "when to give up one query [30s]" },
        Flag { name: "json", value: "", help: "report as JSON on standard output" },
    ],
    notes: "Exit status: 0 if everything is there, once and right, and nothing else; 1 if not, or if reading failed; 2 for a wrong command line.",
    run,
};

fn run(args: &Parsed) -> Result<u8, Failure> {
    let defaults = VerifyOptions::default();
    let options = VerifyOptions {
        url: args.needed("url")?.to_owned(),
        tenant: args.text("tenant").map(str::to_owned),
        by: if args.has("samples") { ReadBy::JsonLines } else { ReadBy::RemoteRead },
        concurrency: args.number("concurrency", defaults.concurrency)?,
        timeout: args.duration("timeout")?.unwrap_or(defaults.timeout),
        ..defaults
    };
    let ledger = Ledger::read(Path::new(args.needed("ledger")?))?;
    let report = block_on(async { verify(&ledger, &options).await.map_err(name_the_flag) })?;
    print(&if args.has("json") { serde_json::to_string(&report)? + "\n" } else { format!("{report}\n") });
    Ok(if report.is_clean() { OK } else { NOT_OK })
}

fn name_the_flag(error: Error) -> Failure {
    match error {
        Error::Option { option, problem } => BadFlag::new(option, problem).into(),
        other => other.into(),
    }
}
