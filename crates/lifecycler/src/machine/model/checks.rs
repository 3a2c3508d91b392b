//! What must hold, all the time and when all is quiet.

use super::*;

impl World {
    pub(super) fn problem(&self, host: usize, what: &str) -> String {
        let this = &self.hosts[host];
        let machine = this.process.as_ref().map(|process| described(&process.machine)).unwrap_or_default();
        format!("at {:?} {} {what}; {machine}; the ring: {}", self.now, this.id, shown_ring(&self.ring))
    }

    /// After each event.
    pub(super) fn check(&mut self, host: usize) -> Result<(), String> {
        self.check_start(host)?;
        let Some(process) = &self.hosts[host].process else { return Ok(()) };
        let machine = &process.machine;
        let joins = machine.is_joined() && !process.joined;
        if joins {
            self.check_join(host, process)?;
        }
        let moved = process.tokens != *machine.tokens();
        let mut given_up = false;
        if moved {
            for &token in &process.tokens[..] {
                let lost = !machine.tokens().contains(&token);
                let claimed = lost && self.is_claimed_by_another(token, host);
                given_up |= claimed;
                if lost && !claimed && process.joined {
                    return Err(self.problem(host, &format!("lost its token {token:x} to nobody")));
                }
            }
        }
        if machine.is_joined() && (joins || moved || process.unverified != machine.unverified.len()) {
            self.check_unique(host)?;
        }
        let (tokens, unverified) = (machine.tokens().clone(), machine.unverified.len());
        if given_up {
            self.stats.count("gave up tokens");
        }
        if joins {
            self.stats.count("joined");
        }
        let process = self.process(host);
        (process.tokens, process.unverified) = (tokens, unverified);
        process.robbed |= process.joined && given_up;
        process.joined |= joins;
        Ok(())
    }

    /// Notes with which tokens an instance starts: those of its entry, else those of its file.
    pub(super) fn check_start(&mut self, host: usize) -> Result<(), String> {
        let this = &self.hosts[host];
        let Some(process) = &this.process else { return Ok(()) };
        let machine = &process.machine;
        if process.basis.is_some() || process.stopping || machine.phase == Phase::Unregistered {
            return Ok(());
        }
        let own = machine.ring.get(&this.id).filter(|own| own.state != State::Left);
        let takes_part = own.filter(|own| matches!(own.state, State::Active | State::ReadOnly));
        let takes_part = takes_part.filter(|_| this.role == Role::Ingester);
        let in_ring: BTreeSet<u32> = own.map(|own| own.tokens.iter().copied().collect()).unwrap_or_default();
        let in_file: BTreeSet<u32> =
            this.file.as_ref().map(|file| file.tokens.iter().copied().collect()).unwrap_or_default();
        if !this.disturbed
            && let Some(left) = &this.left
            && !left.is_subset(&in_ring)
        {
            return Err(self.problem(host, &format!("left the ring with {left:x?} and finds {in_ring:x?}")));
        }
        let expected = match (this.role, takes_part) {
            (Role::Joining, _) => State::Joining,
            (Role::Delegated(state), _) => state,
            (Role::Ingester, Some(own)) => own.state,
            (Role::Ingester, None) => this.file.as_ref().map_or(State::Active, |file| file.previous_state),
        };
        let expected = (!process.changed_early).then_some(expected);
        let may_trim = takes_part.is_none();
        let from_ring = !in_ring.is_empty() || !may_trim;
        let from_file = !from_ring && !in_file.is_empty();
        if from_ring {
            self.stats.count("tokens of the ring");
        } else if from_file {
            self.stats.count("tokens of the file");
        }
        let this = &mut self.hosts[host];
        this.left = None;
        if let Some(process) = &mut this.process {
            process.basis = Some((if from_ring { in_ring } else { in_file }, may_trim));
            process.expected = expected;
        }
        Ok(())
    }

