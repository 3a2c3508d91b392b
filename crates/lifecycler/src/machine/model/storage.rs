//! The store: what lands, what is heard of it, what it answers.

use super::*;

impl World {
    pub(super) fn is_down(&self) -> bool {
        self.now < self.back_at
    }

    pub(super) fn begin(&mut self, host: usize, entry: Option<Box<InstanceDesc>>, decisive: bool) {
        let latency = self.kind.latency;
        let (lands_at, answered_at, fails) = if self.is_down() {
            let takes = if self.hangs { self.ms(1_000, 10_000) } else { self.ms(1, latency) };
            let answered_at = self.now + takes;
            let lands = self.hangs && self.back_at <= answered_at && self.chance(50);
            (lands.then_some(self.back_at), answered_at, true)
        } else {
            let fails = !self.quiet && self.chance(self.kind.flaky);
            let lands = !fails || self.chance(50);
            let lands_at = self.now + self.ms(1, latency);
            let answered_at = lands_at + self.ms(0, latency);
            (lands.then_some(lands_at), answered_at, fails)
        };
        let lands = lands_at.is_some();
        self.process(host).op = Some(Op { entry, decisive, lands, fails, landed: None });
        if let Some(at) = lands_at {
            self.schedule_to(at, host, ToProcess::Lands);
        }
        self.schedule_to(answered_at, host, ToProcess::Answered);
    }

    pub(super) fn land(&mut self, host: usize) {
        let down = self.is_down();
        let op = self.process(host).op.as_mut().unwrap();
        if down {
            (op.lands, op.fails) = (false, true);
            return;
        }
        let entry = op.entry.clone();
        self.note(Some(host), || "has its operation land".into());
        self.apply(host, entry.as_deref());
        let landed = (self.version, Arc::clone(&self.ring));
        let this = &mut self.hosts[host];
        let process = this.process.as_mut().unwrap();
        let has_all = entry.is_some_and(|entry| entry.tokens == *process.machine.tokens());
        this.disturbed = !has_all && (this.disturbed || process.removing);
        process.op.as_mut().unwrap().landed = Some(landed);
    }

    pub(super) fn ghost_lands(&mut self, host: usize, entry: Option<&InstanceDesc>) {
        self.hosts[host].ghosts -= 1;
        if self.is_down() {
            return;
        }
        self.stats.count("ghost landed");
        self.note(Some(host), || {
            format!("has what its former life asked for land: {}", entry.map_or("removal".into(), shown))
        });
        let this = &mut self.hosts[host];
        (this.disturbed, this.removed) = (true, false);
        if self.kind.late {
            // What a successor relies on is not in the store now, and what is there was not a moment ago.
            let stored = self.ring.get(&this.id);
            let before: BTreeSet<u32> =
                stored.map(|stored| stored.tokens.iter().copied().collect()).unwrap_or_default();
            let after: BTreeSet<u32> =
                entry.map(|entry| entry.tokens.iter().copied().collect()).unwrap_or_default();
            self.excused.extend(before.symmetric_difference(&after).copied());
            if let Some(process) = &this.process {
                let own = process.machine.tokens().iter().copied();
                self.excused.extend(own.filter(|token| !after.contains(token)));
            }
        }
        self.apply(host, entry);
    }

    /// Stores an entry, or removes it.
    pub(super) fn apply(&mut self, host: usize, entry: Option<&InstanceDesc>) {
        let id = self.hosts[host].id.as_str();
        let ring = Arc::make_mut(&mut self.ring);
        if let Some(entry) = entry {
            self.stats.count(name_of(entry.state));
            if ring.get(id).is_none_or(|known| known.tokens != entry.tokens) {
                for &token in &entry.tokens[..] {
                    self.claims.entry(token).or_default().insert(host);
                }
            }
            ring.insert(id, entry.clone());
        } else {
            ring.remove(id);
        }
        self.version += 1;
        self.spread();
    }

    /// Whoever lives will look at what the store holds now, if he was not to look anyway.
    pub(super) fn spread(&mut self) {
        for host in 0..self.hosts.len() {
            let Some(process) = &mut self.hosts[host].process else { continue };
            if !std::mem::replace(&mut process.looking, true) {
                let at = self.now + self.ms(0, 2 * self.kind.latency);
                self.schedule_to(at, host, ToProcess::Looks);
            }
        }
    }

    /// What the store holds now sets out for the instance.
    pub(super) fn look(&mut self, host: usize) {
        if self.is_down() {
            let at = self.back_at + self.ms(1, 500);
            self.schedule_to(at, host, ToProcess::Looks);
            return;
        }
        let arrives_at = self.now + self.ms(0, self.kind.latency);
        let (version, ring) = (self.version, Arc::clone(&self.ring));
        let process = self.process(host);
        process.looking = false;
        if process.looked.replace(version) != Some(version) {
            // In the order of the looks.
            process.sees_at = process.sees_at.max(arrives_at);
            let at = process.sees_at;
            self.schedule_to(at, host, ToProcess::Sees { version, ring });
        }
    }

    pub(super) fn see(&mut self, host: usize, version: u64, ring: Arc<Desc>) -> Result<(), String> {
        let this = &mut self.hosts[host];
        let process = this.process.as_mut().unwrap();
        let mut seen = Arc::clone(&ring);
        if version < process.version {
            let seen = Arc::make_mut(&mut seen);
            match process.seen.get(&this.id) {
                Some(own) => drop(seen.insert(this.id.as_str(), Arc::clone(own))),
                None => drop(seen.remove(&this.id)),
            }
        }
        process.seen = seen;
        let ring = (!ring.is_empty()).then_some(ring);
        self.tell(host, Told::Ring { version, ring })
    }

    pub(super) fn answer(&mut self, host: usize) -> Result<(), String> {
        let (down, reads_late, remembered) = (self.is_down(), self.chance(50), self.kind.remembered);
        let read = (self.version, Arc::clone(&self.ring));
        let this = &mut self.hosts[host];
        let process = this.process.as_mut().unwrap();
        let Some(op) = process.op.take() else { return Ok(()) };
        if op.fails {
            self.stats.count(if op.landed.is_some() { "failed but landed" } else { "failed" });
        }
        let event = match (op.entry, op.landed) {
            (None, landed) => {
                // What a former life asked for may have landed between the removal and its answer.
                this.removed = landed.is_some() && !op.fails && !self.ring.contains(&this.id);
                if this.removed {
                    self.stats.count("removed");
                }
                Event::Removed
            }
            // Where entries have keys of their own, what is told of others takes a read.
            (Some(_), Some(_)) if remembered && op.decisive && down => Event::WriteFailed,
            (Some(entry), Some((version, after))) if !op.fails => {
                let (version, ring) = match (remembered, op.decisive) {
                    (true, false) => {
                        let mut ring = Desc::clone(&process.seen);
                        ring.insert(this.id.as_str(), *entry);
                        (version, Arc::new(ring))
                    }
                    (true, true) if reads_late => read,
                    _ => (version, after),
                };
                process.version = version;
                process.seen = Arc::clone(&ring);
                Event::Written(ring)
            }
            (Some(_), _) => Event::WriteFailed,
        };
        self.take_in(host, Told::Event(event))?;
        self.drive(host)
    }

    // What must hold.
}
