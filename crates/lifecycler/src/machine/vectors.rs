//! What starting makes of what it finds: Cortex's outcomes, and where ringkit differs on purpose.

use serde::Deserialize;

use super::tests::{Life, entry, options};
use super::*;

#[derive(Deserialize)]
struct File {
    columns: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Row {
    auto_join: bool,
    heartbeats: bool,
    ring_entry: String,
    tokens_file: String,
    local_state: String,
    ring_state: String,
    tokens_from_ring: usize,
    tokens_from_file: usize,
    tokens_new: usize,
    registered_timestamp: String,
    addr: String,
    stopped_ring_state: String,
    tokens_file_after: String,
}

const FROM_RING: [u32; 4] = [10, 20, 30, 40];
const FROM_FILE: [u32; 4] = [11, 21, 31, 41];

/// Where ringkit differs from Cortex on purpose: for whom, what, and why.
fn expected(cortex: &Row) -> Row {
    let mut row = cortex.clone();
    let has_file = row.tokens_file != "none";
    let file_state = if row.tokens_file.starts_with("READONLY") { "READONLY" } else { "ACTIVE" };
    let differs = |row: &mut Row, state: &str, stopped: &str, tokens: (usize, usize, usize)| {
        row.local_state = state.into();
        row.ring_state = state.into();
        row.stopped_ring_state = stopped.into();
        (row.tokens_from_ring, row.tokens_from_file, row.tokens_new) = tokens;
    };
    match (row.auto_join, row.ring_entry.as_str()) {
        // More tokens are configured than the entry has: they are drawn at once, not never.
        (_, "ACTIVE/2") | (true, "LEAVING/2") => row.tokens_new = 2,
        // LEAVING without tokens is where an instance stopped that owned nothing: it joins like a new one instead of
        // leaving for ever; and, as in the next case, with the tokens that its file still has.
        (true, "LEAVING/0") if has_file => {
            let stopped = if file_state == "READONLY" { "READONLY" } else { "LEAVING" };
            differs(&mut row, file_state, stopped, (0, 4, 0));
        }
        (true, "LEAVING/0") => differs(&mut row, "ACTIVE", "LEAVING", (0, 0, 4)),
        (false, "LEAVING/0") => differs(&mut row, "PENDING", "PENDING", (0, 0, 0)),
        // The file's tokens are where this instance's data belongs: new ones would move it for nothing.
        (true, "PENDING/0") if has_file => (row.tokens_from_file, row.tokens_new) = (4, 0),
        // A crash while joining: the entry says so at once, also without heartbeats.
        (false, "JOINING/4") => {
            row.ring_state = "PENDING".into();
            row.addr = "own".into();
            row.stopped_ring_state = "PENDING".into();
        }
        _ => (),
    }
    // The file is written after a successful join and not before, so it never loses what it has.
    if has_file {
        row.tokens_file_after = match row.local_state.as_str() {
            "PENDING" => row.tokens_file.clone(),
            state => format!("{state}/{}", row.tokens_from_ring + row.tokens_from_file + row.tokens_new),
        };
    }
    row
}

fn parse(text: &str, tokens: &[u32]) -> Option<(State, Tokens)> {
    let (state, count) = text.split_once('/')?;
    Some((state.parse().unwrap(), tokens[..count.parse().unwrap()].into()))
}

fn play(cortex: &Row) -> Row {
    let options = Options {
        auto_join: cortex.auto_join,
        heartbeat_period: Duration::from_millis(if cortex.heartbeats { 200 } else { 0 }),
        join_after: AutoDuration::After(Duration::ZERO),
        observe_period: AutoDuration::After(Duration::ZERO),
        unregister_on_shutdown: false,
        ..options()
    };
    let ring = parse(&cortex.ring_entry, &FROM_RING)
        .map(|(state, tokens)| ("me", InstanceDesc { addr: "stale".into(), ..entry(state, &tokens) }));
    let file = parse(&cortex.tokens_file, &FROM_FILE)
        .map(|(previous_state, tokens)| TokensFile { tokens, previous_state });
    let mut life = Life::new(options, ring.into_iter().collect(), file);
    life.look();
    life.pass_to(1);
    let own = life.ring.get("me").cloned();
    let count = |of: &dyn Fn(u32) -> bool| {
        own.as_ref().map_or(0, |own| own.tokens.iter().filter(|token| of(**token)).count())
    };
    let mut row = Row {
        local_state: life.machine.state().to_string(),
        ring_state: own.as_ref().map_or("absent".into(), |own| own.state.to_string()),
        tokens_from_ring: count(&|token| FROM_RING.contains(&token)),
        tokens_from_file: count(&|token| FROM_FILE.contains(&token)),
        tokens_new: count(&|token| !FROM_RING.contains(&token) && !FROM_FILE.contains(&token)),
        registered_timestamp: match own.as_ref().map(|own| own.registered_timestamp) {
            None => String::new(),
            Some(1_000) => "preserved".into(),
            Some(_) => "now".into(),
        },
        addr: match own.as_ref().map(|own| &*own.addr) {
            None => String::new(),
            Some("stale") => "stale".into(),
            Some(_) => "own".into(),
        },
        ..cortex.clone()
    };
    life.tell(Event::Stop);
    row.stopped_ring_state = life.ring.get("me").map_or("absent".into(), |own| own.state.to_string());
    row.tokens_file_after = match &life.file {
        Some(file) if cortex.tokens_file != "none" => {
            format!("{}/{}", file.previous_state, file.tokens.len())
        }
        _ => String::new(),
    };
    row
}

#[test]
fn starting_ends_as_in_cortex_or_differs_on_purpose() {
    let file: File = serde_json::from_str(include_str!("../../tests/vectors/lifecycler_init.json")).unwrap();
    assert_eq!((file.columns.len(), file.rows.len()), (13, 106));
    let mut differing = 0;
    for cortex in &file.rows {
        let expected = expected(cortex);
        differing += usize::from(expected != *cortex);
        assert_eq!(play(cortex), expected, "\nCortex: {cortex:?}");
    }
    assert_eq!(differing, 35, "rows on which ringkit differs");
}
