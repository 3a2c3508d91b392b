//! A network in memory: members in virtual time, with latency, loss and cuts, all from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use foca::{Header, Member, Message};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::id::NodeId;
use crate::swim::codec::write_message;
use crate::swim::{Config, MemberState, ProbeId, State, Swim, SwimEvent, SwimOut};
use crate::time::Now;

/// Wall time at the start, and the generation of every member that starts then.
pub(super) const START_MS: u64 = 1_700_000_000_000;

pub(super) struct Net {
    now: Duration,
    nodes: BTreeMap<SocketAddr, Swim>,
    flying: BTreeMap<(Duration, usize), (SocketAddr, Bytes)>,
    rng: SmallRng,
    /// Nothing runs at these addresses.
    pub(super) dead: BTreeSet<SocketAddr>,
    /// Datagrams from the first to the second are lost.
    pub(super) cut: BTreeSet<(SocketAddr, SocketAddr)>,
    /// How many of the others are lost.
    pub(super) loss: f64,
    /// Whether probes over streams reach members that live.
    pub(super) streams: bool,
    /// Everything sent: from where, where to, what.
    pub(super) log: Vec<(SocketAddr, SocketAddr, Bytes)>,
    /// Everything that happened: when, where, what.
    pub(super) events: Vec<(Duration, SocketAddr, SwimEvent)>,
}

pub(super) fn addr(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 7946))
}

