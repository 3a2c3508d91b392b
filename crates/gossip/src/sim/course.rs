//! What happens from moment to moment: what is delivered, what members want done, what is noted of it.

use super::*;

impl Sim {
    /// What a clock that is right shows.
    pub(super) fn true_wall_ms(&self) -> u64 {
        START_MS.saturating_add(u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn wall_ms(&self, node: usize) -> u64 {
        self.true_wall_ms().saturating_add_signed(self.hosts[node].offset_ms)
    }

    pub(super) fn now_of(&self, node: usize) -> Now {
        Now { mono: self.now.saturating_sub(self.hosts[node].born), wall_ms: self.wall_ms(node) }
    }

    pub(super) fn note_clock(&mut self, node: usize) {
        let spread = signed_millis(self.options.clock_spread);
        let host = &mut self.hosts[node];
        let skew = signed_millis(host.limits.max_clock_skew);
        if host.offset_ms.saturating_abs() > skew.saturating_sub(spread) {
            host.astray = true;
        }
    }

    pub(super) fn run_to(&mut self, until: Duration) {
        while let Some(due) = self.agenda.pop_until(until) {
            self.now = self.now.max(due.at);
            self.deliver(due);
        }
        self.now = until;
    }

    pub(super) fn deliver(&mut self, due: Due) {
        let Due { at, to, what, .. } = due;
        let host = &mut self.hosts[to];
        match host.state {
            State::Up => match what {
                // Others were set for later, before this one was.
                What::Wake if at != host.wake_at => {}
                What::Wake => {
                    host.wake_at = Duration::MAX;
                    let deadline = host.born.saturating_add(host.node.next_deadline());
                    if deadline <= self.now {
                        self.feed(to, Input::Tick);
                    } else {
                        self.schedule(to);
                    }
                }
                what => self.happen(to, what),
            },
            State::Paused => match what {
                What::Wake => {}
                What::Datagram { from, bytes } => {
                    if host.backlog_bytes + bytes.len() <= MAX_BACKLOG_BYTES && self.links.is_open(from, to) {
                        host.backlog_bytes += bytes.len();
                        host.backlog.push_back(What::Datagram { from, bytes });
                    }
                }
                what => host.backlog.push_back(what),
            },
            State::Down => {
                // Nobody listens there.
                if let What::Accept { pipe } = what {
                    self.pipes.shut(pipe, 1);
                    self.tell(pipe, 0, What::Closed { pipe, side: 0 });
                }
            }
        }
    }

    /// Something happens to a member that runs.
    pub(super) fn happen(&mut self, node: usize, what: What) {
        match what {
            What::Wake => {}
            What::Seeds { life } => self.resolve(node, life),
            What::Datagram { from, bytes } => {
                if self.links.is_open(from, node) {
                    self.feed(node, Input::Datagram { from: addr_of(from), bytes: &bytes });
                }
            }
            What::Command(command) => self.obey(node, command),
            What::Accept { pipe } => self.accept(node, pipe),
            What::Opened { pipe } => {
                let Some(id) = self.pipes.hears(pipe, 0) else { return };
                let Some(peer) = self.pipes.get(pipe).map(|pipe| addr_of(pipe.ends[1].node)) else { return };
                self.feed(node, Input::Stream { id, event: StreamEvent::Opened { peer } });
            }
            What::Data { pipe, side, bytes } => {
                if let Some(id) = self.pipes.hears(pipe, side) {
                    self.feed(node, Input::Stream { id, event: StreamEvent::Data(&bytes) });
                }
            }
            What::Closed { pipe, side } => {
                if let Some(id) = self.pipes.shut(pipe, side) {
                    self.hosts[node].streams.remove(&id);
                    self.feed(node, Input::Stream { id, event: StreamEvent::Closed });
                }
            }
        }
    }

    pub(super) fn accept(&mut self, node: usize, pipe: u64) {
        let host = &mut self.hosts[node];
        let Some(held) = self.pipes.get_mut(pipe) else { return };
        if held.broken {
            return;
        }
        host.last_inbound += 2;
        let id = StreamId(host.last_inbound);
        host.streams.insert(id, (pipe, 1));
        held.ends[1].id = Some(id);
        // Streams come from any port.
        let port = 32_768 + u16::try_from(pipe % 16_384).unwrap_or(0);
        let peer = SocketAddr::new(addr_of(held.ends[0].node).ip(), port);
        // Before anything that it may answer.
        self.tell(pipe, 0, What::Opened { pipe });
        self.feed(node, Input::Stream { id, event: StreamEvent::Opened { peer } });
    }

    /// Tells a member its seeds, now and from time to time in this life.
    pub(super) fn resolve(&mut self, node: usize, life: u32) {
        if self.hosts[node].lives != life {
            return;
        }
        let mut seeds: Vec<SocketAddr> = (0..self.options.seeds.min(self.hosts.len())).map(addr_of).collect();
        if seeds == [addr_of(node)]
            && let Some(other) = self.live().find(|other| *other != node)
        {
            seeds.push(addr_of(other));
        }
        self.agenda.push(self.now.saturating_add(RESOLVE), node, What::Seeds { life });
        self.feed(node, Input::Seeds(&seeds));
    }

    /// Carries out a command, and records what was written by it.
    pub(super) fn obey(&mut self, node: usize, command: Command) {
        let written: Option<(SmolStr, Vec<EntryId>)> = match &command {
            Command::Upsert { key, changes } | Command::Apply { key, changes, .. } => {
                Some((key.clone(), changes.iter().map(|(entry, _)| entry.clone()).collect()))
            }
            Command::Leave => {
                self.hosts[node].leaves = true;
                None
            }
            // What that writes, it tells of as changed.
            Command::Heal { .. } => None,
        };
        self.feed(node, Input::Command(command));
        if let Some((key, entries)) = written {
            self.record(node, &key, &entries);
        }
    }

    /// Records what a member holds in these places, if it is its own.
    pub(super) fn record(&mut self, node: usize, key: &str, entries: &[EntryId]) {
        let host = &self.hosts[node];
        let (own, store) = (host.node.id().name, host.node.store());
        let skew = host.limits.max_clock_skew;
        let latest = self.true_wall_ms().saturating_add_signed(
            signed_millis(skew).saturating_sub(signed_millis(self.options.clock_spread)),
        );
        for entry in entries {
            if let Some(slot) = store.get(key, entry) {
                let register: &Register = slot.register();
                if register.author == own {
                    self.model.wrote(key, entry, register, register.version.hlc.ms() > latest);
                }
            }
        }
    }

    /// Gives a member something, and does what it wants done.
    pub(super) fn feed(&mut self, node: usize, input: Input<'_>) {
        self.note_input(node, &input);
        let now = self.now_of(node);
        let mut out = std::mem::take(&mut self.out);
        self.hosts[node].node.handle(now, input, &mut out);
        for output in out.drain(..) {
            self.perform(node, output);
        }
        self.out = out;
        if self.hosts[node].finished {
            self.stop(node);
            // One that leaves has to see to it that somebody has all of its registers, if there is somebody.
            let alone = !self.live().any(|other| self.links.is_open(node, other));
            if alone {
                self.doubt();
            }
        } else {
            self.schedule(node);
        }
    }

    /// Sees to it that a member is woken in time.
    pub(super) fn schedule(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if host.state != State::Up {
            return;
        }
        let Some(deadline) = host.born.checked_add(host.node.next_deadline()) else { return };
        let at = deadline.max(self.now.saturating_add(TICK));
        if at < host.wake_at {
            host.wake_at = at;
            self.agenda.push(at, node, What::Wake);
        }
    }

    pub(super) fn perform(&mut self, node: usize, output: Output) {
        match output {
            Output::Datagram { to, bytes } => self.send(node, to, &bytes),
            Output::Open { id, to } => self.open(node, id, to),
            Output::Write { id, bytes } => {
                self.note(node, b'w', id.0, &bytes);
                let sent = &mut self.hosts[node].sent;
                sent.stream_bytes = sent.stream_bytes.saturating_add(length(&bytes));
                if let Some((pipe, side)) = self.hosts[node].streams.get(&id).copied() {
                    let side = 1 - side;
                    if let Some(to) = self.pipes.get(pipe).map(|pipe| pipe.ends[side].node) {
                        self.note_stream(node, to, &bytes);
                    }
                    self.tell(pipe, side, What::Data { pipe, side, bytes });
                }
            }
            Output::Close { id } => {
                self.note(node, b'c', id.0, &[]);
                if let Some((pipe, side)) = self.hosts[node].streams.remove(&id) {
                    let other = 1 - side;
                    self.tell(pipe, other, What::Closed { pipe, side: other });
                    self.pipes.shut(pipe, side);
                }
            }
            Output::Event(event) => self.heed(node, event),
        }
    }

    pub(super) fn send(&mut self, node: usize, to: SocketAddr, bytes: &Bytes) {
        let sent = &mut self.hosts[node].sent;
        sent.datagrams = sent.datagrams.saturating_add(1);
        sent.datagram_bytes = sent.datagram_bytes.saturating_add(length(bytes));
        let to = self.place_of(to);
        self.note(node, b'd', to.and_then(|to| u64::try_from(to).ok()).unwrap_or(u64::MAX), bytes);
        let Some(to) = to else { return };
        self.note_datagram(node, to, bytes);
        if !self.links.is_open(node, to) || self.links.happens(self.links.loss) {
            return;
        }
        let copies = if self.links.happens(self.links.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let at = self.now.saturating_add(self.links.delay());
            self.agenda.push(at, to, What::Datagram { from: node, bytes: bytes.clone() });
        }
    }

    pub(super) fn open(&mut self, node: usize, id: StreamId, to: SocketAddr) {
        self.note(node, b'o', id.0, &[]);
        let host = &mut self.hosts[node];
        host.sent.streams = host.sent.streams.saturating_add(1);
        let target = self.place_of(to);
        // A stream to nowhere ends like one over a cut link: nobody answers.
        let pipe = self.pipes.open(node, id, target.unwrap_or(node), self.now);
        self.hosts[node].streams.insert(id, (pipe, 0));
        let reaches = target.is_some_and(|to| self.links.is_open(node, to) && self.links.is_open(to, node));
        if !reaches || self.links.happens(self.options.open_failures) {
            self.pipes.shut(pipe, 1);
            let at = self.now.saturating_add(GIVE_UP);
            self.agenda.push(at, node, What::Closed { pipe, side: 0 });
            return;
        }
        self.tell(pipe, 1, What::Accept { pipe });
    }

    pub(super) fn heed(&mut self, node: usize, event: Event) {
        match event {
            Event::Changed { key, entries } => {
                self.note(node, b'e', length_of(entries.len()), key.as_bytes());
                if entries.is_empty() {
                    let store = self.hosts[node].node.store();
                    let all: Vec<EntryId> = store.registers(&key).map(|(entry, _)| entry.clone()).collect();
                    self.record(node, &key, &all);
                } else {
                    self.record(node, &key, &entries);
                }
                return;
            }
            Event::Refused { reason } => {
                self.account.refused(reason);
                self.note(node, b'r', 0, reason.as_bytes());
                return;
            }
            Event::MemberDown { name } => self.note_death(node, name),
            Event::Quarantined { author, .. } => self.account.quarantined(node, author),
            Event::Phase(Phase::Left | Phase::Failed) => self.hosts[node].finished = true,
            Event::Failed { ref reason } => {
                self.hosts[node].finished = true;
                self.hosts[node].failure = Some(reason.clone());
            }
            _ => {}
        }
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let _ = write!(text, "{event:?}");
        self.note(node, b'v', 0, text.as_bytes());
        self.text = text;
    }

    /// Tells an end of a stream something, after all it was told before.
    pub(super) fn tell(&mut self, pipe: u64, side: usize, what: What) {
        let delay = self.links.stream_delay();
        let Some(held) = self.pipes.get_mut(pipe) else { return };
        let end = &mut held.ends[side];
        if !end.open || held.broken {
            return;
        }
        end.ready = end.ready.max(self.now.saturating_add(delay));
        self.agenda.push(end.ready, end.node, what);
    }

    /// Breaks the streams over links that carry nothing. Both ends notice after a while.
    pub(super) fn break_streams(&mut self) {
        let links = &self.links;
        let broken = self.pipes.break_where(|from, to| !links.is_open(from, to) || !links.is_open(to, from));
        let at = self.now.saturating_add(GIVE_UP);
        for (pipe, nodes) in broken {
            for (side, node) in nodes.into_iter().enumerate() {
                self.agenda.push(at, node, What::Closed { pipe, side });
            }
        }
    }

    /// A member runs no more.
    pub(super) fn stop(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        host.state = State::Down;
        host.wake_at = Duration::MAX;
        host.backlog.clear();
        host.backlog_bytes = 0;
        for (pipe, side) in std::mem::take(&mut host.streams).into_values() {
            let other = 1 - side;
            self.tell(pipe, other, What::Closed { pipe, side: other });
            self.pipes.shut(pipe, side);
        }
    }

    /// Somebody is gone, and with it what only that one knew.
    pub(super) fn doubt(&mut self) {
        let up = self.hosts.iter().filter(|host| host.state != State::Down);
        let stores: Vec<_> = up.map(|host| host.node.store()).collect();
        self.model.doubt(&stores);
    }

    /// Which member listens at an address.
    pub(super) fn place_of(&self, addr: SocketAddr) -> Option<usize> {
        let IpAddr::V4(ip) = addr.ip() else { return None };
        let number = u32::from(ip).checked_sub(u32::from(Ipv4Addr::new(10, 0, 0, 1)))?;
        let place = usize::try_from(number).ok()?;
        (addr.port() == PORT && place < self.hosts.len()).then_some(place)
    }

    pub(super) fn note_input(&mut self, node: usize, input: &Input<'_>) {
        match input {
            Input::Datagram { from, bytes } => self.note(node, b'D', u64::from(from.port()), bytes),
            Input::Stream { id, event } => match event {
                StreamEvent::Opened { peer } => self.note(node, b'O', id.0, &peer.port().to_le_bytes()),
                StreamEvent::Data(bytes) => self.note(node, b'W', id.0, bytes),
                StreamEvent::Closed => self.note(node, b'C', id.0, &[]),
            },
            Input::Seeds(seeds) => self.note(node, b'S', length_of(seeds.len()), &[]),
            Input::Command(_) => self.note(node, b'X', 0, &[]),
            Input::Tick => self.note(node, b'T', 0, &[]),
        }
    }

    /// Adds to the trace.
    pub(super) fn note(&mut self, node: usize, what: u8, number: u64, bytes: &[u8]) {
        let nanos = u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX);
        let mut head = [0; 33];
        head[0] = what;
        for (part, value) in [nanos, length_of(node), number, length(bytes)].into_iter().enumerate() {
            head[1 + 8 * part..9 + 8 * part].copy_from_slice(&value.to_le_bytes());
        }
        self.trace.update(&head);
        self.trace.update(bytes);
    }
}
