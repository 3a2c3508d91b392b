//! What befalls instances and their store, and the end of it.

use super::*;

impl World {
    pub(super) fn disturb(&mut self) -> Result<(), String> {
        let host = self.random.random_range(0..self.hosts.len());
        match self.random.random_range(0..100_u32) {
            0..18 => self.stop(host)?,
            18..38 => self.crash(host),
            38..54 => self.ask_for_another_state(host)?,
            54..58 if self.hosts[host].process.is_some() => self.tell(host, Told::Renew)?,
            58..70 => self.break_store(),
            70..76 if self.kind.forgetful => self.empty_store(),
            76..86 => self.jump(host),
            _ => self.plan_start(host, 100, 100),
        }
        // Some come in the midst of what the last one caused.
        let pause = if self.chance(30) { self.ms(1, 300) } else { self.ms(300, 6_000) };
        let next = self.now + pause;
        if next < self.quiet_at {
            self.schedule(next, Happening::Disturbance);
        }
        Ok(())
    }

    pub(super) fn plan_start(&mut self, host: usize, percent: u32, within_ms: u64) {
        if self.hosts[host].process.is_some() || self.hosts[host].starting || !self.chance(percent) {
            return;
        }
        self.hosts[host].starting = true;
        let at = self.now + self.ms(1, within_ms);
        self.schedule(at, Happening::Starts(host));
    }

    pub(super) fn start(&mut self, host: usize) -> Result<(), String> {
        if self.hosts[host].ghosts > 0 && !self.kind.late {
            let at = self.now + Duration::from_millis(500);
            self.schedule(at, Happening::Starts(host));
            return Ok(());
        }
        self.hosts[host].starting = false;
        self.check_removed(host)?;
        if self.chance(30) {
            let num_tokens = self.random.random_range(1..=6);
            let before = std::mem::replace(&mut self.hosts[host].num_tokens, num_tokens);
            if num_tokens < before {
                self.stats.count("fewer tokens");
            } else if num_tokens > before {
                self.stats.count("more tokens");
            }
        }
        let options = self.options_of(host);
        let (auto_join, unregisters) = (options.auto_join, options.unregister_on_shutdown);
        self.note(Some(host), || format!("starts as {options:?}"));
        let seed: u64 = self.random.random();
        let this = &mut self.hosts[host];
        let mut machine = Machine::new(options, this.file.clone(), seed);
        if self.kind.colliding {
            machine.generator = if self.kind.minimizing {
                TokenStrategy::MinimizeSpread(MinimizeSpread::new(Some(SHARED_STREAM)))
            } else {
                TokenStrategy::Random(TokenGenerator::random(Some(SHARED_STREAM)))
            };
        }
        this.lives += 1;
        this.removed = false;
        this.process = Some(Process {
            machine,
            life: this.lives,
            unregisters,
            op: None,
            inbox: VecDeque::new(),
            wake: None,
            looking: true,
            looked: None,
            sees_at: Duration::ZERO,
            version: 0,
            seen: Arc::default(),
            basis: None,
            told_to_stop: false,
            stopping: false,
            removing: false,
            misled: false,
            expected: None,
            changed_early: false,
            joined: false,
            tokens: Tokens::empty(),
            unverified: 0,
            robbed: false,
            last_write: None,
            writes: VecDeque::new(),
            measured: (0, 0),
        });
        self.stats.count("started");
        let looks_at = self.now + self.ms(1, 1_000);
        self.schedule_to(looks_at, host, ToProcess::Looks);
        let synced_at = self.now + self.ms(0, 3_000);
        self.schedule_to(synced_at, host, ToProcess::Told(Told::Event(Event::Synced)));
        if !auto_join {
            let joins_at = self.now + self.ms(0, 5_000);
            self.schedule_to(joins_at, host, ToProcess::Told(Told::Event(Event::Join)));
        }
        Ok(())
    }

