//! [`Operation`]: which states an operation accepts, and which make it look for one more replica.

use crate::desc::State;

/// What a caller is about to do: the states in which an instance can serve it, and those that extend the replica set by
/// one more instance.
///
/// # Source
///
/// Cortex's operation bitmaps: bit `s` = state `s` is healthy, bit `16 + s` = state `s` extends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operation(u32);

impl Operation {
    /// Writes, extending over every replica that is not ACTIVE.
    pub const WRITE: Self = Self::new(&[State::Active], Self::ALL_BUT_ACTIVE);
    /// Writes that extend over READONLY replicas only.
    pub const WRITE_NO_EXTEND: Self = Self::new(&[State::Active], &[State::ReadOnly]);
    /// Reads.
    pub const READ: Self = Self::new(
        &[State::Active, State::Pending, State::Leaving, State::Joining, State::ReadOnly],
        &[State::Pending, State::Left],
    );
    /// Status pages and metrics: every state counts, also unknown ones below 16.
    pub const REPORTING: Self = Self(0xFFFF);
    /// Which store-gateway loads a block.
    pub const BLOCKS_OWNER_SYNC: Self =
        Self::new(&[State::Joining, State::Active, State::Leaving], &[State::Leaving]);
    /// Which store-gateway already serves a block.
    pub const BLOCKS_OWNER_READ: Self = Self::new(&[State::Active], &[]);
    /// Which store-gateway a querier asks for a block.
    pub const BLOCKS_READ: Self = Self::new(&[State::Active], Self::ALL_BUT_ACTIVE);
    /// Who evaluates a rule group.
    pub const RULER: Self = Self::new(&[State::Active], Self::ALL_BUT_ACTIVE);
    /// Who is asked for rules.
    pub const RULER_LIST: Self = Self::new(&[State::Active, State::Leaving], Self::ALL_BUT_ACTIVE);
    /// Who handles a tenant's alerts.
    pub const ALERTMANAGER: Self = Self::new(&[State::Active], Self::ALL_BUT_ACTIVE);
    /// The same without extension.
    pub const ALERTMANAGER_NO_EXTENSION: Self = Self::new(&[State::Active], &[]);
    /// Who loads a tenant's alertmanager state.
    pub const ALERTMANAGER_SYNC: Self = Self::new(&[State::Active, State::Joining], Self::ALL_BUT_ACTIVE);
    /// The same without extension.
    pub const ALERTMANAGER_SYNC_NO_EXTENSION: Self = Self::new(&[State::Active, State::Joining], &[]);
    /// Who compacts.
    pub const COMPACTOR: Self = Self::new(&[State::Active], &[]);

    /// Writes in the dskit dialect, which knows no READONLY state.
    pub const DSKIT_WRITE: Self =
        Self::new(&[State::Active], &[State::Leaving, State::Pending, State::Joining, State::Left]);
    /// Writes in the dskit dialect without extension.
    pub const DSKIT_WRITE_NO_EXTEND: Self = Self::new(&[State::Active], &[]);
    /// Reads in the dskit dialect.
    pub const DSKIT_READ: Self = Self::new(
        &[State::Active, State::Pending, State::Leaving],
        &[State::Pending, State::Joining, State::Left],
    );

    const ALL_BUT_ACTIVE: &[State] =
        &[State::Leaving, State::Pending, State::Joining, State::Left, State::ReadOnly];

    /// An operation served by instances in one of the `healthy` states, that takes one more replica for each instance
    /// in one of the `extending` states. Unknown states are ignored.
    pub const fn new(healthy: &[State], extending: &[State]) -> Self {
        Self(bits(healthy) | bits(extending) << 16)
    }

    /// The operation with this bitmap, as Cortex writes it.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bitmap as Cortex writes it.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether an instance in `state` can serve the operation, its heartbeat aside.
    #[inline]
    pub fn accepts(self, state: State) -> bool {
        self.accepts_code(StateCode::from(state))
    }

    /// Whether an instance in `state` makes the replica set one larger.
    #[inline]
    pub fn extends_on(self, state: State) -> bool {
        self.extends_on_code(StateCode::from(state))
    }

    #[inline]
    pub(crate) fn accepts_code(self, code: StateCode) -> bool {
        ((self.0 & 0xFFFF) >> code.0) & 1 == 1
    }

    #[inline]
    pub(crate) fn extends_on_code(self, code: StateCode) -> bool {
        code.0 < StateCode::KNOWN && (self.0 >> 16 >> code.0) & 1 == 1
    }

    /// The states that extend a replica set without serving: such an instance takes a place and makes one, so the walk
    /// finds the same servers without it.
    #[inline]
    pub(crate) fn passed_over(self) -> CodeSet {
        CodeSet((self.0 >> 16) & !self.0 & ((1 << StateCode::KNOWN) - 1))
    }
}

/// A state as one byte: its number if it is 0–15, else 16, which no operation knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateCode(u8);

impl StateCode {
    /// How many states are known by name; their codes come first.
    pub(crate) const KNOWN: u8 = 6;

    /// The code of [`State::Active`].
    pub(crate) const ACTIVE: Self = Self(0);

    /// The code of a known state, and [`StateCode::KNOWN`] for all others.
    pub(crate) fn class(self) -> usize {
        usize::from(self.0.min(Self::KNOWN))
    }
}

impl From<State> for StateCode {
    fn from(state: State) -> Self {
        Self(u8::try_from(state.as_i32()).map_or(16, |number| number.min(16)))
    }
}

/// Some of the known states.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CodeSet(u32);

impl CodeSet {
    pub(crate) const NONE: Self = Self(0);

    #[inline]
    pub(crate) fn contains(self, code: StateCode) -> bool {
        (self.0 >> code.0) & 1 == 1
    }

    #[inline]
    pub(crate) fn contains_class(self, class: usize) -> bool {
        (self.0 >> class) & 1 == 1
    }
}

const fn bits(states: &[State]) -> u32 {
    let (mut bits, mut i) = (0, 0);
    while i < states.len() {
        bits |= match states[i] {
            State::Active => 1,
            State::Leaving => 1 << 1,
            State::Pending => 1 << 2,
            State::Joining => 1 << 3,
            State::Left => 1 << 4,
            State::ReadOnly => 1 << 5,
            State::Unknown(_) => 0,
        };
        i += 1;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_states_serve_and_extend_nothing_but_are_reported() {
        for number in [6, 15] {
            let state = State::from_i32(number);
            assert!(Operation::REPORTING.accepts(state));
            assert!(!Operation::READ.accepts(state) && !Operation::WRITE.extends_on(state));
        }
        for number in [16, 17, -1, i32::MAX, i32::MIN] {
            let state = State::from_i32(number);
            assert!(!Operation::REPORTING.accepts(state), "{number}");
            assert!(!Operation::REPORTING.extends_on(state), "{number}");
        }
    }
}
