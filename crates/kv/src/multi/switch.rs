//! Who decides: takes over what the runtime configuration says once that hurts nobody, and looks after what a multi store is as a
//! whole: whether its stores answer, whether it is synced, and its metrics.

use std::sync::Arc;
use std::time::Duration;

use ringkit_config::KvStore;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::ask::{Asking, Question};
use super::control::{MultiRuntime, PerRing};
use super::core::Core;
use super::gate::{self, Bounds, Reason, Reasons};
use super::mode::Mode;
use super::place::Place;
use crate::shared::Trouble;

/// How often is looked how things stand.
const TICK: Duration = Duration::from_millis(500);
/// How often is looked whether what is asked for is possible by now, if nothing else calls for it.
const RECHECK_PERIOD: Duration = Duration::from_secs(5);

/// What the runtime configuration asks for.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// What was said last.
    said: Option<Said>,
    pub(super) primary: Option<Wanted>,
    mirror: Option<bool>,
    force: bool,
    pub(super) generation: u64,
    /// When something was taken over last, in milliseconds since 1970.
    pub(super) applied_at_ms: Option<i64>,
    /// Why what is asked for has to wait.
    pub(super) reasons: Reasons,
}

/// What a runtime configuration says for one ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said {
    ring: PerRing,
    force: bool,
    generation: u64,
}

/// Which store is to be the primary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) place: Place,
    since: Instant,
    /// It was waited for long enough.
    pub(super) given_up: bool,
}

/// Takes over what the runtime configuration says by now, and returns what it will say.
pub(super) fn begin(core: &Core) -> watch::Receiver<MultiRuntime> {
    let mut runtime = core.control.runtime();
    let said = runtime.borrow_and_update().clone();
    core.accept(&said);
    core.begin();
    runtime
}

/// Runs as long as the multi store is there.
pub(super) async fn run(core: Arc<Core>, mut runtime: watch::Receiver<MultiRuntime>) {
    let [mut first_synced, mut second_synced] = Place::BOTH.map(|place| core.children[place].store.synced());
    let [mut first_trouble, mut second_trouble] =
        Place::BOTH.map(|place| core.children[place].store.trouble());
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked_at = None;
    let mut is_due = true;
    let mut asking = Asking::default();
    loop {
        core.report(Place::First, first_trouble.borrow().as_ref());
        core.report(Place::Second, second_trouble.borrow().as_ref());
        core.look_around();
        if is_due || looked_at.is_none_or(|at: Instant| at.elapsed() >= RECHECK_PERIOD) {
            if let Some(question) = core.evaluate(&mut asking) {
                asking.ask(&core, question);
            }
            looked_at = Some(Instant::now());
        }
        is_due = false;
        tokio::select! {
            _ = ticks.tick() => (),
            () = core.nudge.notified() => is_due = true,
            () = asking.answered() => is_due = true,
            () = changed(&mut runtime) => {
                let said = runtime.borrow_and_update().clone();
                core.accept(&said);
                is_due = true;
            }
            () = changed(&mut first_synced) => is_due = true,
            () = changed(&mut second_synced) => is_due = true,
            () = changed(&mut first_trouble) => is_due = true,
            () = changed(&mut second_trouble) => is_due = true,
        }
    }
}

/// Waits for the next change; for ever if there will be none. Cancel safe.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What stands in the way, with what a store `said` when it was asked last; and what it is to be asked if it was not yet, and nothing
/// else is in the way.
fn unless_refused(
    mut reasons: Reasons,
    question: Question,
    said: Option<Result<(), String>>,
) -> (Reasons, Option<Question>) {
    match said {
        None => {
            let is_open = reasons.is_empty();
            return (reasons, is_open.then_some(question));
        }
        Some(Err(refusal)) => {
            reasons.entry(Reason::Unreachable).or_insert(refusal);
        }
        Some(Ok(())) => (),
    }
    (reasons, None)
}

