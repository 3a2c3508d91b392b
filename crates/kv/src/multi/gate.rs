//! Whether the other store may become the primary, or mirroring may end, and why not. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::compare::{Comparison, Listed};
use super::place::{Both, Place};
use crate::store::Standing;

/// Why a switch, or the end of mirroring, has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// The store that is to be the primary does not answer.
    Unreachable,
    /// This process did not find the others that are the store together.
    Join,
    /// The stores were not compared lately.
    Reconcile,
    /// Entries of living owners are missing there.
    Missing,
    /// Entries are there only because others than their owners put them there.
    Relayed,
    /// Heartbeats come there late.
    Skew,
    /// Changes are on their way.
    Queue,
    /// Mirroring is to end, and the secondary holds what the primary lacks; or the store that is to be the primary holds what is
    /// left of instances that are gone.
    Foreign,
}

impl Reason {
    pub(super) const ALL: [Self; 8] = [
        Self::Unreachable,
        Self::Join,
        Self::Reconcile,
        Self::Missing,
        Self::Relayed,
        Self::Skew,
        Self::Queue,
        Self::Foreign,
    ];

    /// As the label of a metric.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Join => "join",
            Self::Reconcile => "reconcile",
            Self::Missing => "missing",
            Self::Relayed => "relayed",
            Self::Skew => "skew",
            Self::Queue => "queue",
            Self::Foreign => "foreign",
        }
    }
}

/// Reasons, each in a sentence.
pub(super) type Reasons = BTreeMap<Reason, String>;

/// What is known of a store.
#[derive(Clone, Debug)]
pub(super) struct StoreFacts {
    pub(super) name: &'static str,
    pub(super) up: bool,
    pub(super) synced: bool,
    pub(super) standing: Option<Standing>,
}

/// What is known of a key.
#[derive(Clone, Debug)]
pub(super) struct KeyFacts {
    pub(super) name: String,
    /// Which of the stores were ever heard.
    pub(super) heard: Both<bool>,
    /// How the stores differ; `None` if one of them was never heard.
    pub(super) comparison: Option<Comparison>,
    /// Changes on their way to the store in question.
    pub(super) queued: usize,
    /// Why that store does not take all of them; `None` if it does.
    pub(super) refused: Option<String>,
    /// How long ago both stores were read and told what they lacked.
    pub(super) reconciled: Option<Duration>,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// 0 = never.
    pub(super) reconcile_interval: Duration,
    pub(super) heartbeat_period: Duration,
}

/// Why `target`, which is `store`, may not become the primary; nothing if it may.
pub(super) fn switch(target: Place, store: &StoreFacts, keys: &[KeyFacts], bounds: Bounds) -> Reasons {
    let mut reasons = Reasons::new();
    let name = store.name;
    let mut say = |reason, sentence: String| {
        reasons.entry(reason).or_insert(sentence);
    };
    if !store.up {
        say(Reason::Unreachable, format!("{name} does not answer"));
    }
    if !store.synced || store.standing.is_some_and(|standing| !standing.joined) {
        say(Reason::Join, format!("{name} has not found its cluster"));
    }
    if keys.is_empty() {
        say(Reason::Reconcile, "no key was compared yet".to_owned());
    }
    let max_skew = bounds.heartbeat_period.saturating_mul(2).as_secs();
    for key in keys {
        let ring = &key.name;
        let is_recent = |ago: Duration| ago < bounds.reconcile_interval.saturating_mul(2);
        if !bounds.reconcile_interval.is_zero() && !key.reconciled.is_some_and(is_recent) {
            say(Reason::Reconcile, format!("`{ring}` was not reconciled lately"));
        }
        if key.queued > 0 {
            say(Reason::Queue, on_their_way(key, name));
        }
        let Some(found) = &key.comparison else {
            say(Reason::Unreachable, format!("`{ring}` was not heard from both stores"));
            continue;
        };
        let (missing, relayed) = (&found.missing[target], &found.relayed[target]);
        if missing.num > 0 {
            say(Reason::Missing, missing_in(ring, name, missing));
        }
        if relayed.num > 0 {
            say(Reason::Relayed, relayed_to(ring, name, relayed));
        }
        let ghosts = &found.ghosts[target];
        if ghosts.num > 0 {
            say(
                Reason::Foreign,
                format!(
                    "{} entries of `{ring}` are only in {name}, of instances that are gone: {}",
                    ghosts.num,
                    ghosts.names()
                ),
            );
        }
        if found.skew_secs > max_skew {
            say(
                Reason::Skew,
                format!("heartbeats of `{ring}` differ by {} s, more than {max_skew} s", found.skew_secs),
            );
        }
    }
    reasons
}

/// Why mirroring may not end while `primary`, which is `store`, is the primary; nothing if it may.
pub(super) fn stop(primary: Place, store: &StoreFacts, secondary_up: bool, keys: &[KeyFacts]) -> Reasons {
    let mut reasons = Reasons::new();
    if keys.is_empty() {
        reasons.insert(Reason::Foreign, "no key was compared yet".to_owned());
    }
    for key in keys {
        let ring = &key.name;
        if key.queued > 0 {
            reasons.entry(Reason::Queue).or_insert_with(|| on_their_way(key, store.name));
        }
        let sentence = match &key.comparison {
            // What was never heard, and is not there to be heard, nobody reads.
            None if key.heard[primary] && !secondary_up => continue,
            None => format!("`{ring}` was not heard from both stores"),
            // Nobody would bring them any more.
            Some(found) if found.relayed[primary].num > 0 => {
                relayed_to(ring, store.name, &found.relayed[primary])
            }
            Some(found) if found.missing[primary].num > 0 => {
                missing_in(ring, store.name, &found.missing[primary])
            }
            Some(_) => continue,
        };
        reasons.entry(Reason::Foreign).or_insert(sentence);
    }
    reasons
}

