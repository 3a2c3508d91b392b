//! `ringctl ring simulate`.

mod choice;
mod model;
mod report;

use ringkit_ring::{RingOptions, Snapshot};

use self::choice::Choice;
use self::model::{Change, Chosen, Model, Who};
use self::report::{Report, Tenants};
use crate::args::{BadFlag, Command, Flag, Parsed};
use crate::{Failure, OK, print, ring};

/// More than any ring that is known, and as much as fits into the memory of a small machine.
const MAX_TOKENS: usize = 20_000_000;

pub(crate) const COMMAND: Command = Command {
    name: "ring simulate",
    positional: &[],
    about: "Tells what moves, and how even the ring is, when instances or zones join or leave.",
    flags: &[
        Flag { name: "instances", value: "N", help: "a hypothetical ring of N instances …" },
        Flag { name: "zones", value: "N", help: "… in N zones in turn [1]" },
        Flag { name: "url", value: "URL", help: "or a real one: any process with a ring page" },
        Flag { name: "ring", value: "NAME", help: "ingester, distributor or store-gateway [ingester]" },
        Flag { name: "file", value: "FILE", help: "or the JSON of such a page, `-` for standard input" },
        Flag {
            name: "tokens",
            value: "N",
            help: "tokens of each instance that joins [128, or as many as most have; 512\nfor spread-minimizing]",
        },
        Flag {
            name: "generator",
            value: "NAME",
            help: "how they choose them: random, minimize-spread or\nspread-minimizing, which wants names with numbers [random]",
        },
        Flag { name: "seed", value: "N", help: "another seed, other tokens [1]" },
        Flag { name: "replication-factor", value: "N", help: "replicas of each key [3]" },
        Flag { name: "zone-awareness", value: "", help: "spread them over zones" },
        Flag {
            name: "join",
            value: "N",
            help: "N instances join, each the zone with the fewest; this and the next\nthree are steps, done in the order in which they are given",
        },
        Flag {
            name: "leave",
            value: "N|ID,…",
            help: "these instances leave, or N: each the last of the zone with the most",
        },
        Flag { name: "join-zone", value: "NAME:N", help: "N instances join this zone, new or not" },
        Flag { name: "leave-zone", value: "NAME", help: "all instances of this zone leave" },
        Flag {
            name: "one-by-one",
            value: "",
            help: "a step of its own for each instance that joins or leaves",
        },
        Flag {
            name: "shard-size",
            value: "N",
            help: "also tell what becomes of tenants' shards of N instances",
        },
        Flag { name: "tenants", value: "N", help: "of how many, called tenant-1 and so on [1000]" },
        Flag { name: "json", value: "", help: "the same as JSON; shares are 0 to 1" },
    ],
    notes: "Placement is computed for the whole circle, not sampled, as if every instance were ACTIVE and healthy.\n\
            Time grows with the number of tokens; with minimize-spread, where each instance looks at all others, with its square.\n\
            Example: ringctl ring simulate --instances 30 --zones 3 --zone-awareness --join 3 --leave-zone zone-c",
    run,
};

fn run(args: &Parsed) -> Result<u8, Failure> {
    let report = simulate(args)?;
    print(&if args.has("json") { report.json()? } else { report.table() });
    Ok(OK)
}

fn simulate(args: &Parsed) -> Result<Report, Failure> {
    let options = RingOptions {
        replication_factor: at_least_one(args, "replication-factor", 3)?,
        zone_awareness_enabled: args.has("zone-awareness"),
        ..RingOptions::default()
    };
    let changes = changes(args)?;
    let mut model = start(args)?;
    let mut report = Report::new(&model, snapshot(&model, &options), tenants(args)?);
    for (flag, change) in changes {
        let steps = if args.has("one-by-one") { model.one_by_one(&change) } else { vec![change] };
        for step in steps {
            if model.num_tokens_after(&step).is_none_or(|tokens| tokens > MAX_TOKENS) {
                return Err(too_large(flag).into());
            }
            let done = model.apply(&step).map_err(|problem| BadFlag::new(flag, problem))?;
            report.add(&step, done, snapshot(&model, &options));
        }
    }
    Ok(report)
}

fn snapshot(model: &Model, options: &RingOptions) -> Snapshot {
    Snapshot::first_sight(model.ring(), 0, options)
}

/// Whose shards are looked at.
fn tenants(args: &Parsed) -> Result<Option<Tenants>, BadFlag> {
    if args.text("shard-size").is_none() {
        return match args.text("tenants") {
            Some(_) => Err(BadFlag::new("tenants", "goes with --shard-size only")),
            None => Ok(None),
        };
    }
    let shard_size = i64::try_from(at_least_one(args, "shard-size", 0)?)
        .map_err(|_| BadFlag::new("shard-size", "is too large"))?;
    Ok(Some(Tenants { number: at_least_one(args, "tenants", 1000)?, shard_size }))
}

