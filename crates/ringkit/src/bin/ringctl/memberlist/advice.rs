//! What to do next about cluster keys, as far as the keyrings of the processes tell. Nobody is asked here.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::gossip::{ClusterKey, Gossip};

/// The keyring of one process.
#[derive(Debug, Serialize)]
pub(super) struct Process {
    pub(super) url: String,
    pub(super) name: String,
    /// What it seals with.
    pub(super) seals_with: Option<String>,
    /// What it opens, and how often it did since its start.
    pub(super) opens: BTreeMap<String, u64>,
    /// Ids that more than one of its keys has.
    repeated: BTreeSet<String>,
    /// Whether it refuses what is not sealed, and says nothing that is not.
    pub(super) requires_sealed: bool,
    /// How much came in sealed that none of them opened.
    pub(super) unopenable: u64,
    /// The members it knows of, itself too.
    #[serde(skip)]
    knows: BTreeSet<String>,
}

/// What is to be done next.
#[derive(Debug)]
pub(super) struct Advice {
    pub(super) lines: Vec<String>,
    /// Whether some do not understand others.
    pub(super) broken: bool,
    /// Whether too little is known to say all that could be said.
    pub(super) withheld: bool,
}

impl Process {
    pub(super) fn new(url: String, report: &Gossip) -> Self {
        let mut opens: BTreeMap<String, u64> = BTreeMap::new();
        let mut repeated = BTreeSet::new();
        for ClusterKey { id, opened, .. } in &report.keyring {
            match opens.entry(plain(id)) {
                Entry::Vacant(place) => {
                    place.insert(*opened);
                }
                Entry::Occupied(mut place) => {
                    *place.get_mut() = place.get().saturating_add(*opened);
                    repeated.insert(place.key().clone());
                }
            }
        }
        let seals_with = report.keyring.iter().find(|key| key.seals).map(|key| plain(&key.id));
        Self {
            url,
            name: report.name.clone(),
            seals_with,
            // Without a key there is nothing that could be required. Who does not say is taken to be as strict as by default.
            requires_sealed: !opens.is_empty() && report.requires_sealed.unwrap_or(true),
            opens,
            repeated,
            unopenable: report.unopenable,
            knows: report.members.iter().map(|member| member.name.clone()).collect(),
        }
    }

    fn has(&self, key: &str) -> bool {
        self.opens.contains_key(key)
    }

    fn seals_with(&self, key: &str) -> bool {
        self.seals_with.as_deref() == Some(key)
    }

    /// Whether the other one seals, and with a key that is here.
    fn opens_what_comes_from(&self, other: &Self) -> bool {
        other.seals_with.as_deref().is_some_and(|key| self.has(key))
    }

    /// Whether it is told in clear what it cannot open.
    fn hears_in_clear(&self, other: &Self) -> bool {
        // Whom a process has heard sealing, to that one it speaks in clear no more.
        !self.requires_sealed && !other.requires_sealed && !other.opens_what_comes_from(self)
    }
}

/// An id as it is compared: without `0x`, in lower case.
pub(super) fn plain(id: &str) -> String {
    let id = id.to_ascii_lowercase();
    id.strip_prefix("0x").map_or_else(|| id.clone(), str::to_owned)
}

pub(super) fn advise(processes: &[Process], new: Option<&str>) -> Advice {
    let repeating: Vec<String> = processes.iter().filter_map(repeating).collect();
    if !repeating.is_empty() {
        return Advice { lines: repeating, broken: false, withheld: true };
    }
    let keys: BTreeSet<&str> =
        processes.iter().flat_map(|process| process.opens.keys()).map(String::as_str).collect();
    let mut lines: Vec<String> = keys.iter().filter_map(|key| misunderstood(processes, key)).collect();
    let broken = !lines.is_empty();
    let not_asked = not_asked(processes);
    let all_asked = not_asked.is_empty();
    if let Some(keyless) = names(processes, |process| process.opens.is_empty()) {
        lines.extend(introduction(processes, &keyless, new));
    } else {
        lines.extend(change(processes, &keys, new, all_asked));
        lines.extend(last_step(processes).filter(|_| all_asked));
    }
    if !all_asked {
        lines.push(format!(
            "Not asked, though known as members: {}. They count too, also while they are down: before they are asked, do not move \
             or remove any key, and do not set `require_encryption: true`. Who is gone for good is forgotten about an hour later.",
            not_asked.join(", ")
        ));
    }
    Advice { lines, broken, withheld: !all_asked }
}