impl Core {
    /// Takes note of what the runtime configuration says.
    fn accept(&self, runtime: &MultiRuntime) {
        let kv_name = self.kv_name.as_str();
        let said = Said { ring: runtime.of(kv_name), force: runtime.force, generation: runtime.generation };
        let mut wishes = self.wishes.lock();
        let before = wishes.said.replace(said);
        if before == Some(said) || before.is_none() && said == Said::default() {
            return;
        }
        if said.generation < wishes.generation {
            self.metrics.stale_generations.increment(1);
            let (generation, applied) = (said.generation, wishes.generation);
            warn!(kv_name, generation, applied, "ignored a runtime configuration of an earlier generation");
            return;
        }
        wishes.generation = said.generation;
        wishes.force = said.force;
        wishes.applied_at_ms = Some(self.clock.now_ms());
        wishes.mirror = said.ring.mirror_enabled.or(wishes.mirror);
        let Some(name) = said.ring.primary else { return };
        match self.place_of(name) {
            Some(place) => wishes.primary = Some(Wanted { place, since: Instant::now(), given_up: false }),
            None => {
                self.metrics.unknown_stores.increment(1);
                error!(kv_name, store = %name, "failed to switch primary KV store: KV store not found");
            }
        }
    }

    /// Takes over at once which store the runtime configuration says is the primary when this process starts. All others did so
    /// before, behind their gates; the configured primary may be gone for good by now; and nothing was read or written here yet.
    /// A store that is not fit to be the primary is not used as one, whoever says that it is. That mirroring is to end is another
    /// matter: the others may be unable to end it.
    fn begin(&self) {
        let (wanted, mirror) = {
            let wishes = self.wishes.lock();
            (wishes.primary, wishes.mirror)
        };
        if let Some(wanted) = wanted.filter(|wanted| wanted.place != self.mode().primary) {
            self.switch(wanted.place);
            self.synced.send_replace(*self.children[wanted.place].store.synced().borrow());
        }
        if mirror == Some(true) {
            self.set_mode(|mode| mode.mirror = true);
        }
    }

    fn place_of(&self, name: KvStore) -> Option<Place> {
        Place::BOTH.into_iter().find(|place| self.children[*place].kind() == name)
    }

    /// Takes over what is asked for, as far as that hurts nobody. Mirroring begins before the primary changes, and ends after.
    /// Returns what is to be asked before it can.
    fn evaluate(&self, asking: &mut Asking) -> Option<Question> {
        let kv_name = self.kv_name.as_str();
        let (wanted, mirror, force) = {
            let wishes = self.wishes.lock();
            (wishes.primary, wishes.mirror, wishes.force || !self.config.switch_gate)
        };
        if mirror == Some(true) && !self.mode().mirror {
            self.set_mode(|mode| mode.mirror = true);
            info!(kv_name, "mirroring to the secondary KV store begins");
        }
        let (mut reasons, mut question) = (Reasons::new(), None);
        let wanted = wanted.filter(|wanted| wanted.place != self.mode().primary);
        // Mirroring is to end after the switch, not instead of it.
        let gave_up = wanted.is_some_and(|wanted| wanted.given_up);
        let wanted = wanted.filter(|wanted| !wanted.given_up);
        if let Some(wanted) = wanted {
            if !force {
                (reasons, question) = self.consider(wanted, asking);
            }
            if !reasons.is_empty() {
                self.give_up_if_late(wanted, &reasons);
            } else if question.is_none() {
                self.switch(wanted.place);
            }
        }
        let may_end = !gave_up && reasons.is_empty() && question.is_none();
        if mirror == Some(false) && self.mode().mirror && may_end {
            if !force {
                (reasons, question) = self.consider_to_end(asking);
            }
            if reasons.is_empty() && question.is_none() {
                self.set_mode(|mode| mode.mirror = false);
                info!(kv_name, "mirroring to the secondary KV store ends");
            }
        }
        self.metrics.set_blocked(&reasons);
        let mut wishes = self.wishes.lock();
        if !reasons.is_empty() && !reasons.keys().eq(wishes.reasons.keys()) {
            let why = reasons.values().map(String::as_str).collect::<Vec<_>>().join("; ");
            info!(kv_name, why, "what the runtime configuration asks for has to wait");
        }
        wishes.reasons = reasons;
        question
    }

    /// Why a store may not become the primary; and what it is to be asked before, if nothing else is in the way.
    fn consider(&self, wanted: Wanted, asking: &mut Asking) -> (Reasons, Option<Question>) {
        let question = Question { place: wanted.place, epoch: self.mode().epoch, since: wanted.since };
        let said = asking.answer(question);
        unless_refused(self.reasons_against(wanted.place), question, said)
    }

