//! The ring as it is stored: [`Desc`], a map from instance id to [`InstanceDesc`].

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use ringkit_kv::{Codec, DecodeError, Entries, EntriesIter, EntryId, Value};
use smol_str::SmolStr;

use crate::codec::{self, RingCodec};
use crate::tokens::Tokens;

/// The state of an instance, as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Takes part in everything. An entry that names no state is ACTIVE.
    #[default]
    Active,
    /// Is shutting down: still read, no longer written.
    Leaving,
    /// Has registered and owns nothing yet.
    Pending,
    /// Has chosen tokens and watches whether somebody else chose the same.
    Joining,
    /// Has left: a tombstone, without tokens.
    Left,
    /// Is read but no longer written, by an operator's wish.
    ReadOnly,
    /// A state this version does not know: not healthy and not extending for anything but
    /// [`crate::Operation::REPORTING`]. Never holds 0–5; make states from numbers with [`State::from_i32`].
    Unknown(i32),
}

impl State {
    /// The known states, in the order of their numbers.
    pub const KNOWN: [Self; 6] =
        [Self::Active, Self::Leaving, Self::Pending, Self::Joining, Self::Left, Self::ReadOnly];

    /// The state with this number on the wire.
    pub fn from_i32(number: i32) -> Self {
        match number {
            0 => Self::Active,
            1 => Self::Leaving,
            2 => Self::Pending,
            3 => Self::Joining,
            4 => Self::Left,
            5 => Self::ReadOnly,
            other => Self::Unknown(other),
        }
    }

    /// The number of this state on the wire.
    pub fn as_i32(self) -> i32 {
        match self {
            Self::Active => 0,
            Self::Leaving => 1,
            Self::Pending => 2,
            Self::Joining => 3,
            Self::Left => 4,
            Self::ReadOnly => 5,
            Self::Unknown(number) => number,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active => f.pad("ACTIVE"),
            Self::Leaving => f.pad("LEAVING"),
            Self::Pending => f.pad("PENDING"),
            Self::Joining => f.pad("JOINING"),
            Self::Left => f.pad("LEFT"),
            Self::ReadOnly => f.pad("READONLY"),
            Self::Unknown(number) => number.fmt(f),
        }
    }
}

/// A text that names no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an instance state: use one of ACTIVE, LEAVING, PENDING, JOINING, LEFT, READONLY")]
pub struct UnknownState(pub String);

impl FromStr for State {
    type Err = UnknownState;

    /// Reads what `Display` writes: a name in capitals, or the number of an unknown state.
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        let known = Self::KNOWN.into_iter().find(|state| state.to_string() == text);
        known.or_else(|| text.parse().ok().map(Self::from_i32)).ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// One instance's entry, as stored.
///
/// # Source
///
/// Cortex's `InstanceDesc`, fields 1–8, and dskit's fields 9–12.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InstanceDesc {
    /// `host:port` on which others reach the instance.
    pub addr: SmolStr,
    /// Last heartbeat by the owner's clock, in Unix seconds.
    pub timestamp: i64,
    /// What the instance takes part in.
    pub state: State,
    /// The positions it claims, in stored order.
    pub tokens: Tokens,
    /// Failure domain; empty = none.
    pub zone: SmolStr,
    /// When it first registered, in Unix seconds; 0 = unknown. May be negative as stored: read it through
    /// [`InstanceDesc::registered_at`].
    pub registered_timestamp: i64,
    /// The instance id as carried by entries of the dskit dialect, empty otherwise. The key of the map decides.
    pub id: SmolStr,
    /// When `read_only` last changed, in Unix seconds; 0 = unknown.
    pub read_only_updated_timestamp: i64,
    /// The dskit dialect's way of being read-only.
    pub read_only: bool,
    /// Component id → version, of the dskit dialect. Not interpreted.
    pub versions: BTreeMap<u64, u64>,
    /// Fields this version does not know, as they came; written back after the known ones.
    pub unknown: Bytes,
}

