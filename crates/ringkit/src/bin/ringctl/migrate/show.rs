//! What a cluster looks like, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::check::{Reason, brief};
use super::cluster::Cluster;
use super::page::{Key, Process, Silent, Store};
use crate::memberlist::table;

const HEADER: [&str; 16] = [
    "PROCESS",
    "RING",
    "PRIMARY",
    "MIRROR",
    "READS",
    "GEN",
    "ENTRIES",
    "QUEUE",
    "LAG",
    "MISSING",
    "RELAYED",
    "DIFFER",
    "FOREIGN",
    "SKEW",
    "RECONCILED",
    "GATE",
];

/// All rings of all processes, and what is amiss.
pub(super) fn status(cluster: &Cluster, reasons: &[Reason]) -> String {
    let mut text = processes(cluster);
    for Silent { who, problem } in &cluster.silent {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "cannot be asked: {who}: {problem}");
    }
    for reason in reasons {
        let _ = writeln!(text, "{reason}");
    }
    if reasons.is_empty() && cluster.silent.is_empty() {
        text.push_str("nothing is amiss\n");
    }
    text
}

/// The table of all rings of all processes, and who has which runtime configuration.
pub(super) fn processes(cluster: &Cluster) -> String {
    let rows = cluster.processes.iter().flat_map(|process| {
        let stores = process.page.stores.iter().map(|store| row(process, store));
        // Whoever keeps nothing in two stores is there all the same.
        let none = process.page.stores.is_empty().then(|| {
            let mut row = [const { String::new() }; HEADER.len()];
            row[0].clone_from(&process.name);
            row[1] = "none in two stores".to_owned();
            row
        });
        stores.chain(none).collect::<Vec<_>>()
    });
    let mut text = table(HEADER, rows);
    let mut hashes: Vec<(String, Vec<&str>)> = Vec::new();
    for process in &cluster.processes {
        let hash = process.page.config_hash.as_deref().map_or_else(|| "none".to_owned(), brief);
        match hashes.iter_mut().find(|(known, _)| *known == hash) {
            Some((_, names)) => names.push(process.name.as_str()),
            None => hashes.push((hash, vec![process.name.as_str()])),
        }
    }
    match &hashes[..] {
        [] => (),
        [(hash, _)] => {
            let _ = writeln!(text, "runtime configuration {hash} everywhere");
        }
        several => {
            for (hash, names) in several {
                let _ = writeln!(text, "runtime configuration {hash} in {}", names.join(", "));
            }
        }
    }
    text
}

fn row(process: &Process, store: &Store) -> [String; HEADER.len()] {
    let reads = match (store.read_mode.as_str(), store.secondary_counts) {
        ("union", true) => "both",
        ("union", false) => "primary yet",
        _ => "primary",
    };
    let queue: u64 = store.keys.iter().map(|key| key.queue_length).sum();
    let lag = store.keys.iter().map(|key| key.lag_secs).fold(0.0, f64::max);
    let skew = store.keys.iter().map(|key| key.skew_secs).max().unwrap_or(0);
    let compared = !store.keys.is_empty() && store.keys.iter().all(|key| key.compared);
    let number = |number: u64| if compared { number.to_string() } else { "?".to_owned() };
    let both = |of: fn(&Store, usize) -> u64| {
        if compared { format!("{}/{}", of(store, 0), of(store, 1)) } else { "?".to_owned() }
    };
    [
        process.name.clone(),
        store.kv_name.clone(),
        store.primary.clone(),
        if store.mirror { format!("to {}", store.secondary) } else { "off".to_owned() },
        reads.to_owned(),
        store.switch.generation.to_string(),
        both(|store, part| store.held(part).map(|held| held.entries).sum()),
        queue.to_string(),
        format!("{lag:.1} s"),
        both(|store, part| store.held(part).map(|held| held.missing.num).sum()),
        both(|store, part| store.held(part).map(|held| held.relayed.num).sum()),
        number(store.keys.iter().map(|key| key.mismatched.num).sum()),
        number(store.keys.iter().map(|key| key.foreign.num).sum()),
        number(skew) + if compared { " s" } else { "" },
        reconciled(store),
        gate(store),
    ]
}

/// How long ago that was, for the key for which it is longest.
fn reconciled(store: &Store) -> String {
    let ago = |key: &Key| Some(store.now_ms.saturating_sub(key.last_reconcile_ms?) / 1000);
    let all: Option<Vec<i64>> = store.keys.iter().map(ago).collect();
    let longest = all.and_then(|all| all.into_iter().max());
    longest.map_or_else(|| "never".to_owned(), |secs| format!("{secs} s ago"))
}

fn gate(store: &Store) -> String {
    let switch = &store.switch;
    let names = |reasons: &BTreeMap<String, String>| {
        reasons.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    };
    match &switch.wanted_primary {
        Some(wanted) if switch.given_up => format!("gave up {wanted}: {}", names(&switch.blocked)),
        Some(wanted) => format!("{wanted} waits: {}", names(&switch.blocked)),
        None if !switch.blocked.is_empty() => format!("end of mirror waits: {}", names(&switch.blocked)),
        None if switch.gate_open => "open".to_owned(),
        None => format!("shut: {}", names(&switch.gate_reasons)),
    }
}

/// The same for programs: each process with its page as it came.
pub(super) fn json(cluster: &Cluster, reasons: &[Reason]) -> Value {
    let process =
        |process: &Process| json!({ "name": process.name, "url": process.url, "multikv": process.raw });
    json!({
        "processes": cluster.processes.iter().map(process).collect::<Vec<_>>(),
        "silent": cluster.silent,
        "reasons": reasons,
    })
}
