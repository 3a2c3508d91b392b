//! The steps of a migration: each checks that it may be taken, changes the runtime configuration, and waits until every process
//! has followed. Taken again, a step that is done does nothing, and one that was interrupted goes on.

use std::time::Duration;

use ringkit_config::KvStore;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::check::{self, Goal, Reason};
use super::cluster::{Cluster, Targets};
use super::digests;
use super::edit::Change;
use super::file::RuntimeFiles;
use super::page::{Process, Silent};
use crate::complain;

/// How often processes are asked while they are waited for.
const POLL_PERIOD: Duration = Duration::from_millis(500);
/// How long what is under way may take to settle before a switch is refused for it.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a step is told.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) targets: Targets,
    /// Where to.
    pub(super) to: Option<KvStore>,
    /// The runtime configuration's file, or several as in `runtime_config.file`.
    pub(super) file: Option<String>,
    /// How long to wait until every process has followed.
    pub(super) timeout: Duration,
    /// Whatever the other store may lack.
    pub(super) force: bool,
    /// Nobody reads along.
    pub(super) quiet: bool,
}

/// What became of a step.
#[derive(Debug, Default)]
pub(super) struct End {
    /// What there is to say if it went well.
    pub(super) said: Vec<String>,
    /// Why it was refused, or is not done.
    pub(super) reasons: Vec<Reason>,
    pub(super) silent: Vec<Silent>,
    /// What was asked for.
    pub(super) change: Option<Change>,
    /// Whether that was written to a file; else somebody has to.
    pub(super) written: bool,
}

impl End {
    pub(super) fn refused(reasons: Vec<Reason>) -> Self {
        Self { reasons, ..Self::default() }
    }

    fn nothing_to_do(said: &str) -> Self {
        Self { said: vec![said.to_owned()], ..Self::default() }
    }

    fn with(self, change: &Change, written: bool) -> Self {
        Self { change: Some(change.clone()), written, ..self }
    }

    /// Whether all is as it is to be: not if somebody has still to write something.
    pub(super) fn is_done(&self) -> bool {
        self.reasons.is_empty() && self.silent.is_empty() && (self.change.is_none() || self.written)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "done": self.is_done(),
            "said": self.said,
            "reasons": self.reasons,
            "silent": self.silent,
            "change": self.change,
            "yaml": self.change.as_ref().map(Change::yaml),
            "written": self.written,
        })
    }
}

/// A step that can be taken: who takes it, and the file as it was before.
struct Begun {
    cluster: Cluster,
    files: Option<RuntimeFiles>,
}

impl Begun {
    /// Reads the file first: what processes tell afterwards shows whether it still is the one that they read.
    async fn of(options: &Options) -> Result<Self, End> {
        let files = match &options.file {
            None => None,
            Some(list) => {
                let files = RuntimeFiles::read(list).await;
                Some(files.map_err(|problem| End::refused(vec![Reason::general(problem)]))?)
            }
        };
        let cluster = options.targets.discover().await;
        if cluster.processes.is_empty() {
            return Err(End { silent: cluster.silent, ..End::default() });
        }
        Ok(Self { cluster, files })
    }

    /// Nobody may be left out.
    fn complete(self) -> Result<Self, End> {
        if self.cluster.silent.is_empty() {
            Ok(self)
        } else {
            Err(End { silent: self.cluster.silent, ..End::default() })
        }
    }

    /// Why nobody, or not everybody, would hear of a change.
    fn deaf(&self) -> Vec<Reason> {
        let mut reasons = check::followers(&self.cluster);
        reasons.extend(check::hashes(&self.cluster));
        if let Some(files) = &self.files {
            reasons.extend(check::file(&self.cluster, &files.name(), &files.sha256));
        }
        reasons
    }

    fn next_generation(&self) -> u64 {
        let in_file = self.files.as_ref().and_then(RuntimeFiles::said).map_or(0, |said| said.generation);
        self.cluster.generation().max(in_file).saturating_add(1)
    }

