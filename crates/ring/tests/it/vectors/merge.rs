use ringkit_ring::{merge, remove_tombstones};
use serde_json::Value;

use crate::support::{count, list, number, ring, text, vectors};

/// Cases in which Cortex rejects a whole message because of one entry, and may have applied a part of it. Only that entry
/// is rejected here (`future_entries_alone_are_rejected`).
const REJECTED_AS_A_WHOLE_BY_CORTEX: fn(&Value) -> bool = |case| !text(case, "error").is_empty();

#[test]
fn merges_end_as_in_cortex() {
    let file = vectors("merge");
    assert_eq!(list(&file, "merges").len(), 49);
    for case in list(&file, "merges").iter().filter(|case| !REJECTED_AS_A_WHOLE_BY_CORTEX(case)) {
        let (name, incoming) = (text(case, "name"), ring(list(case, "incoming")));
        let mut local = ring(list(case, "local"));
        let merged = merge(&mut local, &incoming, case["local_cas"] == true, number(case, "now"));
        assert_eq!(local, ring(list(case, "result")), "{name}: result");
        assert_eq!(merged.change, case["change"].as_array().map(|change| ring(change)), "{name}: change");
        assert_eq!(merged.rejected, [], "{name}");
    }
}

#[test]
fn future_entries_alone_are_rejected() {
    let file = vectors("merge");
    let mut rejected = 0;
    for case in list(&file, "merges").iter().filter(|case| REJECTED_AS_A_WHOLE_BY_CORTEX(case)) {
        let (name, now) = (text(case, "name"), number(case, "now"));
        let incoming = ring(list(case, "incoming"));
        let mut local = ring(list(case, "local"));
        let merged = merge(&mut local, &incoming, case["local_cas"] == true, now);
        let errors: Vec<_> = merged.rejected.iter().map(ToString::to_string).collect();
        assert!(errors.contains(&text(case, "error").to_owned()), "{name}: {errors:?}");

        let (future, sound): (Vec<_>, Vec<_>) =
            incoming.iter().partition(|(_, entry)| entry.timestamp > now + 1800);
        assert_eq!(future.len(), merged.rejected.len(), "{name}");
        let mut expected = ring(list(case, "local"));
        let sound = sound.into_iter().map(|(id, entry)| (id.clone(), entry.clone())).collect();
        merge(&mut expected, &sound, case["local_cas"] == true, now);
        assert_eq!(local, expected, "{name}: the other entries are merged as if the bad ones were not there");
        rejected += future.len();
    }
    assert!(rejected > 0);
}

#[test]
fn tombstones_are_removed_as_in_cortex() {
    let file = vectors("merge");
    assert_eq!(list(&file, "tombstones").len(), 5);
    for case in list(&file, "tombstones") {
        let mut desc = ring(list(case, "ring"));
        let limit = Some(number(case, "limit")).filter(|limit| *limit != 0);
        assert_eq!(
            remove_tombstones(&mut desc, limit),
            (count(case, "total"), count(case, "removed")),
            "{case}"
        );
        assert_eq!(desc, ring(list(case, "result")), "{case}");
    }
}
