//! What a writer of a store with a row per instance has to write to get from one ring to another.

use ringkit_kv::EntryId;

use crate::desc::Desc;
use crate::merge::{resolve_conflicts, supersedes};

/// What has to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Entries to write.
    pub to_update: Desc,
    /// Entries to delete, sorted.
    pub to_delete: Vec<EntryId>,
}

/// What has to be written so that `current` becomes `new`; `None` is an absent ring.
///
/// An entry that differs without being newer is left out. If tokens changed, or somebody in `new` is JOINING, tokens that
/// several claim are settled in `new` first, and entries that lose some are written too.
///
/// # Source
///
/// Cortex's `Desc.FindDifference`.
pub fn find_difference(current: Option<&Desc>, new: Option<&mut Desc>) -> Difference {
    let (current, new) = match (current, new) {
        (None, None) => return Difference::default(),
        (None, Some(new)) => return Difference { to_update: new.clone(), to_delete: Vec::new() },
        (Some(current), None) => {
            let to_delete = current.iter().map(|(id, _)| id.clone()).collect();
            return Difference { to_update: Desc::new(), to_delete };
        }
        (Some(current), Some(new)) => (current, new),
    };
    let to_delete = current.iter().map(|(id, _)| id).filter(|id| !new.contains(id)).cloned().collect();
    let mut to_update = Desc::new();
    let mut tokens_changed = false;
    for (id, entry) in new.iter() {
        let known = current.get(id);
        let is_news = known.is_none_or(|known| supersedes(entry, Some(known)));
        if is_news {
            tokens_changed |= known.is_none_or(|known| known.tokens != entry.tokens);
            to_update.insert(id.clone(), entry.clone());
        }
    }
    if tokens_changed || new.joining() > 0 {
        for id in resolve_conflicts(new) {
            if let Some(entry) = new.get(&id) {
                to_update.insert(id, entry.clone());
            }
        }
    }
    Difference { to_update, to_delete }
}
