//! Streams: in each direction bytes come in order or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::StreamId;

/// One end of a stream.
#[derive(Debug)]
pub(super) struct End {
    pub(super) node: usize,
    /// What its member calls it; unknown at the far end until that accepts it.
    pub(super) id: Option<StreamId>,
    /// Whether it is to be told anything more.
    pub(super) open: bool,
    /// When what it was told last arrives: nothing comes before.
    pub(super) ready: Duration,
}

/// A stream. End 0 opened it.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) ends: [End; 2],
    /// Nothing gets through any more, whatever becomes of the link.
    pub(super) broken: bool,
}

/// All streams.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pipes: BTreeMap<u64, Pipe>,
    next: u64,
}

impl Pipes {
    /// A stream from one member to another, who has not heard of it.
    pub(super) fn open(&mut self, from: usize, id: StreamId, to: usize, now: Duration) -> u64 {
        self.next += 1;
        let ends = [
            End { node: from, id: Some(id), open: true, ready: now },
            End { node: to, id: None, open: true, ready: now },
        ];
        self.pipes.insert(self.next, Pipe { ends, broken: false });
        self.next
    }

    pub(super) fn get(&self, pipe: u64) -> Option<&Pipe> {
        self.pipes.get(&pipe)
    }

    pub(super) fn get_mut(&mut self, pipe: u64) -> Option<&mut Pipe> {
        self.pipes.get_mut(&pipe)
    }

    /// What the member at an open end of a working stream calls it.
    pub(super) fn hears(&self, pipe: u64, side: usize) -> Option<StreamId> {
        let pipe = self.pipes.get(&pipe)?;
        let end = &pipe.ends[side];
        if end.open && !pipe.broken { end.id } else { None }
    }

    /// This end is to be told nothing more. Returns what its member calls it, if it was open and known.
    pub(super) fn shut(&mut self, pipe: u64, side: usize) -> Option<StreamId> {
        let held = self.pipes.get_mut(&pipe)?;
        let end = &mut held.ends[side];
        let id = if end.open { end.id } else { None };
        end.open = false;
        if held.ends.iter().all(|end| !end.open) {
            self.pipes.remove(&pipe);
        }
        id
    }

    /// Marks the working streams that `lost` names as broken, and returns them with the members at their ends.
    pub(super) fn break_where(&mut self, lost: impl Fn(usize, usize) -> bool) -> Vec<(u64, [usize; 2])> {
        let mut broken = Vec::new();
        for (number, pipe) in &mut self.pipes {
            let [from, to] = &pipe.ends;
            let nodes = [from.node, to.node];
            if !pipe.broken && lost(nodes[0], nodes[1]) {
                pipe.broken = true;
                broken.push((*number, nodes));
            }
        }
        broken
    }
}