impl InstanceDesc {
    /// When the instance first registered, in Unix seconds; 0 = unknown, also where a negative time is stored.
    pub fn registered_at(&self) -> i64 {
        self.registered_timestamp.max(0)
    }

    /// Whether this entry may claim tokens that `before`, the one it replaces, did not. LEFT entries claim none.
    pub(crate) fn claims_beyond(&self, before: Option<&Self>) -> bool {
        let claims_nothing = self.state == State::Left || self.tokens.is_empty();
        let claims_the_same = |before: &Self| before.state != State::Left && before.tokens == self.tokens;
        !claims_nothing && !before.is_some_and(claims_the_same)
    }

    /// Whether the instance wants no writes, in either dialect.
    pub fn is_read_only(&self) -> bool {
        self.state == State::ReadOnly || self.read_only
    }
}

/// A ring as stored: instance id → entry, in the byte order of the ids. A clone shares whatever neither of the two changes.
///
/// Knows by itself how many entries are JOINING or LEFT, and whether a token might be claimed twice, so that merging a
/// heartbeat need not look at every entry to find out.
#[derive(Clone, Debug, Default)]
pub struct Desc {
    entries: Entries<Arc<InstanceDesc>>,
    joining: usize,
    left: usize,
    /// Whether tokens came in since it was last seen that no two instances claim the same one.
    unsettled: bool,
}

/// What is stored decides, not what is known about it.
impl PartialEq for Desc {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Desc {
    /// A ring without instances.
    pub fn new() -> Self {
        Self::default()
    }

    /// The entry of instance `id`.
    pub fn get(&self, id: &str) -> Option<&Arc<InstanceDesc>> {
        self.entries.get(id)
    }

    /// Whether instance `id` has an entry.
    pub fn contains(&self, id: &str) -> bool {
        self.entries.contains_key(id)
    }

    /// Sets the entry of instance `id` and returns the one it replaces.
    pub fn insert(
        &mut self,
        id: impl Into<EntryId>,
        entry: impl Into<Arc<InstanceDesc>>,
    ) -> Option<Arc<InstanceDesc>> {
        let entry = entry.into();
        self.joining += usize::from(entry.state == State::Joining);
        self.left += usize::from(entry.state == State::Left);
        let new = Arc::clone(&entry);
        let old = self.entries.insert(id.into(), entry);
        self.unsettled |= new.claims_beyond(old.as_deref());
        if let Some(old) = &old {
            self.uncount(old.state);
        }
        old
    }

    /// Removes the entry of instance `id`.
    pub fn remove(&mut self, id: &str) -> Option<Arc<InstanceDesc>> {
        let old = self.entries.remove(id)?;
        self.uncount(old.state);
        Some(old)
    }

    fn uncount(&mut self, gone: State) {
        self.joining -= usize::from(gone == State::Joining);
        self.left -= usize::from(gone == State::Left);
    }

    /// How many entries are JOINING. Costs nothing.
    pub(crate) fn joining(&self) -> usize {
        self.joining
    }

    /// How many entries are LEFT. Costs nothing.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Whether it is known that no two instances that are not LEFT claim the same token.
    pub(crate) fn is_settled(&self) -> bool {
        !self.unsettled
    }

    /// Notes that no two instances that are not LEFT claim the same token, until others come in.
    pub(crate) fn settle(&mut self) {
        self.unsettled = false;
    }

    /// The entries in the byte order of their ids.
    pub fn iter(&self) -> EntriesIter<'_, Arc<InstanceDesc>> {
        self.entries.iter()
    }

