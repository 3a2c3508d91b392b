//! Whether all members hold the same by gossip. Their digests tell, while nothing is under way; where heartbeats never rest, what
//! the keys hold beside them does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::check::Reason;
use super::cluster::{Cluster, get};
use crate::gossip::{Gossip, Key};

/// How often digests are looked at before what they stand for is.
const TRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// What cannot stand for itself in the query of an address.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What one process holds by gossip: its name here, and of each key something that tells it from others.
type Held = (String, BTreeMap<String, String>);

/// Who holds something else than most, key by key.
pub(super) async fn differences(cluster: &Cluster) -> Vec<Reason> {
    let members: Vec<(&str, &str)> = cluster
        .processes
        .iter()
        .filter(|process| process.gossip.is_some())
        .map(|process| (process.name.as_str(), process.url.as_str()))
        .collect();
    let mut keys = BTreeSet::new();
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let digests = join_all(members.iter().map(|(name, url)| digests(name, url))).await;
        let digests: Vec<Held> = match digests.into_iter().collect() {
            Ok(digests) => digests,
            Err(reason) => return vec![reason],
        };
        keys = differing(&digests);
        if keys.is_empty() {
            return Vec::new();
        }
    }
    let mut reasons = Vec::new();
    for key in keys {
        let contents = join_all(members.iter().map(|(name, url)| contents(name, url, &key))).await;
        reasons.extend(odd_contents(&key, &contents));
    }
    reasons
}

async fn digests(name: &str, url: &str) -> Result<Held, Reason> {
    let answer = get(url, "/memberlist").await.ok();
    let gossip = answer.and_then(|page| Gossip::of(&page).ok());
    let Some(gossip) = gossip else {
        let (process, why) = (Some(name.to_owned()), "does not answer what it holds by gossip".to_owned());
        return Err(Reason { process, ring: None, why });
    };
    let of_key = |Key { key, digest, .. }: Key| (key, digest);
    Ok((name.to_owned(), gossip.keys.into_iter().map(of_key).collect()))
}

/// The keys of which not all have the same.
fn differing(held: &[Held]) -> BTreeSet<String> {
    let keys: BTreeSet<&String> = held.iter().flat_map(|(_, keys)| keys.keys()).collect();
    let differs = |key: &&String| {
        let values: BTreeSet<Option<&String>> = held.iter().map(|(_, keys)| keys.get(*key)).collect();
        values.len() > 1
    };
    keys.into_iter().filter(differs).cloned().collect()
}

/// What one process holds of a key, without the heartbeats; `None` if it does not tell.
async fn contents(name: &str, url: &str, key: &str) -> (String, Option<BTreeMap<String, String>>) {
    let held = get(url, &path_of(key)).await.ok().map(|value| settled(&value));
    (name.to_owned(), held)
}

/// Where a process tells what it holds of a key.
fn path_of(key: &str) -> String {
    format!("/memberlist?viewKey={}&format=json", utf8_percent_encode(key, ENCODED))
}

/// Each entry of a value, without what is always under way.
fn settled(value: &Value) -> BTreeMap<String, String> {
    let Some(entries) = value.get("ingesters").and_then(Value::as_object) else {
        return BTreeMap::from([(String::new(), value.to_string())]);
    };
    let without_heartbeat = |entry: &Value| {
        let mut entry = entry.clone();
        if let Some(fields) = entry.as_object_mut() {
            fields.remove("timestamp");
        }
        entry.to_string()
    };
    entries.iter().map(|(id, entry)| (id.clone(), without_heartbeat(entry))).collect()
}

/// Who holds other entries of a key than the first who tells.
fn odd_contents(key: &str, held: &[(String, Option<BTreeMap<String, String>>)]) -> Vec<Reason> {
    let first = held.iter().find_map(|(name, entries)| Some((name, entries.as_ref()?)));
    let mut reasons = Vec::new();
    for (name, entries) in held {
        let why = match (entries, first) {
            (None, _) => format!("does not tell what it holds of `{key}` by gossip"),
            (Some(entries), Some((other, expected))) if entries != expected => {
                let ids: BTreeSet<&String> = entries.keys().chain(expected.keys()).collect();
                let differ = ids.into_iter().filter(|id| entries.get(*id) != expected.get(*id));
                let differ = differ.map(String::as_str).collect::<Vec<_>>().join(", ");
                format!("holds something else of `{key}` by gossip than {other}: {differ}")
            }
            _ => continue,
        };
        reasons.push(Reason { process: Some(name.clone()), ring: Some(key.to_owned()), why });
    }
    reasons
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_that_not_all_have_alike_are_found() {
        let held = |name: &str, keys: &[(&str, &str)]| -> Held {
            let keys = keys.iter().map(|(key, digest)| ((*key).to_owned(), (*digest).to_owned()));
            (name.to_owned(), keys.collect())
        };
        let same = [held("a", &[("ring", "1"), ("x", "2")]), held("b", &[("ring", "1"), ("x", "2")])];
        assert!(differing(&same).is_empty() && differing(&[]).is_empty());
        let other = [held("a", &[("ring", "1"), ("x", "2")]), held("b", &[("ring", "3")])];
        assert_eq!(differing(&other).into_iter().collect::<Vec<_>>(), ["ring", "x"]);
    }

    #[test]
    fn heartbeats_make_no_difference_and_all_else_does() {
        let ring = |timestamp: i64, state: &str| {
            settled(&json!({"ingesters": {"i1": {"state": state, "timestamp": timestamp}}, "removed": {}}))
        };
        let held = |name: &str, entries| (name.to_owned(), entries);
        let beats = [held("a", Some(ring(1, "ACTIVE"))), held("b", Some(ring(2, "ACTIVE")))];
        assert!(odd_contents("ring", &beats).is_empty());
        let odd = [
            held("a", Some(ring(1, "ACTIVE"))),
            held("b", Some(ring(1, "LEAVING"))),
            held("c", Some(settled(&json!({"ingesters": {}})))),
            held("d", None),
        ];
        let said: Vec<String> = odd_contents("ring", &odd).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "b, ring: holds something else of `ring` by gossip than a: i1",
                "c, ring: holds something else of `ring` by gossip than a: i1",
                "d, ring: does not tell what it holds of `ring` by gossip",
            ]
        );
        assert_ne!(settled(&json!("a text")), settled(&json!("another")));
    }

    #[test]
    fn keys_are_asked_for_by_their_whole_name() {
        assert_eq!(
            path_of("collectors/ring ü"),
            "/memberlist?viewKey=collectors%2Fring%20%C3%BC&format=json"
        );
    }
}
