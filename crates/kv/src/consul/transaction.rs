//! Writes that happen together or not at all: Consul's transactions.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use super::Consul;
use super::answer::{Failure, Pair, refused, succeeded, unavailable};
use crate::flat::{Batch, Committed, Guard};

/// A transaction carries values as base64 and may be as large as a value: beyond this, a value goes alone.
pub(super) const MAX_IN_TRANSACTION: usize = 256 << 10;
/// Consul's own limit of operations in a transaction.
pub(super) const MAX_OPERATIONS: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    #[serde(default)]
    results: Option<Vec<Done>>,
    #[serde(default)]
    errors: Option<Vec<Refusal>>,
}

#[derive(Deserialize)]
struct Done {
    #[serde(rename = "KV", default)]
    pair: Option<Pair>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refusal {
    what: String,
}

impl Consul {
    /// Carries out a batch.
    pub(super) async fn transact(&self, batch: &Batch) -> Result<Committed, Failure> {
        let body = serde_json::to_vec(&operations(batch)).map_err(|cause| unavailable(Box::new(cause)))?;
        let mut url = format!("{}/v1/txn", self.client.http.base);
        if let Some(datacenter) = self.datacenter() {
            url = format!("{url}?dc={datacenter}");
        }
        let mut request = self.client.http.http.put(url).body(body).timeout(self.patience());
        if let Some(token) = &self.client.settings.token {
            request = request.header("X-Consul-Token", token);
        }
        let request = request.build().map_err(|cause| unavailable(Box::new(cause)))?;
        let answer = self.send("CAS", request).await?;
        let answer = if answer.status == 409 { answer } else { succeeded(answer)? };
        let outcome: Outcome =
            serde_json::from_slice(&answer.body).map_err(|cause| unavailable(Box::new(cause)))?;
        if answer.status == 409 {
            let refusals = outcome.errors.unwrap_or_default();
            let lost = |refusal: &Refusal| is_race(&refusal.what, batch);
            return match refusals.iter().find(|refusal| !lost(refusal)) {
                None => Ok(Committed::Lost),
                Some(refusal) => Err(refused(409, &refusal.what)),
            };
        }
        let pairs = outcome.results.unwrap_or_default();
        let newest = pairs.into_iter().filter_map(|done| done.pair).map(|pair| pair.modify_index).max();
        match newest {
            // Without an index nobody could build on what was written.
            None if !batch.puts.is_empty() => {
                Err(unavailable("the answer to a transaction names no index".into()))
            }
            newest => Ok(Committed::At(newest.unwrap_or_default())),
        }
    }
}

/// A batch as Consul's transactions have it. A guard and a write of the same key are one operation.
fn operations(batch: &Batch) -> Vec<serde_json::Value> {
    let op = |verb: &str, key: &str, index: Option<u64>, value: Option<&Bytes>| {
        let mut kv = serde_json::json!({ "Verb": verb, "Key": key });
        if let Some(index) = index {
            kv["Index"] = index.into();
        }
        if let Some(value) = value {
            kv["Value"] = STANDARD.encode(value).into();
        }
        serde_json::json!({ "KV": kv })
    };
    let mut guards: BTreeMap<&str, &Guard> = BTreeMap::new();
    for guard in &batch.guards {
        let (Guard::Absent(key) | Guard::Present(key) | Guard::At(key, _)) = guard;
        guards.insert(key, guard);
    }
    let mut operations = Vec::new();
    let mut writes = Vec::new();
    for (key, value) in &batch.puts {
        let (verb, index) = match guards.get(key.as_str()) {
            Some(Guard::At(_, index)) => ("cas", Some(*index)),
            Some(Guard::Absent(_)) => ("cas", Some(0)),
            Some(Guard::Present(_)) | None => ("set", None),
        };
        if index.is_some() {
            guards.remove(key.as_str());
        }
        writes.push(op(verb, key, index, Some(value)));
    }
    for key in &batch.deletes {
        match guards.remove(key.as_str()) {
            Some(Guard::At(_, index)) => writes.push(op("delete-cas", key, Some(*index), None)),
            _ => writes.push(op("delete", key, None, None)),
        }
    }
    for (key, guard) in guards {
        operations.push(match guard {
            Guard::Absent(_) => op("check-not-exists", key, None, None),
            Guard::Present(_) => op("get", key, None, None),
            Guard::At(_, index) => op("check-index", key, Some(*index), None),
        });
    }
    if let Some(prefix) = &batch.delete_below {
        operations.push(op("delete-tree", prefix, None, None));
    }
    operations.append(&mut writes);
    operations
}

/// Whether a refused operation lost a race, going by Consul's words without the keys in them, which may contain any.
fn is_race(what: &str, batch: &Batch) -> bool {
    let puts = batch.puts.iter().map(|(key, _)| key);
    let guards =
        batch.guards.iter().map(|(Guard::Absent(key) | Guard::Present(key) | Guard::At(key, _))| key);
    let mut words = what.to_owned();
    let mut keys: Vec<&String> = puts.chain(guards).chain(&batch.deletes).collect();
    // Of a key that another begins with, nothing must be left.
    keys.sort_unstable_by_key(|key| std::cmp::Reverse(key.len()));
    for key in keys {
        words = words.replace(key.as_str(), "");
    }
    const RACES: [&str; 4] = ["stale", "exist", "index", "match"];
    !words.contains("denied") && RACES.iter().any(|word| words.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_race_is_told_from_a_refusal_whatever_the_keys_are_called() {
        let key = "collectors/existing-index-match".to_owned();
        let batch = Batch { guards: vec![Guard::At(key.clone(), 7)], ..Batch::default() };
        assert!(is_race(&format!("failed to set key \"{key}\", index is stale"), &batch));
        assert!(is_race(&format!("key \"{key}\" doesn't exist"), &batch));
        assert!(!is_race("Permission denied", &batch));
        assert!(!is_race(&format!("token lacks permission 'key:write' on \"{key}\""), &batch));
    }
}