    /// The same of the end of mirroring: what was only just brought to the primary is known to be only after it was asked.
    fn consider_to_end(&self, asking: &mut Asking) -> (Reasons, Option<Question>) {
        let Mode { primary, epoch, .. } = self.mode();
        let question = Question { place: primary, epoch, since: self.started_at };
        let said = asking.answer(question);
        let secondary_up = !self.health[primary.other()].is_down();
        let (store, keys) = (self.store_facts(primary), self.key_facts(primary));
        unless_refused(gate::stop(primary, &store, secondary_up, &keys), question, said)
    }

    /// Why a store may not become the primary at this moment; nothing if it may.
    pub(super) fn reasons_against(&self, target: Place) -> Reasons {
        let bounds = Bounds {
            reconcile_interval: self.config.reconcile_interval,
            heartbeat_period: self.freshness.heartbeat_period,
        };
        gate::switch(target, &self.store_facts(target), &self.key_facts(target), bounds)
    }

    fn give_up_if_late(&self, wanted: Wanted, reasons: &Reasons) {
        let patience = self.config.switch_gate_timeout;
        if patience.is_zero() || wanted.since.elapsed() < patience {
            return;
        }
        let why = reasons.values().map(String::as_str).collect::<Vec<_>>().join("; ");
        let store = self.children[wanted.place].name();
        error!(
            kv_name = self.kv_name,
            store, why, "gave up to switch the primary KV store until the runtime configuration changes"
        );
        if let Some(wanted) = &mut self.wishes.lock().primary {
            wanted.given_up = true;
        }
    }

    /// Makes the other store the primary. Whoever reads is shown what it holds; what is being written comes to it later.
    fn switch(&self, to: Place) {
        let secondary_counts = *self.children[to.other()].store.synced().borrow();
        self.set_mode(|mode| {
            mode.primary = to;
            mode.secondary_counts = secondary_counts;
            mode.stands_in = false;
            mode.epoch += 1;
        });
        let (from, to) = (self.children[to.other()].name(), self.children[to].name());
        info!(kv_name = self.kv_name, from, to, "switched primary KV store");
        self.open_keys().iter().for_each(|open| open.overdue.notify_one());
    }

    /// Takes note of what a store says of itself.
    fn report(&self, place: Place, trouble: Option<&Trouble>) {
        if !self.health[place].reports(trouble) {
            return;
        }
        let (kv_name, store) = (self.kv_name.as_str(), self.children[place].name());
        match trouble {
            Some(trouble) => warn!(kv_name, store, error = &*trouble.cause, "a store of two does not answer"),
            None => {
                info!(kv_name, store, "the store answers again");
                self.open_keys().iter().for_each(|open| open.overdue.notify_one());
            }
        }
    }

    /// Looks how things stand.
    fn look_around(&self) {
        let mode = self.mode();
        let (primary, secondary) = (self.store_facts(mode.primary), self.store_facts(mode.secondary()));
        let is_away = !primary.up || !primary.synced;
        let is_late = self.started_at.elapsed() >= self.config.start_timeout;
        let is_alone =
            secondary.standing.is_some_and(|standing| !standing.joined || standing.num_others == 0);
        let stands_in = is_away && is_late && secondary.up && secondary.synced && !is_alone;
        self.set_mode(|mode| {
            mode.secondary_counts = secondary.synced;
            // Once it stood in, it does until the primary is there: what a primary holds that answers is worth waiting for.
            mode.stands_in = is_away && (mode.stands_in || stands_in);
        });
        let synced = primary.synced || stands_in;
        self.synced.send_if_modified(|known| {
            let is_news = synced && !*known;
            *known |= synced;
            is_news
        });
        for place in Place::BOTH {
            self.metrics.set_up(place, !self.health[place].is_down());
        }
        self.look_for_trouble();
        self.metrics.set_totals(&self.totals());
    }

    /// Whether nobody is there who takes heartbeats.
    fn look_for_trouble(&self) {
        let mode = self.mode();
        let primary = self.health[mode.primary].trouble();
        let secondary_helps = mode.mirror && !self.health[mode.secondary()].is_down();
        let trouble = primary.filter(|_| !secondary_helps);
        self.trouble.send_if_modified(|known| {
            let since = |trouble: &Option<Trouble>| trouble.as_ref().map(|trouble| trouble.since);
            let is_news = since(known) != since(&trouble);
            if is_news {
                known.clone_from(&trouble);
            }
            is_news
        });
    }
}
