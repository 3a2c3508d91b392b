//! [`MultiReport`]: how two stores stand that are one, for people and their tools to read.

use std::collections::BTreeMap;

use super::compare::{Comparison, Listed};
use super::core::Core;
use super::gate::Reasons;
use super::key::OpenKey;
use super::mode::Mode;
use super::place::Place;
use super::state::State;

/// How two stores stand that are one.
#[derive(Clone, Debug)]
#[cfg_attr(any(feature = "consul", feature = "memberlist"), derive(serde::Serialize))]
pub struct MultiReport {
    /// When this was told, in milliseconds since 1970.
    pub now_ms: i64,
    /// Whose store it is.
    pub kv_name: String,
    /// The store that decides.
    pub primary: String,
    /// The other.
    pub secondary: String,
    /// Whether changes go to the other one, too.
    pub mirror: bool,
    /// When a write returns: `async` or `sync`.
    pub mirror_mode: String,
    /// What readers see: `primary` or `union`.
    pub read_mode: String,
    /// Whether the secondary counts in that: only once it is synced. Until then the union is the primary alone.
    pub secondary_counts: bool,
    /// How often the primary was switched, and one more.
    pub epoch: u64,
    /// Both stores, the primary first.
    pub stores: Vec<StoreReport>,
    /// What is asked for, and what is in its way.
    pub switch: SwitchReport,
    /// The keys in use.
    pub keys: Vec<MultiKeyReport>,
}

/// How one of the stores stands.
#[derive(Clone, Debug)]
#[cfg_attr(any(feature = "consul", feature = "memberlist"), derive(serde::Serialize))]
pub struct StoreReport {
    /// Which.
    pub name: String,
    /// Whether it answers.
    pub up: bool,
    /// How long it has not, in seconds.
    pub down_secs: Option<u64>,
    /// Why not.
    pub cause: Option<String>,
    /// Whether it reflects its cluster.
    pub synced: bool,
    /// How many other processes are the store together with this one; `None` if it stands elsewhere.
    pub num_others: Option<usize>,
}

/// What is asked for, and what is in its way.
#[derive(Clone, Debug)]
#[cfg_attr(any(feature = "consul", feature = "memberlist"), derive(serde::Serialize))]
pub struct SwitchReport {
    /// The store that is to be the primary and is not.
    pub wanted_primary: Option<String>,
    /// It was waited for as long as configured, and is no longer.
    pub given_up: bool,
    /// Whether the other store could become the primary at this moment.
    pub gate_open: bool,
    /// Why not, by reason.
    pub gate_reasons: BTreeMap<String, String>,
    /// Why what is asked for has to wait, by reason; when that was looked at last.
    pub blocked: BTreeMap<String, String>,
    /// The generation of the runtime configuration that was taken over last.
    pub generation: u64,
    /// When that was, in milliseconds since 1970; `None` if there was none.
    pub applied_at_ms: Option<i64>,
}

/// How both stores stand with one key.
#[derive(Clone, Debug)]
#[cfg_attr(any(feature = "consul", feature = "memberlist"), derive(serde::Serialize))]
pub struct MultiKeyReport {
    /// Its name.
    pub key: String,
    /// Changes that are on their way to either store.
    pub queue_length: usize,
    /// How long the oldest of them has been waiting, in seconds.
    pub lag_secs: f64,
    /// Whether both stores were heard, so that all below says something.
    pub compared: bool,
    /// Both stores, the primary first.
    pub stores: Vec<MultiKeyStoreReport>,
    /// Entries that were written at the same time and differ.
    pub mismatched: Named,
    /// Entries that only the secondary has.
    pub foreign: Named,
    /// The largest difference between the heartbeats of a living owner, in seconds.
    pub skew_secs: u64,
    /// When both stores were last told what they lacked, in milliseconds since 1970.
    pub last_reconcile_ms: Option<i64>,
    /// How many removals are remembered.
    pub num_marks: usize,
}

/// How one store stands with one key.
#[derive(Clone, Debug)]
#[cfg_attr(any(feature = "consul", feature = "memberlist"), derive(serde::Serialize))]
pub struct MultiKeyStoreReport {
    /// Which store.
    pub name: String,
    /// How many entries it holds.
    pub entries: usize,
    /// Entries of living owners that the other one has and this one has not.
    pub missing: Named,
    /// Entries of living owners that are there only because others than their owners put them there.
    pub relayed: Named,
    /// Changes that are on their way to it.
    pub queue_length: usize,
    /// Why it does not take all of them; `None` if it does.
    pub refused: Option<String>,
}

/// Some entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(feature = "consul", feature = "memberlist"), derive(serde::Serialize))]
pub struct Named {
    /// How many they are.
    pub num: usize,
    /// The first 20 of them.
    pub ids: Vec<String>,
}

impl From<&Listed> for Named {
    fn from(listed: &Listed) -> Self {
        Self { num: listed.num, ids: listed.ids.iter().map(ToString::to_string).collect() }
    }
}