fn on_their_way(key: &KeyFacts, store: &str) -> String {
    let refused =
        key.refused.as_ref().map(|why| format!(", which does not take them: {why}")).unwrap_or_default();
    format!("{} changes of `{}` are on their way to {store}{refused}", key.queued, key.name)
}

fn missing_in(ring: &str, store: &str, missing: &Listed) -> String {
    format!("{} entries of `{ring}` are missing in {store}: {}", missing.num, missing.names())
}

fn relayed_to(ring: &str, store: &str, relayed: &Listed) -> String {
    format!(
        "{} entries of `{ring}` are in {store} only because others than their owners wrote them there: {}",
        relayed.num,
        relayed.names()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> StoreFacts {
        StoreFacts { name: "memberlist", up: true, synced: true, standing: None }
    }

    fn key() -> KeyFacts {
        KeyFacts {
            name: "ring".to_owned(),
            heard: Both::of(|_| true),
            comparison: Some(Comparison::default()),
            queued: 0,
            refused: None,
            reconciled: Some(Duration::from_secs(59)),
        }
    }

    fn bounds() -> Bounds {
        Bounds { reconcile_interval: Duration::from_secs(30), heartbeat_period: Duration::from_secs(5) }
    }

    fn reasons(store: &StoreFacts, key: &KeyFacts) -> Vec<Reason> {
        switch(Place::Second, store, std::slice::from_ref(key), bounds()).into_keys().collect()
    }

    #[test]
    fn a_store_that_holds_everything_may_become_the_primary() {
        assert!(reasons(&store(), &key()).is_empty());
        let joined = Some(Standing { joined: true, num_others: 0 });
        assert!(reasons(&StoreFacts { standing: joined, ..store() }, &key()).is_empty());
        let rarely = KeyFacts { reconciled: None, ..key() };
        let never = Bounds { reconcile_interval: Duration::ZERO, ..bounds() };
        assert!(switch(Place::Second, &store(), &[rarely], never).is_empty());
    }

    #[test]
    fn what_is_missing_is_said() {
        let alone = Some(Standing { joined: false, num_others: 0 });
        assert_eq!(reasons(&StoreFacts { up: false, ..store() }, &key()), [Reason::Unreachable]);
        assert_eq!(reasons(&StoreFacts { synced: false, ..store() }, &key()), [Reason::Join]);
        assert_eq!(reasons(&StoreFacts { standing: alone, ..store() }, &key()), [Reason::Join]);
        let late = KeyFacts { reconciled: Some(Duration::from_secs(60)), ..key() };
        assert_eq!(reasons(&store(), &late), [Reason::Reconcile]);
        assert_eq!(reasons(&store(), &KeyFacts { queued: 1, ..key() }), [Reason::Queue]);
        let refused = KeyFacts { queued: 2, refused: Some("too much".to_owned()), ..key() };
        for said in [
            switch(Place::Second, &store(), std::slice::from_ref(&refused), bounds()),
            stop(Place::Second, &store(), true, std::slice::from_ref(&refused)),
        ] {
            let why =
                "2 changes of `ring` are on their way to memberlist, which does not take them: too much";
            assert_eq!(said[&Reason::Queue], why);
        }
        assert_eq!(reasons(&store(), &KeyFacts { comparison: None, ..key() }), [Reason::Unreachable]);
        let none: Vec<Reason> = switch(Place::Second, &store(), &[], bounds()).into_keys().collect();
        assert_eq!(none, [Reason::Reconcile]);

        let some = || Listed { num: 7, ids: vec!["a".into(), "b".into()] };
        let mut found = Comparison { skew_secs: 11, ..Comparison::default() };
        found.missing[Place::Second] = some();
        found.relayed[Place::Second] = some();
        // What the present primary lacks does not matter.
        found.missing[Place::First] = some();
        let key = KeyFacts { comparison: Some(found), ..key() };
        assert_eq!(reasons(&store(), &key), [Reason::Missing, Reason::Relayed, Reason::Skew]);
        let said = switch(Place::Second, &store(), std::slice::from_ref(&key), bounds());
        assert_eq!(said[&Reason::Missing], "7 entries of `ring` are missing in memberlist: a, b, …");
        // But it does to the end of mirroring.
        let ends = |up, key: &KeyFacts| {
            let reasons = stop(Place::First, &store(), up, std::slice::from_ref(key));
            reasons.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(ends(true, &key), [Reason::Foreign]);
        assert!(ends(true, &self::key()).is_empty());
        let mut brought = Comparison::default();
        brought.relayed[Place::First] = some();
        assert_eq!(ends(true, &KeyFacts { comparison: Some(brought), ..self::key() }), [Reason::Foreign]);
        assert!(!stop(Place::First, &store(), true, &[]).is_empty(), "before anything was compared");
        let mut left = Comparison::default();
        left.ghosts[Place::Second] = some();
        left.ghosts[Place::First] = some();
        let left = KeyFacts { comparison: Some(left), ..self::key() };
        assert_eq!(reasons(&store(), &left), [Reason::Foreign]);
        assert!(ends(true, &left).is_empty(), "what the primary has alone is the primary's");
        let unheard =
            KeyFacts { heard: Both::of(|place| place == Place::First), comparison: None, ..self::key() };
        assert_eq!(ends(true, &unheard), [Reason::Foreign]);
        assert!(ends(false, &unheard).is_empty(), "nobody reads what does not answer");
        let neither = KeyFacts { heard: Both::default(), ..unheard };
        assert_eq!(ends(false, &neither), [Reason::Foreign]);
    }
}
