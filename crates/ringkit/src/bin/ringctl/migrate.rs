//! `ringctl migrate …`: moves the rings of a running cluster from one store to another, step by step. Every process does it
//! itself, by its runtime configuration; what is here asks, checks, writes that file if it is told to, and waits.

mod check;
mod cluster;
mod digests;
mod edit;
mod file;
mod page;
mod show;
mod steps;

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use ringkit_config::KvStore;
use serde_json::json;

use self::check::Reason;
use self::cluster::{Cluster, Targets};
use self::edit::Change;
use self::file::RuntimeFiles;
use self::page::Silent;
use self::steps::{End, Options, against_start};
use crate::args::{BadFlag, Command, Flag, Parsed};
use crate::{Failure, NOT_OK, OK, block_on, complain, print};

/// Exit status if a process could not be asked.
const SILENT: u8 = 3;
/// How long a step waits until every process has followed, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How often a table is renewed that somebody looks at.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// What all steps are told alike, so that they can be called alike; and a step's own.
macro_rules! flags {
    ($($own:expr),* $(,)?) => {
        &[
            Flag {
                name: "url",
                value: "URL",
                help: "any process, such as http://localhost:9009; may be repeated",
            },
            Flag {
                name: "member",
                value: "URL",
                help: "a process that does not serve HTTP at the host of its address in\n\
                       the ring, or on the port of --url; may be repeated",
            },
            Flag {
                name: "http-port",
                value: "N",
                help: "the port on which all others serve HTTP [that of the process which\nsees them]",
            },
            Flag {
                name: "to",
                value: "STORE",
                help: "the store to move to: consul, etcd, memberlist or inmemory",
            },
            Flag {
                name: "runtime-config",
                value: "FILE",
                help: "the file that processes read as `runtime_config.file`, to be\n\
                       changed; without it, the change is printed",
            },
            Flag {
                name: "timeout",
                value: "TIME",
                help: "how long to wait until every process has followed [120s]",
            },
            $($own,)*
            Flag { name: "json", value: "", help: "what came of it as JSON" },
        ]
    };
}

const FORCE: Flag =
    Flag { name: "force", value: "", help: "whatever that store may lack, and whoever may be silent" };
const WATCH: Flag = Flag {
    name: "watch",
    value: "",
    help: "again every second, until it is interrupted; with --json, a line\neach time",
};

const EXITS: &str = "\
All steps take the same flags; what means nothing to one is left aside. Exit status: 0 if it is done, or printed; 1 if it
was refused, or is not done in time, with the reasons; 2 for a wrong command line; 3 if a process could not be asked.";

pub(crate) const PLAN: Command = Command {
    name: "migrate plan",
    positional: &[],
    about: "Tells whether every ring of a cluster can be moved to another store, and what each step will do.",
    flags: flags![],
    notes: EXITS,
    run: plan,
};

pub(crate) const START: Command = Command {
    name: "migrate start",
    positional: &[],
    about: "First step: every ring is mirrored, until both stores have the same.",
    flags: flags![],
    notes: EXITS,
    run: |args| step(args, "start"),
};

pub(crate) const STATUS: Command = Command {
    name: "migrate status",
    positional: &[],
    about: "Shows how every ring of every process stands in its two stores, and what is amiss.",
    flags: flags![WATCH],
    notes: "\
ENTRIES, MISSING and RELAYED are those of the primary and of the secondary. RELAYED are those that others than their owners
brought there. GATE tells whether the secondary could become the primary. Exit status: 0 if nothing is amiss, 1
if something is, 2 for a wrong command line, 3 if a process could not be asked.",
    run: status,
};

pub(crate) const SWITCH: Command = Command {
    name: "migrate switch",
    positional: &[],
    about: "Second step: the other store becomes the primary of every ring.",
    flags: flags![FORCE],
    notes: EXITS,
    run: |args| step(args, "switch"),
};

pub(crate) const FINISH: Command = Command {
    name: "migrate finish",
    positional: &[],
    about: "Last step: nothing is mirrored any more, and the store that was left can be stopped.",
    flags: flags![],
    notes: EXITS,
    run: |args| step(args, "finish"),
};