/// The ring before the first step.
fn start(args: &Parsed) -> Result<Model, Failure> {
    let sources: Vec<_> =
        ["instances", "url", "file"].into_iter().filter(|flag| args.text(flag).is_some()).collect();
    let source = match sources[..] {
        [source] => source,
        [] => return Err(BadFlag::new("instances", "this, --url or --file is needed").into()),
        [first, second, ..] => {
            return Err(BadFlag::new(second, format!("cannot be combined with --{first}")).into());
        }
    };
    let (name, seed) = (args.text("generator").unwrap_or("random"), args.number("seed", 1)?);
    let choice = Choice::called(name, seed)
        .ok_or_else(|| BadFlag::new("generator", format!("`{name}` is unknown: use {}", Choice::NAMES)))?;
    let default_tokens = match choice {
        Choice::SpreadMinimizing(_) => Some(Choice::SPREAD_MINIMIZING_TOKENS),
        Choice::Random(_) | Choice::MinimizeSpread(_) => None,
    };
    let tokens = match (args.text("tokens"), default_tokens) {
        (None, default) => default,
        (Some(_), default) => {
            let tokens = at_least_one(args, "tokens", 0)?;
            let most = default.unwrap_or(MAX_TOKENS);
            if tokens > most {
                return Err(BadFlag::new("tokens", format!("`{name}` gives at most {most}")).into());
            }
            Some(tokens)
        }
    };
    let chosen = Chosen { choice, name: name.to_owned(), seed };
    if source == "instances" {
        let (instances, zones): (usize, _) = (args.number("instances", 0)?, at_least_one(args, "zones", 1)?);
        let tokens = tokens.unwrap_or(128);
        if instances.checked_mul(tokens).is_none_or(|tokens| tokens > MAX_TOKENS) {
            return Err(too_large("instances").into());
        }
        let model = Model::hypothetical(instances, zones, tokens, chosen);
        return Ok(model.map_err(|problem| BadFlag::new("instances", problem))?);
    }
    if args.text("zones").is_some() {
        return Err(BadFlag::new("zones", "goes with --instances only").into());
    }
    let (from, json) = match (args.text("url"), args.text("file")) {
        (Some(url), _) => (url, ring::fetch(args, url)?),
        (None, Some(file)) => (file, read(file)?),
        (None, None) => return Err(BadFlag::new("file", "is needed").into()),
    };
    Ok(Model::of_page(&ring::page(from, &json)?, tokens, chosen)?)
}

fn read(file: &str) -> Result<serde_json::Value, Failure> {
    let text =
        if file == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|cause| format!("{file}: {cause}"))?;
    Ok(serde_json::from_str(&text).map_err(|cause| format!("{file}: this is no JSON: {cause}"))?)
}

fn at_least_one(args: &Parsed, flag: &'static str, default: usize) -> Result<usize, BadFlag> {
    match args.number(flag, default)? {
        0 => Err(BadFlag::new(flag, "must be at least 1")),
        number => Ok(number),
    }
}

fn too_large(flag: &str) -> BadFlag {
    BadFlag::new(flag, format!("the ring would have more than {MAX_TOKENS} tokens"))
}

/// The steps in the order of the command line, each with its flag.
fn changes(args: &Parsed) -> Result<Vec<(&'static str, Change)>, BadFlag> {
    let changes = args.in_order().map(|(flag, value)| {
        let count = |text: &str| match text.replace('_', "").parse() {
            Ok(0) | Err(_) => Err(BadFlag::new(flag, format!("`{text}` is no number of instances"))),
            Ok(number) => Ok(number),
        };
        let change = match flag {
            "join" => Change::Join { zone: None, instances: count(value)? },
            "join-zone" => {
                let Some((zone, number)) = value.rsplit_once(':') else {
                    return Err(BadFlag::new(flag, format!("`{value}`: write NAME:N")));
                };
                Change::Join { zone: Some(zone.into()), instances: count(number)? }
            }
            "leave" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                Change::Leave(Who::Last(count(value)?))
            }
            "leave" => Change::Leave(Who::Called(value.split(',').map(Into::into).collect())),
            "leave-zone" => Change::Leave(Who::Zone(value.into())),
            _ => return Ok(None),
        };
        Ok(Some((flag, change)))
    });
    changes.filter_map(Result::transpose).collect()
}

#[cfg(test)]
mod tests;
