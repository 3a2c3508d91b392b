//! What is to happen, in order of time; of what is to happen at once, in the order in which it was decided.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use bytes::Bytes;

use crate::api::Command;

/// What happens to a member.
#[derive(Debug)]
pub(super) enum What {
    /// A deadline of its own may have come.
    Wake,
    /// The seeds are resolved anew, in this life of it.
    Seeds { life: u32 },
    /// A datagram comes in.
    Datagram { from: usize, bytes: Bytes },
    /// Somebody wants something.
    Command(Command),
    /// A stream comes in.
    Accept { pipe: u64 },
    /// The stream it asked for is there.
    Opened { pipe: u64 },
    /// Bytes come to this end of a stream.
    Data { pipe: u64, side: usize, bytes: Bytes },
    /// Nothing more will come to this end.
    Closed { pipe: u64, side: usize },
}

/// Something that is to happen.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) at: Duration,
    number: u64,
    pub(super) to: usize,
    pub(super) what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The earliest is the largest, as a heap gives the largest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// All that is to happen.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Due>,
    next: u64,
}

impl Agenda {
    pub(super) fn push(&mut self, at: Duration, to: usize, what: What) {
        self.next += 1;
        self.heap.push(Due { at, number: self.next, to, what });
    }

    /// The next that is due by then.
    pub(super) fn pop_until(&mut self, until: Duration) -> Option<Due> {
        if self.heap.peek()?.at > until {
            return None;
        }
        self.heap.pop()
    }
}