pub(crate) const ABORT: Command = Command {
    name: "migrate abort",
    positional: &[],
    about: "Back to the primary of the main configuration, without a mirror, from wherever a migration is.",
    flags: flags![FORCE],
    notes: EXITS,
    run: |args| step(args, "abort"),
};

fn options(args: &Parsed) -> Result<Options, BadFlag> {
    let to = args.text("to").map(|name| {
        let known = KvStore::ALL.iter().find(|store| store.as_str() == name && **store != KvStore::Multi);
        let problem = || BadFlag::new("to", format!("`{name}` is no store that rings can be moved to"));
        known.copied().ok_or_else(problem)
    });
    let file = args.text("runtime-config").map(str::to_owned);
    if file.as_ref().is_some_and(|file| file.split(',').all(|name| name.trim().is_empty())) {
        return Err(BadFlag::new("runtime-config", "names no file"));
    }
    Ok(Options {
        targets: Targets::of(args)?,
        to: to.transpose()?,
        file,
        timeout: args.duration("timeout")?.unwrap_or(TIMEOUT),
        force: args.has("force"),
        quiet: args.has("json"),
    })
}

/// The store to move to, which must be given.
fn target(options: &Options) -> Result<KvStore, BadFlag> {
    options.to.ok_or_else(|| BadFlag::new("to", "is needed: the store to move to"))
}

fn step(args: &Parsed, name: &'static str) -> Result<u8, Failure> {
    let options = options(args)?;
    let end = block_on(async {
        let end = match name {
            "start" => steps::start(&options, target(&options)?).await,
            "switch" => steps::switch(&options, target(&options)?).await,
            "finish" => steps::finish(&options).await,
            _ => steps::abort(&options).await,
        };
        // Both are what came of it.
        Ok(end.unwrap_or_else(|end| end))
    })?;
    if args.has("json") {
        print(&format!("{:#}\n", end.json()));
    } else {
        print(&outcome(&end));
        complain(&objections(name, &end));
    }
    Ok(code(&end.reasons, &end.silent))
}

fn code(reasons: &[Reason], silent: &[Silent]) -> u8 {
    match (silent, reasons) {
        ([], []) => OK,
        ([], _) => NOT_OK,
        _ => SILENT,
    }
}

/// What there is to say of what was done, or is to be.
fn outcome(end: &End) -> String {
    // What is to be done by hand can be kept as it is printed.
    let mark = if end.change.is_some() && !end.written { "# " } else { "" };
    let mut text: String = end.said.iter().map(|line| format!("{mark}{line}\n")).collect();
    if let Some(change) = end.change.as_ref().filter(|_| !end.written) {
        text.push_str(&change.yaml());
    }
    text
}

/// What is in the way of it.
fn objections(name: &str, end: &End) -> String {
    let mut text = String::new();
    if !end.reasons.is_empty() {
        let what = if end.written { "asked for, but not done yet" } else { "refused" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "ringctl migrate {name}: {what}:");
        end.reasons.iter().for_each(|reason| text.push_str(&format!("  {reason}\n")));
    }
    if !end.silent.is_empty() {
        let _ = writeln!(text, "ringctl migrate {name}: cannot be asked:");
        end.silent.iter().for_each(|silent| text.push_str(&format!("  {silent}\n")));
    }
    text
}

fn status(args: &Parsed) -> Result<u8, Failure> {
    let options = options(args)?;
    let (as_json, watches) = (args.has("json"), args.has("watch"));
    let clears = !as_json && std::io::stdout().is_terminal();
    block_on(async {
        loop {
            let cluster = options.targets.discover().await;
            let reasons = amiss(&cluster);
            let text = match (as_json, watches) {
                (true, true) => format!("{}\n", show::json(&cluster, &reasons)),
                (true, false) => format!("{:#}\n", show::json(&cluster, &reasons)),
                (false, _) => show::status(&cluster, &reasons),
            };
            if watches && clears {
                print(&format!("\x1b[H\x1b[2J{text}"));
            } else {
                print(&text);
            }
            let code = code(&reasons, &cluster.silent);
            if !watches {
                return Ok(code);
            }
            tokio::select! {
                () = tokio::time::sleep(WATCH_PERIOD) => (),
                interrupted = tokio::signal::ctrl_c() => {
                    interrupted?;
                    return Ok(code);
                }
            }
        }
    })
}

