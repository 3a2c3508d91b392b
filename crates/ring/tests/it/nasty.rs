//! Rings as nobody would make them, and changes of them: for tests of what must hold for every ring.
//!
//! Shared by the integration tests and the unit tests of `follow`, so it uses nothing but the public face.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use ringkit_ring::{Desc, Dialect, InstanceDesc, RingOptions, State, Strategy as Filter};

/// About when things happen in these rings, in Unix seconds.
pub(crate) const NOW: i64 = 1_700_000_000;

/// Names of zones; most are there to be excluded or to sort first or last.
const ZONES: [&str; 5] = ["", "a", "b", "c", "out"];

/// A token; often one that others have too, and often at an end of the circle.
pub(crate) fn token() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..16u32, 1 => Just(0), 1 => Just(u32::MAX), 1 => u32::MAX - 3..=u32::MAX, 4 => any::<u32>()]
}

/// A list of tokens: none, unsorted, some twice.
pub(crate) fn tokens() -> impl Strategy<Value = Vec<u32>> {
    prop_oneof![1 => Just(vec![]), 5 => vec(token(), 1..6)]
}

/// A state; ACTIVE as often as not, and some that nobody knows.
pub(crate) fn state() -> impl Strategy<Value = State> {
    let unknown = prop::sample::select(vec![6, 15, 16, 17, -1, i32::MAX, i32::MIN]).prop_map(State::from_i32);
    prop_oneof![6 => Just(State::Active), 5 => prop::sample::select(State::KNOWN.to_vec()), 1 => unknown]
}

/// A time in an entry: fresh, just within and beyond the heartbeat timeout, in the future, and absurd.
pub(crate) fn timestamp() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => (-5..5i64).prop_map(|age| NOW - age),
        3 => (58..63i64).prop_map(|age| NOW - age),
        2 => (1_000..4_000i64).prop_map(|ahead| NOW + ahead),
        1 => prop::sample::select(vec![i64::MIN, -62_135_596_800, -1, 0, 1, i64::MAX]),
    ]
}

/// An entry; addresses are few, so that some are shared.
pub(crate) fn entry() -> impl Strategy<Value = InstanceDesc> {
    let dskit = (prop::bool::weighted(0.1), prop_oneof![Just(0), timestamp()]);
    (state(), prop::sample::select(ZONES.to_vec()), tokens(), timestamp(), timestamp(), 0..20u8, dskit)
        .prop_map(|(state, zone, tokens, timestamp, registered_timestamp, addr, dskit)| InstanceDesc {
            addr: format!("10.0.0.{addr}:1").into(),
            timestamp,
            state,
            tokens: tokens.into(),
            zone: zone.into(),
            registered_timestamp,
            read_only: dskit.0,
            read_only_updated_timestamp: dskit.1,
            ..InstanceDesc::default()
        })
}

/// An entry as others would make it: tokens that hardly anybody shares.
pub(crate) fn sound_entry() -> impl Strategy<Value = InstanceDesc> {
    let token = prop_oneof![2_000 => any::<u32>(), 1 => token()];
    let tokens = prop_oneof![1 => Just(vec![]), 9 => vec(token, 1..12)];
    (entry(), tokens).prop_map(|(entry, tokens)| InstanceDesc { tokens: tokens.into(), ..entry })
}

/// A ring of up to `n` instances whose tokens hardly anybody shares.
pub(crate) fn sound_ring(n: usize) -> impl Strategy<Value = Desc> {
    vec(sound_entry(), 0..=n).prop_map(|entries| {
        entries.into_iter().enumerate().map(|(place, entry)| (format!("i{place}"), entry)).collect()
    })
}

/// A ring of up to `n` instances, named `i0` to `i<n-1>`; some are missing.
pub(crate) fn ring(n: usize) -> impl Strategy<Value = Desc> {
    vec(prop::option::weighted(0.8, entry()), 0..=n).prop_map(|entries| {
        let named = entries.into_iter().enumerate();
        named.filter_map(|(place, entry)| Some((format!("i{place}"), entry?))).collect()
    })
}

