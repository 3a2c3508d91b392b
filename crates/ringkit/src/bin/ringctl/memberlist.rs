//! `ringctl memberlist …`: gossip as one process sees it, or several.

mod advice;
mod keyring;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use ringkit_loadgen::http;
use serde_json::Value;

use crate::args::{BadFlag, Command, Flag, Parsed};
use crate::gossip::{Gossip, ringkit};
use crate::{Failure, OK, block_on, print};

pub(crate) use self::keyring::{GENERATE, KEYRING};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the page is, unless the address says so.
const PATH: &str = "/memberlist";

const URL: Flag =
    Flag { name: "url", value: "URL", help: "any process that gossips, such as http://localhost:9009" };

pub(crate) const STATUS: Command = Command {
    name: "memberlist status",
    positional: &[],
    about: "Tells how gossip goes, as one process sees it.",
    flags: &[URL, Flag { name: "json", value: "", help: "the page's JSON, unchanged" }],
    notes: "SIZE is of a key's registers in memory, in bytes, and CHANGED when the newest of them was written.",
    run: status,
};

pub(crate) const MEMBERS: Command = Command {
    name: "memberlist members",
    positional: &[],
    about: "Lists the members of a gossip cluster, as one of them sees it.",
    flags: &[URL, Flag { name: "json", value: "", help: "the same as JSON" }],
    notes: "RTT is a member's round trip in milliseconds. OFFSET is how far its clock is ahead, in milliseconds.",
    run: members,
};

pub(crate) const HEAL: Command = Command {
    name: "memberlist heal",
    positional: &[],
    about: "Lets what one process holds of a key overrule what all others hold.",
    flags: &[
        URL,
        Flag { name: "key", value: "KEY", help: "the key, as `ringctl memberlist status` shows it" },
        Flag { name: "id", value: "ID", help: "one entry of it [all]" },
        Flag {
            name: "admin-token-file",
            value: "FILE",
            help: "the token of `server.admin_token_file`, if there is one",
        },
        Flag { name: "json", value: "", help: "the answer as JSON" },
    ],
    notes: "For entries that nobody can overwrite any more, because a clock that was far ahead wrote them. Of a whole key only\n\
            what is ahead of that process's clock is written anew, of one entry all that is not removed.",
    run: heal,
};

fn status(args: &Parsed) -> Result<u8, Failure> {
    let url = args.needed("url")?;
    let page = fetch(url)?;
    if args.has("json") {
        print(&format!("{page:#}\n"));
        return Ok(OK);
    }
    print(&in_words(&read(url, &page)?));
    Ok(OK)
}

fn members(args: &Parsed) -> Result<u8, Failure> {
    let url = args.needed("url")?;
    let page = fetch(url)?;
    if args.has("json") {
        let told = ringkit(&page).map_err(|problem| about(url, &problem))?;
        let members = told.get("members").cloned().unwrap_or_default();
        print(&format!("{members:#}\n"));
        return Ok(OK);
    }
    print(&members_table(&read(url, &page)?));
    Ok(OK)
}

fn heal(args: &Parsed) -> Result<u8, Failure> {
    let (url, key) = (args.needed("url")?, args.needed("key")?);
    let token = args.text("admin-token-file").map(|file| {
        let token = std::fs::read_to_string(file);
        let bad = |cause| BadFlag::new("admin-token-file", format!("cannot read {file}: {cause}"));
        token.map(|token| token.trim().to_owned()).map_err(bad)
    });
    let answer = block_on(ask_to_heal(url, key, args.text("id"), token.transpose()?.as_deref()))?;
    if args.has("json") {
        print(&format!("{answer:#}\n"));
    } else {
        print(&format!("{}\n", outcome(&answer)));
    }
    Ok(OK)
}

/// What came of healing, as the process says it.
fn outcome(answer: &Value) -> &str {
    let message = answer.get("message").and_then(Value::as_str);
    message.unwrap_or("The process took the request, but does not say what it has healed.")
}

/// The page of the process at `url`, as JSON.
fn fetch(url: &str) -> Result<Value, Failure> {
    block_on(async { Ok(http::get_json(url, PATH, TIMEOUT).await?) }).map_err(|failure| explain(url, failure))
}

/// Reads the page of the process at `url`.
fn read(url: &str, page: &Value) -> Result<Gossip, Failure> {
    Ok(Gossip::of(page).map_err(|problem| about(url, &problem))?)
}

fn about(url: &str, problem: &str) -> String {
    format!("{url}: this page {problem}")
}

/// What is wrong with a process without such a page, if that is it.
fn explain(url: &str, failure: Failure) -> Failure {
    let text = failure.to_string();
    if text.contains("doesn't use memberlist") {
        return format!("{url}: this process does not gossip: none of its rings is on `store: memberlist`")
            .into();
    }
    if text.contains("404 page not found") {
        return format!("{text}; is this a process that has rings, and is its path prefix in the address?")
            .into();
    }
    failure
}