/// Why nothing can be said of keys as long as this process has those that it has, if that is so.
fn repeating(process: &Process) -> Option<String> {
    let ids: Vec<&str> = process.repeated.iter().map(String::as_str).collect();
    (!ids.is_empty()).then(|| {
        format!(
            "No advice: {} has more than one key with the id {}. Remove what is there twice; if the keys differ, make another one.",
            process.name,
            ids.join(", ")
        )
    })
}

/// Members that somebody knows of and that were not asked. Those that are suspect or down are among them: they may come back
/// with the keys they had.
pub(super) fn not_asked(processes: &[Process]) -> Vec<&str> {
    let asked: BTreeSet<&str> = processes.iter().map(|process| process.name.as_str()).collect();
    let known: BTreeSet<&str> =
        processes.iter().flat_map(|process| &process.knows).map(String::as_str).collect();
    known.difference(&asked).copied().collect()
}

/// Who seals with a key that others do not have, and does not reach them in clear either, if anybody does.
fn misunderstood(processes: &[Process], key: &str) -> Option<String> {
    let is_lost =
        |from: &Process, to: &Process| from.seals_with(key) && !to.has(key) && !to.hears_in_clear(from);
    let sealing = names(processes, |process| processes.iter().any(|other| is_lost(process, other)))?;
    let lacking = names(processes, |process| processes.iter().any(|other| is_lost(other, process)))?;
    Some(format!(
        "BROKEN: {lacking} cannot open what comes from {sealing}, sealed with {key}: add that key there at once."
    ))
}

/// How those without a key come to have one. To add it at the end of what they have would not do: it would be the first there,
/// so whoever had it would seal with it and, by default, refuse all who do not.
fn introduction(processes: &[Process], keyless: &str, new: Option<&str>) -> [String; 3] {
    let begins = processes.iter().all(|process| process.opens.is_empty());
    let why = if begins {
        "Nothing is sealed: no process has a key. To introduce one:".to_owned()
    } else {
        format!("Without any key: {keyless}. Before anything else is changed, introduce sealing there:")
    };
    let what = match new {
        Some(new) if begins => format!("the key {new}"),
        None if begins => "the key, the same everywhere".to_owned(),
        _ => "the keys of the others, in the same order".to_owned(),
    };
    let to_do = names(processes, |process| process.opens.is_empty() || process.requires_sealed);
    // Those without a key are among them.
    let to_do = to_do.unwrap_or_default();
    [
        why,
        format!(
            "1. Set `require_encryption: false` at every process, together with {what}, and roll that out. Until then who has a key \
             and who has none refuse each other. Not done yet at {to_do}."
        ),
        "2. When every process has both, and not before, set `require_encryption: true` at every process."
            .to_owned(),
    ]
}

/// How far the change to a new key has come: to this one, or to any that it may be.
fn change(processes: &[Process], keys: &BTreeSet<&str>, new: Option<&str>, all_asked: bool) -> Vec<String> {
    let step = |key: &str| step(processes, key, all_asked);
    match (new, keys.len()) {
        (Some(new), _) => vec![format!("Key {new}: {}", step(new))],
        (None, 1) => keys.iter().map(|key| format!("Key {key}: {}", step(key))).collect(),
        // Which of them is the new one cannot be seen.
        (None, _) => keys.iter().map(|key| format!("If {key} is the new key: {}", step(key))).collect(),
    }
}

