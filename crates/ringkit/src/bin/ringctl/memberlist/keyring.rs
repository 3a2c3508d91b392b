//! `ringctl memberlist keyring …`: a new cluster key, and how far the change from one key to another has come.
//!
//! A key is changed in three steps, each at every process before the next: add the new one at the end, move it to the front,
//! remove the old one.

use std::collections::{BTreeMap, BTreeSet};

use rand::TryRng as _;
use rand::rngs::SysRng;
use serde::Serialize;

use super::report::{ClusterKey, Report};
use super::{fetch, table};
use crate::args::{BadFlag, Command, Flag, Parsed};
use crate::{Failure, NOT_OK, OK, print};

/// Bytes of a generated key: what the cipher uses.
const KEY_BYTES: usize = 32;

pub(crate) const GENERATE: Command = Command {
    name: "memberlist keyring generate",
    positional: &[],
    about: "Prints a new key for `memberlist.encryption_keys`.",
    flags: &[],
    notes: "It is made of the operating system's randomness and kept nowhere.",
    run: generate,
};

pub(crate) const KEYRING: Command = Command {
    name: "memberlist keyring status",
    positional: &[],
    about: "Tells which process has and uses which cluster key, and how far a change of it has come.",
    flags: &[
        Flag { name: "url", value: "URL", help: "a process that gossips; repeat it for all of them" },
        Flag { name: "new", value: "ID", help: "the key that is being introduced [each in turn]" },
        Flag { name: "json", value: "", help: "the same as JSON" },
    ],
    notes: "A key's id is one byte of its hash. To change the key: add the new one at the end of the keys of every process, then\n\
            move it to the front at every process, then remove the old one. Only processes that are asked count.\n\
            Exit status 1 if a process seals with a key that another one does not have.",
    run: status,
};

fn generate(_: &Parsed) -> Result<u8, Failure> {
    let mut key = [0; KEY_BYTES];
    SysRng
        .try_fill_bytes(&mut key)
        .map_err(|cause| format!("the operating system gives no randomness: {cause}"))?;
    print(&format!("{}\n", base64(&key)));
    Ok(OK)
}

fn status(args: &Parsed) -> Result<u8, Failure> {
    let urls = args.all("url");
    if urls.is_empty() {
        return Err(BadFlag::new("url", "is needed, once for each process").into());
    }
    let mut processes = Vec::new();
    let mut known = BTreeSet::new();
    for url in urls {
        let report = Report::of(&url, &fetch(&url)?)?;
        let alive = report.members.iter().filter(|member| member.state == "alive");
        known.extend(alive.map(|member| member.name.clone()));
        processes.push(Process::new(url, &report));
    }
    let mut advice = advise(&processes, args.text("new").map(plain).as_deref());
    let asked: BTreeSet<&str> = processes.iter().map(|process| process.name.as_str()).collect();
    let others: Vec<&str> = known.iter().map(String::as_str).filter(|name| !asked.contains(name)).collect();
    if !others.is_empty() {
        advice.lines.push(format!("Not asked, though members: {}. They count too.", others.join(", ")));
    }
    if args.has("json") {
        let json =
            serde_json::json!({ "processes": processes, "advice": advice.lines, "broken": advice.broken });
        print(&format!("{json:#}\n"));
    } else {
        print(&processes_table(&processes));
        print(&format!("\n{}\n", advice.lines.join("\n")));
    }
    Ok(if advice.broken { NOT_OK } else { OK })
}

/// The keyring of one process.
#[derive(Debug, Serialize)]
struct Process {
    url: String,
    name: String,
    /// What it seals with.
    seals_with: Option<String>,
    /// What it opens, and how often it did since its start.
    opens: BTreeMap<String, u64>,
    /// How much came in sealed that none of them opened.
    unopenable: u64,
}

/// What is to be done next.
#[derive(Debug, PartialEq)]
struct Advice {
    lines: Vec<String>,
    /// Whether some do not understand others.
    broken: bool,
}

