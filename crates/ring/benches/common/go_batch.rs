//! Cortex's `DoBatch`: one tracker per item, items grouped by address in a map, one goroutine per instance.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use hashbrown::HashMap;
use ringkit_ring::Operation;
use tokio::sync::mpsc;

use super::go_ring::{Entry, Ring};
use super::rings::FACTOR;

struct Item {
    min_success: i32,
    succeeded: AtomicI32,
}

struct Call {
    entry: Entry,
    items: Vec<usize>,
    indexes: Vec<usize>,
}

/// Writes `keys` through calls that succeed at once. Returns how many instances were called.
pub(crate) async fn do_batch(ring: &Ring, op: Operation, keys: &[u32]) -> Option<usize> {
    let expected = keys.len() * (FACTOR + 1) / ring.entries.len();
    let mut items = Vec::with_capacity(keys.len());
    let mut calls: HashMap<&'static str, Call> = HashMap::with_capacity(ring.entries.len());
    let (mut hosts, mut found) = (Vec::with_capacity(5), Vec::with_capacity(5));
    for (index, &key) in keys.iter().enumerate() {
        let max_errors = ring.get(key, op, &mut hosts, &mut found)?;
        let min_success = (found.len() - max_errors) as i32;
        items.push(Item { min_success, succeeded: AtomicI32::new(0) });
        for entry in &found {
            let call = calls.entry(entry.addr).or_insert_with(|| Call {
                entry: entry.clone(),
                items: Vec::with_capacity(expected),
                indexes: Vec::with_capacity(expected),
            });
            call.items.push(index);
            call.indexes.push(index);
        }
    }
    let called = calls.len();
    let items: Arc<[Item]> = items.into();
    let pending = Arc::new(AtomicI32::new(keys.len() as i32));
    let (done, mut finished) = mpsc::channel(1);
    for (_, call) in calls {
        let (items, pending, done) = (Arc::clone(&items), Arc::clone(&pending), done.clone());
        tokio::spawn(async move {
            std::hint::black_box((&call.entry, &call.indexes));
            for item in call.items {
                let item = &items[item];
                if item.succeeded.fetch_add(1, Ordering::SeqCst) + 1 == item.min_success
                    && pending.fetch_sub(1, Ordering::SeqCst) == 1
                {
                    let _ = done.try_send(());
                }
            }
        });
    }
    finished.recv().await?;
    Some(called)
}
