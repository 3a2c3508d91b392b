//! [`Tokens`]: the positions an instance claims on the circle, immutable and cheap to share.

use std::ops::Deref;
use std::sync::{Arc, LazyLock};

/// An immutable list of tokens, in the order in which it was given; clones share the storage.
///
/// Nothing edits a list in place, so a list that is held by a snapshot, a store and a caller at once stays what it was.
#[derive(Clone)]
pub struct Tokens(Arc<[u32]>);

static EMPTY: LazyLock<Arc<[u32]>> = LazyLock::new(|| Arc::from([]));

impl Tokens {
    /// No tokens. Does not allocate.
    pub fn empty() -> Self {
        Self(Arc::clone(&EMPTY))
    }

    /// The tokens as a slice.
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// Whether both lists share their storage, which makes them equal at no cost.
    pub fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether the list ascends and holds nothing twice.
    pub fn is_normal(&self) -> bool {
        self.0.is_sorted_by(|a, b| a < b)
    }

    /// The same tokens in ascending order, each once. Shares the storage if they are so already.
    #[must_use]
    pub fn normalized(&self) -> Self {
        if self.is_normal() {
            return self.clone();
        }
        let mut list = self.0.to_vec();
        list.sort_unstable();
        list.dedup();
        Self::from(list)
    }
}

impl Deref for Tokens {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.0
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self::empty()
    }
}

impl PartialEq for Tokens {
    fn eq(&self, other: &Self) -> bool {
        self.ptr_eq(other) || self.0 == other.0
    }
}

impl Eq for Tokens {}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Vec<u32>> for Tokens {
    fn from(list: Vec<u32>) -> Self {
        if list.is_empty() { Self::empty() } else { Self(list.into()) }
    }
}

impl From<&[u32]> for Tokens {
    fn from(list: &[u32]) -> Self {
        if list.is_empty() { Self::empty() } else { Self(list.into()) }
    }
}

impl FromIterator<u32> for Tokens {
    fn from_iter<I: IntoIterator<Item = u32>>(iter: I) -> Self {
        Self::from(iter.into_iter().collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalizing_a_normal_list_shares_its_storage() {
        let tokens = Tokens::from(vec![1, 2, 3]);
        assert!(tokens.normalized().ptr_eq(&tokens));
    }

    #[test]
    fn normalizing_sorts_and_drops_duplicates() {
        assert_eq!(Tokens::from(vec![3, 1, 3, 2]).normalized().as_slice(), [1, 2, 3]);
    }
}