impl Process {
    fn new(url: String, report: &Report) -> Self {
        let mut opens: BTreeMap<String, u64> = BTreeMap::new();
        for ClusterKey { id, opened, .. } in &report.keyring {
            *opens.entry(plain(id)).or_default() += opened;
        }
        let seals_with = report.keyring.iter().find(|key| key.seals).map(|key| plain(&key.id));
        Self { url, name: report.name.clone(), seals_with, opens, unopenable: report.unopenable }
    }

    fn has(&self, key: &str) -> bool {
        self.opens.contains_key(key)
    }

    fn seals_with(&self, key: &str) -> bool {
        self.seals_with.as_deref() == Some(key)
    }
}

/// An id as it is compared: without `0x`, in lower case.
fn plain(id: &str) -> String {
    let id = id.to_ascii_lowercase();
    id.strip_prefix("0x").map_or_else(|| id.clone(), str::to_owned)
}

fn advise(processes: &[Process], new: Option<&str>) -> Advice {
    let keys: BTreeSet<&str> =
        processes.iter().flat_map(|process| process.opens.keys()).map(String::as_str).collect();
    if keys.is_empty() && new.is_none() {
        let lines = vec![
            "Nothing is sealed: no process has a key. To begin: give all the same one, with `require_encryption: false` until \
             every process has it."
                .to_owned(),
        ];
        return Advice { lines, broken: false };
    }
    let mut lines: Vec<String> = keys.iter().filter_map(|key| misunderstood(processes, key)).collect();
    let broken = !lines.is_empty();
    match (new, keys.len()) {
        (Some(new), _) => lines.push(format!("Key {new}: {}", step(processes, new))),
        (None, 1) => lines.extend(keys.iter().map(|key| format!("Key {key}: {}", step(processes, key)))),
        // Which of them is the new one cannot be seen.
        (None, _) => {
            lines.extend(keys.iter().map(|key| format!("If {key} is the new key: {}", step(processes, key))));
        }
    }
    Advice { lines, broken }
}

/// Who seals with a key that others do not have, if anybody does.
fn misunderstood(processes: &[Process], key: &str) -> Option<String> {
    let sealing = names(processes, |process| process.seals_with(key))?;
    let lacking = names(processes, |process| !process.has(key))?;
    Some(format!(
        "BROKEN: {lacking} cannot open what comes from {sealing}, sealed with {key}: add that key there at once."
    ))
}

/// How far the change to the key `new` has come.
fn step(processes: &[Process], new: &str) -> String {
    if let Some(lacking) = names(processes, |process| !process.has(new)) {
        return format!(
            "step 1 of 3, adding it: not there yet at {lacking}. Add it there at the end of the keys; nobody may seal with it \
             before all have it."
        );
    }
    if let Some(waiting) = names(processes, |process| !process.seals_with(new)) {
        return format!(
            "step 2 of 3, sealing with it: all have it, so it can be moved to the front. Not done yet at {waiting}."
        );
    }
    let old: BTreeSet<&str> = processes
        .iter()
        .flat_map(|process| process.opens.keys())
        .map(String::as_str)
        .filter(|key| *key != new)
        .collect();
    match names(processes, |process| process.opens.len() > 1) {
        Some(holding) => {
            let old: Vec<&str> = old.into_iter().collect();
            format!(
                "step 3 of 3, removing the old: all seal with it, so {} can be removed. Still there at {holding}.",
                old.join(", ")
            )
        }
        None => "all have it, seal with it, and have no other: no change is under way.".to_owned(),
    }
}