    /// Whether everybody is asked for that already, whoever wrote it, and is at it.
    fn is_asked(&self, change: &Change) -> bool {
        let asks = |process: &Process| {
            let asked = &process.page.runtime;
            asked.primary.as_deref() == Some(change.primary.as_str())
                && asked.mirror_enabled == Some(change.mirror_enabled)
                && asked.force == change.force
        };
        self.cluster.processes.iter().all(asks) && !self.cluster.gave_up()
    }

    /// Asks for a change, and waits until nobody is short of it, and `besides` has nothing against it.
    async fn go(
        self,
        options: &Options,
        change: &Change,
        besides: impl Fn(&Cluster) -> Vec<Reason>,
    ) -> Result<(Self, End), End> {
        let mut goal = Goal {
            generation: change.generation,
            hash: None,
            primary: change.primary.to_string(),
            mirror: change.mirror_enabled,
        };
        let mut end = End::default();
        let mut files = None;
        if self.is_asked(change) {
            goal.generation = self.cluster.generation();
            files = self.files;
        } else {
            let Some(before) = self.files else {
                let said = "Put this into the runtime configuration of all processes, and run this again.";
                return Err(End::nothing_to_do(said).with(change, false));
            };
            let hash = before.write(change).await;
            let refused = |problem: String| End::refused(vec![Reason::general(problem)]);
            goal.hash = Some(hash.map_err(refused)?);
            tell(options, &format!("wrote generation {} to {}", change.generation, before.name()));
            end = end.with(change, true);
            if let Some(list) = &options.file {
                files = Some(RuntimeFiles::read(list).await.map_err(refused)?);
            }
        }
        let until = |cluster: &Cluster| {
            let mut reasons = check::short_of(cluster, &goal);
            if reasons.is_empty() {
                reasons = besides(cluster);
            }
            reasons
        };
        match wait(&self.cluster, options, goal.generation, until).await {
            Ok(cluster) => Ok((Self { cluster, files }, end)),
            Err(late) => Err(End { reasons: late.reasons, silent: late.silent, ..end }),
        }
    }
}

/// Polls until nothing is in the way any more.
async fn wait(
    cluster: &Cluster,
    options: &Options,
    generation: u64,
    until: impl Fn(&Cluster) -> Vec<Reason>,
) -> Result<Cluster, End> {
    let deadline = Instant::now() + options.timeout;
    let mut told = None;
    loop {
        let now = cluster.stores_again().await;
        if now.generation() > generation {
            let why = format!(
                "somebody else asked for generation {} while generation {generation} was waited for: look at \
                 `ringctl migrate status` before anything else",
                now.generation()
            );
            return Err(End::refused(vec![Reason::general(why)]));
        }
        let reasons = until(&now);
        if reasons.is_empty() && now.silent.is_empty() {
            return Ok(now);
        }
        if Instant::now() >= deadline {
            return Err(End { reasons, silent: now.silent, ..End::default() });
        }
        let first = reasons.first().map(ToString::to_string);
        let first = first.or_else(|| now.silent.first().map(ToString::to_string)).unwrap_or_default();
        let count = reasons.len() + now.silent.len();
        if told != Some((count, first.clone())) {
            tell(options, &format!("waiting for {count}: {first}"));
            told = Some((count, first));
        }
        sleep(POLL_PERIOD).await;
    }
}

fn tell(options: &Options, line: &str) {
    if !options.quiet {
        complain(&format!("{line}\n"));
    }
}

/// The only store of a set.
fn only(stores: impl IntoIterator<Item = impl AsRef<str>>) -> Option<KvStore> {
    let mut stores = stores.into_iter();
    let (store, more) = (stores.next()?, stores.next());
    let known = KvStore::ALL.iter().find(|known| known.as_str() == store.as_ref()).copied();
    known.filter(|_| more.is_none())
}

/// What stands in the way of the beginning.
pub(super) fn against_start(cluster: &Cluster, to: KvStore) -> Vec<Reason> {
    let mut reasons = check::configuration(cluster, to.as_str());
    reasons.extend(check::hashes(cluster));
    reasons.extend(check::primaries(cluster));
    reasons.extend(check::outages(cluster, true));
    reasons.extend(check::gossip(cluster));
    match one_primary(cluster) {
        Ok(primary) if primary == to => {
            let why = format!("{to} is the primary already: there is nothing to move there");
            reasons.push(Reason::general(why));
        }
        Ok(_) => (),
        Err(reason) => reasons.push(reason),
    }
    reasons
}