    pub(super) fn options_of(&mut self, host: usize) -> Options {
        let (observe_period, join_after) = (self.pause(5_000), self.pause(3_000));
        let final_sleep = if self.chance(50) { Duration::ZERO } else { self.ms(1, 8_000) };
        let (auto_join, unregister_on_shutdown) = (self.chance(70), self.chance(60));
        let this = &self.hosts[host];
        Options {
            id: this.id.clone(),
            addr: format!("10.0.0.{host}:9095"),
            zone: this.zone.into(),
            num_tokens: this.num_tokens,
            token_choice: if self.kind.minimizing {
                TokenChoice::MinimizeSpread
            } else {
                TokenChoice::Random
            },
            heartbeat_period: PERIOD,
            observe_period,
            join_after,
            final_sleep,
            unregister_on_shutdown,
            auto_join,
            join_as: if this.role == Role::Joining { State::Joining } else { State::Active },
            delegates: match this.role {
                Role::Delegated(state) => {
                    Delegates::new([Arc::new(InstanceRegister(state)) as Arc<dyn Delegate>])
                }
                Role::Ingester | Role::Joining => Delegates::default(),
            },
            ..options()
        }
    }

    pub(super) fn stop(&mut self, host: usize) -> Result<(), String> {
        let this = &mut self.hosts[host];
        let Some(process) = &mut this.process else { return Ok(()) };
        if std::mem::replace(&mut process.told_to_stop, true) {
            self.stats.count("rested");
            return self.tell(host, Told::Event(Event::Rested));
        }
        self.stats.count("told to stop");
        if matches!(this.role, Role::Delegated(_)) && self.chance(50) {
            // A delegate announces it before.
            let at = self.now + self.ms(0, 3_000);
            self.schedule_to(at, host, ToProcess::Told(Told::Event(Event::Stop)));
            return self.tell(host, Told::Change(State::Leaving));
        }
        self.tell(host, Told::Event(Event::Stop))
    }

    pub(super) fn crash(&mut self, host: usize) {
        let Some(process) = self.end(host) else { return };
        self.stats.count("crashed");
        self.note(Some(host), || "crashes".into());
        if let Some(op) = process.op
            && op.lands
            && op.landed.is_none()
            && self.chance(60)
        {
            self.hosts[host].ghosts += 1;
            let at = self.now + self.ms(1, 8_000);
            self.schedule(at, Happening::GhostLands { host, entry: op.entry });
        }
        self.plan_start(host, 80, 10_000);
    }

    pub(super) fn ask_for_another_state(&mut self, host: usize) -> Result<(), String> {
        let to = if self.chance(50) { State::Active } else { State::ReadOnly };
        if self.hosts[host].process.is_some() { self.tell(host, Told::Change(to)) } else { Ok(()) }
    }

    pub(super) fn break_store(&mut self) {
        if self.is_down() {
            return;
        }
        self.hangs = self.chance(40);
        let lasts = self.ms(500, 20_000);
        self.back_at = (self.now + lasts).min(self.quiet_at);
        self.stats.count(if self.hangs { "hanging outage" } else { "outage" });
        let (hangs, back_at) = (self.hangs, self.back_at);
        self.note(None, || format!("down until {back_at:?}, hangs: {hangs}"));
    }

    pub(super) fn empty_store(&mut self) {
        self.stats.count("store emptied");
        self.note(None, || "loses everything".into());
        // Whoever joins before their owners have noticed may take these, and then neither gives way.
        self.excused.extend(self.ring.all_tokens());
        for host in &mut self.hosts {
            host.disturbed = true;
            if let Some(process) = &host.process {
                self.excused.extend(process.machine.tokens().iter().copied());
            }
        }
        self.ring = Arc::default();
        self.version += 1;
        self.spread();
    }

    pub(super) fn jump(&mut self, host: usize) {
        let by = self.random.random_range(-3_600..=3_600_i64);
        self.stats.count(if by < 0 { "clock set back" } else { "clock set forward" });
        self.note(Some(host), || format!("has its clock set by {by} s"));
        let clock = &mut self.hosts[host].clock;
        *clock = (*clock + by).clamp(-MAX_CLOCK, MAX_CLOCK);
    }

    pub(super) fn become_quiet(&mut self) {
        self.quiet = true;
        self.note(None, || "is undisturbed from now on".into());
        for host in 0..self.hosts.len() {
            self.plan_start(host, 75, 2_000);
        }
        self.schedule(self.now + secs(30), Happening::Settling);
    }

    pub(super) fn wait_until_settled(&mut self) -> Result<(), String> {
        match self.check_settled() {
            Ok(()) => self.schedule(self.now + secs(10), Happening::Measured),
            Err(problem) if self.now >= self.quiet_at + PATIENCE => return Err(problem),
            Err(_) => self.schedule(self.now + secs(5), Happening::Settling),
        }
        Ok(())
    }

    // The shell of a machine.
}