pub(super) fn report(core: &Core) -> MultiReport {
    let mode = core.mode();
    let places = [mode.primary, mode.secondary()];
    let name = |place: Place| core.children[place].name().to_owned();
    MultiReport {
        now_ms: core.clock.now_ms(),
        kv_name: core.kv_name.clone(),
        primary: name(mode.primary),
        secondary: name(mode.secondary()),
        mirror: mode.mirror,
        mirror_mode: core.config.mirror_mode.to_string(),
        read_mode: if mode.union { "union" } else { "primary" }.to_owned(),
        secondary_counts: mode.secondary_counts,
        epoch: mode.epoch,
        stores: places.map(|place| store(core, place)).into(),
        switch: switch(core, mode),
        keys: core.open_keys().iter().map(|open| key(core, open, places)).collect(),
    }
}

fn store(core: &Core, place: Place) -> StoreReport {
    let (facts, trouble) = (core.store_facts(place), core.health[place].trouble());
    StoreReport {
        name: facts.name.to_owned(),
        up: facts.up,
        down_secs: trouble.as_ref().map(|trouble| trouble.since.elapsed().as_secs()),
        cause: trouble.map(|trouble| trouble.cause.to_string()),
        synced: facts.synced,
        num_others: facts.standing.map(|standing| standing.num_others),
    }
}

fn switch(core: &Core, mode: Mode) -> SwitchReport {
    let reasons = core.reasons_against(mode.secondary());
    let wishes = core.wishes.lock();
    let wanted = wishes.primary.filter(|wanted| wanted.place != mode.primary);
    SwitchReport {
        wanted_primary: wanted.map(|wanted| core.children[wanted.place].name().to_owned()),
        given_up: wanted.is_some_and(|wanted| wanted.given_up),
        gate_open: reasons.is_empty(),
        gate_reasons: said(&reasons),
        blocked: said(&wishes.reasons),
        generation: wishes.generation,
        applied_at_ms: wishes.applied_at_ms,
    }
}

fn said(reasons: &Reasons) -> BTreeMap<String, String> {
    reasons.iter().map(|(reason, sentence)| (reason.as_str().to_owned(), sentence.clone())).collect()
}

fn key(core: &Core, open: &OpenKey, places: [Place; 2]) -> MultiKeyReport {
    open.look(|state| {
        let nothing = Comparison::default();
        let found = state.compared().unwrap_or(&nothing);
        let queues = places.map(|place| state.queued(place));
        let oldest = queues.iter().filter_map(|(_, oldest)| *oldest).min();
        MultiKeyReport {
            key: open.key.name.to_string(),
            queue_length: queues.iter().map(|(length, _)| length).sum(),
            lag_secs: oldest.map_or(0.0, |since| since.elapsed().as_secs_f64()),
            compared: state.compared().is_some(),
            stores: places.map(|place| key_in(core, state, found, place)).into(),
            mismatched: (&found.mismatched).into(),
            foreign: (&found.foreign).into(),
            skew_secs: found.skew_secs,
            last_reconcile_ms: state.reconciled().map(|reconciled| reconciled.at_ms),
            num_marks: state.num_marks(),
        }
    })
}

fn key_in(core: &Core, state: &State, found: &Comparison, place: Place) -> MultiKeyStoreReport {
    MultiKeyStoreReport {
        name: core.children[place].name().to_owned(),
        entries: found.entries[place],
        missing: (&found.missing[place]).into(),
        relayed: (&found.relayed[place]).into(),
        queue_length: state.queued(place).0,
        refused: state.refusal(place).map(str::to_owned),
    }
}

/// What an operator should know, a sentence each.
pub(super) fn remarks(core: &Core) -> Vec<String> {
    let (mode, mut remarks) = (core.mode(), Vec::new());
    let (kv_name, name) = (core.kv_name.as_str(), |place: Place| core.children[place].name());
    for place in [mode.primary, mode.secondary()] {
        if let Some(trouble) = core.health[place].trouble() {
            let (store, secs) = (name(place), trouble.since.elapsed().as_secs());
            let part = if place == mode.primary { "primary" } else { "secondary" };
            let cause = &trouble.cause;
            remarks.push(format!(
                "The {part} store {store} of {kv_name} has not answered for {secs} s: {cause}"
            ));
        }
    }
    for open in core.open_keys() {
        for place in Place::BOTH {
            if let Some(why) = open.look(|state| state.refusal(place).map(str::to_owned)) {
                let store = name(place);
                remarks.push(format!(
                    "The store {store} of {kv_name} does not take all that is mirrored: {why}"
                ));
            }
        }
    }
    if mode.union && !mode.secondary_counts {
        let (store, primary) = (name(mode.secondary()), name(mode.primary));
        remarks
            .push(format!("The store {store} of {kv_name} is not synced yet: readers see {primary} alone"));
    }
    let reasons = core.wishes.lock().reasons.values().cloned().collect::<Vec<_>>().join("; ");
    if !reasons.is_empty() {
        remarks.push(format!("What the runtime configuration asks of {kv_name} has to wait: {reasons}"));
    }
    remarks
}