/// All that is not as it should be, whatever a migration has come to.
fn amiss(cluster: &Cluster) -> Vec<Reason> {
    let mut reasons = check::hashes(cluster);
    reasons.extend(check::primaries(cluster));
    reasons.extend(check::outages(cluster, false));
    reasons.extend(check::gossip(cluster));
    reasons.extend(check::waiting(cluster));
    if !cluster.mirrors_nothing() {
        reasons.extend(check::contents(cluster, None));
    }
    reasons
}

/// What a plan has found out.
struct Plan {
    to: KvStore,
    cluster: Cluster,
    reasons: Vec<Reason>,
    notes: Vec<Reason>,
    /// Each step with what it will ask for.
    steps: Vec<(&'static str, &'static str, Change)>,
}

fn plan(args: &Parsed) -> Result<u8, Failure> {
    let options = options(args)?;
    let to = target(&options)?;
    let plan = block_on(async { Ok(look(&options, to).await) })?;
    if args.has("json") {
        let steps = plan.steps.iter().map(|(name, what, change)| {
            let yaml = change.yaml();
            json!({ "step": name, "what": what, "change": change, "yaml": yaml })
        });
        let steps: Vec<_> = steps.collect();
        let mut json = show::json(&plan.cluster, &plan.reasons);
        if let Some(fields) = json.as_object_mut() {
            fields.insert("notes".to_owned(), json!(plan.notes));
            fields.insert("steps".to_owned(), json!(steps));
        }
        print(&format!("{json:#}\n"));
    } else {
        print(&in_words(&plan));
        let (reasons, silent) = (plan.reasons.clone(), plan.cluster.silent.clone());
        complain(&objections("plan", &End { reasons, silent, ..End::default() }));
    }
    Ok(code(&plan.reasons, &plan.cluster.silent))
}

async fn look(options: &Options, to: KvStore) -> Plan {
    let files = match &options.file {
        Some(list) => Some(RuntimeFiles::read(list).await),
        None => None,
    };
    let cluster = options.targets.discover().await;
    let mut reasons = if cluster.processes.is_empty() { Vec::new() } else { against_start(&cluster, to) };
    let said = match &files {
        Some(Ok(files)) => {
            reasons.extend(check::file(&cluster, &files.name(), &files.sha256));
            files.said()
        }
        Some(Err(problem)) => {
            reasons.push(Reason::general(problem.clone()));
            None
        }
        None => None,
    };
    let mut notes = check::notes(&cluster);
    if files.is_none() {
        let why = "without --runtime-config each step prints what to write, and waits once it is taken again";
        notes.push(Reason::general(why));
    }
    let from = steps::one_primary(&cluster).ok();
    let last = cluster.generation().max(said.map_or(0, |said| said.generation));
    let change = |primary, mirror_enabled, steps_ahead: u64| {
        let generation = last.saturating_add(steps_ahead);
        Change { primary, mirror_enabled, generation, force: false }
    };
    let steps = from.map_or_else(Vec::new, |from| {
        vec![
            ("start", "every ring is mirrored, until both stores have the same", change(from, true, 1)),
            ("switch", "that store decides, and the old one is mirrored to", change(to, true, 2)),
            ("finish", "nothing is mirrored, and the old store can be stopped", change(to, false, 3)),
        ]
    });
    if let (Some(Ok(files)), Some((_, _, change))) = (&files, steps.first())
        && let Err(problem) = files.with(change)
    {
        reasons.push(Reason::general(problem));
    }
    Plan { to, cluster, reasons, notes, steps }
}

fn in_words(plan: &Plan) -> String {
    let mut text = show::processes(&plan.cluster);
    for note in &plan.notes {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "note: {note}");
    }
    if !plan.reasons.is_empty() || !plan.cluster.silent.is_empty() {
        return text;
    }
    let to = plan.to;
    for (number, (name, what, change)) in plan.steps.iter().enumerate() {
        let _ = write!(text, "\n{}. ringctl migrate {name} --to {to}: {what}\n{}", number + 1, change.yaml());
    }
    text.push_str("\nAt any moment: ringctl migrate abort\n");
    text
}

#[cfg(test)]
mod tests;