/// How far the change to the key `new` has come. All have at least one key.
fn step(processes: &[Process], new: &str, all_asked: bool) -> String {
    if let Some(lacking) = names(processes, |process| !process.has(new)) {
        return format!(
            "step 1 of 3, adding it: not there yet at {lacking}. Add it there at the end of the keys; nobody may seal with it \
             before all have it."
        );
    }
    if !all_asked {
        return "all that were asked have it. What comes next is told when all members are asked.".to_owned();
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

/// What remains to be done as long as anybody takes what is not sealed. All have at least one key.
fn last_step(processes: &[Process]) -> Option<String> {
    let lenient = names(processes, |process| !process.requires_sealed)?;
    let misses = |process: &Process| processes.iter().any(|other| !process.opens_what_comes_from(other));
    Some(match names(processes, misses) {
        None => format!(
            "Last step: all open what any of them seals, so set `require_encryption: true` at {lenient}, where clear gossip is \
             still accepted."
        ),
        Some(lacking) => format!(
            "Last step, not yet: clear gossip is still accepted at {lenient}. Leave `require_encryption: false` there until {lacking} \
             can open what all others seal."
        ),
    })
}

/// The names of those that are meant, unless there are none.
fn names(processes: &[Process], meant: impl Fn(&Process) -> bool) -> Option<String> {
    let names: Vec<&str> =
        processes.iter().filter(|process| meant(process)).map(|process| process.name.as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::Member;

    /// Processes called a, b, …, each with its keys in order: the first one seals.
    fn processes(keyrings: &[&[&str]]) -> Vec<Process> {
        let process = |(place, keys): (usize, &&[&str])| {
            let keyring = keys.iter().enumerate().map(|(at, id)| ClusterKey {
                id: (*id).to_owned(),
                seals: at == 0,
                opened: 3,
            });
            let name = ["a", "b", "c"][place];
            let report = Gossip { name: name.to_owned(), keyring: keyring.collect(), ..Gossip::default() };
            Process::new(format!("http://{name}"), &report)
        };
        keyrings.iter().enumerate().map(process).collect()
    }

    /// The same, of which those with these names take and say things in clear, too.
    fn lenient(keyrings: &[&[&str]], names: &[&str]) -> Vec<Process> {
        let mut processes = processes(keyrings);
        for process in &mut processes {
            process.requires_sealed &= !names.contains(&process.name.as_str());
        }
        processes
    }

    #[track_caller]
    fn told(processes: &[Process], new: Option<&str>, broken: bool, parts: &[&str]) {
        let advice = advise(processes, new);
        assert_eq!(advice.broken, broken, "{:?}", advice.lines);
        assert_eq!(advice.lines.len(), parts.len(), "{:?}", advice.lines);
        for (line, part) in advice.lines.iter().zip(parts) {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }

    #[track_caller]
    fn advised(keyrings: &[&[&str]], new: Option<&str>, broken: bool, parts: &[&str]) {
        told(&processes(keyrings), new, broken, parts);
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
    fn the_first_key_is_introduced_without_being_required() {
        const LAST: &str = "2. When every process has both, and not before, set `require_encryption: true`";
        const BEGIN: &str = "Nothing is sealed: no process has a key.";
        let first = "1. Set `require_encryption: false` at every process, together with";
        let same = &format!("{first} the key, the same everywhere, and roll");
        advised(&[&[], &[]], None, false, &[BEGIN, same, LAST]);
        let this = &format!("{first} the key 22, and roll");
        advised(&[&[], &[]], Some("22"), false, &[BEGIN, this, LAST]);
        // Where some have it already, theirs comes first whatever else is wanted.
        let theirs = &format!("{first} the keys of the others, in the same order, and roll");
        for new in [None, Some("11"), Some("22")] {
            let broken = "BROKEN: b cannot open what comes from a, sealed with 11";
            advised(&[&["11"], &[]], new, true, &[broken, "Without any key: b.", theirs, LAST]);
            let begun = lenient(&[&["11"], &[]], &["a"]);
            told(&begun, new, false, &["Without any key: b.", "Not done yet at b.", LAST]);
        }
        told(&processes(&[&[], &["11"]]), None, true, &["BROKEN", "Without", "Not done yet at a, b.", LAST]);
        let keyless: [[&[&str]; 2]; 2] = [[&[], &[]], [&["11"], &[]]];
        for keyrings in keyless {
            let lines = advise(&processes(&keyrings), Some("22")).lines.join(" ");
            assert!(!lines.contains("at the end") && !lines.contains("of 3"), "{lines}");
        }
    }

    #[test]
    fn what_is_not_sealed_is_accepted_until_the_last_step() {
        let keyrings: [&[&str]; 2] = [&["11"], &["11"]];
        const DONE: &str = "no change is under way";
        told(
            &lenient(&keyrings, &["a", "b"]),
            None,
            false,
            &[DONE, "Last step: all open what any of them seals, so set `require_encryption: true` at a, b"],
        );
        told(&lenient(&keyrings, &["b"]), None, false, &[DONE, "set `require_encryption: true` at b"]);
        told(&lenient(&keyrings, &[]), None, false, &[DONE]);
        // They understand each other in clear only.
        let strangers = lenient(&[&["11"], &["22"]], &["a", "b"]);
        told(
            &strangers,
            Some("22"),
            false,
            &[
                "step 1 of 3, adding it: not there yet at a.",
                "Last step, not yet: clear gossip is still accepted at a, b.",
            ],
        );
        // One of them does not speak in clear.
        let part = "sealed with 11";
        told(
            &lenient(&[&["11"], &["22"]], &["b"]),
            Some("22"),
            true,
            &[part, "sealed with 22", "step 1 of 3", "Last step, not yet"],
        );
        // The first one hears the second one sealing, and so tells it nothing in clear.
        told(
            &lenient(&[&["22", "11"], &["11"]], &["a", "b"]),
            Some("22"),
            true,
            &["BROKEN: b cannot open what comes from a, sealed with 22", "step 1 of 3", "Last step, not yet"],
        );
    }

    #[test]
    fn what_takes_all_members_is_not_advised_before_all_are_asked() {
        let knowing = |keyrings: &[&[&str]], names: &[&str]| {
            let mut processes = lenient(keyrings, &["a"]);
            processes[0].knows = names.iter().map(|name| (*name).to_owned()).collect();
            processes
        };
        let new = Some("22");
        const NOT_ASKED: &str =
            "Not asked, though known as members: x, y. They count too, also while they are down";
        let under_way: [[&[&str]; 2]; 2] = [[&["11", "22"], &["11", "22"]], [&["22", "11"], &["22", "11"]]];
        for keyrings in under_way {
            let processes = knowing(&keyrings, &["a", "b", "y", "x"]);
            told(
                &processes,
                new,
                false,
                &["Key 22: all that were asked have it. What comes next is told", NOT_ASKED],
            );
            assert!(advise(&processes, new).withheld);
            assert_eq!(not_asked(&processes), ["x", "y"]);
            assert!(!advise(&knowing(&keyrings, &["a", "b"]), new).withheld);
        }
        told(&knowing(&[&["11"], &["11"]], &["x", "y"]), new, false, &["step 1 of 3", NOT_ASKED]);
        told(&knowing(&[&["22"], &["22"]], &["x", "y"]), new, false, &["all that were asked", NOT_ASKED]);
        let keyless = knowing(&[&[], &[]], &["x", "y"]);
        told(&keyless, new, false, &["Nothing is sealed", "1. Set", "2. When every", NOT_ASKED]);
        assert!(advise(&keyless, new).withheld);
    }

    #[test]
    fn members_count_in_whatever_state_they_are() {
        let member = |name: &str, state: &str| Member {
            name: name.to_owned(),
            state: state.to_owned(),
            ..Member::default()
        };
        let report = Gossip {
            name: "a".to_owned(),
            members: vec![
                member("a", "alive"),
                member("b", "down"),
                member("c", "suspect"),
                member("d", "alive"),
            ],
            ..Gossip::default()
        };
        assert_eq!(not_asked(&[Process::new("http://a".to_owned(), &report)]), ["b", "c", "d"]);
    }

    #[test]
    fn keys_that_share_an_id_are_not_advised_on() {
        let processes = processes(&[&["11", "22"], &["22", "0X22"]]);
        told(&processes, Some("22"), false, &["No advice: b has more than one key with the id 22."]);
        assert!(advise(&processes, None).withheld);
    }

    #[test]
    fn who_does_not_say_what_it_requires_is_taken_to_be_strict() {
        let requires = |ids: &[&str], requires_sealed| {
            let key = |id: &&str| ClusterKey { id: (*id).to_owned(), ..ClusterKey::default() };
            let keyring = ids.iter().map(key).collect();
            let report = Gossip { keyring, requires_sealed, ..Gossip::default() };
            Process::new(String::new(), &report).requires_sealed
        };
        assert!(requires(&["0123456789abcdef"], None) && requires(&["11"], Some(true)));
        assert!(!requires(&["11"], Some(false)) && !requires(&[], Some(true)));
    }
}