/// The names of those that are meant, unless there are none.
fn names(processes: &[Process], meant: impl Fn(&Process) -> bool) -> Option<String> {
    let names: Vec<&str> =
        processes.iter().filter(|process| meant(process)).map(|process| process.name.as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn processes_table(processes: &[Process]) -> String {
    let rows = processes.iter().map(|process| {
        let opens: Vec<String> =
            process.opens.iter().map(|(key, opened)| format!("{key} ({opened} opened)")).collect();
        [
            process.name.clone(),
            process.url.clone(),
            process.seals_with.clone().unwrap_or_else(|| "-".to_owned()),
            if opens.is_empty() { "-".to_owned() } else { opens.join(", ") },
            process.unopenable.to_string(),
        ]
    });
    table(["PROCESS", "URL", "SEALS WITH", "OPENS", "UNOPENABLE"], rows)
}

/// Base64 with padding, as the configuration wants it.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processes called a, b, …, each with its keys in order: the first one seals.
    fn processes(keyrings: &[&[&str]]) -> Vec<Process> {
        let process = |(place, keys): (usize, &&[&str])| {
            let keyring = keys.iter().enumerate().map(|(at, id)| ClusterKey {
                id: (*id).to_owned(),
                seals: at == 0,
                opened: 3,
            });
            let name = ["a", "b", "c"][place];
            let report = Report { name: name.to_owned(), keyring: keyring.collect(), ..Report::default() };
            Process::new(format!("http://{name}"), &report)
        };
        keyrings.iter().enumerate().map(process).collect()
    }

    #[track_caller]
    fn advised(keyrings: &[&[&str]], new: Option<&str>, broken: bool, parts: &[&str]) {
        let advice = advise(&processes(keyrings), new);
        assert_eq!(advice.broken, broken, "{:?}", advice.lines);
        assert_eq!(advice.lines.len(), parts.len(), "{:?}", advice.lines);
        for (line, part) in advice.lines.iter().zip(parts) {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }

    #[test]
    fn each_step_of_a_change_is_told_with_who_has_not_done_it() {
        let new = Some("22");
        advised(&[&["11"], &["11"]], new, false, &["step 1 of 3, adding it: not there yet at a, b."]);
        advised(&[&["11", "22"], &["11"]], new, false, &["step 1 of 3, adding it: not there yet at b."]);
        advised(&[&["11", "22"], &["11", "22"]], new, false, &["step 2 of 3, sealing with it: all have it"]);
        advised(&[&["22", "11"], &["11", "22"]], new, false, &["Not done yet at b."]);
        advised(
            &[&["22", "11"], &["22", "11"]],
            new,
            false,
            &["step 3 of 3, removing the old: all seal with it, so 11 can be removed. Still there at a, b."],
        );
        advised(&[&["22"], &["22", "11"]], new, false, &["Still there at b."]);
        advised(&[&["22"], &["22"]], new, false, &["no change is under way"]);
    }

    #[test]
    fn without_saying_which_key_is_new_each_is_considered() {
        advised(&[&["11"], &["11"]], None, false, &["Key 11: all have it, seal with it, and have no other"]);
        advised(
            &[&["11", "22"], &["11", "22"]],
            None,
            false,
            &["If 11 is the new key: step 3 of 3", "If 22 is the new key: step 2 of 3"],
        );
        advised(
            &[&["11"], &[]],
            None,
            true,
            &["BROKEN: b cannot open what comes from a, sealed with 11", "step 1 of 3"],
        );
        advised(&[&[], &[]], None, false, &["Nothing is sealed"]);
        advised(&[&[], &[]], Some("22"), false, &["Key 22: step 1 of 3, adding it: not there yet at a, b."]);
    }

    #[test]
    fn whoever_seals_too_early_is_told() {
        advised(
            &[&["22", "11"], &["11", "22"], &["11"]],
            Some("22"),
            true,
            &[
                "BROKEN: c cannot open what comes from a, sealed with 22",
                "step 1 of 3, adding it: not there yet at c.",
            ],
        );
    }

    #[test]
    fn the_table_shows_each_keyring() {
        let text = processes_table(&processes(&[&["0xAB", "22"], &[]]));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "a        http://a  ab          22 (3 opened), ab (3 opened)  0");
        assert_eq!(lines[2], "b        http://b  -           -                             0");
    }

    #[test]
    fn keys_are_written_in_base64() {
        assert_eq!(base64(b"foob"), "Zm9vYg==");
        assert_eq!(base64(b"fooba"), "Zm9vYmE=");
        assert_eq!(base64(b"foobar"), "Zm9vYmFy");
        assert_eq!(base64(&[0xff; KEY_BYTES]).len(), 44);
    }
}