/// A way to look at a ring.
pub(crate) fn options() -> impl Strategy<Value = RingOptions> {
    let excluded = prop_oneof![Just(vec![]), Just(vec!["out"]), Just(vec!["", "b"])];
    let factor = prop_oneof![12 => 1..=5usize, 1 => Just(0), 1 => 6..12usize];
    (factor, any::<[bool; 5]>(), excluded, prop::bool::weighted(0.8)).prop_map(
        |(replication_factor, flags, excluded, times_out)| RingOptions {
            replication_factor,
            zone_awareness_enabled: flags[0],
            strategy: if flags[1] { Filter::Quorum } else { Filter::IgnoreUnhealthy },
            dialect: if flags[2] { Dialect::Cortex } else { Dialect::Dskit },
            zones_with_tokens_only: flags[3],
            merge_winner_owns_duplicates: flags[4],
            excluded_zones: excluded.into_iter().map(str::to_owned).collect(),
            heartbeat_timeout: Duration::from_secs(if times_out { 60 } else { 0 }),
            // What is gone is gone at once.
            max_vanish_fraction: 0.0,
            ..RingOptions::default()
        },
    )
}

/// What happens to one entry.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Heartbeat(i64),
    State(State),
    Tokens(Vec<u32>),
    /// The same tokens in storage of their own, as a store delivers that decodes everything anew.
    Copy,
    Zone(&'static str),
    Addr(u8),
    Registered(i64),
    ReadOnly(bool, i64),
    /// Joins, or is another one from now on.
    Replace(InstanceDesc),
    Remove,
}

/// What happens to a ring between two looks at it.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    /// Numbers of instances and what happens to them.
    pub edits: Vec<(usize, Edit)>,
    /// Everybody is gone, before the edits.
    pub cleared: bool,
    /// How far the reader's clock moves, in seconds.
    pub clock: i64,
}

fn edit(entry: BoxedStrategy<InstanceDesc>) -> impl Strategy<Value = Edit> {
    let tokens = entry.clone().prop_map(|entry| entry.tokens.to_vec());
    prop_oneof![
        4 => (-3..10i64).prop_map(Edit::Heartbeat),
        1 => prop::sample::select(vec![-4_000, 4_000, i64::MIN, i64::MAX]).prop_map(Edit::Heartbeat),
        3 => state().prop_map(Edit::State),
        3 => tokens.prop_map(Edit::Tokens),
        1 => Just(Edit::Copy),
        2 => prop::sample::select(ZONES.to_vec()).prop_map(Edit::Zone),
        1 => (0..20u8).prop_map(Edit::Addr),
        1 => timestamp().prop_map(Edit::Registered),
        1 => (any::<bool>(), timestamp()).prop_map(|(is, at)| Edit::ReadOnly(is, at)),
        4 => entry.prop_map(Edit::Replace),
        3 => Just(Edit::Remove),
    ]
}

/// An update of a ring of `n` instances.
pub(crate) fn update(n: usize) -> impl Strategy<Value = Update> {
    update_with(n, entry().boxed())
}

/// An update of a ring of `n` instances after which hardly anybody shares a token.
pub(crate) fn sound_update(n: usize) -> impl Strategy<Value = Update> {
    update_with(n, sound_entry().boxed())
}

fn update_with(n: usize, entry: BoxedStrategy<InstanceDesc>) -> impl Strategy<Value = Update> {
    let clock = prop_oneof![4 => 0..5i64, 2 => 50..70i64, 1 => -4_000..4_000i64];
    (vec((0..n, edit(entry)), 0..5), prop::bool::weighted(0.03), clock)
        .prop_map(|(edits, cleared, clock)| Update { edits, cleared, clock })
}

impl Update {
    /// The ring after it.
    pub(crate) fn apply(&self, before: &Desc) -> Desc {
        let mut desc = if self.cleared { Desc::new() } else { before.clone() };
        for (number, edit) in &self.edits {
            let id = format!("i{number}");
            match (edit, desc.get(&id)) {
                (Edit::Replace(entry), _) => drop(desc.insert(id, entry.clone())),
                (Edit::Remove, _) => drop(desc.remove(&id)),
                (_, None) => {}
                (edit, Some(entry)) => {
                    let entry = edit.on((**entry).clone());
                    desc.insert(id, entry);
                }
            }
        }
        desc
    }
}

impl Edit {
    fn on(&self, mut entry: InstanceDesc) -> InstanceDesc {
        match self {
            Self::Heartbeat(by) => entry.timestamp = entry.timestamp.saturating_add(*by),
            Self::State(state) => entry.state = *state,
            Self::Tokens(tokens) => entry.tokens = tokens.clone().into(),
            Self::Copy => entry.tokens = entry.tokens.to_vec().into(),
            Self::Zone(zone) => entry.zone = (*zone).into(),
            Self::Addr(addr) => entry.addr = format!("10.0.0.{addr}:1").into(),
            Self::Registered(at) => entry.registered_timestamp = *at,
            Self::ReadOnly(is, at) => (entry.read_only, entry.read_only_updated_timestamp) = (*is, *at),
            Self::Replace(_) | Self::Remove => {}
        }
        entry
    }
}