    /// How many instances there are, whatever their state.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no instances.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keeps the entries for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&EntryId, &Arc<InstanceDesc>) -> bool) {
        let (joining, left) = (&mut self.joining, &mut self.left);
        self.entries.retain(|id, entry| {
            let kept = keep(id, entry);
            *joining -= usize::from(!kept && entry.state == State::Joining);
            *left -= usize::from(!kept && entry.state == State::Left);
            kept
        });
    }

    /// All tokens of all instances, sorted, duplicates kept.
    pub fn all_tokens(&self) -> Vec<u32> {
        let mut all = Vec::with_capacity(self.entries.values().map(|entry| entry.tokens.len()).sum());
        self.entries.values().for_each(|entry| all.extend_from_slice(&entry.tokens));
        all.sort_unstable();
        all
    }

    /// Moves the tokens of `from` to `to`, replacing those of `to`, and returns them sorted. Timestamps stay: the caller
    /// writes `to` with a newer one. Without an entry for both nothing happens and the result is empty.
    pub fn claim_tokens(&mut self, from: &str, to: &str) -> Tokens {
        if from == to || !self.contains(from) || !self.contains(to) {
            return Tokens::empty();
        }
        self.unsettled = true;
        let mut claimed = Tokens::empty();
        if let Some(entry) = self.entries.get_mut(from) {
            claimed = std::mem::take(&mut Arc::make_mut(entry).tokens).normalized();
        }
        if let Some(entry) = self.entries.get_mut(to) {
            Arc::make_mut(entry).tokens = claimed.clone();
        }
        claimed
    }

    /// Why this ring is not ready as a whole, if so: the first instance whose heartbeat is older than
    /// `heartbeat_timeout` (0 = never) at `now` (Unix seconds), or that is neither ACTIVE nor READONLY; else a ring
    /// without tokens.
    ///
    /// # Errors
    ///
    /// [`NotReady`] naming what is in the way.
    pub fn check_ready(&self, now: i64, heartbeat_timeout: std::time::Duration) -> Result<(), NotReady> {
        for entry in self.entries.values() {
            entry.check_ready(now, heartbeat_timeout)?;
        }
        if self.entries.values().all(|entry| entry.tokens.is_empty()) {
            return Err(NotReady::NoTokens);
        }
        Ok(())
    }

    /// Reads a stored ring: Snappy block of the protobuf.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if any part of it is not what `codec` describes.
    pub fn decode(stored: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(stored)
    }

    /// Writes the ring as it is stored. Equal rings give equal bytes.
    pub fn encode(&self) -> Bytes {
        codec::encode(self)
    }
}

impl InstanceDesc {
    /// Why this instance alone is not ready, if so; see [`Desc::check_ready`].
    ///
    /// # Errors
    ///
    /// [`NotReady`] naming the instance's address.
    pub fn check_ready(&self, now: i64, heartbeat_timeout: std::time::Duration) -> Result<(), NotReady> {
        if !crate::health::is_fresh(self.timestamp, now, heartbeat_timeout) {
            return Err(NotReady::PastHeartbeatTimeout { addr: self.addr.clone() });
        }
        match self.state {
            State::Active | State::ReadOnly => Ok(()),
            state => Err(NotReady::InState { addr: self.addr.clone(), state }),
        }
    }
}

/// Why a ring is not ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// An instance was not heard of for too long.
    #[error("instance {addr} past heartbeat timeout")]
    PastHeartbeatTimeout {
        /// Its address.
        addr: SmolStr,
    },
    /// An instance is neither ACTIVE nor READONLY.
    #[error("instance {addr} in state {state}")]
    InState {
        /// Its address.
        addr: SmolStr,
        /// Its state.
        state: State,
    },
    /// No instance has tokens.
    #[error("no tokens in ring")]
    NoTokens,
}

impl<'a> IntoIterator for &'a Desc {
    type Item = (&'a EntryId, &'a Arc<InstanceDesc>);
    type IntoIter = EntriesIter<'a, Arc<InstanceDesc>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<I: Into<EntryId>, E: Into<Arc<InstanceDesc>>> FromIterator<(I, E)> for Desc {
    fn from_iter<T: IntoIterator<Item = (I, E)>>(iter: T) -> Self {
        Self::from_entries(iter.into_iter().map(|(id, entry)| (id.into(), entry.into())).collect())
    }
}