async fn ask_to_heal(url: &str, key: &str, id: Option<&str>, token: Option<&str>) -> Result<Value, Failure> {
    let mut to = http::endpoint("url", url, PATH)?;
    let path = format!("{}/heal", to.path().trim_end_matches('/'));
    to.set_path(&path);
    let body = serde_json::json!({ "key": key, "id": id }).to_string();
    let mut request = http::client(TIMEOUT)?.post(to.clone()).body(body);
    request = request.header("accept", "application/json").header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let silent = |cause: &(dyn std::error::Error + 'static)| {
        let causes = std::iter::successors(Some(cause), |cause| cause.source());
        format!("{to}: {}", causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
    };
    let answer = request.send().await.map_err(|cause| silent(&cause))?;
    let status = answer.status().as_u16();
    let text = answer.text().await.map_err(|cause| silent(&cause))?;
    match status {
        200 => Ok(serde_json::from_str(&text)
            .map_err(|cause| format!("{to}: the answer is no JSON ({cause}): {}", text.trim()))?),
        401 => Err(format!("{to}: {}; give --admin-token-file", text.trim()).into()),
        status => Err(explain(url, format!("{to}: status {status}: {}", text.trim()).into())),
    }
}

fn in_words(report: &Gossip) -> String {
    let Gossip { name, addr, label, zone, build, transport, phase, .. } = report;
    let mut text = format!("{name} at {addr}");
    for (what, value) in [("zone", zone), ("build", build)] {
        if !value.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(text, ", {what} {value}");
        }
    }
    text.push('\n');
    let synced = match (report.synced, report.gave_up) {
        (true, _) => "synced",
        (false, true) => "not synced, but no longer waited for",
        (false, false) => "not synced: reads and writes wait",
    };
    line(
        &mut text,
        "phase",
        &format!("{phase}, {synced}; {} failed rounds of joining", report.join_attempts),
    );
    for seed in &report.seeds {
        let state = match (&seed.error, seed.lost_for_secs) {
            (Some(error), _) => format!("cannot be looked up: {error}"),
            (None, Some(lost)) => format!("no member for {lost} s"),
            (None, None) => "fine".to_owned(),
        };
        line(&mut text, "seed", &format!("{} ({}): {state}", seed.seed, seed.addrs.join(", ")));
    }
    line(&mut text, "label", if label.is_empty() { "none" } else { label });
    let seals = report.keyring.iter().find(|key| key.seals);
    let clear =
        if report.requires_sealed == Some(false) { "; what is not sealed is still accepted" } else { "" };
    let sealed =
        seals.map_or_else(|| "not sealed".to_owned(), |key| format!("sealed with key {}{clear}", key.id));
    line(&mut text, "transport", &format!("{transport}, {sealed}"));
    line(&mut text, "members", &population(report));
    let queue = &report.queue;
    line(
        &mut text,
        "queue",
        &format!("{} registers, {} of them own, {} bytes", queue.len, queue.own, queue.bytes),
    );
    if let Some(took) = &report.propagation {
        let took = format!("{:.0} ms in the median, {:.0} ms at p99", took.p50_ms, took.p99_ms);
        line(&mut text, "news takes", &took);
    }
    if let Some(clock) = &report.own_clock {
        let ahead = format!("ahead of {} other members by {} ms", clock.ahead_of, clock.by_ms);
        line(&mut text, "own clock", &ahead);
    }
    if report.unopenable > 0 {
        line(
            &mut text,
            "unopenable",
            &format!("{} came in sealed with a key that is not here", report.unopenable),
        );
    }
    for (what, counts) in [("refused", &report.refused), ("quarantined", &report.quarantined)] {
        if !counts.is_empty() {
            let counts: Vec<String> = counts.iter().map(|(of, count)| format!("{of} {count}")).collect();
            line(&mut text, what, &counts.join(", "));
        }
    }
    text.push('\n');
    text.push_str(&keys_table(report));
    text
}

fn line(text: &mut String, what: &str, value: &str) {
    let _ = writeln!(text, "{what:<13}{value}");
}

fn population(report: &Gossip) -> String {
    let mut by_state: BTreeMap<&str, usize> = BTreeMap::new();
    for member in &report.members {
        *by_state.entry(&member.state).or_default() += 1;
    }
    let states: Vec<String> = by_state.into_iter().map(|(state, count)| format!("{count} {state}")).collect();
    format!("{}: {}", report.members.len(), states.join(", "))
}

fn keys_table(report: &Gossip) -> String {
    let rows = report.keys.iter().map(|key| {
        [
            key.key.clone(),
            if key.codec.is_empty() { "-".to_owned() } else { key.codec.clone() },
            key.entries.to_string(),
            key.registers.to_string(),
            key.tombstones.to_string(),
            key.bytes.to_string(),
            format!("{} s ago", key.age_ms / 1000),
            key.digest.clone(),
        ]
    });
    table(["KEY", "CODEC", "ENTRIES", "REGISTERS", "TOMBSTONES", "SIZE", "CHANGED", "DIGEST"], rows)
}

fn members_table(report: &Gossip) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows = report.members.iter().map(|member| {
        [
            member.name.clone(),
            member.addr.clone(),
            member.zone.clone(),
            member.build.clone(),
            member.state.clone(),
            or_dash(member.rtt_ms.map(|ms| format!("{ms:.1}"))),
            or_dash(member.clock_offset_ms.map(|ms| format!("{ms:+}"))),
            member.generation.to_string(),
        ]
    });
    let table = table(["NAME", "ADDRESS", "ZONE", "BUILD", "STATE", "RTT", "OFFSET", "GENERATION"], rows);
    format!("{table}{} as {} sees it\n", population(report), report.name)
}

/// Columns as wide as what is in them.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests;