    /// The tokens of the life before are still there, unless others had them or there were too many.
    pub(super) fn check_join(&self, host: usize, process: &Process) -> Result<(), String> {
        let Some((basis, may_trim)) = &process.basis else {
            return Err(self.problem(host, "has joined without having started"));
        };
        let (wanted, tokens) = (process.machine.options.num_tokens, process.machine.tokens());
        let gone = basis.iter().copied().filter(|token| !tokens.contains(token));
        let unexplained = gone.filter(|token| !self.is_claimed_by_another(*token, host)).count();
        let trimmed = if *may_trim { basis.len().saturating_sub(wanted) } else { 0 };
        if unexplained > trimmed {
            return Err(self.problem(host, &format!("has lost {unexplained} of its tokens {basis:x?}")));
        }
        if tokens.len() < wanted || !tokens.is_normal() {
            return Err(self.problem(host, &format!("has not joined with {wanted} tokens")));
        }
        Ok(())
    }

    pub(super) fn is_claimed_by_another(&self, token: u32, host: usize) -> bool {
        self.claims.get(&token).is_some_and(|claimants| claimants.iter().any(|claimant| *claimant != host))
    }

    /// No other instance that has joined relies on a token of this one.
    pub(super) fn check_unique(&self, host: usize) -> Result<(), String> {
        let mine = self.relied_on_by(host);
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            let theirs = self.relied_on_by(other);
            if let Some(token) = mine.intersection(&theirs).find(|token| !self.excused.contains(*token)) {
                return Err(self.problem(host, &format!("shares its token {token:x} with i{other}")));
            }
        }
        Ok(())
    }

    /// The tokens that an instance relies on, if it has joined and still holds its entry.
    pub(super) fn relied_on_by(&self, host: usize) -> BTreeSet<u32> {
        let machine = self.hosts[host].process.as_ref().map(|process| &process.machine);
        let machine = machine.filter(|machine| machine.is_joined() && machine.holds_entry());
        machine.map(relied_on).unwrap_or_default()
    }

    /// Who was removed stays so until it comes back.
    pub(super) fn check_removed(&self, host: usize) -> Result<(), String> {
        let this = &self.hosts[host];
        if this.removed && this.process.is_none() && self.ring.contains(&this.id) {
            return Err(self.problem(host, "was removed and is back"));
        }
        Ok(())
    }

    /// Whoever lives has joined, and the store and the disk say of him what they should.
    pub(super) fn check_settled(&self) -> Result<(), String> {
        for (host, this) in self.hosts.iter().enumerate() {
            self.check_removed(host)?;
            self.check_unique(host)?;
            if this.starting || this.ghosts > 0 {
                return Err(self.problem(host, "has not started again yet"));
            }
            let Some(process) = &this.process else { continue };
            let machine = &process.machine;
            let state = machine.state();
            let is_saved = this.file.as_ref().is_some_and(|file| {
                let knows_state = state == State::Joining || file.previous_state == state;
                file.tokens == *machine.tokens() && knows_state
            });
            let problem = if process.told_to_stop {
                "does not finish"
            } else if !machine.is_joined() {
                "does not join"
            } else if !machine.is_published() || !machine.unverified.is_empty() {
                "does not publish its entry or see that its tokens are its own"
            } else if self.ring.get(&this.id).is_none_or(|stored| !machine.is_as_desired(stored)) {
                "is not stored as it should be"
            } else if process.expected.is_some_and(|expected| expected != state) {
                "is not in the state that it should be in"
            } else if machine.tokens().len() < machine.options.num_tokens && !process.robbed {
                "has too few tokens"
            } else if this.keeps_file && !is_saved {
                "has another file than it should have"
            } else {
                continue;
            };
            return Err(self.problem(host, problem));
        }
        Ok(())
    }

    /// Nothing was written but heartbeats, of which there are as many as there should be.
    pub(super) fn check_end(&self) -> Result<(), String> {
        self.check_settled()?;
        for (host, this) in self.hosts.iter().enumerate() {
            let Some(process) = &this.process else { continue };
            let (writes, beats) = process.measured;
            if writes != beats || beats.abs_diff(BEATS) > 1 {
                let what = format!("wrote {writes} times, {beats} of them heartbeats, instead of {BEATS}");
                return Err(self.problem(host, &what));
            }
        }
        Ok(())
    }
}
