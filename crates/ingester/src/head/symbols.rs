//! Label names and values of one shard, each text kept once and counted.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// Stands for a text while something refers to it. Numbers of forgotten texts are given out again.
pub(crate) type Symbol = u32;

/// Texts and how often each is used.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    entries: Vec<Entry>,
    free: Vec<Symbol>,
    index: HashTable<Symbol>,
}

#[derive(Debug)]
struct Entry {
    text: Box<str>,
    uses: u32,
}

impl Symbols {
    /// The text of a symbol; empty for a symbol that is not in use.
    pub(crate) fn text(&self, symbol: Symbol) -> &str {
        self.entries.get(symbol as usize).map_or("", |entry| &entry.text)
    }

    /// The symbol of a text in use.
    pub(crate) fn find(&self, text: &str) -> Option<Symbol> {
        let same = |&symbol: &Symbol| self.text(symbol) == text;
        self.index.find(xxh3_64(text.as_bytes()), same).copied()
    }

    /// Uses a text once more. Each call is to be matched by one [`release`](Self::release).
    pub(crate) fn intern(&mut self, text: &str) -> Symbol {
        if let Some(symbol) = self.find(text) {
            if let Some(entry) = self.entries.get_mut(symbol as usize) {
                entry.uses = entry.uses.saturating_add(1);
            }
            return symbol;
        }
        let entry = Entry { text: text.into(), uses: 1 };
        let symbol = match self.free.pop() {
            Some(symbol) => {
                if let Some(place) = self.entries.get_mut(symbol as usize) {
                    *place = entry;
                }
                symbol
            }
            None => {
                self.entries.push(entry);
                Symbol::try_from(self.entries.len() - 1).unwrap_or(Symbol::MAX)
            }
        };
        let entries = &self.entries;
        let hash =
            |&symbol: &Symbol| entries.get(symbol as usize).map_or(0, |entry| xxh3_64(entry.text.as_bytes()));
        self.index.insert_unique(xxh3_64(text.as_bytes()), symbol, hash);
        symbol
    }

    /// Uses a text once less; the last one forgets it.
    pub(crate) fn release(&mut self, symbol: Symbol) {
        let Some(entry) = self.entries.get_mut(symbol as usize) else { return };
        entry.uses = entry.uses.saturating_sub(1);
        if entry.uses > 0 {
            return;
        }
        let text = std::mem::take(&mut entry.text);
        if let Ok(found) = self.index.find_entry(xxh3_64(text.as_bytes()), |&other| other == symbol) {
            found.remove();
            self.free.push(symbol);
        }
    }

    /// How many texts are in use.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_forgotten_with_its_last_use() {
        let mut symbols = Symbols::default();
        let (a, b) = (symbols.intern("a"), symbols.intern("b"));
        assert_ne!(a, b);
        assert_eq!(symbols.intern("a"), a);
        symbols.release(a);
        assert_eq!(symbols.find("a"), Some(a));
        symbols.release(a);
        assert_eq!(symbols.find("a"), None);
        assert_eq!(symbols.len(), 1);
        assert_eq!(symbols.intern("c"), a, "the number is free again");
        assert_eq!((symbols.text(a), symbols.text(b)), ("c", "b"));
    }
}