pub(super) fn id(number: u8) -> NodeId {
    NodeId::new(&format!("m{number}"), START_MS, addr(number))
}

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            nodes: BTreeMap::new(),
            flying: BTreeMap::new(),
            rng: SmallRng::seed_from_u64(seed),
            dead: BTreeSet::new(),
            cut: BTreeSet::new(),
            loss: 0.0,
            streams: false,
            log: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Members 1 to `size`, who all know each other.
    pub(super) fn cluster(size: u8, seed: u64) -> Self {
        Self::cluster_with(&Config::default(), size, seed)
    }

    pub(super) fn cluster_with(config: &Config, size: u8, seed: u64) -> Self {
        let mut net = Self::new(seed);
        for number in 1..=size {
            net.start(id(number), config.clone());
        }
        let all =
            (1..=size).map(|number| MemberState { id: id(number), incarnation: 0, state: State::Alive });
        for number in 1..=size {
            let all = all.clone();
            net.act(number, |swim, now, out| swim.apply(now, all, out));
        }
        net
    }

    /// Starts a member, in the place of whatever was at its address.
    pub(super) fn start(&mut self, id: NodeId, config: Config) {
        self.dead.remove(&id.addr);
        let seed = self.rng.random();
        self.nodes.insert(id.addr, Swim::new(config, id, seed, self.now()));
    }

    pub(super) fn now(&self) -> Now {
        let ms = u64::try_from(self.now.as_millis()).unwrap();
        Now { mono: self.now, wall_ms: START_MS + ms }
    }

    pub(super) fn node(&self, number: u8) -> &Swim {
        &self.nodes[&addr(number)]
    }

    /// Does something at a member, and sends what comes of it.
    pub(super) fn act<T>(&mut self, number: u8, act: impl FnOnce(&mut Swim, Now, &mut SwimOut) -> T) -> T {
        self.act_at(addr(number), act)
    }

    fn act_at<T>(&mut self, at: SocketAddr, act: impl FnOnce(&mut Swim, Now, &mut SwimOut) -> T) -> T {
        let now = self.now();
        let mut out = SwimOut::default();
        let swim = self.nodes.get_mut(&at).unwrap();
        let result = act(swim, now, &mut out);
        let known: Vec<_> = swim.foca.iter_membership_state().map(MemberState::from).collect();
        assert_eq!(swim.roster.len(), known.len());
        assert!(known.iter().all(|member| swim.roster.get(member.id.name) == Some(member)));
        self.route(at, out);
        result
    }

    fn route(&mut self, from: SocketAddr, out: SwimOut) {
        for (to, bytes) in out.datagrams {
            self.log.push((from, to, bytes.clone()));
            let latency = millis(self.rng.random_range(1..=20));
            let lost = self.rng.random_bool(self.loss);
            if !lost && !self.cut.contains(&(from, to)) && !self.dead.contains(&from) {
                self.flying.insert((self.now + latency, self.log.len()), (to, bytes));
            }
        }
        for event in out.events {
            self.events.push((self.now, from, event));
            if let SwimEvent::ProbeOverStream { probe, target } = event
                && self.streams
            {
                self.ask_over_stream(from, probe, target);
            }
        }
    }

    fn ask_over_stream(&mut self, from: SocketAddr, probe: ProbeId, target: NodeId) {
        let there = self.nodes.get(&target.addr).filter(|_| !self.dead.contains(&target.addr));
        if there.is_none_or(|swim| swim.id() != target) {
            return;
        }
        if let Some(incarnation) = self.nodes[&from].suspicion(&target) {
            let suspect = MemberState { id: target, incarnation, state: State::Suspect };
            self.act_at(target.addr, |swim, now, out| swim.apply(now, [suspect], out));
        }
        let own = self.nodes[&target.addr].export().next().unwrap();
        self.act_at(from, |swim, now, out| swim.stream_probe_answered(now, probe, own.incarnation, out));
    }

    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let datagram = self.flying.first_key_value().map(|((at, _), _)| *at);
            let living = self.nodes.iter().filter(|(at, _)| !self.dead.contains(*at));
            let timer = living.filter_map(|(at, swim)| Some((swim.next_deadline()?, *at))).min();
            let next = [datagram, timer.map(|(due, _)| due)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if datagram == Some(next) {
                self.deliver();
            } else if let Some((_, at)) = timer {
                self.act_at(at, Swim::handle_due);
            }
        }
        self.now = self.now.max(end);
    }

    /// Runs until something holds. Returns whether it came to that.
    pub(super) fn run_until(&mut self, span: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + span;
        while !holds(self) {
            if self.now >= end {
                return false;
            }
            self.run(millis(50));
        }
        true
    }

    /// Nobody gets to do anything for a while.
    pub(super) fn pause(&mut self, span: Duration) {
        self.now += span;
    }

    fn deliver(&mut self) {
        let Some((_, (to, bytes))) = self.flying.pop_first() else { return };
        if self.nodes.contains_key(&to) && !self.dead.contains(&to) {
            // Refusals are part of the game; what may not be refused is tested without the network.
            let _ = self.act_at(to, |swim, now, out| swim.handle_datagram(now, &bytes, out));
        }
    }

    /// Hands a message to a member, without the network.
    pub(super) fn hand(&mut self, number: u8, bytes: &[u8]) -> Result<(), crate::swim::SwimError> {
        self.act(number, |swim, now, out| swim.handle_datagram(now, bytes, out))
    }

    /// A message as one member would write it to another one.
    pub(super) fn message(
        &self,
        from: u8,
        to: u8,
        message: Message<NodeId>,
        updates: &[Member<NodeId>],
    ) -> Vec<u8> {
        let (src, dst) = (self.node(from).id(), self.node(to).id());
        let updates = (message != Message::TurnUndead).then_some(updates);
        write_message(&Header { src, src_incarnation: 0, dst, message }, updates).unwrap()
    }

    /// What one member thinks of another one, in whichever life.
    pub(super) fn state(&self, of: u8, on: u8) -> Option<State> {
        let name = id(on).name;
        self.node(of).export().find(|member| member.id.name == name).map(|member| member.state)
    }

    /// How many events there were of a kind.
    pub(super) fn count(&self, wanted: impl Fn(&SwimEvent) -> bool) -> usize {
        self.events.iter().filter(|(_, _, event)| wanted(event)).count()
    }

    /// How many times somebody took somebody for dead.
    pub(super) fn deaths(&self) -> usize {
        self.count(|event| matches!(event, SwimEvent::MemberDown(_)))
    }

    /// How many times somebody was taken for dead and came back.
    pub(super) fn rejoins(&self) -> usize {
        self.count(|event| matches!(event, SwimEvent::Rejoined(_)))
    }
}
