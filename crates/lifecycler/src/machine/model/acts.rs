//! What processes are told, and what they do about it.

use super::*;

impl World {
    /// Tells at once, or after the operation under way.
    pub(super) fn tell(&mut self, host: usize, told: Told) -> Result<(), String> {
        let eager = self.kind.eager;
        let process = self.process(host);
        if process.op.is_some() && !eager {
            process.inbox.push_back(told);
            return Ok(());
        }
        self.take_in(host, told)?;
        self.drive(host)
    }

    pub(super) fn take_in(&mut self, host: usize, told: Told) -> Result<(), String> {
        self.note(Some(host), || format!("is told: {}", told.shown()));
        let now = self.moment(host);
        let process = self.hosts[host].process.as_mut().unwrap();
        match told {
            // As in the lifecycler: what is older than the own write is out of date.
            Told::Ring { version, ring: Some(_) } if version < process.version => (),
            Told::Ring { version, ring } => {
                process.misled |= version < process.version;
                process.machine.handle_event(now, Event::Ring(ring));
            }
            Told::Event(event) => {
                process.stopping |= matches!(event, Event::Stop);
                process.machine.handle_event(now, event);
            }
            Told::Change(to) => {
                let early = process.machine.phase == Phase::Unregistered;
                if process.machine.change_state(now, to).is_ok() {
                    self.stats.count("state changed");
                    // Before the ring is known, what it says of the instance counts more: the lifecycler then answers that
                    // the change was superseded.
                    process.changed_early |= early;
                    process.expected = (!early).then_some(to);
                } else {
                    self.stats.count("state refused");
                }
            }
            Told::Renew => {
                if process.machine.renew_tokens(now, 0.5).is_ok_and(|renewed| renewed > 0) {
                    self.stats.count("renewed tokens");
                    // These were not lost.
                    process.tokens = process.machine.tokens().clone();
                }
            }
        }
        while let Some(notice) = process.machine.poll_notice() {
            if matches!(notice, Notice::WaitsFor(_)) {
                self.stats.count("waited for its turn");
            }
        }
        self.check(host)
    }

    /// Does what the machine says until there is nothing left to do at this instant.
    pub(super) fn drive(&mut self, host: usize) -> Result<(), String> {
        for _ in 0..MAX_STEPS {
            let (now, eager) = (self.moment(host), self.kind.eager);
            let Some(process) = self.hosts[host].process.as_mut() else { return Ok(()) };
            if process.op.is_some() && !eager {
                process.wake = None;
                return Ok(());
            }
            if let Some(action) = process.machine.poll_action(now) {
                self.act(host, action)?;
                continue;
            }
            if let Some(told) = process.inbox.pop_front() {
                self.take_in(host, told)?;
                continue;
            }
            match process.machine.poll_timeout() {
                Some(at) if at <= self.now => self.take_in(host, Told::Event(Event::Timeout))?,
                at => {
                    let moved = at != process.wake;
                    process.wake = at;
                    if let Some(at) = at.filter(|_| moved) {
                        self.schedule_to(at, host, ToProcess::Wakes);
                    }
                    return Ok(());
                }
            }
        }
        Err(self.problem(host, "is never done at one instant"))
    }

    pub(super) fn act(&mut self, host: usize, action: Action) -> Result<(), String> {
        match action {
            Action::Write { entry, heartbeat, decisive } => self.write(host, entry, heartbeat, decisive),
            Action::Save(file) => {
                self.note(Some(host), || {
                    format!("saves {} with {:x?}", file.previous_state, &file.tokens[..])
                });
                if self.hosts[host].keeps_file {
                    self.hosts[host].file = Some(file);
                }
                Ok(())
            }
            Action::Remove => {
                self.note(Some(host), || "asks for its removal".into());
                if self.process(host).op.is_some() {
                    return Err(self.problem(host, "asks for its removal while it writes"));
                }
                self.process(host).removing = true;
                self.begin(host, None, false);
                Ok(())
            }
            Action::Finished => self.finish(host),
        }
    }

    pub(super) fn write(
        &mut self,
        host: usize,
        entry: Box<InstanceDesc>,
        heartbeat: bool,
        decisive: bool,
    ) -> Result<(), String> {
        let now = self.now;
        self.note(Some(host), || {
            format!("writes {}, heartbeat: {heartbeat}, decisive: {decisive}", shown(&entry))
        });
        let process = self.process(host);
        if process.op.is_some() || process.removing {
            return Err(self.problem(host, "writes while it writes, or after its removal"));
        }
        let last = process.last_write.replace((*entry).clone());
        process.measured.0 += 1;
        process.measured.1 += usize::from(heartbeat);
        process.writes.push_back(now);
        while process.writes.front().is_some_and(|first| *first + STORM < now) {
            process.writes.pop_front();
        }
        if process.writes.len() > MAX_WRITES {
            return Err(self.problem(host, "writes too often"));
        }
        if let Some(last) = last {
            let timestamp = last.timestamp;
            let changed = InstanceDesc { timestamp: entry.timestamp, ..last } != *entry;
            if entry.timestamp < timestamp || (changed && entry.timestamp == timestamp) {
                return Err(self.problem(host, "writes an entry that is not newer than its last one"));
            }
        }
        self.begin(host, Some(entry), decisive);
        Ok(())
    }

    pub(super) fn finish(&mut self, host: usize) -> Result<(), String> {
        self.note(Some(host), || "finishes".into());
        self.stats.count("finished");
        let Kind { forgetful, late, .. } = self.kind;
        let stays = self.ring.contains(&self.hosts[host].id);
        let process = self.process(host);
        if !process.stopping || process.op.is_some() {
            return Err(self.problem(host, "finishes untold, or while it writes"));
        }
        // Whoever sees that its entry is gone leaves it at that, even if a write of its own has brought it back meanwhile.
        let vanishes = forgetful || late || process.misled;
        if process.unregisters && process.basis.is_some() && !process.removing && stays && !vanishes {
            return Err(self.problem(host, "finishes without having asked for its removal"));
        }
        self.end(host);
        self.plan_start(host, 80, 10_000);
        Ok(())
    }

    /// Ends a life, and notes what the next one is to find.
    pub(super) fn end(&mut self, host: usize) -> Option<Process> {
        let this = &mut self.hosts[host];
        let process = this.process.take()?;
        let machine = &process.machine;
        if !machine.is_joined() {
            return Some(process);
        }
        let relied_on = relied_on(machine);
        if this.role == Role::Ingester {
            // The next life takes the tokens of such an entry as they are. Those of which this one had not seen yet that
            // nobody else has them may be somebody's.
            let under_way = process.op.as_ref().and_then(|op| op.entry.as_deref());
            let stored = self.ring.get(&this.id).map(|stored| &**stored);
            for entry in stored.into_iter().chain(under_way) {
                if matches!(entry.state, State::Active | State::ReadOnly | State::Leaving) {
                    let unsure = entry.tokens.iter().copied().filter(|token| !relied_on.contains(token));
                    self.excused.extend(unsure);
                }
            }
        }
        this.left = Some(relied_on);
        Some(process)
    }

    // The store.
}