impl Value for Desc {
    type Entry = InstanceDesc;

    fn codec() -> &'static dyn Codec {
        &RingCodec
    }

    fn decode_entry(id: &str, bytes: &[u8]) -> Result<InstanceDesc, DecodeError> {
        codec::decode_entry(id, bytes, None)
    }

    fn decode_next(id: &str, bytes: &[u8], previous: &InstanceDesc) -> Result<InstanceDesc, DecodeError> {
        codec::decode_entry(id, bytes, Some(previous))
    }

    fn encode_entry(entry: &InstanceDesc) -> Bytes {
        codec::encode_entry(entry)
    }

    fn from_entries(entries: Entries<Arc<InstanceDesc>>) -> Self {
        let (mut joining, mut left) = (0, 0);
        for entry in entries.values() {
            joining += usize::from(entry.state == State::Joining);
            left += usize::from(entry.state == State::Left);
        }
        Self { joining, left, unsettled: entries.len() > 1, entries }
    }

    fn entries(&self) -> &Entries<Arc<InstanceDesc>> {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn entry(state: State, tokens: &[u32]) -> InstanceDesc {
        InstanceDesc {
            addr: "a:1".into(),
            timestamp: 100,
            state,
            tokens: tokens.into(),
            ..InstanceDesc::default()
        }
    }

    #[test]
    fn states_are_written_and_read_by_name_or_number() {
        for number in -1..8 {
            let state = State::from_i32(number);
            assert_eq!((state.as_i32(), state.to_string().parse()), (number, Ok(state)));
        }
        assert_eq!(State::ReadOnly.to_string(), "READONLY");
        assert!("active".parse::<State>().is_err());
    }

    #[test]
    fn a_ring_is_ready_when_everybody_is_heard_and_serves_and_somebody_has_tokens() {
        let ready = |desc: &Desc, now| desc.check_ready(now, MINUTE).map_err(|reason| reason.to_string());
        let mut desc: Desc =
            [("a", entry(State::Active, &[])), ("b", entry(State::ReadOnly, &[]))].into_iter().collect();
        assert_eq!(ready(&desc, 100), Err("no tokens in ring".into()));
        desc.insert("a", entry(State::Active, &[1]));
        assert_eq!(ready(&desc, 160), Ok(()));
        assert_eq!(ready(&desc, 161), Err("instance a:1 past heartbeat timeout".into()));
        assert_eq!(desc.check_ready(i64::MAX, Duration::ZERO), Ok(()));
        desc.insert("b", entry(State::Leaving, &[]));
        assert_eq!(ready(&desc, 100), Err("instance a:1 in state LEAVING".into()));
        assert_eq!(ready(&Desc::new(), 100), Err("no tokens in ring".into()));
    }

    #[test]
    fn claimed_tokens_change_hands_sorted_and_once() {
        let mut desc: Desc = [("a", entry(State::Leaving, &[3, 1, 3])), ("b", entry(State::Joining, &[7]))]
            .into_iter()
            .collect();
        assert_eq!(desc.claim_tokens("a", "b").as_slice(), [1, 3]);
        let tokens = |desc: &Desc, id: &str| desc.get(id).unwrap().tokens.to_vec();
        assert_eq!((tokens(&desc, "a"), tokens(&desc, "b")), (vec![], vec![1, 3]));
        for (from, to) in [("b", "b"), ("b", "nobody"), ("nobody", "b")] {
            assert!(desc.claim_tokens(from, to).is_empty());
            assert_eq!(tokens(&desc, "b"), [1, 3], "{from} to {to}: nothing is lost");
        }
    }

    #[test]
    fn editing_a_clone_leaves_the_original_alone() {
        let original: Desc =
            [("a", entry(State::Active, &[1])), ("b", entry(State::Active, &[2]))].into_iter().collect();
        let mut clone = original.clone();
        clone.claim_tokens("a", "b");
        clone.remove("a");
        assert_eq!(original.all_tokens(), [1, 2]);
    }
}
