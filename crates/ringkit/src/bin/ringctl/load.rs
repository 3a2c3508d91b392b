//! `ringctl load`.

use std::io::IsTerminal as _;
use std::time::Duration;

use ringkit_loadgen::{Error, LedgerAt, Load, LoadOptions, Progress};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::{BadFlag, Command, Flag, Parsed};
use crate::{Failure, NOT_OK, OK, block_on, complain, print};

/// Period of the progress line where nobody watches.
const LOG_PERIOD: Duration = Duration::from_secs(10);

pub(crate) const COMMAND: Command = Command {
    name: "load",
    positional: &[],
    about: "Sends generated series by remote write and notes what was acknowledged.",
    flags: &[
        Flag {
            name: "url",
            value: "URL",
            help: "server, such as http://localhost:9009; repeat it for several, which take turns",
        },
        Flag { name: "rate", value: "N", help: "samples per second over all series [1000]" },
        Flag { name: "series", value: "N", help: "number of series [1000]" },
        Flag { name: "duration", value: "TIME", help: "how long, such as 30s or 1h30m [until Ctrl-C]" },
        Flag {
            name: "ledger",
            value: "FILE",
            help: "where to note what was acknowledged; continued if it exists",
        },
        Flag { name: "tenant", value: "ID", help: "X-Scope-OrgID [none]" },
        Flag { name: "seed", value: "N", help: "chooses labels and values [1]" },
        Flag { name: "batch", value: "N", help: "series per request [500]" },
        Flag {
            name: "special",
            value: "N",
            help: "of 1000 samples, how many are NaN, stale, +Inf or -Inf [0]",
        },
        Flag { name: "concurrency", value: "N", help: "requests in flight at most [64]" },
        Flag { name: "timeout", value: "TIME", help: "when to give up one request [30s]" },
        Flag { name: "json", value: "", help: "summary as JSON on standard output" },
    ],
    notes: "A write that fails with 5xx, 429 or a broken connection is repeated, one that fails with 4xx is not, as in Prometheus.\n\
            Ctrl-C stops cleanly; a second one at once. Exit status: 0 if all that was sent was acknowledged, 1 if not, 2 for a wrong command line.",
    run,
};

fn run(args: &Parsed) -> Result<u8, Failure> {
    let defaults = LoadOptions::default();
    let terminal = std::io::stderr().is_terminal();
    let options = LoadOptions {
        urls: args.all("url"),
        tenant: args.text("tenant").map(str::to_owned),
        seed: args.number("seed", defaults.seed)?,
        series: args.number("series", defaults.series)?,
        rate: args.number("rate", defaults.rate)?,
        batch: args.number("batch", defaults.batch)?,
        special_permille: args.number("special", defaults.special_permille)?,
        duration: args.duration("duration")?,
        concurrency: args.number("concurrency", defaults.concurrency)?,
        timeout: args.duration("timeout")?.unwrap_or(defaults.timeout),
        ledger: args.text("ledger").map_or(LedgerAt::Memory, |path| LedgerAt::File(path.into())),
        report_period: if terminal { defaults.report_period } else { LOG_PERIOD },
        ..defaults
    };
    block_on(async {
        let load = Load::new(options).map_err(name_the_flag)?.on_progress(move |line| show(line, terminal));
        let stop = CancellationToken::new();
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut run = std::pin::pin!(load.run(stop.clone()));
        let summary = loop {
            tokio::select! {
                summary = &mut run => break summary?,
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if stop.is_cancelled() {
                return Err("stopped before the last batches were answered".into());
            }
            stop.cancel();
        };
        if terminal {
            complain("\r\x1b[2K");
        }
        print(&if args.has("json") {
            serde_json::to_string(&summary)? + "\n"
        } else {
            format!("{summary}\n")
        });
        Ok(if summary.acked_samples == summary.sent_samples && summary.sent_samples > 0 {
            OK
        } else {
            NOT_OK
        })
    })
}

fn show(line: &Progress, terminal: bool) {
    complain(&if terminal { format!("\r\x1b[2K{line}") } else { format!("{line}\n") });
}

/// The library speaks of options, we of flags; they differ in one name.
fn name_the_flag(error: Error) -> Failure {
    match error {
        Error::Option { option, problem } => {
            let flag = if option == "special_permille" { "special" } else { option };
            BadFlag::new(flag, problem).into()
        }
        other => other.into(),
    }
}