/// The store that decides for all rings of all processes.
pub(super) fn one_primary(cluster: &Cluster) -> Result<KvStore, Reason> {
    only(cluster.primaries()).ok_or_else(|| {
        let primaries = cluster.primaries().into_iter().collect::<Vec<_>>().join(", ");
        let primaries = if primaries.is_empty() { "none" } else { primaries.as_str() };
        Reason::general(format!("not all rings have the same primary: {primaries}"))
    })
}

/// Mirrors every ring to the other store.
pub(super) async fn start(options: &Options, to: KvStore) -> Result<End, End> {
    let begun = Begun::of(options).await?.complete()?;
    let mut reasons = against_start(&begun.cluster, to);
    if let Some(files) = &begun.files {
        reasons.extend(check::file(&begun.cluster, &files.name(), &files.sha256));
    }
    let Some(primary) = one_primary(&begun.cluster).ok().filter(|_| reasons.is_empty()) else {
        return Err(End::refused(reasons));
    };
    let generation = begun.next_generation();
    let change = Change { primary, mirror_enabled: true, generation, force: false };
    // The main configuration may have done it.
    let agree = |cluster: &Cluster| check::contents(cluster, None);
    let end = if begun.cluster.mirrors() {
        let cluster = &begun.cluster;
        wait(cluster, options, cluster.generation(), agree).await?;
        End::default()
    } else {
        begun.go(options, &change, agree).await?.1
    };
    let said = format!("All rings of all processes are mirrored, and {primary} and {to} have the same.");
    Ok(End { said: vec![said], ..end })
}

/// Makes the other store the primary of every ring.
pub(super) async fn switch(options: &Options, to: KvStore) -> Result<End, End> {
    let mut begun = Begun::of(options).await?;
    let left_out = leave_out_if_forced(&mut begun, options)?;
    let is_there = only(begun.cluster.primaries()) == Some(to) && !begun.cluster.waits();
    if is_there && left_out.is_empty() {
        return Ok(End::nothing_to_do(&format!("{to} is the primary of all rings of all processes.")));
    }
    let mut reasons = begun.deaf();
    if !options.force {
        reasons.extend(check::configuration(&begun.cluster, to.as_str()));
    }
    reasons.sort();
    reasons.dedup();
    if !reasons.is_empty() {
        return Err(End::refused(reasons));
    }
    if !options.force {
        begun.cluster = settled(&begun.cluster, options, to).await?;
    }
    let generation = begun.next_generation();
    let change = Change { primary: to, mirror_enabled: true, generation, force: options.force };
    let (_, end) = begun.go(options, &change, |_| Vec::new()).await?;
    let said = format!(
        "{to} is the primary of all rings of all processes. The other store is still mirrored to: \
         `ringctl migrate abort` leads back, `ringctl migrate finish` ends it."
    );
    Ok(End { said: vec![said], silent: left_out, ..end })
}

/// Who is silent is left out if forced, and else in the way.
fn leave_out_if_forced(begun: &mut Begun, options: &Options) -> Result<Vec<Silent>, End> {
    let silent = std::mem::take(&mut begun.cluster.silent);
    if silent.is_empty() || options.force {
        return Ok(silent);
    }
    Err(End { silent, ..End::default() })
}

/// Waits a little until all agree.
async fn settled(cluster: &Cluster, options: &Options, to: KvStore) -> Result<Cluster, End> {
    let deadline = Instant::now() + SETTLE_TIMEOUT.min(options.timeout);
    let mut now = cluster.clone();
    loop {
        let reasons = against_switch(&now, to).await;
        if reasons.is_empty() && now.silent.is_empty() {
            return Ok(now);
        }
        if Instant::now() >= deadline {
            return Err(End { reasons, silent: now.silent, ..End::default() });
        }
        sleep(POLL_PERIOD).await;
        now = cluster.again().await;
    }
}

/// What stands in the way of a switch.
pub(super) async fn against_switch(cluster: &Cluster, to: KvStore) -> Vec<Reason> {
    let mut reasons = check::hashes(cluster);
    reasons.extend(check::contents(cluster, Some(to.as_str())));
    reasons.extend(check::gossip(cluster));
    reasons.extend(check::memberships(cluster));
    // Not before all know each other: it takes a while.
    if reasons.is_empty() && cluster.processes.iter().any(Process::is_on_gossip) {
        reasons = digests::differences(cluster).await;
    }
    reasons
}

/// Ends mirroring.
pub(super) async fn finish(options: &Options) -> Result<End, End> {
    let begun = Begun::of(options).await?.complete()?;
    let mut reasons = begun.deaf();
    reasons.extend(check::primaries(&begun.cluster));
    let primary = one_primary(&begun.cluster);
    match (&primary, options.to) {
        (Err(reason), _) => reasons.push(reason.clone()),
        (Ok(primary), Some(to)) if *primary != to => {
            let why = format!("the primary is {primary}, not {to}: `ringctl migrate switch` comes first");
            reasons.push(Reason::general(why));
        }
        (Ok(primary), None) if only(begun.cluster.configured()) == Some(*primary) => {
            let why = format!(
                "the primary is {primary}, as configured: nothing was switched, and `ringctl migrate abort` \
                 ends it; if {primary} is meant, say --to {primary}"
            );
            reasons.push(Reason::general(why));
        }
        _ => (),
    }
    let Some(primary) = primary.ok().filter(|_| reasons.is_empty()) else {
        return Err(End::refused(reasons));
    };
    let generation = begun.next_generation();
    let change = Change { primary, mirror_enabled: false, generation, force: false };
    if begun.cluster.mirrors_nothing() && begun.is_asked(&change) {
        let said = format!("Nothing is mirrored, and {primary} is the primary of all rings.");
        return Ok(End::nothing_to_do(&said));
    }
    let (_, end) = begun.go(options, &change, |_| Vec::new()).await?;
    let said = format!(
        "Nothing is mirrored any more: the other store can be stopped. From the next restarts on, the main \
         configuration can name {primary} alone."
    );
    Ok(End { said: vec![said], ..end })
}

/// Goes back to the store that the main configuration names, from wherever it is.
pub(super) async fn abort(options: &Options) -> Result<End, End> {
    let mut begun = Begun::of(options).await?;
    // Who does not answer must not keep all others where they are.
    let left_out = std::mem::take(&mut begun.cluster.silent);
    let mut reasons = if options.force { Vec::new() } else { begun.deaf() };
    let configured = only(begun.cluster.configured());
    if configured.is_none() {
        let stores = begun.cluster.configured().into_iter().collect::<Vec<_>>().join(", ");
        let why = format!("the main configurations do not name one primary to go back to, but: {stores}");
        reasons.push(Reason::general(why));
    }
    let Some(primary) = configured.filter(|_| reasons.is_empty()) else {
        return Err(End { silent: left_out, ..End::refused(reasons) });
    };
    let back = only(begun.cluster.primaries()) == Some(primary) && !begun.cluster.waits();
    let change = |begun: &Begun, mirror_enabled| {
        let generation = begun.next_generation();
        Change { primary, mirror_enabled, generation, force: options.force }
    };
    let with_silent = |end: End| {
        let silent = end.silent.into_iter().chain(left_out.iter().cloned()).collect();
        End { silent, ..end }
    };
    if !back {
        // Mirrored until all are back, so that those who are see those who are not.
        let asked = change(&begun, true);
        (begun, _) = begun.go(options, &asked, |_| Vec::new()).await.map_err(with_silent)?;
    }
    let asked = change(&begun, false);
    let said = format!("{primary} is the primary of all rings, as configured, and nothing is mirrored.");
    if back && begun.cluster.mirrors_nothing() {
        return Ok(with_silent(End::nothing_to_do(&said)));
    }
    let (_, end) = begun.go(options, &asked, |_| Vec::new()).await.map_err(with_silent)?;
    Ok(with_silent(End { said: vec![said], ..end }))
}

#[cfg(test)]
mod tests;
